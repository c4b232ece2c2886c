"""What every gateway for e-mail must do, as tests: subclass ``MailSuite``, give it a harness.

A harness makes the network behave in a named way; how (a server by script, a share of 1) is its
business.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from typing import ClassVar, Protocol

import trio

from engine.gateway import CallEnded, Mailer, Stage
from engine.model import Provider, Service
from engine.results import Awaiting, Blame, Disposition, Reached, Result
from tests.suites import sending_suite
from tests.suites.sending_suite import Delivery, SendingSuite, rows_of
from tests.suites.trial import DEADLINE_S
from tests.support.mails import MAIL


class Network(Enum):
    """How the network behaves. Times are short: these tests run in real time."""

    ACCEPT = auto()  # takes it, and nothing more is heard of it
    BOUNCE = auto()  # takes it, and says soon that there is no such address (5.1.1)
    DEFER = auto()  # comes back later (451 4.7.1)
    REJECT = auto()  # takes no such mail (554 5.7.1)
    UNKNOWN = auto()  # no such address (550 5.1.1)
    SILENT_AFTER_DOT = auto()  # never answers the last dot
    UNAVAILABLE = auto()  # is not there


class Harness(sending_suite.Harness[Network], Protocol):
    """What a gateway's tests provide."""

    def network(
        self, behaviour: Network, *, bounces: bool = False
    ) -> AbstractAsyncContextManager[Provider]:
        """A provider whose network behaves so, for as long as the block lasts.

        ``bounces``: those of its mails can reach us, within a second (always so with BOUNCE).
        """
        ...


class MailSuite(SendingSuite[Network]):
    """Subclasses give the fixture ``harness``."""

    fields: ClassVar = {
        "transmission_id": 7,
        "service": Service.EMAIL,
        "destination": "zoe@example.com",
        "caller_id": "news@example.net",
        "caller_name": "Ann",
        "ring_timeout_s": 5.0,
    }
    taken = Result
    takes = Network.ACCEPT
    silent = Network.SILENT_AFTER_DOT

    async def send(self, session: Mailer) -> None:
        await session.send_mail(MAIL)

    async def reported(self, harness: Harness, behaviour: Network) -> tuple[Delivery, Result]:
        """The delivery of a mail whose bounces can reach us, and the report that follows."""
        async with harness.network(behaviour, bounces=True) as provider:
            delivery = self.delivery(harness, provider)
            await delivery.run()
            return delivery, await harness.inbox.result(1)

    async def test_where_no_bounce_can_reach_us_taken_is_the_end(self, harness: Harness) -> None:
        result = (await self.deliver(harness, Network.ACCEPT)).result
        assert (result.disposition, result.cause) == (Disposition.ANSWERED, "accepted")
        assert result.code.startswith("250")
        assert result.started_at is not None
        assert result.connected_at is not None
        assert result.ended_at is not None
        assert result.started_at <= result.connected_at <= result.ended_at
        assert len(rows_of(result, "message_id")) == 1
        assert not result.suppress
        assert not harness.inbox.results

    async def test_silence_is_good_news(self, harness: Harness) -> None:
        delivery, result = await self.reported(harness, Network.ACCEPT)
        fate = delivery.fate
        assert isinstance(fate, Awaiting)
        assert fate.accepted_at is not None
        assert fate.closes_at > fate.accepted_at
        assert len(rows_of(fate, "message_id")) == 1
        assert (result.disposition, result.cause) == (Disposition.ANSWERED, "accepted")
        assert not result.suppress

    async def test_a_bounce_is_reported_once(self, harness: Harness) -> None:
        delivery, result = await self.reported(harness, Network.BOUNCE)
        assert isinstance(delivery.fate, Awaiting)
        assert result.disposition in (Disposition.FAILED, Disposition.INVALID)
        assert result.cause in {"bounced", "no_such_address"}
        assert "5.1.1" in result.code
        assert "5.1.1" in result.suppress
        assert rows_of(result, "bounce_status") == ["5.1.1"]
        assert rows_of(result, "bounce_action") == ["failed"]
        assert harness.inbox.results.keys() == {1}
        assert len(harness.inbox.results[1]) == 1

    async def test_put_off_is_neither_left_nor_lost(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, Network.DEFER)
        result = delivery.result
        assert result.disposition is Disposition.DEFERRED
        assert result.later_s
        assert all(seconds >= 0 for seconds in result.later_s)
        assert result.reached is not Reached.PERSON
        assert result.blame is Blame.NETWORK
        assert not result.trunk_failed
        assert not result.suppress
        assert result.code.startswith("451")
        assert Stage.CONNECTED not in delivery.stages

    async def test_the_network_refuses_it(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, Network.REJECT)
        result = delivery.result
        assert result.disposition in (Disposition.REJECTED, Disposition.FAILED)
        assert result.reached is not Reached.PERSON
        assert not result.later_s
        assert not result.suppress
        assert not result.trunk_failed
        assert delivery.stages == [Stage.LEFT]

    async def test_the_address_does_not_exist(self, harness: Harness) -> None:
        result = (await self.deliver(harness, Network.UNKNOWN)).result
        assert (result.disposition, result.cause) == (Disposition.INVALID, "no_such_address")
        assert "5.1.1" in result.code
        assert "5.1.1" in result.suppress
        assert not result.trunk_failed

    async def test_the_network_is_not_there(self, harness: Harness) -> None:
        result = (await self.deliver(harness, Network.UNAVAILABLE)).result
        assert result.trunk_failed
        assert not result.succeeded
        assert not result.suppress

    async def test_what_nobody_answered_may_have_been_taken(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, Network.SILENT_AFTER_DOT, ring_timeout_s=0.5)
        result = delivery.result
        assert not result.succeeded
        assert result.reached is Reached.PERSON
        assert not result.later_s
        assert not result.suppress
        assert Stage.CONNECTED not in delivery.stages

    async def test_a_program_sends_one_mail(self, harness: Harness) -> None:
        ended = []

        async def program(mailer: Mailer) -> None:
            await mailer.send_mail(MAIL)
            try:
                await mailer.send_mail(MAIL)
            except CallEnded:
                ended.append(True)
                raise

        result = (await self.deliver(harness, Network.ACCEPT, program)).result
        assert result.succeeded
        assert ended == [True]

    async def test_many_at_once(self, harness: Harness) -> None:
        async with harness.network(Network.ACCEPT) as provider:
            deliveries = [
                self.delivery(
                    harness, provider, spool_id=n, transmission_id=n,
                    destination=f"c{n}@example.com", ring_timeout_s=DEADLINE_S,
                )
                for n in range(1, 101)
            ]  # fmt: skip
            async with trio.open_nursery() as nursery:
                for delivery in deliveries:
                    nursery.start_soon(delivery.run)
        assert all(delivery.result.succeeded for delivery in deliveries)
        ids = [one for d in deliveries for one in rows_of(d.result, "message_id")]
        assert len(set(ids)) == 100
        assert harness.gateway.statistics()["calls_up"] == 0
