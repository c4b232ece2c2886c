"""How fast one bind may submit: the agreed rate, and what the SMSC's refusals make of it. Pure.

Three things hold at once. The *agreed* rate of the provider is strict: never more in any second.
The *eased* rate comes of ESME_RTHROTTLED: halved, then raised by equal steps until it is back.
A *pause* comes of ESME_RMSGQFUL. Time is handed in, in seconds of any monotonic clock.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

UNLIMITED = 1_000_000
"""What ``allowed`` says where nothing limits."""

BURST_S = 0.1
"""How much of its rate a bind may use at once."""

SLOT_S = 0.01
"""Starts closer than this are counted together, at the time of the latest."""

MEASURED_S = 1.0
"""The rate that a refusal halves is what left in this time."""

RECOVERY_S = 20.0
"""How long a rate takes to grow by the whole agreed (or measured) one."""

HALVE_EVERY_S = 1.0
"""A window full of refusals is one refusal."""

SLOWEST_PER_S = 1.0
"""Halving ends here."""

RETRY_AFTER_S = 1.0
"""A refused message is tried again on the same bind after this and up to as much jitter."""

PAUSE_MIN_S = 5.0
PAUSE_MAX_S = 60.0
"""How long a full queue at the SMSC stops a bind; doubled each time it is full again."""

_EPSILON = 1e-6


class _Slot:
    """Starts counted together."""

    __slots__ = ("count", "first_at", "last_at")

    def __init__(self, count: int, at: float) -> None:
        self.count = count
        self.first_at = self.last_at = at


class _Recent:
    """The starts of the last ``kept_s`` seconds."""

    def __init__(self, kept_s: float) -> None:
        self._kept_s = kept_s
        self._slots: deque[_Slot] = deque()

    def add(self, count: int, now: float) -> None:
        slots = self._slots
        while slots and slots[0].last_at + self._kept_s <= now:
            slots.popleft()
        if slots and now < slots[-1].first_at + SLOT_S:
            slots[-1].count += count
            slots[-1].last_at = now
        else:
            slots.append(_Slot(count, now))

    def used(self, now: float, length_s: float) -> int:
        """How many started in the ``length_s`` before now."""
        return sum(slot.count for slot in self._slots if slot.last_at + length_s > now)

    def free_at(self, now: float, length_s: float) -> float:
        """When the oldest of them are that old."""
        ends = (slot.last_at + length_s for slot in self._slots)
        return next((end for end in ends if end > now), now)


class Rate:
    """The pace of one bind; ``per_second`` is the agreed rate, 0 = none."""

    def __init__(self, per_second: float, *, now: float) -> None:
        self._agreed = per_second
        self._size = max(1, int(per_second))  # so many in any _length_s; 0.5 a second: 1 in any two
        self._length_s = self._size / per_second if per_second else 0.0
        self._recent = _Recent(max(MEASURED_S, self._length_s))
        self._tokens = 1.0
        self._tokens_at = now
        self._eased = math.inf  # the rate at …
        self._eased_at = now  # … this time; it grows from there
        self._full = per_second  # what it grows towards; measured where nothing was agreed
        self._paused_until = -math.inf
        self._pause_s = 0.0
        self.throttlings = 0
        self.pauses = 0

    def allowed(self, now: float) -> int:
        """How many may leave now."""
        if now < self._paused_until:
            return 0
        rate = self.per_second(now)
        if math.isinf(rate):
            return UNLIMITED
        tokens = int(self._filled(now, rate) + _EPSILON)
        if not self._agreed:
            return tokens
        return max(0, min(tokens, self._size - self._recent.used(now, self._length_s)))

    def take(self, count: int, now: float) -> None:
        """So many leave now; ask ``allowed`` first."""
        rate = self.per_second(now)
        if not math.isinf(rate):
            self._tokens = self._filled(now, rate) - count
            self._tokens_at = now
        self._recent.add(count, now)

    def ready_at(self, now: float) -> float:
        """The earliest time at which one may leave."""
        if self.allowed(now):
            return now
        ready = max(now, self._paused_until)
        rate = self.per_second(now)
        if not math.isinf(rate):
            ready = max(ready, self._tokens_at + (1.0 - self._tokens) / rate)
        if self._agreed and self._recent.used(now, self._length_s) >= self._size:
            ready = max(ready, self._recent.free_at(now, self._length_s))
        return ready

    def per_second(self, now: float) -> float:
        """The rate that holds now; infinite where there is none."""
        if math.isinf(self._eased):
            return self._agreed or math.inf
        eased = self._eased + self._full / RECOVERY_S * (now - self._eased_at)
        lifted_at = self._agreed or 2 * self._full
        if eased >= lifted_at:
            self._eased = math.inf
            return self._agreed or math.inf
        return eased

    def _filled(self, now: float, rate: float) -> float:
        burst = max(1.0, rate * BURST_S)
        return min(burst, self._tokens + rate * (now - self._tokens_at))

    def throttled(self, now: float) -> None:
        """ESME_RTHROTTLED (§5.1.3) came: half of what left lately, and up from there."""
        if self.throttlings and now < self._eased_at + HALVE_EVERY_S:
            return
        measured = max(self._recent.used(now, MEASURED_S) / MEASURED_S, SLOWEST_PER_S)
        was = min(self.per_second(now), measured)
        if not self._agreed:
            self._full = max(self._full, measured)
        self._eased = max(was / 2, min(SLOWEST_PER_S, self._agreed or SLOWEST_PER_S))
        self._eased_at = now
        self._tokens, self._tokens_at = min(self._tokens, 0.0), now
        self.throttlings += 1

    def queue_full(self, now: float) -> None:
        """ESME_RMSGQFUL came: nothing leaves for a while."""
        if now < self._paused_until:
            return
        again = now < self._paused_until + self._pause_s
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S) if again else PAUSE_MIN_S
        self._paused_until = now + self._pause_s
        self.pauses += 1

    def retry_at(self, now: float, jitter: float) -> float:
        """When a throttled message may be tried again; ``jitter`` is random, 0 to 1."""
        return max(now + RETRY_AFTER_S * (1.0 + jitter), self._paused_until)

    def statistics(self, now: float) -> dict[str, Any]:
        """The rate that holds (0 = none), what left in the last second, and what slowed it."""
        rate = self.per_second(now)
        return {
            "per_second": 0.0 if math.isinf(rate) else round(rate, 3),
            "last_second": self._recent.used(now, MEASURED_S),
            "throttlings": self.throttlings,
            "pauses": self.pauses,
            "paused_s": round(max(0.0, self._paused_until - now), 3),
        }
