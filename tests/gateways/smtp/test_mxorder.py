from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.smtp.mxorder import MAX_HOSTS, NoRoute, order, reachable

OWN = frozenset({"mx.here.example"})


def dice(seed: int = 1) -> random.Random:
    return random.Random(seed)


def test_the_lowest_preference_comes_first() -> None:
    answers = [(20, "b.example"), (10, "a.example"), (30, "c.example")]
    assert order(answers, dice()) == ["a.example", "b.example", "c.example"]


def test_equal_ones_take_turns() -> None:
    answers = [(10, "a.example"), (10, "b.example"), (20, "c.example")]
    firsts = {order(answers, dice(seed))[0] for seed in range(50)}
    assert firsts == {"a.example", "b.example"}
    assert all(order(answers, dice(seed))[2] == "c.example" for seed in range(50))


def test_ourselves_and_what_is_not_better_is_cut() -> None:
    answers = [(10, "a.example"), (20, "mx.here.example"), (20, "b.example"), (30, "c.example")]
    assert order(answers, dice(), OWN) == ["a.example"]


def test_a_domain_that_is_ours_has_no_route_and_may_be_mended() -> None:
    with pytest.raises(NoRoute, match="ourselves") as nothing:
        order([(10, "mx.here.example"), (20, "b.example")], dice(), OWN)
    assert not nothing.value.permanent


@pytest.mark.parametrize("preference", [0, 10])
def test_a_null_mx_is_for_good(preference: int) -> None:
    with pytest.raises(NoRoute, match="null MX") as nothing:
        order([(preference, ".")], dice())
    assert nothing.value.permanent


def test_what_is_no_host_name_is_passed_over() -> None:
    answers = [(0, "."), (5, "192.0.2.1"), (6, "2001:db8::1"), (10, "a.example")]
    assert order(answers, dice()) == ["a.example"]


def test_nothing_but_addresses_may_be_mended() -> None:
    with pytest.raises(NoRoute) as nothing:
        order([(5, "192.0.2.1")], dice())
    assert not nothing.value.permanent


HOSTS = st.sampled_from([f"{letter}.example" for letter in "abcdefghijklmnopqrstuvwxyz"])
ANSWERS = st.lists(st.tuples(st.integers(0, 5), HOSTS), min_size=1, max_size=60)


@given(answers=ANSWERS, seed=st.integers(), own=st.sets(HOSTS, max_size=2))
def test_every_order_is_a_right_one(
    answers: list[tuple[int, str]], seed: int, own: set[str]
) -> None:
    best = {host: min(each for each, name in answers if name == host) for _, host in answers}
    limit = min((best[host] for host in own if host in best), default=6)
    expected = {host for host, preference in best.items() if preference < limit}
    try:
        found = order(answers, dice(seed), frozenset(own))
    except NoRoute:
        assert not expected
        return
    assert len(found) == len(set(found)) == min(len(expected), MAX_HOSTS)
    preferences = [best[host] for host in found]
    assert preferences == sorted(preferences)
    assert preferences == sorted(best[host] for host in expected)[: len(found)]


def test_addresses_that_lead_nowhere_are_passed_over() -> None:
    nowhere = ["0.0.0.0", "::", "224.0.0.1", "ff02::1"]  # noqa: S104 - as DNS may say
    addresses = ["192.0.2.1", *nowhere, "192.0.2.1", "2001:db8::1"]
    assert reachable(addresses) == ["192.0.2.1", "2001:db8::1"]
