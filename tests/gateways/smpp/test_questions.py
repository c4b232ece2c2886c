"""query_sm on a provider that is busy: each question gets its place, and sending goes on."""

from __future__ import annotations

from pathlib import Path

import trio

from gateways.smpp.pdu import Command
from tests.gateways.smpp.desk import order_of, running
from tests.gateways.smpp.faulty import Peer, faulty_smsc, pdu, submit_resp
from tests.gateways.smpp.test_link_faults import Script, provider_at

SOON = {"window": 1, "receipt_wait_s": 0.2, "receipt_grace_s": 2.0}
DELIVERED = b"A1\0\0\x02\0"


def full_at(asking: trio.Event, then: Script) -> Script:
    """Answer one submit_sm, and the second, which fills the window, not before ``asking``.

    Of later connections ask nothing.
    """

    async def script(peer: Peer) -> None:
        await peer.bind()
        if asking.is_set():
            await peer.serve()
            return
        (first,) = await peer.expect_submits(1)
        await peer.send(submit_resp(first, message_id="A1"))
        await peer.expect_submits(1)
        await asking.wait()
        await then(peer)

    return script


async def test_a_question_waits_for_a_place_and_goes_before_what_is_to_be_sent(
    tmp_path: Path,
) -> None:
    asking = trio.Event()

    async def answer(peer: Peer) -> None:
        await peer.send(submit_resp(peer.got[-1]))
        question = await peer.expect(Command.QUERY_SM)
        await peer.send(pdu(Command.QUERY_SM_RESP, 0, question.sequence, DELIVERED))
        await peer.serve()

    async with faulty_smsc(full_at(asking, answer)) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port, **SOON)
        await node.provide(provider)
        await node.deliver(order_of(provider))
        deliveries = [
            node.start(order_of(provider, spool_id=n, destination=f"49170000000{n}"))
            for n in (2, 3)
        ]
        await node.until(lambda: node.of()["questions"] == 1)
        asking.set()
        assert (await node.inbox.result(1)).cause == "delivered"
        for delivery in deliveries:
            await delivery.done.wait()
        asked = {Command.SUBMIT_SM, Command.QUERY_SM}
        assert [one.command for one in smsc.peers[0].got if one.command in asked] == [
            Command.SUBMIT_SM,
            Command.SUBMIT_SM,
            Command.QUERY_SM,
            Command.SUBMIT_SM,
        ]


async def test_a_question_does_not_outlast_the_last_bind(tmp_path: Path) -> None:
    asking = trio.Event()

    async def drop(peer: Peer) -> None:
        await peer.stream.aclose()

    async with faulty_smsc(full_at(asking, drop)) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port, **SOON)
        await node.provide(provider)
        await node.deliver(order_of(provider))
        node.start(order_of(provider, spool_id=2, destination="491700000002"))
        await node.until(lambda: node.of()["questions"] == 1)
        asking.set()
        assert (await node.inbox.result(1)).cause == "no_receipt"
        assert all(one.command != Command.QUERY_SM for one in smsc.got)
