"""From the queue through the journal into the windows of the binds.

Nothing is written before its intent is on the disk. Intents are committed some way ahead of the
window, so that it never waits for an fsync: as far as the binds took during the last commit, no
farther, since what is committed and not written would count as unknown after a crash.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import count
from typing import Any, Protocol

import structlog
import trio

from engine.errors import UnavailableError
from gateways.smpp.records import Segment
from gateways.smpp.tickets import Fifo, Place, Sink, Ticket, tell

log = structlog.get_logger("smpp")

MAX_BATCH = 512
"""Intents in one commit, and how far ahead of the windows the journal may be."""

JOURNAL_RETRY_S = 1.0

TICK_S = 0.001
"""Wake-ups closer than this are one."""


# Named once: Python 3.11 takes ten times as long to find a member of an enum as a global name.
_NEW, _QUEUED, _COMMITTING, _READY = Place.NEW, Place.QUEUED, Place.COMMITTING, Place.READY
_WRITTEN, _HELD, _WITHDRAWN = Place.WRITTEN, Place.HELD, Place.WITHDRAWN
_WITHDRAWABLE = frozenset({_NEW, _QUEUED, _COMMITTING, _READY, _HELD})


class Outlet(Protocol):
    """A bind as the feeder sees it."""

    def room(self, now: float) -> int:
        """How many it takes now: places in its window, as far as its rate allows."""
        ...

    def reach(self, now: float) -> int:
        """How many may be journalled ahead of it; 0 while it takes nothing."""
        ...

    def ready_at(self, now: float) -> float:
        """When its rate allows the next; infinity where it does not wait for its rate."""
        ...

    def submit(self, tickets: Sequence[Ticket], now: float) -> None:
        """Take them, not more than ``room``."""
        ...


class Feeder:
    """The queue of one provider.

    ``intend`` makes a batch durable; ``withdrawn`` is told of those whose intent has to be taken
    back because they were given up before they were written, ``stranded`` of those that no bind is
    there to take any more.
    """

    def __init__(
        self,
        outlets: Callable[[], Iterable[Outlet]],
        intend: Callable[[Sequence[Segment]], Awaitable[None]],
        withdrawn: Callable[[list[Ticket]], None],
        stranded: Callable[[list[Ticket]], None],
        *,
        max_queue: int,
    ) -> None:
        self._outlets = outlets
        self._intend = intend
        self._withdrawn = withdrawn
        self._stranded = stranded
        self._max_queue = max_queue
        self._queue = Fifo()
        self._ready = Fifo()
        self._held: list[tuple[float, int, Ticket]] = []
        self._order = count()
        self._live = 0  # tickets in the queue that were not withdrawn
        self._ahead = 1
        self._full = trio.lowlevel.ParkingLot()
        self._wake = trio.Event()
        self._closed = False
        self.fault = ""  # why the journal takes nothing; "" while it does

    # --- in -------------------------------------------------------------------------------------
    async def put(self, tickets: Sequence[Ticket]) -> None:
        """Queue them together, as soon as there is room; cancelled = none was queued.

        Also returns when they are withdrawn.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._full_for(tickets):
            await self._full.park()
        if tickets[0].place is not _NEW:
            return
        if self._closed:
            tell(self.withdraw(tickets))
            return
        for ticket in tickets:
            ticket.place = _QUEUED
        self._queue.extend(tickets)
        self._live += len(tickets)
        self._wake.set()

    @property
    def backlog(self) -> int:
        """How many are queued and not journalled."""
        return self._live

    def _full_for(self, tickets: Sequence[Ticket]) -> bool:
        """Whether they have to wait; those that were withdrawn need not."""
        if self._closed or tickets[0].place is not _NEW:
            return False
        return self._live > 0 and self._live + len(tickets) > self._max_queue

    def put_back(self, tickets: Sequence[Ticket]) -> None:
        """They did not leave and their intent was taken back: the first to go, in their order."""
        back = [ticket for ticket in tickets if ticket.place is _HELD]
        if not back:
            return
        if self._closed:
            tell(self.withdraw(back))
            return
        for ticket in back:
            ticket.place = _QUEUED
        self._queue.put_first(back)
        self._live += len(back)
        self._wake.set()

    def hold(self, ticket: Ticket, until: float) -> None:
        """Try it again then (Trio's clock); its intent was taken back."""
        if self._closed:
            self.put_back([ticket])
            return
        heapq.heappush(self._held, (until, next(self._order), ticket))
        self._wake.set()

    def withdraw(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        """Give up those that were not written; returns them."""
        given_up = [ticket for ticket in tickets if ticket.place in _WITHDRAWABLE]
        ready = [ticket for ticket in given_up if ticket.place is _READY]
        self._live -= sum(ticket.place is _QUEUED for ticket in given_up)
        # Those that wait for a place need none any more, or there are places now.
        if any(ticket.place is _NEW or ticket.place is _QUEUED for ticket in given_up):
            self._full.unpark_all()
        for ticket in given_up:
            ticket.place = _WITHDRAWN
        if ready:
            self._withdrawn(ready)
        self._tidy()
        return given_up

    def close(self) -> None:
        """Give up everything that was not written, and whatever is put in from now on."""
        self._closed = True
        tell(self.withdraw([*self._queue, *self._ready, *(held[2] for held in self._held)]))
        self._full.unpark_all()

    # --- out ------------------------------------------------------------------------------------
    def poke(self) -> None:
        """A bind may have room, or be gone; ``run`` is only woken where it has something to do."""
        now = trio.current_time()
        self._pump(now)
        if self._wanted(now) or self._waits_for_rate(now):
            self._wake.set()

    def _pump(self, now: float) -> None:
        """Give the binds what is ready, as far as they have room."""
        if not self._ready:
            return
        for outlet in self._outlets():
            if room := outlet.room(now):
                batch = self._ready.take(room, _READY)
                if not batch:
                    return
                _leave(batch)
                outlet.submit(batch, now)

    async def run(self) -> None:
        """Feed until cancelled. What is queued then stays where it is."""
        while True:
            now = trio.current_time()
            self._release_held(now)
            self._recall(now)
            self._pump(now)
            batch = self._next_queued(self._wanted(now))
            if batch:
                await self._commit(batch)
            else:
                await self._park(now)

    def _recall(self, now: float) -> None:
        """What is journalled and can go nowhere for now would be unknown after a crash."""
        if self._ready and not self._reach(now):
            self._stranded(self._ready.take(len(self._ready), _READY))

    def _wanted(self, now: float) -> int:
        """How many intents to commit now: for the room there is, and some ahead."""
        if not self._live:
            return 0
        ahead, have = min(self._ahead, self._reach(now)), len(self._ready)
        if (room := self._room(now)) > have:
            return min(MAX_BATCH, room - have + ahead)
        return ahead - have if have * 2 <= ahead else 0

    def _waits_for_rate(self, now: float) -> bool:
        """Whether there is something to send that a rate, or the lack of any bind, holds back."""
        if not self._ready and not self._live:
            return False
        limited = any(outlet.ready_at(now) < math.inf for outlet in self._outlets())
        return limited or not self._reach(now)

    def _reach(self, now: float) -> int:
        return sum(outlet.reach(now) for outlet in self._outlets())

    def _room(self, now: float) -> int:
        return sum(outlet.room(now) for outlet in self._outlets())

    def _next_queued(self, most: int) -> list[Ticket]:
        batch = self._queue.take(most, _QUEUED)
        for ticket in batch:
            ticket.place = _COMMITTING
        if batch:
            self._live -= len(batch)
            self._full.unpark(count=len(batch))
        return batch

    async def _commit(self, batch: list[Ticket]) -> None:
        """Make the intents durable; those given up meanwhile are taken back."""
        had = len(self._ready)
        try:
            await self._intend([ticket.segment for ticket in batch])
        except UnavailableError as error:
            await self._refused(batch, error)
            return
        self.fault = ""
        self._measure(had)
        ready = [ticket for ticket in batch if ticket.place is _COMMITTING]
        for ticket in ready:
            ticket.place = _READY
        self._ready.extend(ready)
        if len(ready) < len(batch):
            self._withdrawn([ticket for ticket in batch if ticket.place is not _READY])
        if self._closed:
            tell(self.withdraw([*self._ready]))

    def _measure(self, had: int) -> None:
        """Whether it was enough for the time that a commit takes; ``had`` is what was ready."""
        have = len(self._ready)
        if self._live and self._room(trio.current_time()) > have:
            self._ahead = min(MAX_BATCH, self._ahead * 2)
        elif have * 2 > had:
            self._ahead = max(1, self._ahead - self._ahead // 8)

    async def _refused(self, batch: list[Ticket], error: UnavailableError) -> None:
        """The journal takes nothing: nothing left, all of them stay the first."""
        if not self.fault:
            log.error("smpp.journal_refuses", cause=str(error))
        self.fault = str(error)
        for ticket in batch:
            if ticket.place is _COMMITTING:
                ticket.place = _HELD
        self.put_back(batch)
        await trio.sleep(JOURNAL_RETRY_S)

    async def _park(self, now: float) -> None:
        """Until something is queued, a bind has room, or the clock says so."""
        until = min((outlet.ready_at(now) for outlet in self._outlets()), default=math.inf)
        if self._held:
            until = min(until, self._held[0][0])
        with trio.move_on_at(max(until, now + TICK_S)):
            await self._wake.wait()
        self._wake = trio.Event()

    def _release_held(self, now: float) -> None:
        due = []
        while self._held and self._held[0][0] <= now:
            due.append(heapq.heappop(self._held)[2])
        self.put_back(due)

    def _tidy(self) -> None:
        """Drop withdrawn tickets from the middle once they are most of the queue."""
        if len(self._queue) > 2 * self._live + MAX_BATCH:
            self._queue.keep(_QUEUED)

    def statistics(self) -> dict[str, Any]:
        """How many wait, for what."""
        return {
            "queue": self._live,
            "max_queue": self._max_queue,
            "held_back": len(self._full),
            "journalled": len(self._ready),
            "retrying": len(self._held),
            "journal_fault": self.fault,
        }


def _leave(batch: Sequence[Ticket]) -> None:
    """Neighbours of one sink are told of together: a campaign's batch has one sink."""
    sink: Sink | None = None
    for ticket in batch:
        ticket.place = _WRITTEN
        if ticket.sink is not sink:
            sink = ticket.sink
            sink.leaving()
