"""What is known of a domain beyond its pool, which goes with its last connection.

No clock: time is handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from gateways.smtp.limits import Bucket
from gateways.smtp.records import Route

MAX_TRIES = 3
"""Connections a mail is given to before its failure is told (messaging.md 23)."""

AVOID_S = 60.0
"""How long a host that failed comes after the others."""


class Tally(msgspec.Struct):
    """Mails that were taken, connections that were opened, and those that were not."""

    delivered: int = 0
    opened: int = 0
    failed: int = 0


class Detours:
    """Routes that failed come after the others for a while; the longest ago is the first of them.

    ``passed_s``: how long those are behind that were all a mail could be tried over, while there
    are others: longer than the mail waits, or its next try would go the same dead ways.
    """

    def __init__(self, passed_s: float) -> None:
        self._passed_s = passed_s
        self._known = 0
        self._until: dict[Route, float] = {}

    def order(self, routes: Iterable[Route], now: float) -> list[Route]:
        """Best first: as they came, but for those that failed."""
        self._until = {route: until for route, until in self._until.items() if until > now}
        ordered = sorted(routes, key=lambda route: self._until.get(route, 0.0))
        self._known = len(ordered)
        return ordered

    def failed(self, route: Route, now: float) -> None:
        """It is behind the others for ``AVOID_S``."""
        self._until[route] = max(self._until.get(route, 0.0), now + AVOID_S)

    def passed(self, tried: Sequence[Route], now: float) -> None:
        """A mail failed over these and those that failed lately: next time others are first."""
        if self._known > MAX_TRIES:
            lately = [each for each, until in self._until.items() if now < until <= now + AVOID_S]
            self._until |= dict.fromkeys((*lately, *tried), now + self._passed_s)

    def good(self, route: Route) -> None:
        """It is in its place again."""
        self._until.pop(route, None)

    def none(self, now: float) -> bool:
        """Whether no route is behind."""
        return all(until <= now for until in self._until.values())


class Standing:
    """``per_second`` is the domain's rate, 0 = any; ``passed_s`` is that of ``Detours``.

    ``doubtful``: the last mail that left whole was not answered. Until one is, each that leaves may
    be one more of which nobody knows what became.
    """

    def __init__(self, per_second: float, passed_s: float, now: float) -> None:
        self.bucket = Bucket(per_second, now)
        self.detours = Detours(passed_s)
        self.doubtful = False

    def blank(self, now: float) -> bool:
        """Whether a new one would be the same."""
        return not self.doubtful and self.bucket.full(now) and self.detours.none(now)
