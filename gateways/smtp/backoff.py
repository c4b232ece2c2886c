"""When a pool that could not connect may try again. No clock: time is handed in."""

from __future__ import annotations

import random

FIRST_S, MOST_S = 1.0, 60.0
"""Of a peer that is not there: doubling, with jitter."""

STOPPED_S, STOPPED_MOST_S = 60.0, 3_600.0
"""Of one that refuses our login or has the wrong certificate: often tried, accounts are locked."""

_JITTER = 0.2


class Backoff:
    """Counts failures in a row; ``ready`` says whether another try may be made."""

    def __init__(self, dice: random.Random) -> None:
        self.failures = 0
        self.stopped = False
        self._dice = dice
        self._until = 0.0

    def ready(self, now: float) -> bool:
        """Whether the pause is over."""
        return not self.failures or now >= self._until

    def fail(self, now: float, *, stop: bool) -> float:
        """One more failure; returns the seconds until the next try."""
        if stop != self.stopped:
            self.stopped, self.failures = stop, 0
        first, most = (STOPPED_S, STOPPED_MOST_S) if stop else (FIRST_S, MOST_S)
        pause = min(most, first * float(1 << min(self.failures, 12)))
        self.failures += 1
        pause *= 1 - _JITTER * self._dice.random()
        self._until = now + pause
        return pause

    def succeed(self) -> None:
        """It works again."""
        self.failures, self.stopped = 0, False
