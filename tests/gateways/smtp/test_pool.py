"""Connections to a relay: how many, how long, and what becomes of who waits."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from gateways.smtp import backoff
from gateways.smtp.connection import answer as answer_of
from gateways.smtp.limits import Limits
from gateways.smtp.owner import Owner, Usage, Waiting
from gateways.smtp.pool import Pool
from gateways.smtp.records import Answer, At, How, Parcel, Route
from gateways.smtp.standing import Standing, Tally
from tests.gateways.smtp.crossing import (
    PROVIDER_ID,
    body,
    crossing,
    manner,
    parcel,
    relay,
    settings,
    subjects,
)
from tests.gateways.smtp.faulty import (
    FaultyMta,
    Peer,
    Script,
    drop,
    faulty_mta,
    hold,
    in_turn,
    then,
)


def numbered(first: int, last: int) -> list[Parcel]:
    return [parcel(number, body(number)) for number in range(first, last + 1)]


# --- how many, how long


async def test_a_thousand_mails_over_ten_connections_each_once() -> None:
    given = settings(connections=10, messages_per_connection=1000)
    async with faulty_mta() as mta, relay(mta.port, given) as desk:
        answers = await desk.send(*numbered(1, 1000))
        assert {one.code for one in answers} == {250}
        assert sorted(one.id for one in answers) == list(range(1, 1001))
        assert len(mta.peers) == 10
    assert subjects(mta.mails) == Counter(range(1, 1001))


async def test_so_many_mails_a_connection_then_quit() -> None:
    given = settings(messages_per_connection=3)
    async with faulty_mta() as mta, relay(mta.port, given) as desk:
        await desk.send(*numbered(1, 7))
        for number in (0, 1):
            await (await mta.peer(number)).over.wait()
    assert [len(peer.mails) for peer in mta.peers] == [3, 3, 1]
    assert [peer.lines[-1] for peer in mta.peers[:2]] == ["QUIT", "QUIT"]


async def test_an_idle_connection_quits_and_the_next_mail_gets_a_new_one() -> None:
    async with faulty_mta() as mta, relay(mta.port, settings(idle_s=0.01)) as desk:
        await desk.send(parcel(1))
        await (await mta.peer()).over.wait()
        assert mta.peers[0].lines[-1] == "QUIT"
        answer = (await desk.send(parcel(2)))[0]
        assert (answer.code, answer.tries, len(mta.peers)) == (250, 1, 2)


async def test_never_more_connections_than_allowed_and_all_of_them_used() -> None:
    go, most = trio.Event(), 0

    async def wait(peer: Peer) -> None:
        nonlocal most
        most = max(most, peer.mta.open)
        if peer.mta.open == 3:
            go.set()
        await go.wait()
        await peer.say("250 2.0.0 taken")

    async with faulty_mta({"DOT": wait}) as mta, relay(mta.port, settings(connections=3)) as desk:
        answers = await desk.send(*numbered(1, 20))
        assert {one.code for one in answers} == {250}
        assert (most, len(mta.peers)) == (3, 3)


async def test_one_mail_opens_one_connection() -> None:
    async with faulty_mta() as mta, relay(mta.port, settings(connections=10)) as desk:
        await desk.send(parcel(1))
        await desk.send(parcel(2))
        assert len(mta.peers) == 1


async def test_a_relay_that_allows_less_connections_still_takes_all() -> None:
    """421 to the third; the two go on, nobody is told a failure, and it is not asked in a loop."""

    async def greet(peer: Peer) -> None:
        await peer.say("220 hi" if peer.mta.open <= 2 else "421 4.7.0 too many connections")

    given = settings(connections=5, messages_per_connection=10)
    async with faulty_mta({"CONNECT": greet}) as mta, relay(mta.port, given) as desk:
        answers = await desk.send(*numbered(1, 100))
        assert {one.code for one in answers} == {250}
        assert len(mta.peers) <= 5 + 10 + 10
    assert subjects(mta.mails) == Counter(range(1, 101))


async def test_a_relay_that_closes_after_each_mail_still_takes_all() -> None:
    last = then("250 2.0.0 taken", "421 4.3.2 enough", drop)
    given = settings(connections=2)
    async with faulty_mta({"DOT": last}) as mta, relay(mta.port, given) as desk:
        answers = await desk.send(*numbered(1, 20))
        assert {one.code for one in answers} == {250}
    assert subjects(mta.mails) == Counter(range(1, 21))


async def test_a_rate_is_kept() -> None:
    given = settings(connections=4, domain_per_second=20.0)
    async with faulty_mta() as mta, relay(mta.port, given) as desk:
        begun = time.monotonic()
        answers = await desk.send(*numbered(1, 30))
        assert time.monotonic() - begun >= (30 - 20) / 20
        assert {one.code for one in answers} == {250}


async def test_a_rate_is_kept_over_connections_that_come_and_go() -> None:
    """What is known of the rate, and what is counted, outlive the pool."""
    given = settings(messages_per_connection=1, domain_per_second=2.0)
    script: Script = {"DOT": in_turn("550 5.7.1 no", "250 ok")}
    async with faulty_mta(script) as mta, relay(mta.port, given) as desk:
        begun = time.monotonic()
        for number in range(5):
            await desk.send(parcel(number))
            with trio.fail_after(60):
                while desk.pools()["pools"]:  # it goes with its last connection
                    await trio.lowlevel.checkpoint()
        assert time.monotonic() - begun >= (5 - 2) / 2
        assert (len(mta.peers), desk.pools()["opened"], desk.pools()["delivered"]) == (5, 5, 4)


# --- who waits


async def test_a_mail_whose_time_is_over_while_it_waits() -> None:
    async with faulty_mta({"DOT": hold}) as mta, relay(mta.port) as desk:
        desk.bridge.send(PROVIDER_ID, [parcel(1)])
        await (await mta.peer()).event("DOT").wait()
        late = (await desk.send(parcel(2, not_after=time.monotonic())))[0]
        assert (late.id, late.at, late.how, late.left) == (2, At.ROUTE, How.TIMEOUT, False)


async def test_a_mail_that_waits_is_dropped_at_once_and_the_others_go_on() -> None:
    go = trio.Event()

    async def wait(peer: Peer) -> None:
        await go.wait()
        await peer.say("250 2.0.0 taken")

    async with faulty_mta({"DOT": wait}) as mta, relay(mta.port) as desk:
        desk.bridge.send(PROVIDER_ID, numbered(1, 3))
        await (await mta.peer()).event("DOT").wait()
        desk.bridge.drop(PROVIDER_ID, [2, 77])
        dropped = (await desk.wait(1))[0]
        assert (dropped.id, dropped.how, dropped.left) == (2, How.DROPPED, False)
        go.set()
        await desk.wait(3)
        assert [(one.id, one.code) for one in desk.answers[1:]] == [(1, 250), (3, 250)]
        assert len(mta.peers) == 1


@pytest.mark.parametrize(
    ("at", "how", "code", "left", "expected"),
    [
        (At.MAIL, How.REPLY, 421, False, How.DROPPED),  # not tried elsewhere: nobody wants it
        (At.MAIL, How.LOST, 0, False, How.DROPPED),
        (At.DOT, How.LOST, 0, True, How.DROPPED),
        (At.DOT, How.REPLY, 250, True, How.REPLY),  # the answer was faster
        (At.RCPT, How.REPLY, 550, False, How.REPLY),
    ],
)
async def test_what_came_just_before_a_drop_counts(
    at: At,
    how: How,
    code: int,
    left: bool,  # noqa: FBT001
    expected: How,
) -> None:
    told: list[Answer] = []

    async def nowhere() -> list[Route]:
        return []

    async def job() -> None:
        given = manner(25)
        pool = Pool(
            given,
            Usage(),
            Limits(1, 1),
            domain="",
            standing=Standing(0.0, 60.0, 0.0),
            tally=Tally(),
            routes=nowhere,
            tell=told.append,
        )
        owner = Owner(given)
        owner.dropped = True
        came = answer_of(parcel(1), at, how, code=code, left=left)
        pool._book(owner, Waiting(parcel(1), tries=1), came)

    async with crossing() as desk:
        await desk.loop.run(job)
    assert [(one.how, one.left) for one in told] == [(expected, left)]


# --- failures


async def test_a_wrong_login_stops_the_pool_with_one_try() -> None:
    """Many tries would lock the account: what comes next is told the same, at once."""
    script: Script = {"AUTH": "535 5.7.8 no"}
    given = settings(connections=4, auth_without_tls=True)
    async with (
        faulty_mta(script, extensions=("AUTH PLAIN",)) as mta,
        relay(mta.port, given, username="u", password="p") as desk,  # noqa: S106
    ):
        first = (await desk.send(parcel(1)))[0]
        assert (first.at, first.how, first.code) == (At.AUTH, How.REPLY, 535)
        for number in range(2, 12):
            again = (await desk.send(parcel(number)))[0]
            assert (again.at, again.code) == (At.AUTH, 535)
        assert len(mta.peers) == 1
        assert desk.pools()["stopped"] == 1


def logins(mta: FaultyMta) -> int:
    return sum(line.startswith("AUTH") for peer in mta.peers for line in peer.lines)


LOGIN: dict[str, Any] = {"username": "u", "password": "p"}


async def test_many_mails_at_once_try_a_wrong_login_once() -> None:
    given = settings(connections=10, auth_without_tls=True)
    async with (
        faulty_mta({"AUTH": "535 5.7.8 no"}, extensions=("AUTH PLAIN",)) as mta,
        relay(mta.port, given, **LOGIN) as desk,
    ):
        answers = await desk.send(*numbered(1, 20))
        assert {(one.at, one.code) for one in answers} == {(At.AUTH, 535)}
        assert logins(mta) == 1


async def test_once_a_login_has_worked_all_connections_are_used() -> None:
    go = trio.Event()

    async def wait(peer: Peer) -> None:
        if peer.mta.open == 4:
            go.set()
        await go.wait()
        await peer.say("250 2.0.0 taken")

    given = settings(connections=4, auth_without_tls=True)
    async with (
        faulty_mta({"AUTH": "235 ok", "DOT": wait}, extensions=("AUTH PLAIN",)) as mta,
        relay(mta.port, given, **LOGIN) as desk,
    ):
        answers = await desk.send(*numbered(1, 20))
        assert {one.code for one in answers} == {250}
        assert logins(mta) == 4


async def test_a_login_that_is_taken_back_is_not_tried_by_each_connection() -> None:
    """The first that comes back for more finds out; the others end with what they have."""
    go, busy = trio.Event(), 0

    async def wait(peer: Peer) -> None:
        nonlocal busy
        busy += 1
        if busy < 3:  # who comes last is through first
            await go.wait()
        await peer.say("250 2.0.0 taken")

    script: Script = {"AUTH": in_turn("235 ok", "235 ok", "235 ok", "535 5.7.8 no"), "DOT": wait}
    given = settings(connections=3, messages_per_connection=1, auth_without_tls=True)
    async with (
        faulty_mta(script, extensions=("AUTH PLAIN",)) as mta,
        relay(mta.port, given, **LOGIN) as desk,
    ):
        desk.bridge.send(PROVIDER_ID, numbered(1, 10))
        await desk.handed_over()
        with trio.fail_after(60):
            while not desk.pools()["stopped"]:
                await trio.lowlevel.checkpoint()
        go.set()
        codes = Counter(one.code for one in await desk.wait(10))
        assert codes == {250: 3, 535: 7}
        assert logins(mta) == 4


@pytest.mark.parametrize("stop", [False, True], ids=["outage", "wrong login"])
async def test_after_the_pause_one_mail_finds_out_whether_it_works_again(
    *, stop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "STOPPED_S", 0.05)
    monkeypatch.setattr(backoff, "FIRST_S", 0.05)
    bad: Script = {"AUTH": "535 5.7.8 no"} if stop else {"CONNECT": drop}
    given = settings(auth_without_tls=True)
    async with (
        faulty_mta(bad, {"AUTH": "235 ok"}, extensions=("AUTH PLAIN",)) as mta,
        relay(mta.port, given, username="u", password="p") as desk,  # noqa: S106
    ):
        number = 1
        while (await desk.send(parcel(number)))[0].code != 250:
            number += 1
        assert number > 1
        assert len(mta.peers) == 2
        assert desk.pools()["stopped"] == 0


async def test_all_that_wait_are_told_when_no_connection_can_be_made() -> None:
    async with (
        faulty_mta({"CONNECT": drop}) as mta,
        relay(mta.port, settings(connections=3)) as desk,
    ):
        answers = await desk.send(*numbered(1, 50))
        assert {(one.at, one.how, one.left) for one in answers} == {(At.GREETING, How.LOST, False)}


async def test_a_relay_that_answers_no_mail_does_not_get_them_all() -> None:
    """Of each that it gets nobody knows what became: one tells whether it answers again."""
    given = settings(connections=3)
    async with faulty_mta({"DOT": drop}) as mta, relay(mta.port, given) as desk:
        answers = await desk.send(*numbered(1, 50))
        assert sum(one.left for one in answers) <= 3 + 1
        assert {(one.at, one.how) for one in answers} == {(At.DOT, How.LOST), (At.ROUTE, How.LOST)}
        assert len(mta.peers) <= 3 + 1


async def test_after_the_pause_one_mail_finds_out_whether_mails_are_answered_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.05)
    go = trio.Event()

    async def wait(peer: Peer) -> None:
        if peer.mta.open == 4:
            go.set()
        await go.wait()
        await peer.say("250 2.0.0 taken")

    script: Script = {"DOT": in_turn(drop, drop, drop, "250 2.0.0 taken", wait)}
    async with faulty_mta(script) as mta, relay(mta.port, settings(connections=4)) as desk:
        number = 1
        left: list[Answer] = []
        while not left or left[-1].code != 250:
            left += [one for one in await desk.send(parcel(number)) if one.left]
            number += 1
        assert [one.code for one in left] == [0, 0, 0, 250]
        # All its connections are used again: four mails wait for one another.
        assert {one.code for one in await desk.send(*numbered(1001, 1020))} == {250}


async def test_one_mail_without_an_answer_puts_off_no_other() -> None:
    script: Script = {"DOT": in_turn(drop, "250 2.0.0 taken")}
    async with faulty_mta(script) as mta, relay(mta.port, settings(connections=1)) as desk:
        answers = await desk.send(*numbered(1, 10))
        assert Counter(one.code for one in answers) == {0: 1, 250: 9}
        assert len(mta.peers) == 2


async def test_a_failure_to_connect_is_logged_with_the_provider() -> None:
    with capture_logs() as logs:
        async with faulty_mta({"CONNECT": drop}) as mta, relay(mta.port, name="hub") as desk:
            await desk.send(parcel(1))
    [line] = [each for each in logs if each["event"] == "smtp.no_connection"]
    assert (line["provider"], line["log_level"]) == ("hub", "warning")


async def test_a_relay_that_dns_does_not_know() -> None:
    async with relay(25, host="relay.invalid") as desk:
        answer = (await desk.send(parcel(1)))[0]
        assert (answer.at, answer.how, answer.permanent) == (At.ROUTE, How.NO_ROUTE, False)


async def test_greylisted_then_taken_over_the_same_connection() -> None:
    script: Script = {"RCPT": in_turn("451 4.7.1 greylisted", "250 ok")}
    async with faulty_mta(script) as mta, relay(mta.port) as desk:
        codes = [(await desk.send(parcel(number)))[0].code for number in (1, 2)]
        assert (codes, len(mta.peers)) == ([451, 250], 1)
