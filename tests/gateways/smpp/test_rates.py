"""The pace of a bind: never above what was agreed, halved by refusals, always back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.smpp.rates import (
    PAUSE_MAX_S,
    PAUSE_MIN_S,
    RECOVERY_S,
    RETRY_AFTER_S,
    SLOWEST_PER_S,
    UNLIMITED,
    Rate,
)

rates = st.floats(min_value=0.01, max_value=5000.0)
gaps = st.lists(st.floats(min_value=0.0, max_value=3.0), min_size=1, max_size=60)


def _run(rate: Rate, seconds: float, *, start: float = 0.0) -> list[tuple[float, int]]:
    """Take all that is allowed, as soon as it is."""
    taken, now = [], start
    while now < start + seconds:
        count = rate.allowed(now)
        if count:
            rate.take(count, now)
            taken.append((now, count))
        now = max(rate.ready_at(now), now + 0.001)
    return taken


def _most_in(taken: list[tuple[float, int]], length_s: float) -> int:
    """The most that left in any such time."""
    return max(
        sum(count for at, count in taken if start <= at < start + length_s) for start, _ in taken
    )


@given(per_second=rates, waits=gaps)
def test_never_above_the_agreed_rate(per_second: float, waits: list[float]) -> None:
    rate, now, taken = Rate(per_second, now=0.0), 0.0, []
    for wait in waits:
        now += wait
        count = rate.allowed(now)
        rate.take(count, now)
        taken.append((now, count))
    size = max(1, int(per_second))
    assert _most_in(taken, size / per_second * (1 - 1e-9)) <= size


@given(per_second=st.floats(min_value=0.1, max_value=500.0))
def test_the_agreed_rate_is_reached(per_second: float) -> None:
    seconds = max(5.0, 10 / per_second)
    total = sum(count for _, count in _run(Rate(per_second, now=0.0), seconds))
    # A rate that is no whole number is kept in whole numbers; slots of 10 ms cost about 1 %.
    assert total >= int(per_second * seconds * 0.95) - 1


@given(per_second=rates, now=st.floats(min_value=0.0, max_value=1e6))
def test_ready_at_is_when_one_may_leave(per_second: float, now: float) -> None:
    rate = Rate(per_second, now=now)
    for _ in range(20):
        rate.take(rate.allowed(now), now)
        ready = rate.ready_at(now)
        assert ready > now or rate.allowed(now)
        now = ready + 1e-6  # the clock's own grain
        assert rate.allowed(now) >= 1


def test_without_a_rate_nothing_limits() -> None:
    rate = Rate(0.0, now=0.0)
    rate.take(100_000, 0.0)
    assert rate.allowed(0.0) == UNLIMITED
    assert rate.ready_at(0.0) == 0.0
    assert rate.statistics(0.0)["per_second"] == 0.0


def test_burst_is_a_tenth_of_a_second() -> None:
    rate = Rate(1000.0, now=0.0)
    assert rate.allowed(50.0) == 100


def test_throttling_halves_what_was_measured() -> None:
    rate = Rate(0.0, now=0.0)
    for tenth in range(10):
        rate.take(40, tenth / 10)
    rate.throttled(0.95)
    assert rate.per_second(0.95) == pytest.approx(200.0)


def test_throttling_halves_the_agreed_rate_in_use() -> None:
    rate = Rate(100.0, now=0.0)
    _run(rate, 5.0)
    rate.throttled(5.0)
    assert rate.per_second(5.0) == pytest.approx(50.0, rel=0.1)
    assert rate.allowed(5.0) == 0  # nothing of the burst is left


def test_a_window_full_of_refusals_is_one() -> None:
    rate = Rate(100.0, now=0.0)
    _run(rate, 5.0)
    for _ in range(50):
        rate.throttled(5.0)
    assert rate.throttlings == 1
    rate.throttled(6.1)
    assert rate.throttlings == 2


@given(
    per_second=st.one_of(st.just(0.0), st.floats(min_value=0.5, max_value=1000.0)),
    refusals=st.lists(st.floats(min_value=0.0, max_value=5.0), min_size=1, max_size=30),
    load=st.integers(min_value=0, max_value=1000),
)
def test_always_recovers(per_second: float, refusals: list[float], load: int) -> None:
    rate, now = Rate(per_second, now=0.0), 0.0
    for wait in refusals:
        now += wait
        rate.take(min(load, rate.allowed(now)), now)
        rate.throttled(now)
        eased = rate.per_second(now)
        assert eased >= min(SLOWEST_PER_S, per_second or SLOWEST_PER_S)
        assert math.isfinite(eased)
    back = now + 2 * RECOVERY_S + 1e-3
    assert rate.per_second(back) == (per_second or math.inf)
    assert rate.allowed(back + 1.0) >= 1


@given(per_second=st.floats(min_value=20.0, max_value=1000.0))
def test_eased_rate_holds(per_second: float) -> None:
    rate = Rate(per_second, now=0.0)
    _run(rate, 3.0)
    rate.throttled(3.0)
    at_start, at_end = rate.per_second(3.0), rate.per_second(4.0)
    taken = _run(rate, 1.0, start=3.0)
    assert sum(count for _, count in taken) <= at_end * 1.1 + 1
    assert at_start < at_end < per_second


def test_full_queue_stops_the_bind_longer_each_time() -> None:
    rate, now, pauses = Rate(0.0, now=0.0), 0.0, []
    for _ in range(6):
        rate.queue_full(now)
        assert rate.allowed(now) == 0
        pauses.append(rate.ready_at(now) - now)
        rate.queue_full(now + 1.0)  # of the same window: changes nothing
        now = rate.ready_at(now)
        assert rate.allowed(now) == UNLIMITED
    assert pauses == [PAUSE_MIN_S, 10.0, 20.0, 40.0, PAUSE_MAX_S, PAUSE_MAX_S]
    rate.queue_full(now + PAUSE_MAX_S)  # it went well as long as that
    assert rate.ready_at(now + PAUSE_MAX_S) == now + PAUSE_MAX_S + PAUSE_MIN_S


@given(jitter=st.floats(min_value=0.0, max_value=1.0))
def test_retry_is_a_second_later_and_not_in_a_pause(jitter: float) -> None:
    rate = Rate(0.0, now=0.0)
    assert RETRY_AFTER_S <= rate.retry_at(0.0, jitter) <= 2 * RETRY_AFTER_S
    rate.queue_full(0.0)
    assert rate.retry_at(0.0, jitter) >= PAUSE_MIN_S


def test_memory_is_bounded() -> None:
    rate = Rate(1_000_000.0, now=0.0)
    for step in range(50_000):
        rate.take(1, step / 10_000)
    assert len(rate._recent._slots) <= 102
