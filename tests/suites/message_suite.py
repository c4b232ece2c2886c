"""What every gateway for messages must do, as tests: subclass ``MessageSuite``, give it a harness.

A harness makes the network behave in a named way; how (an SMSC by script, a share of 1) is its
business.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import ClassVar

import trio

from engine.gateway import Messenger, Stage, TextKind, TextMessage
from engine.model import Service
from engine.results import Awaiting, Blame, Disposition, Reached, Result
from tests.suites import sending_suite
from tests.suites.sending_suite import Delivery, SendingSuite, rows_of

LONG = "A text of more than one part. " * 20


class Network(Enum):
    """How the network behaves. Times are short: these tests run in real time."""

    DELIVER = auto()  # takes it, and says soon that it was delivered
    UNDELIVER = auto()  # takes it, and says soon that it was not
    ACCEPT = auto()  # takes it; nobody asked for more
    REJECT = auto()  # takes no such message
    UNKNOWN = auto()  # no such number
    SILENT = auto()  # never answers
    UNAVAILABLE = auto()  # is not there


Harness = sending_suite.Harness[Network]
"""What a gateway's tests provide."""


class MessageSuite(SendingSuite[Network]):
    """Subclasses give the fixture ``harness``."""

    fields: ClassVar = {
        "service": Service.SMS,
        "destination": "4917012345678",
        "caller_id": "4930123",
        "ring_timeout_s": 1.0,
    }
    taken = Awaiting
    takes = Network.DELIVER
    silent = Network.SILENT

    async def send(self, session: Messenger) -> None:
        await session.send_text(TextMessage(text="Hello"))

    async def reported(self, harness: Harness, behaviour: Network) -> tuple[Delivery, Result]:
        """The delivery of a message and the report that follows."""
        async with harness.network(behaviour) as provider:
            delivery = self.delivery(harness, provider)
            await delivery.run()
            return delivery, await harness.inbox.result(1)

    async def test_a_message_is_taken_and_its_receipt_closes_it(self, harness: Harness) -> None:
        delivery, result = await self.reported(harness, Network.DELIVER)
        fate = delivery.fate
        assert isinstance(fate, Awaiting)
        assert fate.accepted_at is not None
        assert fate.accepted_at.tzinfo is not None
        assert fate.closes_at > fate.accepted_at
        assert len(rows_of(fate, "message_id")) == 1
        assert rows_of(fate, "parts") == ["1"]
        assert (result.disposition, result.cause) == (Disposition.ANSWERED, "delivered")
        assert (result.reached, result.blame) == (Reached.PERSON, Blame.NOBODY)
        assert rows_of(result, "stat") == ["DELIVRD"]
        assert harness.inbox.results.keys() == {1}
        assert len(harness.inbox.results[1]) == 1

    async def test_a_receipt_that_says_it_did_not_arrive(self, harness: Harness) -> None:
        _, result = await self.reported(harness, Network.UNDELIVER)
        assert (result.disposition, result.cause) == (Disposition.FAILED, "undelivered")
        assert (result.reached, result.blame) == (Reached.NETWORK, Blame.NETWORK)

    async def test_where_no_receipt_is_asked_taken_is_the_end(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, Network.ACCEPT)
        result = delivery.fate
        assert isinstance(result, Result)
        assert (result.disposition, result.cause) == (Disposition.ANSWERED, "accepted")
        assert result.started_at is not None
        assert result.connected_at is not None
        assert result.ended_at is not None
        assert result.started_at <= result.connected_at <= result.ended_at
        assert len(rows_of(result, "message_id")) == 1
        assert not harness.inbox.results

    async def test_a_long_text_goes_in_parts(self, harness: Harness) -> None:
        async def program(messenger: Messenger) -> None:
            await messenger.send_text(TextMessage(text=LONG))

        fate = (await self.deliver(harness, Network.DELIVER, program)).fate
        assert isinstance(fate, Awaiting)
        (parts,) = rows_of(fate, "parts")
        assert int(parts) > 1
        assert len(rows_of(fate, "message_id")) == int(parts)

    async def test_the_network_refuses_it(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, Network.REJECT)
        result = delivery.fate
        assert isinstance(result, Result)
        assert (result.disposition, result.cause) == (Disposition.REJECTED, "refused")
        assert result.reached is not Reached.PERSON
        assert delivery.stages == [Stage.LEFT]

    async def test_the_number_does_not_exist(self, harness: Harness) -> None:
        result = (await self.deliver(harness, Network.UNKNOWN)).fate
        assert isinstance(result, Result)
        assert (result.disposition, result.cause) == (Disposition.INVALID, "invalid_number")
        assert result.blame is Blame.REQUEST
        assert not result.trunk_failed

    async def test_the_network_is_not_there(self, harness: Harness) -> None:
        result = (await self.deliver(harness, Network.UNAVAILABLE)).fate
        assert isinstance(result, Result)
        assert result.disposition in (Disposition.FAILED, Disposition.DEFERRED)
        assert bool(result.later_s) is (result.disposition is Disposition.DEFERRED)
        assert result.trunk_failed

    async def test_what_nobody_answered_may_have_been_taken(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, Network.SILENT)
        assert isinstance(delivery.fate, Awaiting)
        assert delivery.fate.accepted_at is None
        assert delivery.stages == [Stage.LEFT]

    async def test_what_no_message_can_say_is_refused_here(self, harness: Harness) -> None:
        async def program(messenger: Messenger) -> None:
            await messenger.send_text(TextMessage(text="no octets", kind=TextKind.BINARY))

        delivery = await self.deliver(harness, Network.DELIVER, program)
        result = delivery.fate
        assert isinstance(result, Result)
        assert (result.cause, result.blame) == ("invalid_message", Blame.REQUEST)
        assert result.reached is Reached.NOTHING
        assert delivery.stages == []

    async def test_many_at_once(self, harness: Harness) -> None:
        async with harness.network(Network.DELIVER) as provider:
            deliveries = [
                self.delivery(harness, provider, spool_id=n, destination=f"49170{n:07}")
                for n in range(1, 201)
            ]
            async with trio.open_nursery() as nursery:
                for delivery in deliveries:
                    nursery.start_soon(delivery.run)
            assert all(isinstance(delivery.fate, Awaiting) for delivery in deliveries)
            for n in range(1, 201):
                assert (await harness.inbox.result(n)).cause == "delivered"
        ids = [one for d in deliveries if d.fate for one in rows_of(d.fate, "message_id")]
        assert len(set(ids)) == 200
