"""Throttling of logins, in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.throttle import Attempt, Limits, Throttle, attempt_of

LIMITS = Limits(per_account=3, per_address=8, window_s=60.0, known_s=1000.0, max_entries=50)

steps = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob"]),
        st.sampled_from(["a", "b", "c"]),
        st.booleans(),
        st.floats(0, 30),
    ),
    max_size=80,
)


def fail(throttle: Throttle, attempt: Attempt, now: float) -> bool:
    """One wrong password; whether it was let in at all."""
    if throttle.wait_s(attempt, now) > 0.0:
        return False
    throttle.begin(attempt, now)
    return True


def guesses(throttle: Throttle, attempt: Attempt, until: float, now: float = 0.0) -> int:
    """How many wrong passwords are let in by ``until``, trying as early as possible."""
    count = 0
    while now < until:
        count += fail(throttle, attempt, now)
        now += max(throttle.wait_s(attempt, now), 1e-6)
    return count


@given(steps)
def test_an_address_that_has_not_failed_is_let_in(
    history: list[tuple[str, str, bool, float]],
) -> None:
    throttle, now = Throttle(LIMITS), 0.0
    for account, address, right, pause_s in history:
        now += pause_s
        attempt = Attempt(account, address)
        if fail(throttle, attempt, now) and right:
            throttle.succeeded(attempt, now)
    assert throttle.wait_s(Attempt("ann", "elsewhere"), now) == 0.0


@given(steps)
def test_a_refusal_ends_when_it_says(history: list[tuple[str, str, bool, float]]) -> None:
    throttle, now = Throttle(LIMITS), 0.0
    for account, address, _, pause_s in history:
        now += pause_s
        attempt = Attempt(account, address)
        wait_s = throttle.wait_s(attempt, now)
        assert 0.0 <= wait_s <= LIMITS.window_s
        assert throttle.wait_s(attempt, now + wait_s + 1e-6) == pytest.approx(0.0, abs=1e-6)
        fail(throttle, attempt, now)


@given(steps)
def test_right_passwords_leave_nothing_behind(
    history: list[tuple[str, str, bool, float]],
) -> None:
    throttle, now = Throttle(LIMITS), 0.0
    for account, address, _, pause_s in history:
        now += pause_s
        attempt = Attempt(account, address)
        assert throttle.wait_s(attempt, now) == 0.0
        throttle.begin(attempt, now)
        throttle.succeeded(attempt, now)
    counts = throttle.statistics()
    assert (counts["pairs"], counts["accounts"], counts["addresses"]) == (0, 0, 0)


@given(st.integers(1, 20), st.floats(1.0, 600.0))
def test_guesses_of_one_address_are_few(per_account: int, until: float) -> None:
    limits = Limits(per_account=per_account, per_address=10_000, window_s=60.0)
    most = per_account + until * per_account / limits.window_s
    assert guesses(Throttle(limits), Attempt("ann", "a"), until) <= most + 1


@given(st.integers(1, 20), st.floats(1.0, 600.0))
def test_guesses_of_one_address_are_few_over_all_accounts(per_address: int, until: float) -> None:
    limits = Limits(per_account=10_000, per_address=per_address, window_s=60.0)
    throttle, count, now = Throttle(limits), 0, 0.0
    while now < until:
        attempt = Attempt(f"user {count}", "a")
        count += fail(throttle, attempt, now)
        now += max(throttle.wait_s(Attempt(f"user {count}", "a"), now), 1e-6)
    assert count <= per_address + until * per_address / limits.window_s + 1


def test_many_addresses_have_one_guess_each_once_the_account_is_under_attack() -> None:
    throttle = Throttle(LIMITS)
    assert guesses(throttle, Attempt("ann", "first"), 1e-3) == LIMITS.per_account
    assert [fail(throttle, Attempt("ann", f"a{n}"), 0.0) for n in range(20)] == [True] * 20
    assert not any(fail(throttle, Attempt("ann", f"a{n}"), 0.0) for n in range(20))
    assert fail(throttle, Attempt("bob", "a1"), 0.0), "bob is not under attack"


def test_a_known_address_is_not_refused_for_what_others_behind_it_do() -> None:
    throttle = Throttle(LIMITS)
    office = Attempt("ann", "office")
    throttle.begin(office, 0.0)
    throttle.succeeded(office, 0.0)
    for number in range(LIMITS.per_address):
        assert fail(throttle, Attempt(f"user {number}", "office"), 0.0)
    assert throttle.wait_s(Attempt("bob", "office"), 0.0) > 0.0
    assert throttle.wait_s(office, 0.0) == 0.0
    assert throttle.wait_s(office, LIMITS.known_s - 1) == 0.0
    assert guesses(throttle, office, 1e-3) == LIMITS.per_account, "its own failures count"


def test_many_at_once_are_counted_like_many_in_a_row() -> None:
    throttle = Throttle(LIMITS)
    attempt = Attempt("ann", "a")
    assert [fail(throttle, attempt, 0.0) for _ in range(6)] == [True] * 3 + [False] * 3
    throttle.take_back(attempt, 0.0)
    assert [fail(throttle, attempt, 0.0) for _ in range(2)] == [True, False]


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=300))
def test_memory_is_bounded(pairs: list[tuple[int, int]]) -> None:
    throttle = Throttle(LIMITS)
    for at, (account, address) in enumerate(pairs):
        attempt = Attempt(str(account), str(address))
        if fail(throttle, attempt, at * 1e-3) and account % 2:
            throttle.succeeded(attempt, at * 1e-3)
        assert max(throttle.statistics().values()) <= LIMITS.max_entries


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", ""),
        ("unix:", "unix:"),
    ],
)
def test_what_an_address_counts_as(address: str, counted: str) -> None:
    assert attempt_of("ann", address) == Attempt("ann", counted)
