"""How many connections there may be, and how often a mail may go. No clock: time is handed in."""

from __future__ import annotations

from collections import Counter


class Limits:
    """Places for connections: so many per domain, so many in all."""

    def __init__(self, per_domain: int, in_all: int) -> None:
        self._per_domain, self._in_all = per_domain, in_all
        self._taken: Counter[str] = Counter()
        self.total = 0

    def take(self, domain: str) -> bool:
        """Take a place; False where there is none."""
        if self.total >= self._in_all or self._taken[domain] >= self._per_domain:
            return False
        self._taken[domain] += 1
        self.total += 1
        return True

    def give(self, domain: str) -> None:
        """Give a place back; ``ValueError`` where none was taken."""
        if not self._taken[domain]:
            raise ValueError(f"no place of {domain!r} is taken")
        self._taken[domain] -= 1
        self.total -= 1
        if not self._taken[domain]:
            del self._taken[domain]

    def full(self, domain: str) -> bool:
        """Whether the domain, not the whole, is what stands in the way."""
        return self._taken[domain] >= self._per_domain


class Bucket:
    """Evens out mails to so many per second, a second's worth at once after a pause; 0 = any."""

    def __init__(self, per_second: float, now: float) -> None:
        self._per_second = per_second
        self._most = max(1.0, per_second)
        self._tokens, self._at = self._most, now

    def wait_s(self, now: float) -> float:
        """Take one and return 0, or take none and say in how many seconds there will be one."""
        if not self._per_second:
            return 0.0
        self._tokens, self._at = self._filled(now), now
        if self._tokens >= 1 - 1e-9:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._per_second

    def full(self, now: float) -> bool:
        """Whether it is as good as new."""
        return self._filled(now) >= self._most

    def _filled(self, now: float) -> float:
        return min(self._most, self._tokens + max(0.0, now - self._at) * self._per_second)
