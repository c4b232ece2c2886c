"""Who calls every address dead closes none: the brake alone, and through the wire."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from engine.results import Disposition, Result, ResultRow
from gateways.smtp.brake import LEAST, RELEASE, WINDOW, Brake
from tests.gateways.smtp.desk import Node, order_of, provider_of, running
from tests.gateways.smtp.faulty import Peer, Script, faulty_mta
from tests.support import free_port
from tests.support.mail.dns import dnsmasq

DEAD = "550 5.1.1 no such user"
ROW = ResultRow("info", "not_suppressed", "bounce 5.1.1: no such user")
RUNS = st.lists(st.tuples(st.booleans(), st.integers(1, 120)), max_size=12)
PERCENTS = st.floats(1, 100)


def taken(brake: Brake, answers: Iterable[bool], most: float = 20.0) -> list[bool]:
    """Whether it was on after each."""
    states = []
    for dead in answers:
        brake.count(dead=dead, most_percent=most)
        states.append(brake.on)
    return states


def spread(runs: list[tuple[bool, int]]) -> list[bool]:
    return [dead for dead, count in runs for _ in range(count)]


# --- alone ----------------------------------------------------------------------------------------
@given(RUNS, PERCENTS)
def test_it_is_on_by_the_share_of_the_last_answers(
    runs: list[tuple[bool, int]], most: float
) -> None:
    brake, answers, on = Brake(), spread(runs), False
    for number, dead in enumerate(answers, 1):
        changed = brake.count(dead=dead, most_percent=most)
        last = answers[max(0, number - WINDOW) : number]
        percent = 100 * sum(last) / len(last)
        assert brake.percent == pytest.approx(percent)
        before, on = on, brake.on
        assert changed is (on is not before)
        if len(last) < LEAST or most == 100:
            assert not on
        elif not before:
            assert on is (percent > most)
        else:
            assert on is (percent > most * RELEASE)


@given(RUNS)
def test_it_never_brakes_at_a_hundred_percent(runs: list[tuple[bool, int]]) -> None:
    assert not any(taken(Brake(), spread(runs), 100))


@given(st.lists(st.booleans(), min_size=WINDOW, max_size=600), st.booleans(), PERCENTS)
def test_only_the_last_answers_count(before: list[bool], on: object, most: float) -> None:
    """A window of the living lets go, one of the dead holds, whatever came before."""
    brake = Brake()
    taken(brake, before, most)
    taken(brake, [bool(on)] * WINDOW, most)
    assert brake.on is (bool(on) and most < 100)


def test_the_rows_of_the_table() -> None:
    assert taken(Brake(), [True] * LEAST) == [False] * (LEAST - 1) + [True]
    # 40 of 200 are 20 %, 41 are more.
    full = [False] * (WINDOW - 40)
    assert not any(taken(Brake(), [*full, *[True] * 40]))
    brake = Brake()
    assert taken(brake, [*full, *[True] * 41])[-2:] == [False, True]
    # It goes on until 30 of 200 are left: the first living push the living out of the window.
    states = taken(brake, [False] * (WINDOW - 30))
    assert states == [True] * (WINDOW - 31) + [False]


def test_a_limit_that_is_taken_away_lets_go() -> None:
    brake = Brake()
    assert taken(brake, [True] * LEAST)[-1]
    assert brake.count(dead=True, most_percent=100)
    assert not brake.on


# --- through the wire -----------------------------------------------------------------------------
class Relay:
    """What a relay says of recipients: all are dead, or none."""

    def __init__(self) -> None:
        self.dead = True
        self.script: Script = {"RCPT": self._rcpt}

    async def _rcpt(self, peer: Peer) -> None:
        await peer.say(DEAD if self.dead else "250 2.1.5 OK")


async def sent(node: Node, provider: Any, first: int, count: int, **order: Any) -> list[Result]:
    results: list[Result] = []

    async def send(spool_id: int) -> None:
        fields = {name: value.format(spool_id) for name, value in order.items()}
        results.append((await node.deliver(order_of(provider, spool_id, **fields))).result)

    async with trio.open_nursery() as nursery:
        for spool_id in range(first, first + count):
            nursery.start_soon(send, spool_id)
    return results


def closed(results: list[Result]) -> int:
    """How many addresses they close; all of them say so, or why not."""
    assert {result.disposition for result in results} == {Disposition.INVALID}
    assert {result.cause for result in results} == {"no_such_address"}
    assert {result.code for result in results} == {"550 5.1.1 at rcpt"}
    assert all((ROW in result.rows) is (not result.suppress) for result in results)
    return sum(bool(result.suppress) for result in results)


async def test_a_misrouted_relay_closes_no_list(tmp_path: Path) -> None:
    relay = Relay()
    async with faulty_mta(relay.script) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port))
        with capture_logs() as logs:
            assert closed(await sent(node, provider, 1, 120)) == LEAST - 1
            assert node.of()["suppressions_withheld"] == 120 - (LEAST - 1)
            fates = await node.fates(*range(1, 121))
            assert closed([fate for fate in fates.values() if isinstance(fate, Result)]) == 49
            relay.dead = False
            living = await sent(node, provider, 1001, WINDOW)
            assert {result.cause for result in living} == {"accepted"}
            relay.dead = True
            assert closed(await sent(node, provider, 2001, 40)) == 40
        told = [log for log in logs if log["event"].startswith("smtp.suppression")]
    assert told == [
        {
            "event": "smtp.suppression_braked",
            "log_level": "error",
            "provider": "relay",
            "percent": 100.0,
            "most": 20.0,
        },
        {
            "event": "smtp.suppression_goes_on",
            "log_level": "info",
            "provider": "relay",
            "withheld": 71,
        },
    ]


async def test_each_provider_has_its_own(tmp_path: Path) -> None:
    wrong, right = Relay(), Relay()
    async with (
        faulty_mta(wrong.script) as there,
        faulty_mta(right.script) as here,
        running(tmp_path) as node,
    ):
        bad, good = provider_of(there.port, 1, "bad"), provider_of(here.port, 2, "good")
        await node.provide(bad, good)
        assert closed(await sent(node, bad, 1, 60)) == LEAST - 1
        assert closed(await sent(node, good, 1001, 30)) == 30
        assert [node.of(name)["suppressions_withheld"] for name in ("bad", "good")] == [11, 0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"suppress_most_percent": 100}, 60), ({"suppress_most_percent": 99}, 49)],
    ids=["off", "at most 99 %"],
)
async def test_the_share_is_the_providers_own(
    tmp_path: Path, settings: dict[str, Any], expected: int
) -> None:
    async with faulty_mta(Relay().script) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port, **settings))
        assert closed(await sent(node, provider, 1, 60)) == expected


async def test_who_closes_no_addresses_is_not_braked(tmp_path: Path) -> None:
    async with faulty_mta(Relay().script) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port, suppress=False))
        with capture_logs() as logs:
            results = await sent(node, provider, 1, 60)
        assert not any(result.suppress or ROW in result.rows for result in results)
        assert node.of()["suppressions_withheld"] == 0
        assert [log for log in logs if log["event"].startswith("smtp.suppression")] == []


async def test_what_is_put_off_says_nothing_of_an_address(tmp_path: Path) -> None:
    """Greylisting would make a bad list look like a good one, and no answer at all, too."""
    async with faulty_mta({"RCPT": "450 4.2.0 greylisted"}) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port))
        results = await sent(node, provider, 1, LEAST)
        assert {result.cause for result in results} == {"greylisted"}
        assert len(node.gateway._lanes[1].brake._answers) == 0


async def test_a_resolver_that_denies_every_name_closes_no_list(tmp_path: Path) -> None:
    records = ("local=/example/",)  # dnsmasq answers NXDOMAIN for all below it
    async with (
        dnsmasq(tmp_path / "dns", *records) as names,
        running(tmp_path / "node", dns_servers=(names.server,)) as node,
    ):
        provider = msgspec.structs.replace(provider_of(free_port()), host="")
        await node.provide(provider)
        results = await sent(node, provider, 1, 60, destination="c@d{}.example")
        assert {result.cause for result in results} == {"no_such_domain"}
        assert sum(bool(result.suppress) for result in results) == LEAST - 1
        assert node.of()["suppressions_withheld"] == 11
