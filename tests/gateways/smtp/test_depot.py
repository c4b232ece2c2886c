"""Direct MX: a pool for each domain, and places that domains share."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import AsyncExitStack

import msgspec
import pytest
import trio

from gateways.smtp import backoff
from gateways.smtp import depot as depots
from gateways.smtp import pool as pools
from gateways.smtp.mxorder import NoRoute
from gateways.smtp.records import At, How, Parcel
from tests.gateways.smtp.crossing import (
    PROVIDER_ID,
    Desk,
    crossing,
    direct,
    facts,
    subjects,
    to,
)
from tests.gateways.smtp.faulty import (
    EXTENSIONS,
    Act,
    FaultyMta,
    Peer,
    Script,
    drop,
    faulty_mta,
    hold,
    in_turn,
)
from tests.support import free_port


async def test_each_domain_has_its_own_hosts() -> None:
    async with faulty_mta() as one, faulty_mta() as two, crossing() as desk:
        direct(desk, {"a.example": [one.port], "b.example": [two.port]})
        answers = await desk.send(to("a.example", 1), to("b.example", 2), to("a.example", 3))
        assert {answer.id: facts(answer) for answer in answers} == {
            1: (At.DOT, How.REPLY, 250, "mx0.a.example"),
            2: (At.DOT, How.REPLY, 250, "mx0.b.example"),
            3: (At.DOT, How.REPLY, 250, "mx0.a.example"),
        }
        assert (subjects(one.mails), subjects(two.mails)) == (Counter([1, 3]), Counter([2]))


@pytest.mark.parametrize(
    "script",
    [
        {"CONNECT": "554 5.3.2 no"},
        {"CONNECT": drop},
        {"MAIL": "421 4.3.2 closing"},
        {"RCPT": drop},
    ],
    ids=["554 greeting", "drop", "421 at MAIL", "drop at RCPT"],
)
async def test_a_host_that_fails_is_followed_by_the_next(script: Script) -> None:
    """RFC 5321 §5.1."""
    async with faulty_mta(script) as bad, faulty_mta() as good, crossing() as desk:
        direct(desk, {"a.example": [bad.port, good.port]})
        answer = (await desk.send(to("a.example", 1)))[0]
        assert facts(answer) == (At.DOT, How.REPLY, 250, "mx1.a.example")
        # For a while the better host comes last.
        await desk.send(to("a.example", 2))
        assert len(bad.peers) == 1


async def test_a_reply_about_the_mail_is_not_asked_for_elsewhere() -> None:
    grey: Script = {"RCPT": "450 4.7.1 greylisted"}
    async with faulty_mta(grey) as first, faulty_mta() as second, crossing() as desk:
        direct(desk, {"a.example": [first.port, second.port]})
        answer = (await desk.send(to("a.example", 1)))[0]
        assert facts(answer) == (At.RCPT, How.REPLY, 450, "mx0.a.example")
        assert second.peers == []


async def test_a_host_without_tls_gets_nothing_that_needs_a_right_certificate() -> None:
    async with faulty_mta() as mta, crossing() as desk:
        direct(desk, {"a.example": [mta.port]}, starttls=None, verify_tls=True)
        answer = (await desk.send(to("a.example", 1)))[0]
        assert (answer.at, answer.how) == (At.TLS, How.UNTRUSTED)
        assert mta.mails == []


@pytest.mark.parametrize("permanent", [True, False])
async def test_a_domain_without_a_route(*, permanent: bool) -> None:
    async with crossing() as desk:
        direct(desk, {"a.example": NoRoute("null MX", permanent=permanent)})
        answer = (await desk.send(to("a.example", 1)))[0]
        assert (answer.at, answer.how, answer.permanent) == (At.ROUTE, How.NO_ROUTE, permanent)
        assert answer.text == "null MX"


async def test_a_slow_domain_keeps_nobody_waiting() -> None:
    async with faulty_mta({"DOT": hold}) as slow, faulty_mta() as quick, crossing() as desk:
        routes = {"slow.example": [slow.port], "quick.example": [quick.port]}
        direct(desk, routes, connections=2, connections_all=3)
        desk.bridge.send(PROVIDER_ID, [to("slow.example", number) for number in range(1, 5)])
        answers = await desk.send(*(to("quick.example", number) for number in range(5, 25)))
        assert {one.id for one in answers} == set(range(5, 25))
        assert len(slow.peers) <= 2
        assert desk.bridge.credits(PROVIDER_ID, "slow.example") == 0
        assert desk.bridge.credits(PROVIDER_ID, "quick.example") == 2


async def test_a_busy_domain_gives_its_place_to_one_that_waits() -> None:
    """After so many mails over a connection, although it has more of them."""
    go = trio.Event()

    async def wait(peer: Peer) -> None:
        await go.wait()
        await peer.say("250 2.0.0 taken")

    async with faulty_mta({"DOT": wait}) as busy, faulty_mta() as other, crossing() as desk:
        routes = {"busy.example": [busy.port], "other.example": [other.port]}
        direct(desk, routes, connections=1, connections_all=1, messages_per_connection=2)
        desk.bridge.send(PROVIDER_ID, [to("busy.example", number) for number in range(1, 10)])
        await (await busy.peer()).event("DOT").wait()
        desk.bridge.send(PROVIDER_ID, [to("other.example", 10)])
        desk.bridge.send(PROVIDER_ID, [to("busy.example", 11)])
        await desk.handed_over()
        go.set()
        answers = await desk.wait(11)
        assert [one.id for one in answers[:4]] == [1, 2, 10, 3]


async def test_an_idle_connection_gives_way_to_another_domain() -> None:
    """All places are taken by a domain that has nothing to do: one of its connections quits."""
    async with faulty_mta() as one, faulty_mta() as two, crossing() as desk:
        routes = {"a.example": [one.port], "b.example": [two.port]}
        direct(desk, routes, connections=1, connections_all=1, idle_s=3_000.0)
        await desk.send(to("a.example", 1))
        answer = (await desk.send(to("b.example", 2)))[0]
        assert answer.code == 250
        assert one.peers[0].lines[-1] == "QUIT"


async def test_pools_of_domains_that_have_nothing_are_forgotten() -> None:
    async with faulty_mta() as mta, crossing() as desk:
        domains = [f"d{number}.example" for number in range(20)]
        direct(desk, {domain: [mta.port] for domain in domains}, idle_s=0.01)
        await desk.send(*(to(domain, number) for number, domain in enumerate(domains)))
        with trio.fail_after(60):
            while desk.pools()["pools"]:  # each goes with its last connection
                await trio.lowlevel.checkpoint()
        assert [peer.lines[-1] for peer in mta.peers] == ["QUIT"] * 20


async def put_back(desk: Desk, tried: FaultyMta, after_s: float) -> None:
    """Mail 1 is at MAIL, its time over in so many seconds, and another domain wants the place."""
    one = msgspec.structs.replace(to("a.example", 1), not_after=time.monotonic() + after_s)
    desk.bridge.send(PROVIDER_ID, [one])
    await (await tried.peer()).event("MAIL").wait()
    desk.bridge.send(PROVIDER_ID, [to("b.example", 2)])
    await desk.handed_over()


def closing(go: trio.Event) -> Act:
    async def act(peer: Peer) -> None:
        await go.wait()
        await peer.say("421 4.3.2 closing")

    return act


async def test_a_mail_that_has_to_be_tried_again_gets_a_place_again() -> None:
    """Another domain takes the place first; nothing else comes for this one."""
    go = trio.Event()
    script: Script = {"MAIL": in_turn(closing(go), "250 ok")}
    async with faulty_mta(script) as one, faulty_mta() as two, crossing() as desk:
        routes = {"a.example": [one.port], "b.example": [two.port]}
        direct(desk, routes, connections=1, connections_all=1, idle_s=0.01)
        await put_back(desk, one, after_s=20)
        go.set()
        answers = await desk.wait(2)
        assert [(each.id, each.code, each.tries) for each in answers] == [(2, 250, 1), (1, 250, 2)]


async def test_a_mail_that_has_to_be_tried_again_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the place it had does not come free."""
    monkeypatch.setattr(pools, "SWEEP_S", 0.01)
    go = trio.Event()
    script: Script = {"MAIL": closing(go)}
    async with faulty_mta(script) as one, faulty_mta({"DOT": hold}) as two, crossing() as desk:
        routes = {"a.example": [one.port], "b.example": [two.port]}
        direct(desk, routes, connections=1, connections_all=1, dot_timeout_s=50.0)
        await put_back(desk, one, after_s=2)
        pool = desk.bridge._depots[PROVIDER_ID]._pools["a.example"]
        with trio.fail_after(60):
            while pool._sweeper is not None:  # its queue is empty
                await trio.lowlevel.checkpoint()
        go.set()
        late = (await desk.wait(1))[0]
        assert (late.id, late.at, late.how, late.tries) == (1, At.ROUTE, How.TIMEOUT, 1)


