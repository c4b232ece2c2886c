"""The SMSCs of other makes are honest witnesses: what they join, record, and do when killed.

smpplib is the client here, so that nothing of ours is its own judge.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import smpplib.client
import smpplib.exceptions
import smpplib.gsm
import trio

from tests.support import LOCALHOST
from tests.support.smsc.peers import (
    PASSWORD,
    SYSTEM_ID,
    Smsc,
    Submit,
    joined,
    node_smsc,
    perl_smsc,
    statuses,
)

TEXTS = ["5 € {[~]} ^|\\", "Ω and 😀 in one, over and over. " * 8, "plain and long, " * 60]
# No € in the long one: smpplib may cut its escape pair in two, and both peers show it.
NUMBER = "4917612345"
Make = Callable[..., AbstractAsyncContextManager[Smsc]]


def _send(port: int, texts: list[str], *, receipts: int) -> list[int]:
    """Blocking: bind, send all parts, wait for all answers and so many receipts; the statuses."""
    client = smpplib.client.Client(LOCALHOST, port, timeout=10, allow_unknown_opt_params=True)
    answers: list[int] = []
    receipted: list[str] = []
    client.set_message_sent_handler(lambda pdu: answers.append(pdu.status))
    client.set_error_pdu_handler(lambda _: None)  # the default one raises

    def received(pdu: smpplib.pdu.PDU) -> int:
        receipted.append(pdu.source_addr)
        return 0

    client.set_message_received_handler(received)
    client.connect()
    try:
        client.bind_transceiver(system_id=SYSTEM_ID, password=PASSWORD)
        expected = sum(_submit(client, text) for text in texts)
        while len(answers) < expected or len(receipted) < receipts:
            client.read_once(auto_send_enquire_link=False)
        client.unbind()
    finally:
        client.disconnect()
    return answers


def _submit(client: smpplib.client.Client, text: str) -> int:
    parts, coding, esm_class = smpplib.gsm.make_parts(text)
    for part in parts:
        client.send_message(
            source_addr="4930",
            destination_addr=NUMBER,
            short_message=part,
            data_coding=coding,
            esm_class=esm_class,
            registered_delivery=True,
        )
    return len(parts)


@pytest.mark.parametrize("make", [node_smsc, perl_smsc])
async def test_it_reads_what_another_library_wrote(make: Make, tmp_path: Path) -> None:
    parts = sum(len(smpplib.gsm.make_parts(text)[0]) for text in TEXTS)
    async with make(tmp_path) as smsc:
        send = partial(_send, smsc.port, TEXTS, receipts=parts)
        assert await trio.to_thread.run_sync(send) == [0] * parts
        await smsc.wait_event("gone")
        messages, receipts = smsc.messages(), smsc.receipts()
    assert [message.text for message in messages] == TEXTS
    assert all(message.complete for message in messages)
    assert {message.source for message in messages} == {"4930"}
    assert sorted(receipt.number for receipt in receipts) == list(range(1, parts + 1))


@pytest.mark.parametrize("make", [node_smsc, perl_smsc])
async def test_what_it_took_before_a_kill_it_receipts_after_it(make: Make, tmp_path: Path) -> None:
    async with make(tmp_path, receipt="none") as smsc:
        await trio.to_thread.run_sync(partial(_send, smsc.port, TEXTS[:1], receipts=0))
        assert smsc.delivered() == set()
        await smsc.restart()
        await trio.to_thread.run_sync(partial(_send, smsc.port, [], receipts=1))
        await smsc.wait_event("gone")
        assert smsc.delivered() == {1}
        assert [message.text for message in smsc.messages()] == TEXTS[:1]


@pytest.mark.parametrize("make", [node_smsc, perl_smsc])
async def test_a_wrong_password_is_refused(make: Make, tmp_path: Path) -> None:
    async with make(tmp_path, password="another") as smsc:  # noqa: S106 - of a test
        with pytest.raises(smpplib.exceptions.PDUError):
            await trio.to_thread.run_sync(partial(_send, smsc.port, [], receipts=0))
        assert not (await smsc.wait_event("bind"))["taken"]


async def test_what_it_throttles_it_has_not_taken(tmp_path: Path) -> None:
    async with node_smsc(tmp_path, throttle_every=2) as smsc:
        send = partial(_send, smsc.port, [TEXTS[0]] * 4, receipts=2)
        answers = await trio.to_thread.run_sync(send)
        assert sorted(answers) == [0, 0, 0x58, 0x58]
        assert statuses(smsc.submits()) == {0: 2, 0x58: 2}
        assert len(smsc.messages()) == 2


def _part(number: int, *, reference: int = 7, total: int = 2) -> Submit:
    return Submit(
        number=number,
        status=0,
        destination=NUMBER,
        part=(reference, total, number),
        text=f"{number}",
    )


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
def test_parts_join_in_any_order(order: tuple[int, ...]) -> None:
    (message,) = joined([_part(number, total=3) for number in order])
    assert (message.text, message.complete) == ("123", True)


def test_a_part_that_came_twice_is_seen() -> None:
    messages = joined([_part(1), _part(2), _part(2)])
    assert [(m.text, m.complete) for m in messages] == [("12", True), ("2", False)]


def test_a_missing_part_is_seen() -> None:
    (message,) = joined([_part(2, total=3), _part(1, total=3)])
    assert (message.text, message.complete) == ("12", False)
