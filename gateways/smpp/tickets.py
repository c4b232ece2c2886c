"""A part of a message on its way through a link, and who waits for what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Protocol

import msgspec
import trio

from engine.model import EPOCH
from gateways.smpp.records import Segment

_SLACK = 1024


class Place(IntEnum):
    """Where a ticket is; from ``ACCEPTED`` on it stays there."""

    NEW = 0
    QUEUED = 1  # not journalled
    COMMITTING = 2  # its intent is on its way to the disk
    READY = 3  # its intent is on the disk, it was not written
    WRITTEN = 4  # given to a session: it may have left
    HELD = 5  # it did not leave or was not taken; it goes back into the queue
    ACCEPTED = 6
    REFUSED = 7
    UNKNOWN = 8  # it may have left, nobody saw the answer
    WITHDRAWN = 9  # certainly never taken: given up before it was


class Sink(Protocol):
    """Who handed the tickets in. All are called on Trio's thread and may not block."""

    def leaving(self) -> None:
        """One of its tickets is about to be written."""
        ...

    def refused(self) -> None:
        """One of its tickets was refused for good; it comes as ``settled`` when that is durable."""
        ...

    def settled(self, tickets: Sequence[Ticket]) -> None:
        """These have come to rest; their answers are durable."""
        ...


class Ticket(msgspec.Struct, eq=False):
    """One segment and what became of it; the token of its submit_sm, and the answer to it.

    ``status`` and ``message_id`` are the SMSC's answer, ``at`` when it came (EPOCH: it did not).
    """

    segment: Segment
    sink: Sink
    place: Place = Place.NEW
    status: int = 0
    message_id: str = ""
    at: datetime = EPOCH
    tries: int = 0


class Bulk:
    """The sink of many segments at once: no task and no event per message."""

    __slots__ = ("settled",)

    def __init__(self, on_settled: Callable[[Sequence[Ticket]], None]) -> None:
        self.settled = on_settled

    def leaving(self) -> None:
        """Nobody asks."""

    def refused(self) -> None:
        """The others are messages of their own."""


class Sending:
    """The parts of one message, waited for together.

    ``on_leaving`` is called once, before the first part is written; ``on_refused`` as soon as one
    part is refused for good: half a message is of no use to anybody.
    """

    __slots__ = ("_left", "_on_leaving", "_on_refused", "_open", "done", "tickets")

    def __init__(
        self,
        segments: Sequence[Segment],
        *,
        on_leaving: Callable[[], None],
        on_refused: Callable[[Sending], None],
    ) -> None:
        self.tickets = [Ticket(segment, self) for segment in segments]
        self.done = trio.Event()
        self._open = len(self.tickets)
        self._left = False
        self._on_leaving = on_leaving
        self._on_refused = on_refused

    def leaving(self) -> None:
        """Tell it once."""
        if not self._left:
            self._left = True
            self._on_leaving()

    def refused(self) -> None:
        """The other parts need not leave any more."""
        self._on_refused(self)

    def settled(self, tickets: Sequence[Ticket]) -> None:
        """Count them; the last one wakes who waits."""
        self._open -= len(tickets)
        if not self._open:
            self.done.set()

    def count(self, place: Place) -> int:
        """How many of its tickets are there."""
        return sum(ticket.place is place for ticket in self.tickets)


class Fifo:
    """Tickets in their order, taken by the slice: one by one costs ten times as much."""

    __slots__ = ("_head", "_items")

    def __init__(self) -> None:
        self._items: list[Ticket] = []
        self._head = 0  # those before it were taken

    def __len__(self) -> int:
        return len(self._items) - self._head

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._items[self._head :])

    def extend(self, tickets: Sequence[Ticket]) -> None:
        """Add them at the end."""
        self._items += tickets

    def put_first(self, tickets: Sequence[Ticket]) -> None:
        """Add them before all others, in their order."""
        self._items[: self._head] = tickets
        self._head = 0

    def take(self, most: int, place: Place) -> list[Ticket]:
        """Take up to so many that are still in this place, first come first; others are dropped."""
        taken: list[Ticket] = []
        while len(taken) < most and self._head < len(self._items):
            end = self._head + most - len(taken)
            taken += [it for it in self._items[self._head : end] if it.place is place]
            self._head = min(end, len(self._items))
        if self._head > _SLACK and 2 * self._head > len(self._items):
            del self._items[: self._head]
            self._head = 0
        return taken

    def keep(self, place: Place) -> None:
        """Drop those that are somewhere else by now."""
        self._items = [it for it in self if it.place is place]
        self._head = 0


def tell(tickets: Sequence[Ticket]) -> None:
    """Tell each sink of its tickets, with one call for neighbours of the same sink."""
    start, end = 0, len(tickets)
    while start < end:
        sink = tickets[start].sink
        stop = start + 1
        while stop < end and tickets[stop].sink is sink:
            stop += 1
        sink.settled(tickets[start:stop])
        start = stop
