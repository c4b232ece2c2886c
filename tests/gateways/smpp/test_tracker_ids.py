"""Which receipt belongs to which message, in virtual time: early ones, strange spellings."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from gateways.smpp.ids import UNANIMOUS
from gateways.smpp.records import ReceiptState
from tests.gateways.smpp.books import (
    LEARNING,
    PHONE,
    SETTINGS,
    clock,
    later,
    parts,
    receipt,
    rows,
    run,
    segment,
)

S = ReceiptState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


# --- receipts that are quicker than answers ------------------------------------------------------


async def test_a_receipt_before_the_answer_waits_for_it(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.receive(receipt("5"))
        assert await books.rows("orphan") == 1
        await books.accept((segment(), "5"))
        await later(0.1)
        assert books.inbox.causes == [(1, "delivered")]
        assert await books.rows("orphan") == 0


async def test_receipts_before_answers_teach_the_spelling_too(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment(), settings=LEARNING)
        await books.receive(receipt("4660"), settings=LEARNING)
        await books.accept((segment(), "1234"))
        await later(0.1)
        assert books.inbox.causes == [(1, "delivered")]


async def test_a_receipt_that_waits_survives_a_crash(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.receive(receipt("5"))
    async with run(path) as books:
        await books.send(segment())
        await books.accept((segment(), "5"))
        await later(0.1)
        assert books.inbox.causes == [(1, "delivered")]


async def test_a_receipt_that_waits_settles_what_the_crash_made_unknown(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.receive(receipt("77", reference=1))
    async with run(path) as books:
        await later(0.1)
        assert books.inbox.causes == [(1, "delivered")]


@pytest.mark.parametrize("first", ["the receipt", "the answer"])
@pytest.mark.parametrize("shown", [S.DELIVERED, S.ENROUTE])
async def test_a_part_taken_without_an_id_is_known_by_its_reference(
    path: Path, autojump_clock: trio.testing.MockClock, first: str, shown: ReceiptState
) -> None:
    """From then on it has the id of its receipt."""
    async with run(path) as books:
        await books.send(segment(), segment(2))
        if first == "the receipt":
            await books.receive(receipt("77", shown, reference=1))
        await books.accept((segment(), ""), (segment(2), "78"))
        accepted = clock()
        await later(1)
        if first == "the answer":
            await books.receive(receipt("77", shown, reference=1))
        await books.receive(receipt("77"), receipt("79", reference=2))
        await later(0.1)
        assert books.inbox.causes == [(1, "delivered")]
        result = books.inbox.results[1]
        assert ("message_id", "77") in rows(result)
        assert result.connected_at == accepted


async def test_a_receipt_of_somebody_else_is_forgotten_in_time(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.receive(receipt("5"))
        await later(3500)
        assert books.tracker.statistics()["orphans_kept"] == 1
        await later(200)
        assert books.tracker.statistics()["orphans_kept"] == 0


async def test_a_receipt_from_another_number_is_not_the_messages(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.accept((segment(), "5"))
        await books.receive(receipt("5", handset="4917099999999"))
        assert books.inbox.reports == []
        await books.receive(receipt("5", handset="+" + PHONE))
        assert books.inbox.causes == [(1, "delivered")]


async def test_providers_have_ids_of_their_own(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.accept((segment(), "5"))
        await books.tracker.receipts(8, SETTINGS, [receipt("5")])
        assert books.inbox.reports == []


async def test_an_id_used_twice_belongs_to_the_message_that_waits(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        for spool_id in (1, 2):
            await books.send(segment(spool_id))
            await books.accept((segment(spool_id), "5"))
            await books.receive(receipt("5"))
        assert books.inbox.causes == [(1, "delivered"), (2, "delivered")]


# --- spellings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answered", "received"), [("{:x}", "{}"), ("{}", "{:08X}"), ("{:010}", "{}")]
)
async def test_a_spelling_is_learned_and_remembered(
    path: Path, autojump_clock: trio.testing.MockClock, answered: str, received: str
) -> None:
    """All to one number and with ids one after the other: the hardest to tell apart."""
    count = UNANIMOUS + 5
    async with run(path) as books:
        for number in range(count):
            it = segment(number + 1)
            message_id = 0x2000 + number
            await books.send(it, settings=LEARNING)
            await books.accept((it, answered.format(message_id)))
            await books.receive(receipt(received.format(message_id)), settings=LEARNING)
        assert books.inbox.causes == [(number + 1, "delivered") for number in range(count)]
    async with run(path) as books:
        # In the wrong spelling this is the id of the first message of the run before.
        it = segment(900)
        await books.send(it, settings=LEARNING)
        await books.accept((it, answered.format(0x2000 + count)))
        await books.receive(receipt(received.format(0x2000 + count)), settings=LEARNING)
        assert books.inbox.causes == [(900, "delivered")]


async def test_ids_of_one_message_that_are_each_other_in_the_wrong_spelling(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Answers say 9, a, … 10, 11; receipts 9, 10, … 16, 17, and the reference of each part."""
    sent = parts(1, 9)
    async with run(path) as books:
        await books.send(*sent, settings=LEARNING)
        await books.accept(*((it, f"{it.number + 8:x}") for it in sent))
        for it in sent:
            told = receipt(str(it.number + 8), reference=it.reference)
            await books.receive(told, settings=LEARNING)
        assert books.inbox.causes == [(1, "delivered")]


