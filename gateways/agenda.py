"""When the next row of a gateway's journal is due, and a round over those that are."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from engine.clock import Clock
from engine.errors import UnavailableError
from gateways.instants import milliseconds

REPORT_AGAIN_S = 5.0
"""How long until a result that the engine did not take is handed in again."""

_TICK_S = 30.0  # calendar time can be set: the clock is looked at that often anyway


class Agenda:
    """Rounds as soon as something is due; ``fault``: why the last one could not be.

    ``complain`` is told of every such fault. Times are milliseconds since 1970.
    """

    def __init__(self, clock: Clock, complain: Callable[[str], None]) -> None:
        self.fault = ""
        self._clock = clock
        self._complain = complain
        self._wake = trio.Event()
        self._next_at: float = math.inf  # when the next round is planned

    def now(self) -> int:
        """The time of day."""
        return milliseconds(self._clock())

    def again(self) -> int:
        """When a report that is not taken now is to be made again."""
        return self.now() + int(REPORT_AGAIN_S * 1000)

    def plan(self, due_at: int) -> None:
        """Something is due then: wake the clock where it would sleep longer."""
        if due_at < min(self._next_at, self.now() + _TICK_S * 1000):
            self._next_at = due_at
            self._wake.set()

    async def run(self, do_round: Callable[[], Awaitable[int | None]]) -> None:
        """Until cancelled. A round does what is due, and returns when the next row is (or None).

        ``UnavailableError`` out of one: the journal could not be asked; another soon.
        """
        while True:
            self._wake, self._next_at = trio.Event(), math.inf
            try:
                wait_s = self._until(await do_round())
                self.fault = ""
            except UnavailableError as error:
                wait_s = REPORT_AGAIN_S
                self.fault = str(error)
                self._complain(self.fault)
            with trio.move_on_after(wait_s):
                await self._wake.wait()

    def _until(self, next_at: int | None) -> float:
        """How many seconds there is nothing to do, at most a tick."""
        self._next_at = min(self._next_at, math.inf if next_at is None else next_at)
        return min(max((self._next_at - self.now()) / 1000, 0.0), _TICK_S)
