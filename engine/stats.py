"""Counters of a running node: outcomes, rates, lag. Cheap enough for the hot path."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from typing import Any

from engine.results import Disposition, Result

WINDOW_S = 10


class Rate:
    """Events per second over the last ``WINDOW_S`` full seconds."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, int]] = deque(maxlen=WINDOW_S + 1)

    def count(self, now: float) -> None:
        """One event at ``now`` (monotonic seconds)."""
        second = int(now)
        if self._buckets and self._buckets[-1][0] == second:
            self._buckets[-1] = (second, self._buckets[-1][1] + 1)
        else:
            self._buckets.append((second, 1))

    def per_s(self, now: float) -> float:
        """The mean rate; the running second does not count, it is not over."""
        current = int(now)
        recent = [n for second, n in self._buckets if current - WINDOW_S <= second < current]
        return sum(recent) / WINDOW_S


class Histogram:
    """Durations in buckets that grow by a twentieth: quantiles to 5 % in constant memory."""

    _GROWTH = 1.05
    _LEAST_S = 1e-5
    _SIZE = 340

    def __init__(self) -> None:
        self._counts = [0] * self._SIZE
        self.total = 0
        self.max_s = 0.0
        self._edges = [self._LEAST_S * self._GROWTH**i for i in range(self._SIZE)]

    def add(self, duration_s: float) -> None:
        """Count one duration."""
        self._counts[min(bisect_left(self._edges, duration_s), self._SIZE - 1)] += 1
        self.total += 1
        self.max_s = max(self.max_s, duration_s)

    def quantile_s(self, part: float) -> float:
        """The upper edge of the bucket the quantile falls into; 0 where nothing was counted."""
        wanted, seen = part * self.total, 0
        for edge, counted in zip(self._edges, self._counts, strict=True):
            seen += counted
            if counted and seen >= wanted:
                return min(edge, self.max_s)
        return 0.0

    def milliseconds(self) -> dict[str, float]:
        """p50, p99 and maximum, for people."""
        return {
            "p50": round(self.quantile_s(0.5) * 1000, 3),
            "p99": round(self.quantile_s(0.99) * 1000, 3),
            "max": round(self.max_s * 1000, 3),
        }


class NodeStatistics:
    """What a node did since it started."""

    def __init__(self) -> None:
        self.dispositions: Counter[Disposition] = Counter()
        self.started = 0
        self.screened = 0
        self.failovers = 0
        self.handed_over = 0
        self.reported = 0
        self.up = 0
        self.talk_s = 0.0
        self.start_rate = Rate()
        self.pacing_lag = Histogram()

    def start(self, lag_s: float, now: float) -> None:
        """A spool starts, ``lag_s`` after its pace said so."""
        self.started += 1
        self.up += 1
        self.start_rate.count(now)
        self.pacing_lag.add(max(lag_s, 0.0))

    def end(self, result: Result) -> None:
        """A spool has its result."""
        self.up -= 1
        self.dispositions[result.disposition] += 1
        self.talk_s += result.talk_s

    def hand_over(self) -> None:
        """A spool waits for its report and is up no more."""
        self.up -= 1
        self.handed_over += 1

    def report(self, result: Result) -> None:
        """A spool that was handed over has its result; it may have been so before we started."""
        self.reported += 1
        self.dispositions[result.disposition] += 1

    def snapshot(self, now: float) -> dict[str, Any]:
        """Numbers for dashboards. ASR = answered / spools (E.411), ACD = talk time / answered."""
        answered = self.dispositions[Disposition.ANSWERED]
        ended = sum(self.dispositions.values())
        return {
            "spools_started": self.started,
            "spools_up": self.up,
            "screened": self.screened,
            "failovers": self.failovers,
            "spools_handed_over": self.handed_over,
            "spools_reported": self.reported,
            "starts_per_s": round(self.start_rate.per_s(now), 2),
            "dispositions": {d.value: n for d, n in self.dispositions.items()},
            "answer_seizure_ratio": round(answered / ended, 4) if ended else None,
            "average_call_s": round(self.talk_s / answered, 3) if answered else None,
            "pacing_lag_ms": self.pacing_lag.milliseconds(),
        }
