"""The smpp gateway against an SMSC of another make, over real sockets and a real journal."""

from __future__ import annotations

from pathlib import Path

import trio

from engine.gateway import Stage
from engine.results import Awaiting, Disposition, Reached, Result
from tests.gateways.smpp.desk import order_of, provider_of, running
from tests.support.desk import Delivery
from tests.support.smsc.peers import node_smsc

LONG = "Grüße! " * 60


async def test_a_message_goes_out_and_its_receipt_closes_it(tmp_path: Path) -> None:
    async with node_smsc(tmp_path / "smsc") as smsc, running(tmp_path / "node") as node:
        provider = provider_of(smsc.provider)
        await node.provide(provider)
        delivery = Delivery(order_of(provider, "Price: 5 € {cheap}"))
        fate = await delivery.run(node.gateway)
        assert isinstance(fate, Awaiting)
        assert fate.accepted_at is not None
        assert fate.closes_at > fate.accepted_at
        assert delivery.stages == [Stage.LEFT, Stage.CONNECTED]
        result = await node.inbox.result(1)
        assert (result.disposition, result.cause) == (Disposition.ANSWERED, "delivered")
        assert result.reached is Reached.PERSON
        (message,) = smsc.messages()
        assert (message.text, message.destination) == ("Price: 5 € {cheap}", "491700000001")
        assert message.source == "4930123456"
        ids = [row.data for row in fate.rows if row.name == "message_id"]
        assert ids == [row.data for row in result.rows if row.name == "message_id"]
        assert len(ids) == 1


async def test_parts_of_a_long_text_are_one_message(tmp_path: Path) -> None:
    async with node_smsc(tmp_path / "smsc") as smsc, running(tmp_path / "node") as node:
        provider = provider_of(smsc.provider)
        await node.provide(provider)
        fate = await node.deliver(order_of(provider, LONG))
        assert isinstance(fate, Awaiting)
        assert (await node.inbox.result(1)).cause == "delivered"
        (message,) = smsc.messages()
        assert message.complete
        assert message.text == LONG
        parts = len(message.submits)
        assert parts > 1
        assert [row.data for row in fate.rows if row.name == "parts"] == [str(parts)]
        assert len([row for row in fate.rows if row.name == "message_id"]) == parts


async def test_many_at_once_arrive_once_each(tmp_path: Path) -> None:
    count = 2000
    async with node_smsc(tmp_path / "smsc") as smsc, running(tmp_path / "node") as node:
        provider = provider_of(smsc.provider, window=50, binds=2)
        await node.provide(provider)
        await node.bound()
        async with trio.open_nursery() as nursery:
            for number in range(1, count + 1):
                order = order_of(
                    provider, f"n {number}", spool_id=number, destination=f"49170{number:07}"
                )
                nursery.start_soon(Delivery(order).run, node.gateway)
        await node.inbox.wait(*range(1, count + 1))
        taken = smsc.messages()
        assert sorted(m.text for m in taken) == sorted(f"n {n}" for n in range(1, count + 1))
        assert {m.text[2:].zfill(7) for m in taken} == {m.destination[5:] for m in taken}
        assert {result.cause for result in node.inbox.results.values()} == {"delivered"}
        statistics = node.gateway.statistics()
        assert statistics["calls_up"] == 0
        assert statistics["awaiting"] == count


async def test_without_receipts_taken_is_the_end(tmp_path: Path) -> None:
    async with node_smsc(tmp_path / "smsc") as smsc, running(tmp_path / "node") as node:
        provider = provider_of(smsc.provider, receipts="none")
        await node.provide(provider)
        fate = await node.deliver(order_of(provider))
        assert isinstance(fate, Result)
        assert (fate.disposition, fate.cause) == (Disposition.ANSWERED, "accepted")
