"""Prefix rewriting, longest match, weights."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model import Provider, Service
from engine.routing import Router, rewrite


def _provider(provider_id: int, **fields: object) -> Provider:
    given_fields = {"id": provider_id, "name": f"p{provider_id}"} | fields
    return Provider(**given_fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prefix", "number", "expected"),
    [
        ("", "123", (0, "123")),
        ("9", "123", (0, "9123")),
        ("0|0092", "0300", (1, "0092300")),
        ("0|0092", "1300", (0, "1300")),
        ("+|00,|00", "+92", (1, "0092")),
        ("+|00,|00", "92", (0, "0092")),
        ("00|+,0|+92", "0012", (2, "+12")),
        ("1234|", "12345", (4, "5")),
    ],
)
def test_rewrite(prefix: str, number: str, expected: tuple[int, str]) -> None:
    assert rewrite(prefix, number) == expected


@given(
    prefix=st.text(alphabet="0123456789|,+", max_size=20), number=st.text("0123456789", max_size=15)
)
def test_rewrite_takes_any_prefix(prefix: str, number: str) -> None:
    matched, dialled = rewrite(prefix, number)
    assert 0 <= matched <= len(number)
    assert dialled.endswith(number[matched:])


def test_longest_prefix_wins_whatever_the_weight() -> None:
    router = Router()
    router.replace(
        [
            _provider(1, prefix="", weight=1),
            _provider(2, prefix="92|92", weight=50),
            _provider(3, prefix="9230|9230", weight=90),
        ]
    )
    for number, wanted in (("923001", 3), ("92111", 2), ("441", 1)):
        route = router.choose(Service.VOICE, number, lambda _: True)
        assert route is not None
        assert (route.provider.id, route.number) == (wanted, number)


@given(weights=st.lists(st.integers(1, 40), min_size=2, max_size=5))
def test_share_is_inverse_to_weight(weights: list[int]) -> None:
    router = Router()
    router.replace(_provider(i, weight=w) for i, w in enumerate(weights, start=1))
    chosen: Counter[int] = Counter()
    total = 2000
    for _ in range(total):
        route = router.choose(Service.VOICE, "1", lambda _: True)
        assert route is not None
        chosen[route.provider.id] += 1
    norm = sum(1 / w for w in weights)
    for i, weight in enumerate(weights, start=1):
        assert abs(chosen[i] - total / weight / norm) <= len(weights) + 1


def test_a_provider_back_from_a_pause_gets_no_saved_up_turns() -> None:
    router = Router()
    router.replace([_provider(1), _provider(2)])
    for _ in range(100):
        router.choose(Service.VOICE, "1", lambda provider_id: provider_id == 1)
    after = [router.choose(Service.VOICE, "1", lambda _: True) for _ in range(10)]
    assert Counter(r.provider.id for r in after if r)[2] <= 6


def test_service_active_exclude_and_none() -> None:
    router = Router()
    router.replace([_provider(1, service=Service.SMS), _provider(2, active=False), _provider(3)])
    assert router.carries(Service.SMS)
    assert not router.carries(Service.EMAIL)
    route = router.choose(Service.VOICE, "1", lambda _: True)
    assert route is not None
    assert route.provider.id == 3
    assert router.choose(Service.VOICE, "1", lambda _: True, {3}) is None
    assert router.choose(Service.VOICE, "1", lambda _: False) is None
    assert [r.provider.id for r in router.candidates(Service.VOICE, "1")] == [3]
