"""What every gateway that sends must do, whatever it sends: the base of two suites.

A harness makes the network behave in a named way; how (a server by script, a share of 1) is its
business.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, Generic, Protocol, TypeVar
from uuid import uuid4

import pytest
import trio

from engine.errors import InvalidError
from engine.gateway import Gateway, InboundText, Order, Program, Reception, Report, Stage
from engine.model import Provider, Service, Spool
from engine.results import Awaiting, Fate, Reached, Result, ResultRow
from tests.suites.trial import DEADLINE_S, Trial
from tests.support.inbox import NoMail

Network = TypeVar("Network")
Network_contra = TypeVar("Network_contra", contravariant=True)


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


@asynccontextmanager
async def running(gateway: Gateway) -> AsyncIterator[Inbox]:
    """The gateway runs for as long as the block lasts; the inbox is where it reports."""
    inbox = Inbox()
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run, inbox)
        yield inbox
        nursery.cancel_scope.cancel()


class Harness(Protocol[Network_contra]):
    """What a gateway's tests provide."""

    @property
    def gateway(self) -> Gateway:
        """Running, with ``inbox``."""
        ...

    @property
    def inbox(self) -> Inbox:
        """Where it reports."""
        ...

    def network(self, behaviour: Network_contra) -> AbstractAsyncContextManager[Provider]:
        """A provider whose network behaves so, for as long as the block lasts."""
        ...


class Delivery(Trial):
    """One message under test."""

    @property
    def result(self) -> Result:
        """What became of it at once."""
        assert isinstance(self.fate, Result)
        return self.fate


def rows_of(fate: Fate, name: str) -> list[str]:
    return [row.data for row in fate.rows if row.name == name]


class SendingSuite(Generic[Network]):
    """Subclasses say what they send, and which of their networks do what is common to all."""

    fields: ClassVar[dict[str, Any]]
    """Of every order: service, destination, whose it is."""
    taken: ClassVar[type[Result | Awaiting]]
    """What becomes at once of what ``takes``."""
    takes: Network
    silent: Network

    @abstractmethod
    async def send(self, session: Any) -> None:
        """A program that sends one."""

    def delivery(
        self, harness: Harness[Network], provider: Provider, program: Program | None = None,
        **fields: Any,
    ) -> Delivery:  # fmt: skip
        """One under test."""
        order = {
            "spool_id": 1,
            "uid": uuid4(),
            "provider": provider,
            "program": program or self.send,
            **self.fields,
            **fields,
        }
        return Delivery(harness.gateway, Order(**order))

    async def deliver(
        self, harness: Harness[Network], behaviour: Network, program: Program | None = None,
        **fields: Any,
    ) -> Delivery:  # fmt: skip
        """One that has come to its end."""
        async with harness.network(behaviour) as provider:
            delivery = self.delivery(harness, provider, program, **fields)
            await delivery.run()
        assert harness.gateway.statistics()["calls_up"] == 0
        return delivery

    async def test_stages_come_in_order(self, harness: Harness[Network]) -> None:
        delivery = await self.deliver(harness, self.takes)
        assert delivery.stages == [Stage.LEFT, Stage.CONNECTED]
        assert delivery.times == sorted(delivery.times)
        assert all(time.tzinfo is not None for time in delivery.times)

    async def test_notes_of_the_program_are_kept(self, harness: Harness[Network]) -> None:
        async def program(session: Any) -> None:
            session.note(ResultRow("info", "language", "de"))
            await self.send(session)

        fate = (await self.deliver(harness, self.takes, program)).fate
        assert isinstance(fate, self.taken)
        assert rows_of(fate, "language") == ["de"]

    async def test_a_program_that_sends_nothing_has_reached_nothing(
        self, harness: Harness[Network]
    ) -> None:
        async def program(_: Any) -> None:
            await trio.lowlevel.checkpoint()

        delivery = await self.deliver(harness, self.takes, program)
        assert delivery.result.reached is Reached.NOTHING
        assert not delivery.result.succeeded
        assert delivery.stages == []

    async def test_cancelled_while_it_waits_for_the_answer(self, harness: Harness[Network]) -> None:
        async with harness.network(self.silent) as provider:
            async with trio.open_nursery() as nursery:
                delivery = self.delivery(harness, provider, ring_timeout_s=DEADLINE_S)
                nursery.start_soon(delivery.run)
                with trio.fail_after(DEADLINE_S):
                    await delivery.reached[Stage.LEFT].wait()
                nursery.cancel_scope.cancel()
            assert delivery.fate is None
            assert harness.gateway.statistics()["calls_up"] == 0

    async def test_what_it_does_not_know_it_does_not_call_done(
        self, harness: Harness[Network]
    ) -> None:
        service: Service = self.fields["service"]
        spool = Spool(id=77, transmission_id=7, service=service)
        fate = (await harness.gateway.recall([spool])).get(77)
        assert fate is None or (isinstance(fate, Result) and not fate.succeeded)

    async def test_settings_it_cannot_work_with_are_named(self, harness: Harness[Network]) -> None:
        async with harness.network(self.takes) as provider:
            harness.gateway.check(provider)
            wrong = Provider(
                name="wrong", type=provider.type, host=provider.host, service=provider.service,
                settings={"no such": 1},
            )  # fmt: skip
            with pytest.raises(InvalidError) as error:
                harness.gateway.check(wrong)
            assert error.value.field == "settings"
