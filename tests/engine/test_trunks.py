"""Limits and health of providers at work."""

from __future__ import annotations

import pytest

from engine.config import DialConfig
from engine.model import Provider, Service
from engine.results import Blame, Disposition, Reached, Result
from engine.trunks import Trunk, Trunks

DIAL = DialConfig(trunk_failures_to_open=3, trunk_cooldown_s=10)
TRUNK_DOWN = Result(
    disposition=Disposition.FAILED,
    cause="trunk_unavailable",
    blame=Blame.PROVIDER,
    reached=Reached.NOTHING,
    code="503",
)
BUSY = Result(
    disposition=Disposition.BUSY,
    cause="busy",
    blame=Blame.CALLEE,
    reached=Reached.NETWORK,
    code="486",
)


def _failed(trunk: Trunk, times: int, now: float) -> None:
    for _ in range(times):
        trunk.take(now)
        trunk.give_back()
        trunk.report(TRUNK_DOWN, now)


def test_repeated_failures_take_a_trunk_out_and_one_probe_brings_it_back() -> None:
    trunk = Trunk(Provider(id=1, name="t"), DIAL, now=0.0)
    _failed(trunk, 2, 0.0)
    assert trunk.free(0.0)
    _failed(trunk, 1, 0.0)
    assert trunk.statistics()["healthy"] is False
    assert not trunk.free(9.9)
    assert trunk.ready_at() == pytest.approx(10)
    assert trunk.free(10.0)
    trunk.take(10.0)
    assert not trunk.free(10.0)  # one probe only
    trunk.give_back()
    assert trunk.report(BUSY, 11.0)
    assert trunk.healthy
    assert trunk.free(11.0)


def test_a_failed_probe_waits_longer_but_not_for_ever() -> None:
    trunk = Trunk(Provider(id=1, name="t"), DIAL, now=0.0)
    _failed(trunk, 3, 0.0)
    waits = []
    for _ in range(8):
        now = trunk.ready_at()
        _failed(trunk, 1, now)
        waits.append(trunk.ready_at() - now)
    assert waits == sorted(waits)
    assert waits[-1] == 160


def test_thousands_that_fail_in_one_outage_count_as_one() -> None:
    trunk = Trunk(Provider(id=1, name="t"), DIAL, now=0.0)
    for _ in range(2000):
        trunk.take(0.0)
    for number in range(2000):
        trunk.give_back()
        trunk.report(TRUNK_DOWN, number / 1000)
    assert trunk.ready_at() == pytest.approx(10, abs=0.1)
    _failed(trunk, 1, 11.0)  # the probe: what it finds does count
    assert trunk.ready_at() == pytest.approx(11 + 20)


def test_what_the_callee_says_is_no_failure_of_the_trunk() -> None:
    trunk = Trunk(Provider(id=1, name="t"), DIAL, now=0.0)
    for _ in range(10):
        trunk.take(0.0)
        trunk.give_back()
        trunk.report(BUSY, 0.0)
    assert trunk.healthy


def test_an_edited_provider_is_tried_again_and_keeps_its_channels() -> None:
    trunks = Trunks(DIAL)
    provider = Provider(id=1, name="t", channels=1)
    trunks.replace([provider], 0.0)
    chosen = trunks.choose(Service.VOICE, "1", 0.0)
    assert chosen is not None
    assert trunks.choose(Service.VOICE, "1", 0.0) is None
    trunks.replace([Provider(id=1, name="t", channels=2)], 0.0)
    assert trunks.choose(Service.VOICE, "1", 0.0) is not None
    assert trunks.choose(Service.VOICE, "1", 0.0) is None
    assert trunks.statistics()[1]["channels_in_use"] == 2


def test_another_needs_a_healthy_second_trunk() -> None:
    trunks = Trunks(DIAL)
    trunks.replace([Provider(id=1, name="a"), Provider(id=2, name="b")], 0.0)
    assert trunks.another(Service.VOICE, "1", {1})
    assert not trunks.another(Service.VOICE, "1", {1, 2})
    for _ in range(3):
        chosen = trunks.choose(Service.VOICE, "1", 0.0, {1})
        assert chosen is not None
        chosen[0].give_back()
        chosen[0].report(TRUNK_DOWN, 0.0)
    assert not trunks.another(Service.VOICE, "1", {1})


def test_ready_at_looks_only_at_what_is_not_free() -> None:
    trunks = Trunks(DIAL)
    trunks.replace([Provider(id=1, name="a"), Provider(id=2, name="b", calls_per_second=0.5)], 0.0)
    assert trunks.ready_at(0.0) == float("inf")
    assert trunks.choose(Service.VOICE, "1", 0.0, {1}) is not None
    assert trunks.ready_at(0.0) == pytest.approx(2.0)
