"""Long texts whose parts fare differently, through a gateway with a real journal."""

from __future__ import annotations

from pathlib import Path

import trio

from engine.model import Service, Spool
from engine.results import Awaiting
from gateways.smpp.pdu import Pdu
from tests.gateways.smpp.desk import Delivery, order_of, receipt_of, running
from tests.gateways.smpp.faulty import Peer, faulty_smsc, submit_resp
from tests.gateways.smpp.test_link_faults import provider_at

TWO_PARTS = "x" * 200


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
