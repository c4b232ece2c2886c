"""What the SMSC answered goes into the journal, and only then back to who waits for it.

One task writes for a whole provider: while it commits, the next answers gather, so that under load
a commit holds hundreds of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

import structlog
import trio

from engine.clock import Clock
from engine.errors import UnavailableError
from gateways.smpp.events import Answered
from gateways.smpp.feeder import JOURNAL_RETRY_S, MAX_BATCH, Feeder
from gateways.smpp.records import Answer, Receipt, Segment, SegmentAnswer
from gateways.smpp.settings import SmppSettings
from gateways.smpp.tickets import Place, Ticket, tell

log = structlog.get_logger("smpp")

GATHER_S = 0.005
"""How long answers wait at most for intents to be written with them."""

_WRITTEN, _ACCEPTED = Place.WRITTEN, Place.ACCEPTED  # see ``feeder``


class Books(Protocol):
    """The journal as a link uses it (``gateways.smpp.tracker.Tracker``); each returns durable."""

    async def intend(
        self, provider_id: int, segments: Sequence[Segment], settings: SmppSettings
    ) -> None:
        """They may leave from now on."""
        ...

    async def answered(self, provider_id: int, answers: Sequence[Answer]) -> None:
        """They were accepted, or refused for good."""
        ...

    async def unsent(self, segments: Sequence[Segment]) -> None:
        """The network does not have them: as if they had never been intended."""
        ...

    async def unknown(
        self, provider_id: int, segments: Sequence[Segment], settings: SmppSettings
    ) -> None:
        """They may have left, and nobody saw an answer."""
        ...

    async def receipts(
        self, provider_id: int, settings: SmppSettings, receipts: Sequence[Receipt]
    ) -> None:
        """What became of them; returns when that is durable and reported."""
        ...

    async def settled(self, spool_ids: Sequence[int]) -> None:
        """Their result is known already: late receipts change nothing."""
        ...


class NoBooks:
    """Nothing is kept: for measuring what the journal costs."""

    async def intend(self, *_: Any) -> None:
        """Nothing."""

    async def answered(self, *_: Any) -> None:
        """Nothing."""

    unsent = unknown = receipts = settled = answered


class Ledger:
    """Everything a link has to write down after the intents. All calls are on Trio's thread.

    ``settings`` are the provider's as they are now.
    """

    def __init__(self, provider_id: int, books: Books, feeder: Feeder, clock: Clock) -> None:
        self._provider_id = provider_id
        self._books = books
        self._feeder = feeder
        self._clock = clock
        self._answered: list[Ticket] = []
        self._late: list[SegmentAnswer] = []
        self._unknown: list[Ticket] = []
        self._unsent: list[tuple[Ticket, float | None]] = []  # and until when each is held
        self._settled: list[int] = []
        self._wake = trio.Event()
        self._joined = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._counts = Counter[str]()
        self.settings = SmppSettings()
        self.fault = ""

    # --- what became of tickets -----------------------------------------------------------------
    def accepted(self, answers: Sequence[Answered]) -> None:
        """The SMSC took them."""
        at, booked = self._clock(), self._answered
        for answer in answers:
            ticket = answer.token
            if ticket.place is _WRITTEN:
                ticket.place = _ACCEPTED
                ticket.message_id = answer.message_id
                ticket.at = at
                booked.append(ticket)
            else:
                self._booked_late(answer, at)
        self._counts["accepted"] += len(answers)
        self._stir()

    def refused(self, answer: Answered) -> None:
        """The SMSC's last word was an error."""
        ticket, at = answer.token, self._clock()
        if ticket.place is Place.WRITTEN:
            ticket.place = Place.REFUSED
            ticket.status = answer.status
            ticket.at = at
            self._answered.append(ticket)
            ticket.sink.refused()
        else:
            self._booked_late(answer, at)
        self._counts["refused"] += 1
        self._stir()

    def _booked_late(self, answer: Answered, at: datetime) -> None:
        """Who waited was told that nobody knows; the journal learns it all the same."""
        segment, status = answer.token.segment, answer.status
        self._late.append(
            SegmentAnswer(segment=segment, status=status, message_id=answer.message_id, at=at)
        )
        self._counts["late"] += 1

    def unknown(self, tickets: Sequence[Ticket]) -> None:
        """They may have left, no answer was seen."""
        for ticket in tickets:
            ticket.place = Place.UNKNOWN
        self._unknown += tickets
        self._counts["unknown"] += len(tickets)
        self._stir()

    def put_back(self, tickets: Sequence[Ticket]) -> None:
        """They never left: back into the queue once their intents are taken back."""
        for ticket in tickets:
            ticket.place = Place.HELD
        self._unsent += [(ticket, None) for ticket in tickets]
        self._stir()

    def hold(self, ticket: Ticket, until: float) -> None:
        """The SMSC did not take it now; it is queued again at ``until`` (Trio's clock)."""
        ticket.place = Place.HELD
        self._unsent.append((ticket, until))
        self._counts["retried"] += 1
        self._stir()

    def withdrawn(self, tickets: Sequence[Ticket]) -> None:
        """They were given up after their intents were committed, and before they left."""
        self._unsent += [(ticket, None) for ticket in tickets]
        self._stir()

    def settle(self, spool_id: int) -> None:
        """Its result is known: receipts change nothing any more."""
        self._settled.append(spool_id)
        self._stir()

    # --- writing it down ------------------------------------------------------------------------
    def _stir(self) -> None:
        self._idle = trio.Event() if self._idle.is_set() else self._idle
        self._wake.set()

    @property
    def backlog(self) -> int:
        """Tickets whose end is not written down yet."""
        return len(self._answered) + len(self._unknown) + len(self._unsent)

    async def flushed(self) -> None:
        """Wait until everything told so far is durable."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            await self._gather()
            self._wake = trio.Event()
            await self._write()
            if not self._wake.is_set():
                self._idle.set()

    async def _gather(self) -> None:
        """Under load wait for the next intents: one fsync does for both."""
        if self._feeder.backlog and self.backlog < MAX_BATCH:
            self._joined = trio.Event()
            with trio.move_on_after(GATHER_S):
                await self._joined.wait()

    def join(self) -> None:
        """Intents are on their way to the disk."""
        self._joined.set()

    async def _write(self) -> None:
        # What is unknown first: a late answer may come right behind it.
        await self._write_unknown()
        await self._write_answers()
        await self._write_unsent()
        if self._settled:
            settled, self._settled = self._settled, []
            await self._persist(lambda: self._books.settled(settled))

    async def _write_unknown(self) -> None:
        if not self._unknown:
            return
        tickets, self._unknown = self._unknown, []
        segments = [ticket.segment for ticket in tickets]
        await self._persist(lambda: self._books.unknown(self._provider_id, segments, self.settings))
        tell(tickets)

    async def _write_answers(self) -> None:
        if not (self._answered or self._late):
            return
        tickets, self._answered = self._answered, []
        late, self._late = self._late, []
        answers: list[Answer] = [*tickets, *late]
        await self._persist(lambda: self._books.answered(self._provider_id, answers))
        tell(tickets)

    async def _write_unsent(self) -> None:
        if not self._unsent:
            return
        unsent, self._unsent = self._unsent, []
        segments = [ticket.segment for ticket, _ in unsent]
        await self._persist(lambda: self._books.unsent(segments))
        self._feeder.put_back([ticket for ticket, until in unsent if until is None])
        for ticket, until in unsent:
            if until is not None:
                self._feeder.hold(ticket, until)

    async def _persist(self, write: Callable[[], Awaitable[None]]) -> None:
        """However long the journal refuses: what the SMSC said is not said twice."""
        while True:
            try:
                await write()
            except UnavailableError as error:
                self._failed(error)
                await trio.sleep(JOURNAL_RETRY_S)
            else:
                self.fault = ""
                return

    def _failed(self, error: UnavailableError) -> None:
        if not self.fault:
            log.error("smpp.journal_refuses", cause=str(error))
        self.fault = str(error)

    def statistics(self) -> dict[str, Any]:
        """What became of the segments, and how many ends wait to be written down."""
        return {"unbooked": self.backlog, **self._counts}
