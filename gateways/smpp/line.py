"""A line: one bind after the other to the same SMSC, for as long as the provider stays as it is."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import structlog
import trio

from engine.config import SmppConfig
from engine.model import Provider
from gateways.smpp import names
from gateways.smpp.bind import Bind
from gateways.smpp.events import (
    Answered,
    BindRefused,
    Bound,
    Closed,
    Delivered,
    Event,
    PeerUnbound,
    Queried,
    Unanswered,
)
from gateways.smpp.feeder import MAX_BATCH
from gateways.smpp.intake import Intake
from gateways.smpp.ledger import Ledger
from gateways.smpp.pdu import Command
from gateways.smpp.results import Action, action_of
from gateways.smpp.settings import SmppSettings, status_table
from gateways.smpp.states import SENDING
from gateways.smpp.tickets import Ticket

log = structlog.get_logger("smpp")

DRAIN_S = 5.0
"""For the window to empty before we unbind."""

AHEAD_S = 0.05
"""With a rate: how much of it may be journalled ahead."""

RETRY_MAX_S = 60.0
PATIENCE = 4
"""Being throttled says nothing of the message: it may happen so many times more often."""

MAX_BUGS = 3
"""PDUs that the SMSC calls no PDUs, before the stream is taken to be out of step."""

ALREADY_BOUND = 0x05
ALARMING = frozenset({0x0D, 0x0E, 0x0F})
"""Binding again and again with a wrong login makes SMSCs lock the account (§5.1.3)."""


class Backoff:
    """How long to wait before the next bind: doubled each time, half of it by chance."""

    def __init__(self, settings: SmppSettings) -> None:
        self._min_s, self._max_s = settings.reconnect_min_s, settings.reconnect_max_s
        self._next_s = settings.reconnect_min_s

    def reset(self) -> None:
        """The bind was taken."""
        self._next_s = self._min_s

    def slow(self) -> None:
        """It was refused in a way that trying again does not mend."""
        self._next_s = self._max_s

    def next_s(self) -> float:
        """Seconds to wait now."""
        wait_s = self._next_s
        self._next_s = min(self._max_s, 2 * wait_s)
        return wait_s * random.uniform(0.5, 1.0)


QUESTIONS = 5
"""One part of so many of a window is for questions, while there are any: they go first."""


class Question:
    """A query_sm and who waits for its answer; ``done`` without one: there is none."""

    __slots__ = ("answer", "body", "done")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.done = trio.Event()
        self.answer: Queried | None = None


class Line:
    """Keeps one connection bound and sorts what its session tells.

    ``on_change`` is called where it may take more than before, or nothing any more.
    """

    def __init__(
        self,
        *,
        provider: Provider,
        settings: SmppSettings,
        config: SmppConfig,
        command: Command,
        ledger: Ledger,
        intake: Intake,
        on_change: Callable[[], None],
    ) -> None:
        self.fault = ""  # why there is no bind; "" while there is one, and before the first
        self.last_error = ""
        self.alarm = False
        self.binds = 0
        self._provider, self._settings, self._config = provider, settings, config
        self._command = command
        self._statuses = status_table(settings)
        self._ledger, self._intake = ledger, intake
        self._on_change = on_change
        self._backoff = Backoff(settings)
        self._bind: Bind | None = None
        self._waiting = trio.CancelScope()
        self._leaving = trio.Event()
        self._closing = False
        self._bugs = 0
        self._asked = 0  # questions without an answer

    # --- gateways.smpp.feeder.Outlet --------------------------------------------------------------
    def room(self, now: float) -> int:
        """Places in the window, as far as the rate allows."""
        bind = self._bind
        if bind is None or self._intake.swamped:
            return 0
        room = bind.session.room
        return min(room, bind.rate.allowed(now)) if room else 0

    def reach(self, now: float) -> int:
        """How many may be journalled ahead."""
        bind = self._bind
        if bind is None or bind.session.state not in SENDING:
            return 0
        if bind.rate.ready_at(now) > now + 1:  # it pauses
            return 0
        rate = bind.rate.per_second(now)
        return MAX_BATCH if math.isinf(rate) else max(1, math.ceil(rate * AHEAD_S))

    def ready_at(self, now: float) -> float:
        """When the rate allows the next."""
        bind = self._bind
        if bind is None or not bind.session.room or bind.rate.allowed(now):
            return math.inf
        return bind.rate.ready_at(now)

    def submit(self, tickets: Sequence[Ticket], now: float) -> None:
        """Put them into the window."""
        bind = self._bind
        assert bind is not None  # noqa: S101 - there was room
        bind.session.submit_many([(ticket.segment.body, ticket) for ticket in tickets])
        bind.rate.take(len(tickets), now)
        bind.poke()

    # --- life -------------------------------------------------------------------------------------
    @property
    def sends(self) -> bool:
        """Whether it is bound and may send."""
        return self._bind is not None and self._bind.session.state in SENDING

    async def run(self) -> None:
        """Bind, and bind again, until ``close``."""
        while not self._closing:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._leave_when_told)
                await self._live()
                nursery.cancel_scope.cancel()
            with trio.CancelScope() as self._waiting:
                if not self._closing:
                    await trio.sleep(self._backoff.next_s())

    async def _live(self) -> None:
        """One bind from its connection to its end."""
        self._bugs = 0
        self._leaving = trio.Event()
        bind = self._bind = Bind(
            self._provider, self._settings, self._config, self._command, self._on_events
        )
        closed = await bind.run()
        self._bind = None
        self._intake.ended(bind)
        self.fault = closed.reason
        if not closed.clean:
            self.last_error = closed.reason
            log.warning("smpp.closed", provider=self._provider.name, reason=closed.reason)
        self._on_change()

    async def _leave_when_told(self) -> None:
        """Give up a session that is not what we think it is."""
        await trio.lowlevel.checkpoint()
        await self._leaving.wait()
        if self._bind is not None:
            await self._bind.unbind(DRAIN_S)

    async def close(self) -> None:
        """Take no more, wait for what is in the window (bounded), unbind; ``run`` returns then."""
        self._closing = True
        self._waiting.cancel()
        if self._bind is not None:
            await self._bind.unbind(DRAIN_S)

    # --- what the session tells -------------------------------------------------------------------
    def _on_events(self, events: list[Event]) -> None:
        accepted = [event for event in events if type(event) is Answered and not event.status]
        if len(accepted) < len(events):
            for event in events:
                if type(event) is not Answered or event.status:
                    self._take(event)
        if accepted:
            self._ledger.accepted(accepted)
        self._on_change()

    def _take(self, event: Event) -> None:
        match event:
            case Answered():
                self._refused(event)
            case Unanswered():
                self._ledger.unknown([event.token])
            case Delivered():
                if self._bind is not None:
                    self._intake.take(self._bind, event)
            case Queried():
                self._asked -= 1
                event.token.answer = event
                event.token.done.set()
            case Closed():
                self._ledger.unknown(event.in_flight)
                self._ledger.put_back(event.unsent)
            case _:
                self._moved(event)

    def _moved(self, event: Event) -> None:
        """The session itself changed."""
        match event:
            case Bound():
                self.binds += 1
                self.alarm, self.fault = False, ""
                self._backoff.reset()
                log.info("smpp.bound", provider=self._provider.name, bind=self._command.name)
            case PeerUnbound():
                log.info("smpp.unbound_by_peer", provider=self._provider.name)
            case BindRefused():
                self._bind_refused(event.status)

    def _bind_refused(self, status: int) -> None:
        self.alarm = status in ALARMING
        if self.alarm or status == ALREADY_BOUND:
            # A wrong login, or a session of ours that the SMSC has not missed yet.
            self._backoff.slow()
        report = log.error if self.alarm else log.warning
        report(
            "smpp.bind_refused",
            provider=self._provider.name,
            status=f"0x{status:08x} {names.status_name(status)}",
        )

    def _refused(self, event: Answered) -> None:
        """The SMSC did not take it: now, or for good (messaging.md 14)."""
        action = action_of(event.status, self._statuses)
        ticket: Ticket = event.token
        self._react(action)
        self.last_error = f"submit refused: 0x{event.status:08x} {names.status_name(event.status)}"
        if action is Action.SENDER:
            log.error("smpp.sender_refused", provider=self._provider.name, status=event.status)
        if event.late or not self._tries_left(action, ticket):
            self._ledger.refused(event)
            return
        ticket.tries += 1
        self._ledger.hold(ticket, self._retry_at(action, ticket.tries))

    def _react(self, action: Action) -> None:
        """What it means for the bind."""
        now = trio.current_time()
        if action is Action.THROTTLE and self._bind is not None:
            self._bind.rate.throttled(now)
        elif action is Action.QUEUE_FULL and self._bind is not None:
            self._bind.rate.queue_full(now)
        elif action is Action.REBIND:
            self._leaving.set()
        elif action is Action.BUG:
            self._bugs += 1
            log.error("smpp.pdu_refused", provider=self._provider.name, bugs=self._bugs)
            if self._bugs >= MAX_BUGS:
                self._leaving.set()

    def _tries_left(self, action: Action, ticket: Ticket) -> bool:
        match action:
            case Action.RETRY | Action.REBIND:
                return ticket.tries < self._settings.retries
            case Action.THROTTLE | Action.QUEUE_FULL:
                return ticket.tries < self._settings.retries * PATIENCE
            case _:
                return False

    def _retry_at(self, action: Action, tries: int) -> float:
        now, jitter = trio.current_time(), random.random()
        if action in (Action.THROTTLE, Action.QUEUE_FULL) and self._bind is not None:
            return self._bind.rate.retry_at(now, jitter)
        return now + min(RETRY_MAX_S, 2.0 ** (tries - 1)) * (0.5 + jitter / 2)

    # --- questions --------------------------------------------------------------------------------
    @property
    def asks(self) -> bool:
        """Whether it takes a question now."""
        bind = self._bind
        if bind is None or self._asked >= max(1, self._settings.window // QUESTIONS):
            return False
        return bind.session.room > 0

    def ask(self, question: Question) -> None:
        """Put it into the window (query_sm, §4.8)."""
        bind = self._bind
        assert bind is not None  # noqa: S101 - there was room
        self._asked += 1
        bind.session.query(question.body, question)
        bind.poke()

    def statistics(self) -> dict[str, Any]:
        """The bind there is, and how it went before."""
        bind = self._bind
        return {
            "bind": self._command.name.removeprefix("BIND_").lower(),
            "sends": self.sends,
            "binds": self.binds,
            "alarm": self.alarm,
            "last_error": self.last_error,
            **(bind.statistics() if bind is not None else {}),
        }