@pytest.mark.parametrize("up", [False, True], ids=["nobody there", "421 at MAIL"])
async def test_hosts_behind_those_a_mail_was_tried_over_come_first_the_next_time(
    *, up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the mail waits for that, and although the pool is gone by then."""
    monkeypatch.setattr(backoff, "FIRST_S", 0.0)
    script: Script = {"MAIL": "421 4.3.2 closing"}
    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(faulty_mta())
        bad = [await stack.enter_async_context(faulty_mta(script)) for _ in range(3)]
        desk = await stack.enter_async_context(crossing())
        dead = [mta.port if up else free_port() for mta in bad]
        direct(desk, {"a.example": [*dead, good.port]})
        assert (await desk.send(to("a.example", 1)))[0].code in {0, 421}
        with trio.fail_after(60):
            while desk.pools()["connections"]:
                await trio.lowlevel.checkpoint()
        desk.bridge._depots[PROVIDER_ID]._forget()
        assert desk.pools()["pools"] == 0
        [standing] = desk.bridge._depots[PROVIDER_ID]._remembered.values()
        detours = standing.detours
        detours._until = {route: until - 4 * 3_600 for route, until in detours._until.items()}
        answer = (await desk.send(to("a.example", 2)))[0]
        assert (answer.code, answer.host, answer.tries) == (250, "mx3.a.example", 1)


async def test_what_is_remembered_of_domains_is_bounded_and_goes_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(depots, "MAX_REMEMBERED", 3)
    async with faulty_mta() as mta, crossing() as desk:
        domains = [f"d{number}.example" for number in range(5)]
        routes = {domain: [mta.port] for domain in domains}
        direct(desk, routes, messages_per_connection=1, domain_per_second=0.001)
        for number, domain in enumerate(domains):
            await desk.send(to(domain, number))
            with trio.fail_after(60):
                while desk.pools()["pools"]:
                    await trio.lowlevel.checkpoint()
        depot = desk.bridge._depots[PROVIDER_ID]
        assert list(depot._remembered) == domains[2:]
        for standing in depot._remembered.values():
            standing.bucket._at -= 1_001.0  # so long ago
        depot._forget()
        assert not depot._remembered


# --- what one host cannot take

PLAIN = tuple(each for each in EXTENSIONS if each != "SMTPUTF8")


def international(number: int) -> Parcel:
    return msgspec.structs.replace(
        to("a.example", number), recipient="b\u00fc@a.example", smtputf8=True
    )


async def test_what_one_host_cannot_take_another_may() -> None:
    async with (
        faulty_mta(extensions=PLAIN) as one,
        faulty_mta() as two,
        faulty_mta() as three,
        crossing() as desk,
    ):
        direct(desk, {"a.example": [one.port, two.port, three.port]})
        answer = (await desk.send(international(1)))[0]
        assert facts(answer) == (At.DOT, How.REPLY, 250, "mx1.a.example")
        assert answer.tries == 2
        assert one.peers[0].lines[-1] == "QUIT"


async def test_what_one_host_cannot_take_leaves_the_others_over_it_alone() -> None:
    """Connections to that host stay, and none of them is given the mail again."""
    go = trio.Event()

    async def wait(peer: Peer) -> None:
        if peer.mta.open == 3:
            go.set()
        await go.wait()
        await peer.say("250 2.0.0 taken")

    async with (
        faulty_mta({"DOT": wait}, extensions=PLAIN) as one,
        faulty_mta() as two,
        crossing() as desk,
    ):
        direct(desk, {"a.example": [one.port, two.port]}, connections=3, idle_s=3_000.0)
        await desk.send(*(to("a.example", number) for number in range(1, 4)))
        answer = (await desk.send(international(4)))[0]
        assert (answer.code, answer.host, answer.tries) == (250, "mx1.a.example", 2)
        assert (one.open, len(one.peers), len(two.peers)) == (2, 3, 1)


@pytest.mark.parametrize("hosts", [1, 2])
async def test_what_no_host_can_take_is_asked_of_each_once(hosts: int) -> None:
    async with faulty_mta(extensions=PLAIN) as mta, crossing() as desk:
        direct(desk, {"a.example": [mta.port] * hosts})
        answer = (await desk.send(international(1)))[0]
        assert (answer.at, answer.how, answer.left) == (At.MAIL, How.UNABLE, False)
        assert answer.tries == len(mta.peers) == hosts


async def test_a_mail_is_dropped_on_its_way_to_another_host() -> None:
    async with (
        faulty_mta(extensions=PLAIN) as one,
        faulty_mta({"CONNECT": hold}) as two,
        crossing() as desk,
    ):
        direct(desk, {"a.example": [one.port, two.port]})
        desk.bridge.send(PROVIDER_ID, [international(1)])
        await (await two.peer()).event("CONNECT").wait()
        desk.bridge.drop(PROVIDER_ID, [1])
        answer = (await desk.wait(1))[0]
        assert (answer.how, answer.left, answer.tries) == (How.DROPPED, False, 1)


async def test_a_mail_whose_other_host_is_away_is_still_answered_once() -> None:
    async with faulty_mta(extensions=PLAIN) as one, crossing() as desk:
        direct(desk, {"a.example": [one.port, free_port()]})
        answer = (await desk.send(international(1)))[0]
        assert (answer.how, answer.tries, len(one.peers)) == (How.UNABLE, 2, 2)


async def test_a_mail_whose_hosts_are_all_away_after_the_first_is_answered_so() -> None:
    async with faulty_mta({}, {"CONNECT": drop}, extensions=PLAIN) as one, crossing() as desk:
        direct(desk, {"a.example": [one.port, free_port()]})
        answer = (await desk.send(international(1)))[0]
        assert (answer.at, answer.how) == (At.GREETING, How.LOST)
