"""Places for connections, mails per second, and pauses after failures: pure, time handed in."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.smtp.backoff import FIRST_S, MOST_S, STOPPED_MOST_S, STOPPED_S, Backoff
from gateways.smtp.limits import Bucket, Limits

DOMAINS = st.sampled_from(["a.example", "b.example", "c.example"])


@given(
    per_domain=st.integers(1, 4),
    in_all=st.integers(1, 6),
    steps=st.lists(st.tuples(st.booleans(), DOMAINS), max_size=60),
)
def test_never_more_than_allowed_and_never_less_than_possible(
    per_domain: int, in_all: int, steps: list[tuple[bool, str]]
) -> None:
    limits, taken = Limits(per_domain, in_all), Counter[str]()
    for take, domain in steps:
        if take:
            possible = taken[domain] < per_domain and taken.total() < in_all
            assert limits.full(domain) == (taken[domain] >= per_domain)
            assert limits.take(domain) == possible
            taken[domain] += possible
        elif taken[domain]:
            limits.give(domain)
            taken[domain] -= 1
        else:
            with pytest.raises(ValueError, match="no place"):
                limits.give(domain)
        assert limits.total == taken.total()


def test_a_bucket_without_a_rate_never_waits() -> None:
    bucket = Bucket(0.0, 5.0)
    assert [bucket.wait_s(5.0) for _ in range(1000)] == [0.0] * 1000


@given(
    per_second=st.floats(0.01, 500),
    asks=st.lists(st.floats(0, 10), min_size=1, max_size=80),
)
def test_no_second_sees_more_than_a_burst_and_the_rate(
    per_second: float, asks: list[float]
) -> None:
    bucket, now, sent = Bucket(per_second, 0.0), 0.0, []
    for pause in asks:
        now += pause
        wait_s = bucket.wait_s(now)
        if wait_s:
            now += wait_s
            assert bucket.wait_s(now) == 0.0
        sent.append(now)
    burst = max(1.0, per_second)
    for index, start in enumerate(sent):
        for number, end in enumerate(sent[index:], 1):
            assert number <= burst + (end - start) * per_second + 1e-6


def test_waiting_is_no_longer_than_needed() -> None:
    bucket = Bucket(2.0, 0.0)
    assert [bucket.wait_s(0.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert bucket.wait_s(0.5) == 0.0


@given(times=st.integers(1, 40), stop=st.booleans(), seed=st.integers())
def test_pauses_double_up_to_a_bound(*, times: int, stop: bool, seed: int) -> None:
    backoff, now, pause = Backoff(random.Random(seed)), 100.0, 0.0
    assert backoff.ready(now)
    first, most = (STOPPED_S, STOPPED_MOST_S) if stop else (FIRST_S, MOST_S)
    for number in range(times):
        pause = backoff.fail(now, stop=stop)
        whole = min(most, first * 2**number)
        assert 0.8 * whole <= pause <= whole
        assert not backoff.ready(now + 0.99 * pause)
        now += pause
        assert backoff.ready(now)
    assert backoff.stopped == stop
    backoff.succeed()
    assert not backoff.stopped
    assert backoff.fail(now, stop=False) <= FIRST_S


def test_a_wrong_password_after_an_outage_counts_from_its_own_start() -> None:
    backoff = Backoff(random.Random(1))
    for _ in range(5):
        backoff.fail(0.0, stop=False)
    assert backoff.fail(0.0, stop=True) <= STOPPED_S
    assert backoff.fail(0.0, stop=True) > STOPPED_S
