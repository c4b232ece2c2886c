"""GCRA, limits and the fair queue, in virtual time (time is handed in)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.pacing import CATCH_UP_S, Flow, Gcra, Limit, Pacer, Window

RATES = st.floats(min_value=0.02, max_value=1000)


class Clockwork:
    """Drives a pacer as the dispatcher does, with a given scheduling lag, and keeps the log."""

    def __init__(self, limit: Limit | None = None, *, lag_s: float = 0.0) -> None:
        self.pacer: Pacer[int, int] = Pacer()
        self.limit = limit
        self.lag_s = lag_s
        self.now = 0.0
        self.starts: list[tuple[float, int]] = []

    def flow(self, key: int, per_s: float, items: int = 100_000) -> Flow[int]:
        flow = self.pacer.add(key, per_s, self.now)
        self.pacer.feed(flow, range(items), self.now)
        return flow

    def _open(self) -> bool:
        return self.limit is None or self.limit.free(self.now)

    def _choose(self, item: int) -> int | None:
        if self.limit is not None:
            self.limit.take(self.now)
        return item

    def run(self, until: float) -> None:
        while True:
            for grant in self.pacer.grants(self.now, self._open, self._choose):
                self.starts.append((self.now, grant.flow.key))
                if self.limit is not None:
                    self.limit.give_back()
            at = self.pacer.next_at(self.limit.ready_at() if self.limit else float("inf"))
            if at > until:
                return
            self.now = max(self.now, at) + self.lag_s

    def count(self, key: int) -> int:
        return sum(1 for _, k in self.starts if k == key)


@given(rate=RATES, seconds=st.integers(1, 60))
def test_pace_has_no_drift(rate: float, seconds: int) -> None:
    clockwork = Clockwork()
    clockwork.flow(1, rate)
    clockwork.run(seconds)
    assert abs(clockwork.count(1) - rate * seconds) <= 1 + rate * seconds * 1e-9


@given(rate=st.floats(1, 500), lag_ms=st.floats(0, 20))
def test_lag_is_caught_up(rate: float, lag_ms: float) -> None:
    clockwork = Clockwork(lag_s=lag_ms / 1000)
    clockwork.flow(1, rate)
    clockwork.run(20)
    assert abs(clockwork.count(1) - rate * 20) <= 2 + rate * CATCH_UP_S


@given(
    rate=st.floats(0.5, 300),
    lag_ms=st.floats(0, 30),
    flows=st.lists(st.floats(1, 1000), min_size=1, max_size=5),
)
def test_a_limit_is_never_exceeded(rate: float, lag_ms: float, flows: list[float]) -> None:
    clockwork = Clockwork(Limit(rate, 0, now=0.0), lag_s=lag_ms / 1000)
    for key, per_s in enumerate(flows):
        clockwork.flow(key, per_s)
    clockwork.run(10)
    times = [at for at, _ in clockwork.starts]
    whole = max(1, int(rate))
    for earlier, later in zip(times, times[whole:], strict=False):
        assert later - earlier >= whole / rate - 1e-6


@given(rates=st.lists(st.floats(5, 200), min_size=2, max_size=6), part=st.floats(0.2, 0.8))
@example(rates=[5.0, 5.0, 5.0, 6.0], part=0.5)  # the fourth once got an eighth less
def test_a_shared_limit_gives_all_the_same_part_of_what_they_asked(
    rates: list[float], part: float
) -> None:
    limit = sum(rates) * part
    clockwork = Clockwork(Limit(limit, 0, now=0.0))
    for key, per_s in enumerate(rates):
        clockwork.flow(key, per_s)
    clockwork.run(60)
    for key, per_s in enumerate(rates):
        served = clockwork.count(key) / (per_s * 60)
        assert served == pytest.approx(part, abs=0.02 + 3 / (per_s * 60))


@given(before=st.floats(0.1, 100), after=st.floats(0.1, 100))
def test_pace_may_change_while_running(before: float, after: float) -> None:
    clockwork = Clockwork()
    flow = clockwork.flow(1, before)
    clockwork.run(30)
    clockwork.now = 30.0
    started = clockwork.count(1)
    clockwork.pacer.set_rate(flow, after, 30.0)
    clockwork.run(60)
    assert abs(clockwork.count(1) - started - after * 30) <= 2


def test_channels_bound_what_is_up() -> None:
    limit = Limit(0, 2, now=0.0)
    limit.take(0.0)
    assert limit.free(0.0)
    limit.take(0.0)
    assert not limit.free(100.0)
    limit.give_back()
    assert limit.free(100.0)
    assert limit.peak == 2


def test_a_faster_limit_holds_at_once() -> None:
    limit = Limit(0.01, 0, now=0.0)
    limit.take(0.0)
    assert limit.ready_at() == pytest.approx(100)
    limit.reconfigure(10, 0, 1.0)
    assert limit.ready_at() <= 1.2


def test_an_idle_flow_saves_up_no_burst() -> None:
    gcra = Gcra(10, now=0.0)
    gcra.take(100.0)
    assert gcra.ready_at >= 100.0 - CATCH_UP_S


def test_a_flow_without_items_waits_and_comes_back() -> None:
    clockwork = Clockwork()
    flow = clockwork.flow(1, 10, items=3)
    clockwork.run(5)
    assert clockwork.count(1) == 3
    assert clockwork.pacer.next_at(0.0) == float("inf")
    clockwork.pacer.feed(flow, [7], 5.0)
    clockwork.now = 5.0
    clockwork.run(6)
    assert clockwork.count(1) == 4


def test_first_items_go_first_and_what_is_put_back_is_next() -> None:
    pacer: Pacer[int, int] = Pacer()
    flow = pacer.add(1, 0.0, 0.0)
    pacer.feed(flow, [3, 4], 0.0)
    pacer.feed(flow, [1, 2], 0.0, first=True)
    granted = pacer.grants(0.0, lambda: True, lambda item: item, limit=1)
    assert [grant.item for grant in granted] == [1]
    pacer.put_back(flow, 1, 0.0)
    granted = pacer.grants(0.0, lambda: True, lambda item: item)
    assert [grant.item for grant in granted] == [1, 2, 3, 4]


def test_a_removed_flow_is_granted_nothing() -> None:
    pacer: Pacer[int, int] = Pacer()
    flow = pacer.add(1, 0.0, 0.0)
    pacer.feed(flow, [1, 2], 0.0)
    assert pacer.remove(flow) == [1, 2]
    assert pacer.grants(0.0, lambda: True, lambda item: item) == []
    assert pacer.statistics()["flows"] == 0


def test_a_flow_that_finds_no_trunk_does_not_hold_the_others() -> None:
    pacer: Pacer[int, int] = Pacer()
    blocked, free = pacer.add(1, 0.0, 0.0), pacer.add(2, 0.0, 0.0)
    pacer.feed(blocked, [-1], 0.0)
    pacer.feed(free, [5], 0.0)
    granted = pacer.grants(0.0, lambda: True, lambda item: item if item > 0 else None)
    assert [grant.item for grant in granted] == [5]
    assert pacer.held
    assert pacer.next_at(3.0) == 3.0


def test_low_water_calls_for_more() -> None:
    calls: list[int] = []
    pacer: Pacer[int, int] = Pacer()
    flow = pacer.add(1, 0.0, 0.0)
    flow.low_water = 2
    flow.on_low = lambda: calls.append(len(flow.items))
    pacer.feed(flow, [1, 2, 3, 4], 0.0)
    pacer.grants(0.0, lambda: True, lambda item: item, limit=2)
    assert calls == []
    pacer.grants(0.0, lambda: True, lambda item: item, limit=1)
    assert calls == [1]


@given(rate=st.floats(0.2, 50), delays=st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_departures_keep_the_limit_whatever_the_commits_took(
    rate: float, delays: list[float]
) -> None:
    window = Window(rate)
    now, left = 0.0, []
    for delay in delays:
        now += delay / rate
        left.append(window.reserve(now))
    whole = max(1, int(rate))
    assert left == sorted(left)
    for earlier, later in zip(left, left[whole:], strict=False):
        assert later - earlier >= whole / rate - 1e-9
