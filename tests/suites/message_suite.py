"""What every gateway for messages must do, as tests: subclass ``MessageSuite``, give it a harness.

A harness makes the network behave in a named way; how (an SMSC by script, a share of 1) is its
business.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import Enum, auto
from typing import Any, Protocol
from uuid import uuid4

import pytest
import trio

from engine.errors import InvalidError
from engine.gateway import (
    Gateway,
    InboundText,
    Messenger,
    Order,
    Program,
    Reception,
    Report,
    Stage,
    TextKind,
    TextMessage,
)
from engine.model import Provider, Service, Spool
from engine.results import Awaiting, Blame, Disposition, Fate, Reached, Result, ResultRow
from tests.support.inbox import NoMail

DEADLINE_S = 30.0
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


class Harness(Protocol):
    """What a gateway's tests provide."""

    @property
    def gateway(self) -> Gateway:
        """Running, with ``inbox``."""
        ...

    @property
    def inbox(self) -> Inbox:
        """Where it reports."""
        ...

    def network(self, behaviour: Network) -> AbstractAsyncContextManager[Provider]:
        """A provider whose network behaves so, for as long as the block lasts."""
        ...


class Inbox(NoMail):
    """``engine.gateway.Inbox`` that remembers what it is told, and how often."""

    def __init__(self) -> None:
        self.results: dict[int, list[Result]] = {}
        self._news = trio.Event()

    async def report(self, reports: Sequence[Report]) -> None:
        await trio.lowlevel.checkpoint()
        for report in reports:
            self.results.setdefault(report.spool_id, []).append(report.result)
        self._news.set()
        self._news = trio.Event()

    async def receive(self, message: InboundText) -> Reception:
        raise AssertionError(f"nobody sent {message.key}")

    async def result(self, spool_id: int) -> Result:
        """What is reported of the spool, as soon as it is."""
        with trio.fail_after(DEADLINE_S):
            while spool_id not in self.results:
                await self._news.wait()
        return self.results[spool_id][0]


async def send(messenger: Messenger) -> None:
    """A program."""
    await messenger.send_text(TextMessage(text="Hello"))


class Delivery:
    """One message under test: its fate and the stages it reported, in order."""

    def __init__(
        self, harness: Harness, provider: Provider, program: Program = send, **fields: Any
    ) -> None:
        self.stages: list[Stage] = []
        self.times: list[datetime] = []
        self.reached = {stage: trio.Event() for stage in Stage}
        self.fate: Fate | None = None
        self._gateway = harness.gateway
        self.order = Order(
            **{
                "spool_id": 1,
                "uid": uuid4(),
                "service": Service.SMS,
                "provider": provider,
                "destination": "4917012345678",
                "program": program,
                "caller_id": "4930123",
                "ring_timeout_s": 1.0,
                **fields,
            }
        )

    def progress(self, stage: Stage, at: datetime) -> None:
        self.stages.append(stage)
        self.times.append(at)
        self.reached[stage].set()

    async def run(self) -> Fate:
        with trio.fail_after(DEADLINE_S):
            self.fate = await self._gateway.deliver(self.order, self.progress)
        return self.fate


def rows_of(fate: Fate, name: str) -> list[str]:
    return [row.data for row in fate.rows if row.name == name]


class MessageSuite:
    """Subclasses give the fixture ``harness``."""

    async def deliver(
        self, harness: Harness, behaviour: Network, program: Program = send, **fields: Any
    ) -> Delivery:
        async with harness.network(behaviour) as provider:
            delivery = Delivery(harness, provider, program, **fields)
            await delivery.run()
        assert harness.gateway.statistics()["calls_up"] == 0
        return delivery

    async def reported(self, harness: Harness, behaviour: Network) -> tuple[Delivery, Result]:
        """The delivery of a message and the report that follows."""
        async with harness.network(behaviour) as provider:
            delivery = Delivery(harness, provider)
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

    async def test_stages_come_in_order(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, Network.DELIVER)
        assert delivery.stages == [Stage.LEFT, Stage.CONNECTED]
        assert delivery.times == sorted(delivery.times)
        assert all(time.tzinfo is not None for time in delivery.times)

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
        assert result.disposition is Disposition.FAILED
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

    async def test_notes_of_the_program_are_kept(self, harness: Harness) -> None:
        async def program(messenger: Messenger) -> None:
            messenger.note(ResultRow("info", "language", "de"))
            await messenger.send_text(TextMessage(text="Hallo"))

        fate = (await self.deliver(harness, Network.DELIVER, program)).fate
        assert isinstance(fate, Awaiting)
        assert rows_of(fate, "language") == ["de"]

    async def test_a_program_that_sends_nothing_has_reached_nothing(self, harness: Harness) -> None:
        async def program(_: Messenger) -> None:
            await trio.lowlevel.checkpoint()

        delivery = await self.deliver(harness, Network.DELIVER, program)
        assert isinstance(delivery.fate, Result)
        assert delivery.fate.reached is Reached.NOTHING
        assert not delivery.fate.succeeded
        assert delivery.stages == []

    async def test_cancelled_while_it_waits_for_the_answer(self, harness: Harness) -> None:
        async with harness.network(Network.SILENT) as provider, trio.open_nursery() as nursery:
            delivery = Delivery(harness, provider, ring_timeout_s=DEADLINE_S)
            nursery.start_soon(delivery.run)
            with trio.fail_after(DEADLINE_S):
                await delivery.reached[Stage.LEFT].wait()
            nursery.cancel_scope.cancel()
        assert delivery.fate is None
        assert harness.gateway.statistics()["calls_up"] == 0

    async def test_many_at_once(self, harness: Harness) -> None:
        async with harness.network(Network.DELIVER) as provider:
            deliveries = [
                Delivery(harness, provider, spool_id=n, destination=f"49170{n:07}")
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

    async def test_what_it_does_not_know_it_does_not_call_done(self, harness: Harness) -> None:
        spool = Spool(id=77, transmission_id=7, service=Service.SMS)
        fate = (await harness.gateway.recall([spool])).get(77)
        assert fate is None or (isinstance(fate, Result) and not fate.succeeded)

    async def test_settings_it_cannot_work_with_are_named(self, harness: Harness) -> None:
        async with harness.network(Network.DELIVER) as provider:
            harness.gateway.check(provider)
            wrong = Provider(name="wrong", type=provider.type, settings={"no such": 1})
            with pytest.raises(InvalidError) as error:
                harness.gateway.check(wrong)
            assert error.value.field == "settings"
