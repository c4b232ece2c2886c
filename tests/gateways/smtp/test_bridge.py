"""Parcels over and answers back: exactly one each, whatever happens to connections and threads."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import trio

from engine.config import SmtpConfig
from gateways.smtp.bridge import Bridge
from gateways.smtp.loop import Loop
from gateways.smtp.mxorder import NoRoute
from gateways.smtp.records import Answer, How, Route
from tests.gateways.smtp.crossing import (
    PROVIDER_ID,
    Desk,
    crossing,
    parcel,
    provider,
    relay,
    settings,
)
from tests.gateways.smtp.faulty import PIPELINING, Peer, drop, faulty_mta, hold

CONFIG = SmtpConfig(hostname="client.test")
PATIENT = settings(connections=2)


async def test_credits_are_two_a_connection_and_come_back_with_the_answers() -> None:
    go = trio.Event()

    async def wait(peer: Peer) -> None:
        await go.wait()
        await peer.say("250 2.0.0 taken")

    async with faulty_mta({"DOT": wait}) as mta, relay(mta.port, settings(connections=3)) as desk:
        bridge = desk.bridge
        assert bridge.credits(PROVIDER_ID, "a.example") == 6
        assert bridge.credits(PROVIDER_ID + 1, "a.example") == 0
        bridge.send(PROVIDER_ID, [parcel(number) for number in range(5)])
        assert bridge.credits(PROVIDER_ID, "b.example") == 1
        go.set()
        await desk.wait(5)
        assert bridge.credits(PROVIDER_ID, "a.example") == 6


async def test_credits_of_one_domain_and_of_all() -> None:
    async with crossing() as desk:
        few = settings(connections=2, connections_all=3)
        desk.bridge.open(msgspec.structs.replace(provider(1), host=""), few, CONFIG)
        assert desk.bridge.credits(PROVIDER_ID, "a.example") == 4
        assert desk.bridge.credits(PROVIDER_ID) == 6


async def test_sending_to_a_provider_that_is_not_open() -> None:
    async with crossing() as desk:
        desk.bridge.open(provider(1), settings(), CONFIG)
        desk.bridge.send(PROVIDER_ID + 1, [parcel(1)])
        answer = (await desk.wait(1))[0]
        assert (answer.how, answer.left) == (How.DROPPED, False)


async def test_new_settings_are_for_all_that_is_not_under_way() -> None:
    go = trio.Event()

    async def wait(peer: Peer) -> None:
        await go.wait()
        await peer.say("250 2.0.0 old")

    async with (
        faulty_mta({"DOT": wait}) as old,
        faulty_mta({"DOT": "250 new"}) as new,
        relay(old.port) as desk,
    ):
        desk.bridge.send(PROVIDER_ID, [parcel(1), parcel(2)])
        await (await old.peer()).event("DOT").wait()
        desk.bridge.open(provider(new.port), settings(), CONFIG)
        desk.bridge.send(PROVIDER_ID, [parcel(3)])
        texts = {one.id: one.text for one in await desk.wait(2)}
        assert texts == {2: "new", 3: "new"}
        go.set()
        first = (await desk.wait(3))[2]
        assert (first.id, first.text) == (1, "2.0.0 old")
        await old.peers[0].over.wait()
        assert old.peers[0].lines[-1] == "QUIT"


async def test_dropping_reaches_what_goes_on_under_old_settings() -> None:
    async with faulty_mta({"DOT": hold}) as old, faulty_mta() as new, relay(old.port) as desk:
        desk.bridge.send(PROVIDER_ID, [parcel(1)])
        await (await old.peer()).event("DOT").wait()
        desk.bridge.open(provider(new.port), settings(), CONFIG)
        desk.bridge.drop(PROVIDER_ID, [1])
        answer = (await desk.wait(1))[0]
        assert (answer.how, answer.left) == (How.DROPPED, True)


async def test_closing_lets_what_is_there_go_on() -> None:
    async with faulty_mta() as mta, relay(mta.port, PATIENT) as desk:
        desk.bridge.send(PROVIDER_ID, [parcel(number) for number in range(40)])
        await desk.bridge.close(PROVIDER_ID, drain_s=30)
        assert Counter(one.code for one in desk.answers) == {250: 40}
        assert {peer.lines[-1] for peer in mta.peers} == {"QUIT"}
        assert mta.open == 0


async def test_what_is_out_when_the_loop_ends_is_answered() -> None:
    """No ``close`` before it: what waits is dropped, what is under way says whether it left."""
    loop = Loop()
    async with faulty_mta({"DOT": hold}) as mta, trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as serving:
                await serving.start(loop.serve)
                desk = Desk(loop)
                desk.bridge.open(provider(mta.port), settings(), CONFIG)
                desk.bridge.send(PROVIDER_ID, [parcel(number) for number in (1, 2, 3)])
                await (await mta.peer()).event("DOT").wait()
                scope.cancel()
        await desk.bridge.close(PROVIDER_ID, drain_s=0)
        answers = {one.id: (one.how, one.left) for one in desk.answers}
        assert answers == {
            1: (How.DROPPED, True),
            2: (How.DROPPED, False),
            3: (How.DROPPED, False),
        }
        desk.bridge.send(PROVIDER_ID, [parcel(4)])
        late = (await desk.wait(4))[3]
        assert (late.id, late.how, late.left) == (4, How.DROPPED, False)
        nursery.cancel_scope.cancel()


async def test_what_waits_for_a_place_when_the_loop_ends_is_answered() -> None:
    """At MX, a domain may wait without any connection of its own."""

    class Here:
        async def routes(self, domain: str, port: int, *, verify: bool = False) -> list[Route]:
            return [Route(host="127.0.0.1", port=mta.port, name=domain, verify=verify)]

    loop = Loop()
    async with faulty_mta({"DOT": hold}) as mta:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as serving:
                await serving.start(loop.serve)
                desk = Desk(loop)
                desk.bridge = Bridge(loop, desk.take, routing=Here())
                given = settings(connections=1, connections_all=1)
                desk.bridge.open(provider(0, host=""), given, CONFIG)
                desk.bridge.send(PROVIDER_ID, [parcel(1, domain="a.example")])
                await (await mta.peer()).event("DOT").wait()
                desk.bridge.send(PROVIDER_ID, [parcel(2, domain="b.example")])
                await desk.handed_over()
                scope.cancel()
        await desk.bridge.close(PROVIDER_ID, drain_s=0)
        answers = {one.id: (one.how, one.left) for one in desk.answers}
        assert answers == {1: (How.DROPPED, True), 2: (How.DROPPED, False)}


class Nowhere:
    """DNS that never answers."""

    async def routes(self, domain: str, port: int, *, verify: bool = False) -> list[Route]:
        raise NoRoute("no answer", permanent=False)


async def test_a_bridge_answers_on_trios_thread() -> None:
    threads = []
    async with crossing() as desk:

        def take(answers: Sequence[Answer]) -> None:
            threads.append(threading.current_thread())
            desk.take(answers)

        desk.bridge = Bridge(desk.loop, take, routing=Nowhere())
        desk.bridge.open(provider(25, host=""), settings(), CONFIG)
        answer = (await desk.send(parcel(1)))[0]
        assert answer.how is How.NO_ROUTE
        assert threads == [threading.current_thread()]


def mischief(dice: random.Random) -> dict[str, object]:
    """A server whose every step may fail, differently each time."""

    async def act(peer: Peer, step: str) -> None:
        usual = {"CONNECT": "220 hi", "DATA": "354 go", "BODY": ""}.get(step, "250 2.0.0 ok")
        luck = dice.random()
        if luck < 0.03:
            await drop(peer)
        elif luck < 0.05:
            await peer.say("421 4.3.2 going")
            await drop(peer)
        elif luck < 0.08 and step in {"MAIL", "RCPT", "DATA", "DOT"}:
            await peer.say("451 4.3.0 later")
        elif luck < 0.10 and step != "BODY":
            await peer.say(f"{usual}\n250 and one more")
        elif luck < 0.11 and step != "BODY":
            await peer.send(b"\0garbage\r\n")
        elif usual:
            await peer.say(usual)

    def step(name: str) -> object:
        async def run(peer: Peer) -> None:
            await act(peer, name)

        return run

    return {name: step(name) for name in ("CONNECT", "MAIL", "RCPT", "DATA", "BODY", "DOT")}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("extensions", [(), PIPELINING], ids=["plain", "pipelining"])
async def test_every_parcel_is_answered_exactly_once(
    seed: int, extensions: tuple[str, ...]
) -> None:
    """And what the answer says is true: taken with a 250 is there once, not left is not there."""
    dice = random.Random(seed)
    count, sent = 120, 0
    script = mischief(random.Random(seed + 1000))
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    async with faulty_mta(script, extensions=extensions) as mta:  # type: ignore[arg-type]
        async with relay(mta.port, settings(connections=4)) as desk:
            while sent < count:
                batch = range(sent, min(count, sent + dice.randint(1, 12)))
                sent = batch.stop
                desk.bridge.send(
                    PROVIDER_ID, [parcel(n, b"Subject: %d\r\n\r\nx\r\n" % n) for n in batch]
                )
                if dice.random() < 0.4:
                    desk.bridge.drop(PROVIDER_ID, [dice.randrange(sent) for _ in range(3)])
                if dice.random() < 0.1:
                    desk.bridge.open(provider(mta.port), settings(connections=3), CONFIG)
                if dice.random() < 0.5:
                    await desk.wait(max(0, sent - 8))
            await desk.bridge.close(PROVIDER_ID, drain_s=0.2 if dice.random() < 0.5 else 30)
        assert sorted(one.id for one in desk.answers) == list(range(count))
    there = Counter(int(mail.split()[1]) for mail in mta.mails)
    for one in desk.answers:
        if one.how is How.REPLY and one.code == 250:
            assert there[one.id] == 1
        if not one.left:
            assert there[one.id] == 0
        assert there[one.id] <= 1
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_files
