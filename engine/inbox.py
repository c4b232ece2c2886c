"""The engine's inbox: what gateways hand in, made durable before they are let go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import structlog

from engine import recovery
from engine.bus import Bus
from engine.clock import Clock
from engine.config import Config
from engine.events import of_outcome
from engine.gateway import InboundText, Reception, Report
from engine.mail import InboundMail
from engine.stats import NodeStatistics
from engine.store.base import Outcome, Store

log = structlog.get_logger("inbox")


class Receiver(Protocol):
    """Takes messages to our accounts (``engine.inbound``)."""

    async def receive(self, message: InboundText) -> Reception:
        """See ``Inbox.receive``."""
        ...


class MailReceiver(Protocol):
    """Takes mails to our accounts (``engine.inbound_mail``)."""

    async def receive(self, mail: InboundMail) -> Reception:
        """See ``Inbox.receive_mail``."""
        ...

    async def serves(self, address: str) -> bool:
        """See ``Inbox.serves_mail``."""
        ...


Ended = Callable[[Outcome], None]
"""Told of every transmission whose spool a report closed: its campaign goes on from there."""


class Desk:
    """``engine.gateway.Inbox``."""

    def __init__(
        self,
        *,
        config: Config,
        store: Store,
        bus: Bus,
        clock: Clock,
        counters: NodeStatistics,
        inbound: Receiver,
        mails: MailReceiver,
        unwanted: recovery.Unwanted,
        ended: Ended,
    ) -> None:
        self._config = config
        self._store = store
        self._bus = bus
        self._clock = clock
        self._counters = counters
        self._inbound = inbound
        self._mails = mails
        self._unwanted = unwanted
        self._ended = ended

    async def receive(self, message: InboundText) -> Reception:
        """See ``Inbox.receive``."""
        return await self._inbound.receive(message)

    async def receive_mail(self, mail: InboundMail) -> Reception:
        """See ``Inbox.receive_mail``."""
        return await self._mails.receive(mail)

    async def serves_mail(self, address: str) -> bool:
        """See ``Inbox.serves_mail``."""
        return await self._mails.serves(address)

    async def report(self, reports: Sequence[Report]) -> None:
        """See ``Inbox.report``; a report of a spool nobody knows is passed over."""
        # The first result of a spool is the one it keeps.
        results = {report.spool_id: report.result for report in reversed(reports)}
        ends = await self._store.open_spools(list(results))
        outcomes = await recovery.conclude(
            self._store, self._config.retry, self._clock, ends, results
        )
        await recovery.finish(self._store, self._unwanted, outcomes)
        self._tell(outcomes)
        await self._add(_others(reports, {one.spool_id for one in ends}))

    async def _add(self, reports: Sequence[Report]) -> None:
        """What is told of spools that have their result."""
        at = self._clock()
        writes: list[Callable[[], Awaitable[object]]] = []
        for spool_id, result in ((one.spool_id, one.result) for one in reports):
            if result.suppress:
                writes.append(partial(self._unwanted.suppress, spool_id, result.suppress))
            if result.rows:
                writes.append(partial(self._store.annotate, spool_id, result.rows, at))
        await recovery.together(writes)

    def _tell(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self._counters.report(outcome.result)
            self._ended(outcome)
            if self._bus.listening:
                for event in of_outcome(outcome):
                    self._bus.publish(event)


def _others(reports: Iterable[Report], closed_now: set[int]) -> list[Report]:
    """All but the first report of each spool that it closed."""
    others = []
    for report in reports:
        if report.spool_id in closed_now:
            closed_now.discard(report.spool_id)
        else:
            others.append(report)
    return others
