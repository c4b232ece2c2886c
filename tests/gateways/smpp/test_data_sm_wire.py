"""SMSCs that hand over receipts by data_sm (SMPP 3.4 §4.7): they close messages as others do.

What handsets send that way is in ``test_inbound_wire``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from gateways.smpp.codec import decode_short_message
from gateways.smpp.pdu import Command, Pdu
from tests.gateways.smpp.desk import order_of, provider_of, receipt_of, running
from tests.gateways.smpp.faulty import Peer, data_body, faulty_smsc, pdu, submit_resp
from tests.gateways.smpp.test_link_faults import provider_at, send_all
from tests.gateways.smpp.victim import number_of
from tests.support.desk import DEADLINE_S
from tests.support.smsc.peers import node_smsc

RECEIPT = 0x04  # of esm_class, §5.2.12
COUNT = 12


def handset_of(submit: Pdu) -> str:
    return decode_short_message(submit.body).destination.digits


def by_data_sm(submit: Pdu, text: str = "", tlvs: bytes = b"") -> bytes:
    body = data_body(text.encode(), handset_of(submit).encode(), RECEIPT, tlvs)
    return pdu(Command.DATA_SM, 0, submit.sequence, body)


async def test_receipts_close_messages_whatever_they_are_written_in(tmp_path: Path) -> None:
    answers: list[Pdu] = []
    answered = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.bind()
        submits = sorted(await peer.expect_submits(4), key=handset_of)
        await peer.send(*[submit_resp(one, message_id=f"m{n}") for n, one in enumerate(submits)])
        await peer.send(
            by_data_sm(submits[0], tlvs=b"\0\x1e\0\3m0\0" + b"\x04\x27\0\1\2"),
            by_data_sm(submits[1], "id:m1 sub:001 dlvrd:000 stat:UNDELIV err:034 text:"),
            by_data_sm(submits[2], "stat:REJECTD err:011 text:", tlvs=b"\0\x1e\0\3m2\0"),
            receipt_of(submits[3], submits[3].sequence, "m3"),
        )
        expected = (*[Command.DATA_SM_RESP] * 3, Command.DELIVER_SM_RESP)
        answers.extend([await peer.expect(command) for command in expected])
        answered.set()
        await peer.serve()

    async with faulty_smsc(script) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port)
        await node.provide(provider)
        await send_all(node, provider, 4)
        await node.inbox.wait(1, 2, 3, 4)
        causes = [node.inbox.results[n].cause for n in (1, 2, 3, 4)]
        assert causes == ["delivered", "undelivered", "rejected", "delivered"]
        with trio.fail_after(DEADLINE_S):
            await answered.wait()
    assert [(one.status, one.body) for one in answers] == [(0, b"\0")] * 4
    assert Command.GENERIC_NACK not in {one.command for one in smsc.got}


async def test_a_broken_one_is_refused_and_the_next_one_counts(tmp_path: Path) -> None:
    answers: list[Pdu] = []
    answered = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.bind()
        (submit,) = await peer.expect_submits(1)
        whole = by_data_sm(submit, tlvs=b"\0\x1e\0\3id\0" + b"\x04\x27\0\1\2")
        await peer.send(submit_resp(submit, message_id="id"))
        await peer.send(pdu(Command.DATA_SM, 0, 90, whole[16:-1]), whole)
        answers.extend([await peer.expect(Command.DATA_SM_RESP) for _ in range(2)])
        answered.set()
        await peer.serve()

    async with faulty_smsc(script) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port)
        await node.provide(provider)
        await node.deliver(order_of(provider))
        assert (await node.inbox.result(1)).cause == "delivered"
        with trio.fail_after(DEADLINE_S):
            await answered.wait()
    assert [(one.sequence == 90, one.status) for one in answers] == [(True, 0xC0), (False, 0)]


@pytest.mark.parametrize("form", ["text", "tlv", "payload"])
async def test_another_makes_receipts_by_data_sm(tmp_path: Path, form: str) -> None:
    async with (
        node_smsc(
            tmp_path / "smsc", deliver_by="data_sm", receipt_form=form, undelivered_every=4
        ) as smsc,
        running(tmp_path / "node") as node,
    ):
        provider = provider_of(smsc.provider)
        await node.provide(provider)
        await send_all(node, provider, COUNT)
        await node.inbox.wait(*range(1, COUNT + 1))
        undelivered = {one.destination for one in smsc.taken() if one.number % 4 == 0}
        for n, result in node.inbox.results.items():
            wanted = "undelivered" if number_of(n) in undelivered else "delivered"
            assert result.cause == wanted, n
        # The last answer may still be on its way when its result is told.
        await node.until(lambda: smsc.delivered() == set(range(1, COUNT + 1)), "receipts answered")
