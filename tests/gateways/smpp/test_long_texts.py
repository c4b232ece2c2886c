"""Long texts whose parts fare differently, through a gateway with a real journal."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from engine.model import Service, Spool
from engine.results import Awaiting
from gateways.smpp import timers
from gateways.smpp.pdu import Pdu
from tests.gateways.smpp.desk import order_of, receipt_of, running
from tests.gateways.smpp.faulty import Peer, faulty_smsc, submit_resp
from tests.gateways.smpp.test_link_faults import provider_at
from tests.support.desk import Delivery

TWO_PARTS = "x" * 200
TRY_AGAIN = 0x08  # ESME_RSYSERR


async def test_a_stop_between_the_answers_of_two_parts_leaves_the_message_open(
    tmp_path: Path,
) -> None:
    """Nobody waits any more, the window drains: the receipts of the next run decide."""
    stopping = trio.Event()
    parts: list[Pdu] = []

    async def script(peer: Peer) -> None:
        await peer.bind()
        if parts:
            for sequence, part in enumerate(parts, 1):
                await peer.send(receipt_of(part, sequence, f"A{sequence}"))
        else:
            parts.extend(await peer.expect_submits(2))
            await peer.send(submit_resp(parts[0], message_id="A1"))
            await stopping.wait()
            await peer.send(submit_resp(parts[1], message_id="A2"))
        await peer.serve()

    async with faulty_smsc(script) as smsc:
        provider = provider_at(smsc.port)
        async with running(tmp_path) as node:
            await node.provide(provider)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Delivery(order_of(provider, TWO_PARTS)).run, node.gateway)
                await node.until(lambda: node.of().get("accepted") == 1)
                nursery.cancel_scope.cancel()
            stopping.set()
        async with running(tmp_path) as node:
            fates = await node.gateway.recall([Spool(id=1, transmission_id=1, service=Service.SMS)])
            fate = fates[1]
            assert isinstance(fate, Awaiting)
            assert fate.accepted_at is not None
            await node.provide(provider)
            assert (await node.inbox.result(1)).cause == "delivered"


async def test_nothing_is_sent_again_while_its_other_part_has_still_to_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody saw the answer of the first part, and the second is refused for now."""
    monkeypatch.setattr(timers, "IN_HAND_S", 0.1)

    async def script(peer: Peer) -> None:
        await peer.bind()
        _, second = await peer.expect_submits(2)
        await peer.send(submit_resp(second, TRY_AGAIN))
        (again,) = await peer.expect_submits(1)
        await peer.send(submit_resp(again, TRY_AGAIN))
        await peer.serve()

    async with faulty_smsc(script) as smsc, running(tmp_path) as node:
        provider = provider_at(
            smsc.port, unknown="at_least_once", response_timeout_s=0.1, unknown_wait_s=0.1
        )
        await node.provide(provider)
        delivery = node.start(order_of(provider, TWO_PARTS))
        assert (await node.inbox.result(1)).cause == "resent"
        assert delivery.done.is_set()
        assert len(smsc.peers[0].submits()) == 4
