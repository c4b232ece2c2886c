"""What a link makes of connections that end in the wrong moment; the peer's record judges.

0 lost, 0 doubled: what was answered is accepted, what nobody saw the answer of is unknown and not
sent again, what never left goes out once through the next bind.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.model import Provider, Service, Spool
from engine.results import Awaiting, Disposition, Reached, Result
from gateways.smpp.codec import decode_short_message
from gateways.smpp.pdu import Command, Pdu
from tests.gateways.smpp.desk import Node, order_of, provider_of, receipt_of, running
from tests.gateways.smpp.faulty import Peer, faulty_smsc, pdu, submit_resp
from tests.gateways.smpp.victim import number_of
from tests.support import LOCALHOST
from tests.support.command import environment
from tests.support.desk import Delivery
from tests.support.smsc.peers import node_smsc

WINDOW = 16
ANSWERED = 6
MESSAGES = 26

Script = Callable[[Peer], Awaitable[None]]


def provider_at(port: int, **settings: Any) -> Provider:
    fields = {
        "name": "smsc", "type": "smpp", "host": LOCALHOST, "port": port,
        "username": "outspool", "password": "secret",
    }  # fmt: skip
    return provider_of(fields, **({"window": WINDOW} | settings))


def destinations(submits: Sequence[Pdu]) -> list[str]:
    return [decode_short_message(one.body).destination.digits for one in submits]


async def send_all(node: Node, provider: Provider, count: int = MESSAGES) -> dict[int, Delivery]:
    """Deliver so many at once and wait for every fate."""
    deliveries = {
        n: Delivery(order_of(provider, f"n {n}", spool_id=n, destination=number_of(n)))
        for n in range(1, count + 1)
    }
    async with trio.open_nursery() as nursery:
        for delivery in deliveries.values():
            nursery.start_soon(delivery.run, node.gateway)
    return deliveries


def numbers_where(
    deliveries: dict[int, Delivery], condition: Callable[[Awaiting], bool]
) -> set[str]:
    fates = {n: delivery.fate for n, delivery in deliveries.items()}
    return {
        number_of(n) for n, fate in fates.items() if isinstance(fate, Awaiting) and condition(fate)
    }


def drop_mid_window(then: Script) -> Script:
    """Read a window, answer some of it, drop the connection; the next one behaves as ``then``."""
    first = True

    async def script(peer: Peer) -> None:
        nonlocal first
        await peer.bind()
        if not first:
            await then(peer)
            return
        first = False
        submits = await peer.expect_submits(WINDOW)
        await peer.send(b"".join(submit_resp(one) for one in submits[:ANSWERED]))

    return script


async def test_a_drop_mid_window_tells_the_three_kinds_apart(tmp_path: Path) -> None:
    async with faulty_smsc(drop_mid_window(Peer.serve)) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port)
        await node.provide(provider)
        deliveries = await send_all(node, provider)
        first, second = smsc.peers
        left, went_on = destinations(first.submits()), destinations(second.submits())
        assert len(left) == WINDOW
        accepted = numbers_where(deliveries, lambda fate: fate.accepted_at is not None)
        unknown = numbers_where(deliveries, lambda fate: fate.accepted_at is None)
        assert accepted == set(left[:ANSWERED]) | set(went_on)
        # Some more were written into the places of those answered, before the end was heard of.
        assert unknown >= set(left[ANSWERED:])
        assert unknown | accepted == {number_of(n) for n in deliveries}
        assert max(Counter(left + went_on).values()) == 1
        spools = [n for n in deliveries if number_of(n) in unknown]
        await node.inbox.wait(*spools)
        for n in spools:
            result = node.inbox.results[n]
            assert (result.disposition, result.cause) == (Disposition.INTERRUPTED, "unknown")
            assert (result.reached, result.again) == (Reached.PERSON, False)
        assert set(node.inbox.results) == set(spools)


async def test_at_least_once_sends_the_unknown_ones_again_and_says_so(tmp_path: Path) -> None:
    async with faulty_smsc(drop_mid_window(Peer.serve)) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port, unknown="at_least_once", unknown_wait_s=0.2)
        await node.provide(provider)
        deliveries = await send_all(node, provider, WINDOW)
        unknown = numbers_where(deliveries, lambda fate: fate.accepted_at is None)
        assert len(unknown) == WINDOW - ANSWERED
        spools = [n for n in deliveries if number_of(n) in unknown]
        await node.inbox.wait(*spools)
        for n in spools:
            result = node.inbox.results[n]
            assert (result.cause, result.again) == ("resent", True)
            assert ("info", "possible_duplicate", "1") in [
                (row.type, row.name, row.data) for row in result.rows
            ]


async def test_a_receipt_settles_what_nobody_saw_the_answer_of(tmp_path: Path) -> None:
    kept: list[Pdu] = []

    async def script(peer: Peer) -> None:
        await peer.bind()
        if not kept:
            kept.extend(await peer.expect_submits(3))
            return
        for sequence, submit in enumerate(kept[:2], 1):
            await peer.send(receipt_of(submit, sequence, f"unseen{sequence}"))
        await peer.serve()

    async with faulty_smsc(script) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port, unknown_wait_s=2.0)
        await node.provide(provider)
        deliveries = await send_all(node, provider, 3)
        assert len(numbers_where(deliveries, lambda fate: fate.accepted_at is None)) == 3
        await node.inbox.wait(1, 2, 3)
        causes = {number_of(n): result.cause for n, result in node.inbox.results.items()}
        told = destinations(kept)
        assert [causes[number] for number in told] == ["delivered", "delivered", "unknown"]
        answers = [one for one in smsc.got if one.command == Command.DELIVER_SM_RESP]
        assert [one.status for one in answers] == [0, 0]


async def test_a_peer_that_unbinds_mid_window_is_left_and_nothing_is_lost(tmp_path: Path) -> None:
    first = True

    async def script(peer: Peer) -> None:
        nonlocal first
        await peer.bind()
        if not first:
            await peer.serve()
            return
        first = False
        submits = await peer.expect_submits(WINDOW)
        await peer.send(pdu(Command.UNBIND, 0, 99))
        await peer.expect(Command.UNBIND_RESP)
        for submit in submits:
            await peer.send(submit_resp(submit))
        assert await peer.read() is None  # the gateway closes, and submits nothing more

    async with faulty_smsc(script) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port)
        await node.provide(provider)
        deliveries = await send_all(node, provider)
        everybody = {number_of(n) for n in deliveries}
        assert numbers_where(deliveries, lambda fate: fate.accepted_at is not None) == everybody
        assert len(smsc.peers[0].submits()) == WINDOW
        sent = destinations([one for peer in smsc.peers for one in peer.submits()])
        assert Counter(sent) == Counter(everybody)


async def test_a_peer_that_falls_silent_is_found_and_the_rest_goes_elsewhere(
    tmp_path: Path,
) -> None:
    """Half-open TCP: nothing comes, not even an end. Its window is unknown, the queue goes on."""
    first = True

    async def script(peer: Peer) -> None:
        nonlocal first
        await peer.bind()
        if not first:
            await peer.serve()
            return
        first = False
        await peer.expect_submits(4)
        await trio.sleep_forever()

    async with faulty_smsc(script) as smsc, running(tmp_path) as node:
        provider = provider_at(
            smsc.port, window=4, enquire_link_s=0.2, response_timeout_s=0.4, unknown_wait_s=0.2
        )
        await node.provide(provider)
        deliveries = await send_all(node, provider, 10)
        unknown = numbers_where(deliveries, lambda fate: fate.accepted_at is None)
        # Places of timed-out ones are free: the silent peer may be given more before it is left.
        silent = set(destinations(smsc.peers[0].submits()))
        assert silent <= unknown
        sent = destinations([one for peer in smsc.peers for one in peer.submits()])
        assert set(sent) >= {number_of(n) for n in deliveries} - unknown
        assert max(Counter(sent).values()) == 1


async def test_answers_out_of_order_doubled_and_made_up(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.bind()
        submits = await peer.expect_submits(5)
        for submit in reversed(submits):
            await peer.send(submit_resp(submit, message_id=f"m{submit.sequence}"))
            await peer.send(submit_resp(submit, status=0x0B))  # a second answer changes nothing
        await peer.send(submit_resp(Pdu(Command.SUBMIT_SM, 0, 77_777)))
        await peer.serve()

    async with faulty_smsc(script) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port)
        await node.provide(provider)
        deliveries = await send_all(node, provider, 5)
        submits = smsc.peers[0].submits()
        ids = {destinations([one])[0]: f"m{one.sequence}" for one in submits}
        for n, delivery in deliveries.items():
            fate = delivery.fate
            assert isinstance(fate, Awaiting)
            assert [r.data for r in fate.rows if r.name == "message_id"] == [ids[number_of(n)]]


async def test_a_late_answer_is_booked(tmp_path: Path) -> None:
    """Nobody waits for it any more; its receipt finds the message all the same."""
    late = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.bind()
        (submit,) = await peer.expect_submits(1)
        await late.wait()
        await peer.send(submit_resp(submit, message_id="late1"))
        body = receipt_of(submit, 1, "late1")
        await peer.send(body)
        await peer.serve()

    async with faulty_smsc(script) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port, response_timeout_s=0.3, unknown_wait_s=10.0)
        await node.provide(provider)
        fate = await node.deliver(order_of(provider))
        assert isinstance(fate, Awaiting)
        assert fate.accepted_at is None
        late.set()
        assert (await node.inbox.result(1)).cause == "delivered"


async def test_the_smscs_kill_9_mid_window(tmp_path: Path) -> None:
    """What it took it receipts after its restart: that settles what was unknown."""
    count = 60
    async with (
        node_smsc(tmp_path / "smsc", response_delay_ms=300) as smsc,
        running(tmp_path / "node") as node,
    ):
        provider = provider_of(smsc.provider, window=20, unknown_wait_s=8.0)
        await node.provide(provider)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, node, provider, count)
            await smsc.wait_taken(30)
            await smsc.restart()
        await node.inbox.wait(*range(1, count + 1))
        sent = Counter(message.destination for message in smsc.messages())
        assert max(sent.values()) == 1
        for n, result in node.inbox.results.items():
            assert result.cause == ("delivered" if number_of(n) in sent else "unknown"), n


async def victim_of(port: int, folder: Path, count: int) -> trio.Process:
    """A gateway that sends so many messages, to be killed."""
    arguments = [str(port), str(folder), str(count)]
    command = [sys.executable, "-m", "tests.gateways.smpp.victim", *arguments]
    return await trio.lowlevel.open_process(command, env=environment())


def spools(count: int) -> list[Spool]:
    return [Spool(id=n, transmission_id=n, service=Service.SMS) for n in range(1, count + 1)]


@pytest.mark.parametrize("after", [1, 17, 40])
async def test_our_kill_9_mid_window(tmp_path: Path, after: int) -> None:
    """The journal tells of every spool whether it has to be sent; what it says so of, was not."""
    count = 200
    async with node_smsc(tmp_path / "smsc", response_delay_ms=30) as smsc:
        victim = await victim_of(smsc.port, tmp_path / "node", count)
        await smsc.wait_taken(after)
        victim.kill()
        await victim.wait()
        async with running(tmp_path / "node") as node:
            fates = await node.gateway.recall(spools(count))
            assert set(fates) == set(range(1, count + 1))
            again = {n for n, fate in fates.items() if isinstance(fate, Result) and fate.again}
            assert again
            before = {message.destination for message in smsc.messages()}
            assert before.isdisjoint(number_of(n) for n in again)
            provider = provider_of(smsc.provider, window=10)
            await node.provide(provider)
            async with trio.open_nursery() as nursery:
                for n in again:
                    order = order_of(provider, spool_id=n, destination=number_of(n))
                    nursery.start_soon(Delivery(order).run, node.gateway)
            open_ones = {n for n, fate in fates.items() if isinstance(fate, Awaiting)}
            await node.inbox.wait(*open_ones, *again)
            sent = Counter(message.destination for message in smsc.messages())
            assert max(sent.values()) == 1
            for n, fate in fates.items():
                result = node.inbox.results.get(n, fate)
                assert isinstance(result, Result)
                assert result.cause == ("delivered" if number_of(n) in sent else "unknown"), n