@pytest.mark.parametrize("step", [1, -1, 5])
@pytest.mark.parametrize("at_once", [1, 24])
async def test_ids_of_one_message_in_another_spelling_without_a_reference(
    path: Path, autojump_clock: trio.testing.MockClock, step: int, at_once: int
) -> None:
    """Until one of them can only be meant in one spelling, the others are held."""
    sent = parts(1, 24)
    async with run(path) as books:
        await books.send(*sent, settings=LEARNING)
        await books.accept(*((it, f"{it.number + 8:x}") for it in sent))
        told = [receipt(str(9 + step * number % 24)) for number in range(24)]
        for start in range(0, 24, at_once):
            await books.receive(*told[start : start + at_once], settings=LEARNING)
        assert books.inbox.causes == [(1, "delivered")]
        assert await books.rows("orphan") == 0


@pytest.mark.parametrize("answered", ["{}", "{:x}"])
@pytest.mark.parametrize("known", [6, 18, 23])
async def test_receipts_that_overtake_the_answers_of_their_parts_take_no_others(
    path: Path, autojump_clock: trio.testing.MockClock, answered: str, known: int
) -> None:
    """19 is the hexadecimal 13: the thirteenth part's id was there, the nineteenth's not yet."""
    sent, other = parts(1, 24), segment(2)
    async with run(path) as books:
        await books.send(*sent, other, settings=LEARNING)
        await books.accept(*((it, answered.format(it.number)) for it in sent[:known]))
        for it in sent:
            await books.receive(receipt(str(it.number)), settings=LEARNING)
        await books.accept(*((it, answered.format(it.number)) for it in sent[known:]))
        await books.accept((other, answered.format(1000)))
        await books.receive(receipt("1000"), settings=LEARNING)
        await later(0.1)
        assert sorted(books.inbox.causes) == [(1, "delivered"), (2, "delivered")]
        assert await books.rows("orphan") == 0


async def test_the_operators_word_is_taken_for_receipts_that_come_first(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    settings = msgspec.structs.replace(SETTINGS, receipt_ids="hex_to_decimal")
    async with run(path) as books:
        await books.send(segment(1), segment(2), settings=settings)
        await books.receive(receipt("16"), settings=settings)
        await books.accept((segment(1), "16"), (segment(2), "10"))
        await later(0.1)
        assert books.inbox.causes == [(2, "delivered")]
