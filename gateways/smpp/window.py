"""Requests that wait for their answers: places, sequence numbers, time-outs, late answers. Pure.

A request is first *reserved* (its octets are in a buffer of ours) and *leaves* when the writer
takes that buffer. Its time to answer runs from then on; what never left is known to be unsent.
All that leave together share one ``Flight``, so that this costs nothing for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gateways.smpp.pdu import MAX_SEQUENCE

LATE_KEPT = 10_000
"""Timed-out requests whose late answer is still booked; beyond, the oldest is forgotten."""


class Sequences:
    """Sequence numbers 1 … 0x7fffffff and again from 1 (SMPP 3.4 §5.1.4); those in use are skipped.

    ``in_use`` is asked only after the first wrap: before it no number was given twice.
    """

    def __init__(self, in_use: Callable[[int], bool], *, last: int = 0) -> None:
        self._in_use = in_use
        self._last = last
        self._wrapped = last > 0

    def take(self, count: int) -> Sequence[int]:
        """So many free numbers, in the order to be used."""
        last = self._last
        if not self._wrapped and last + count <= MAX_SEQUENCE:
            self._last = last + count
            return range(last + 1, last + count + 1)
        return [self._next() for _ in range(count)]

    def _next(self) -> int:
        while True:
            if self._last == MAX_SEQUENCE:
                self._last, self._wrapped = 0, True
            self._last += 1
            if not (self._wrapped and self._in_use(self._last)):
                return self._last


class Flight:
    """What left together; ``deadline`` is infinite as long as it has not."""

    __slots__ = ("deadline",)

    def __init__(self) -> None:
        self.deadline = math.inf


class Window:
    """Requests by sequence number, oldest first: deadlines never go backwards in it.

    ``waiting`` and ``aboard`` (the flight that has not left) are there for the session's inner
    loop, which may pop what left; all else goes through the methods.
    """

    def __init__(self, timeout_s: float) -> None:
        self.waiting: dict[int, tuple[Any, Flight]] = {}
        self.aboard = Flight()
        self._timeout_s = timeout_s
        self._late: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.waiting)

    def __contains__(self, sequence: int) -> bool:
        return sequence in self.waiting or sequence in self._late

    def reserve(self, sequences: Sequence[int], tokens: Iterable[Any]) -> None:
        """Give each request a place; nothing of it has left yet."""
        aboard = self.aboard
        entries = [(token, aboard) for token in tokens]
        self.waiting.update(zip(sequences, entries, strict=True))

    def leave(self, now: float) -> None:
        """All that is reserved goes to the connection now."""
        self.aboard.deadline = now + self._timeout_s
        self.aboard = Flight()

    def answered(self, sequence: int) -> tuple[Any, bool]:
        """The token this answers and whether it is late; ``KeyError`` if it answers nothing.

        An answer to what never left is none: the peer made the number up.
        """
        entry = self.waiting.get(sequence)
        if entry is None:
            return self._late.pop(sequence), True
        if entry[1] is self.aboard:
            raise KeyError(sequence)
        del self.waiting[sequence]
        return entry[0], False

    def next_deadline(self) -> float:
        """When the oldest will have waited too long; infinite if none left."""
        for _, flight in self.waiting.values():
            return flight.deadline
        return math.inf

    def expire(self, now: float) -> list[Any]:
        """The tokens that waited too long; their places are free, a late answer is still known."""
        sequences = []
        for sequence, (_, flight) in self.waiting.items():
            if flight.deadline > now:
                break
            sequences.append(sequence)
        return [self._give_up(sequence) for sequence in sequences]

    def _give_up(self, sequence: int) -> Any:
        token, _ = self.waiting.pop(sequence)
        if len(self._late) >= LATE_KEPT:
            del self._late[next(iter(self._late))]
        self._late[sequence] = token
        return token

    def withdraw(self) -> list[Any]:
        """Take back what never left; its buffer must be thrown away."""
        sequences = [key for key, (_, flight) in self.waiting.items() if flight is self.aboard]
        return [self.waiting.pop(sequence)[0] for sequence in sequences]

    def clear(self) -> list[Any]:
        """The tokens of all that still wait; the window is empty then."""
        tokens = [token for token, _ in self.waiting.values()]
        self.waiting.clear()
        self._late.clear()
        return tokens
