"""The tracker in virtual time, on a real file without a thread: what becomes of messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from engine.results import Awaiting, Blame, Disposition, Reached, Result
from gateways.smpp.aggregate import closes_at
from gateways.smpp.ids import UNANIMOUS
from gateways.smpp.pdu import Address
from gateways.smpp.records import ReceiptState, Segment
from gateways.smpp.settings import SmppSettings
from tests.gateways.smpp.books import (
    LEARNING,
    PHONE,
    SETTINGS,
    Books,
    clock,
    opened,
    parts,
    receipt,
    segment,
)

S = ReceiptState
AGAIN = msgspec.structs.replace(SETTINGS, unknown="at_least_once")
LIFE_S = 1200  # of SETTINGS: receipt_wait_s and receipt_grace_s


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@asynccontextmanager
async def run(path: Path, **settings: float) -> AsyncIterator[Books]:
    """The gateway between a start and a crash: nothing is done at the end but what is done."""
    async with trio.open_nursery() as nursery:
        books = await opened(path, nursery, **settings)
        yield books
        nursery.cancel_scope.cancel()
    await books.journal.aclose()


def rows(result: Result | Awaiting) -> list[tuple[str, str]]:
    return [(row.name, row.data) for row in result.rows]


async def later(seconds: float) -> None:
    await trio.sleep(seconds)
    await trio.testing.wait_all_tasks_blocked()


# --- the usual way -------------------------------------------------------------------------------


async def test_a_receipt_closes_its_message(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.accept((segment(), "00A1"))
        accepted = clock()
        await later(30)
        await books.receive(receipt("a1"))
        (report,) = books.inbox.reports
        assert report.spool_id == 1
        assert report.result.disposition is Disposition.ANSWERED
        assert (report.result.connected_at, report.result.ended_at) == (accepted, clock())
        assert rows(report.result) == [
            ("message_id", "00A1"),
            ("parts", "1"),
            ("stat", "DELIVRD"),
            ("err", "000"),
            ("submit_date", "1"),
            ("done_date", "2"),
        ]


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        (S.EXPIRED, "expired"),
        (S.DELETED, "deleted"),
        (S.UNDELIVERABLE, "undelivered"),
        (S.REJECTED, "rejected"),
        (S.UNKNOWN, "unknown_state"),
    ],
)
async def test_a_final_receipt_that_is_not_delivered(
    path: Path, autojump_clock: trio.testing.MockClock, state: ReceiptState, cause: str
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.accept((segment(), "5"))
        await books.receive(receipt("5", S.ENROUTE))
        await books.receive(receipt("5", S.ACCEPTED))
        assert books.inbox.reports == []
        await books.receive(receipt("5", state))
        assert books.inbox.causes == [(1, cause)]


async def test_the_same_receipt_again_is_only_counted(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.accept((segment(), "5"))
        await books.receive(receipt("5"), receipt("5"))
        await books.receive(receipt("5", S.EXPIRED))
        await later(10)
        assert books.inbox.causes == [(1, "delivered")]
        assert books.tracker.statistics()["duplicates"] == 2


async def test_one_batch_of_many_messages(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    many = [segment(number, destination=f"49170{number:07}") for number in range(1, 601)]
    async with run(path) as books:
        await books.send(*many)
        await books.accept(*((it, f"{it.spool_id:x}") for it in many))
        await books.receive(
            *(receipt(f"{it.spool_id:X}", handset=it.destination) for it in reversed(many))
        )
        assert sorted(books.inbox.causes) == [(it.spool_id, "delivered") for it in many]
        assert books.tracker.statistics()["pending"] == 0
        await books.send(segment(1000))
        assert await books.rows("intent") == 1


async def test_a_refused_message_says_so_after_a_crash(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.refuse(segment(), 0x0B)
    async with run(path) as books:
        fate = (await books.tracker.recall([1]))[1]
        assert isinstance(fate, Result)
        assert (fate.cause, fate.reached) == ("invalid_number", Reached.NOTHING)


async def test_without_receipts_acceptance_is_the_end(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    settings = msgspec.structs.replace(SETTINGS, receipts="none")
    async with run(path) as books:
        await books.send(segment(), settings=settings)
        await books.accept((segment(), "5"))
        await later(LIFE_S * 2)
        assert books.inbox.reports == []
        fate = (await books.tracker.recall([1]))[1]
        assert isinstance(fate, Result)
        assert fate.cause == "accepted"


# --- several parts -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
async def test_parts_close_their_message_together_in_any_order(
    path: Path, autojump_clock: trio.testing.MockClock, order: tuple[int, ...]
) -> None:
    message = parts(1, 3)
    async with run(path) as books:
        await books.send(*message)
        for it in reversed(message):
            await books.accept((it, f"id{it.number}"))
        for number in order:
            assert books.inbox.reports == []
            await books.receive(receipt(f"id{number}"))
        assert books.inbox.causes == [(1, "delivered")]
        ids = [data for name, data in rows(books.inbox.results[1]) if name == "message_id"]
        assert ids == ["id1", "id2", "id3"]


async def test_the_worst_part_decides(path: Path, autojump_clock: trio.testing.MockClock) -> None:
    message = parts(1, 2)
    async with run(path) as books:
        await books.send(*message)
        await books.accept((message[0], "1"), (message[1], "2"))
        await books.receive(receipt("2", S.EXPIRED, error="69"))
        await books.receive(receipt("1"))
        result = books.inbox.results[1]
        assert (result.cause, result.reached) == ("expired", Reached.PERSON)
        assert ("err", "69") in rows(result)


async def test_a_part_without_an_answer_keeps_the_message_open(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    message = parts(1, 2)
    async with run(path) as books:
        await books.send(*message)
        await books.accept((message[0], "1"))
        await books.receive(receipt("1"))
        assert books.inbox.reports == []
        await books.accept((message[1], "2"))
        await books.receive(receipt("2"))
        assert books.inbox.causes == [(1, "delivered")]


async def test_a_message_settled_by_the_gateway_is_never_reported(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    message = parts(1, 2)
    async with run(path) as books:
        await books.send(*message)
        await books.accept((message[0], "1"))
        await books.refuse(message[1], 0x45)
        await books.tracker.settled([1])
        await books.receive(receipt("1"))
        await later(LIFE_S * 2)
        assert books.inbox.reports == []
        assert books.tracker.statistics()["late"] == 1
        fate = (await books.tracker.recall([1]))[1]
        assert isinstance(fate, Result)
        assert fate.reached is Reached.PERSON


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


# --- nobody saw the answer -----------------------------------------------------------------------


async def test_at_most_once_gives_up_after_the_wait(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.lose(segment())
        await later(SETTINGS.unknown_wait_s - 1)
        assert books.inbox.reports == []
        await later(3)
        result = books.inbox.results[1]
        assert (result.cause, result.reached, result.again) == ("unknown", Reached.PERSON, False)
        await later(LIFE_S)
        assert len(books.inbox.reports) == 1


async def test_at_least_once_sends_again_and_says_so(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment(), settings=AGAIN)
        await books.lose(segment(), settings=AGAIN)
        await later(AGAIN.unknown_wait_s + 2)
        result = books.inbox.results[1]
        assert (result.cause, result.again) == ("resent", True)
        assert ("possible_duplicate", "1") in rows(result)


@pytest.mark.parametrize("receipt_comes", ["early", "late"])
async def test_a_receipt_settles_what_nobody_saw_the_answer_of(
    path: Path, autojump_clock: trio.testing.MockClock, receipt_comes: str
) -> None:
    async with run(path) as books:
        await books.send(segment(), segment(2))
        if receipt_comes == "early":
            await books.receive(receipt("77", reference=2))
        await books.lose(segment(), segment(2))
        if receipt_comes == "late":
            await books.receive(receipt("77", reference=2))
        await later(0.1)
        assert books.inbox.causes == [(2, "delivered")]
        assert ("message_id", "77") in rows(books.inbox.results[2])
        await books.receive(receipt("77", reference=2))
        assert books.tracker.statistics()["duplicates"] == 1
        await later(SETTINGS.unknown_wait_s + 2)
        assert books.inbox.causes[1:] == [(1, "unknown")]


async def test_neither_reference_nor_number_alone_settles_it(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.lose(segment())
        await books.receive(
            receipt("77"),
            receipt("77", reference=2),
            receipt("77", reference=1, handset="4917099999999"),
            receipt("77", reference=1, handset=""),
        )
        assert books.inbox.reports == []


async def test_an_intermediate_receipt_shows_that_it_arrived_at_the_smsc(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.lose(segment())
        await books.receive(receipt("77", S.ENROUTE, reference=1))
        await later(SETTINGS.unknown_wait_s + 2)
        assert books.inbox.reports == []
        await books.receive(receipt("77"))
        assert books.inbox.causes == [(1, "delivered")]


@pytest.mark.parametrize(("status", "cause"), [(0, "delivered"), (0x0B, "invalid_number")])
async def test_an_answer_after_all_is_booked(
    path: Path, autojump_clock: trio.testing.MockClock, status: int, cause: str
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.lose(segment())
        if status:
            await books.refuse(segment(), status)
        else:
            await books.accept((segment(), "5"))
            await later(SETTINGS.unknown_wait_s + 2)
            assert books.inbox.reports == []
            await books.receive(receipt("5"))
        await later(0.1)
        assert books.inbox.causes == [(1, cause)]


async def test_an_answer_after_the_end_changes_nothing(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.lose(segment())
        await later(SETTINGS.unknown_wait_s + 2)
        await books.accept((segment(), "5"))
        await books.receive(receipt("5"))
        await later(LIFE_S * 2)
        assert books.inbox.causes == [(1, "unknown")]


async def test_one_unknown_part_makes_the_message_unknown(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    message = parts(1, 2)
    async with run(path) as books:
        await books.send(*message)
        await books.accept((message[0], "1"))
        await books.lose(message[1])
        await books.receive(receipt("1"))
        await later(SETTINGS.unknown_wait_s + 2)
        assert books.inbox.causes == [(1, "unknown")]


async def test_what_never_left_is_as_if_it_had_not_been(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment(1), segment(2), segment(3))
        await books.tracker.unsent([segment(1), segment(3)])
        assert books.tracker.statistics()["pending"] == 1
        await books.send(segment(3))
    async with run(path) as books:
        fates = await books.tracker.recall([1, 2, 3])
        assert isinstance(fates[1], Result)
        assert (fates[1].cause, fates[1].again) == ("not_sent", True)
        for spool_id in (2, 3):
            fate = fates[spool_id]
            assert isinstance(fate, Awaiting)
            assert fate.accepted_at is None


async def test_a_batch_taken_back_leaves_nothing(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment(1), segment(2))
        await books.tracker.unsent([segment(1), segment(2)])
        assert await books.rows("intent") == 0


# --- silence -------------------------------------------------------------------------------------


async def test_without_a_receipt_the_smsc_is_asked_and_then_it_is_over(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.accept((segment(), "05A"))
        await later(LIFE_S - 50)
        assert books.asked == [(7, "05A", Address("Acme", 1, 1))]
        assert books.inbox.reports == []
        await later(55)
        assert books.inbox.causes == [(1, "no_receipt")]
        assert len(books.asked) == 1


async def test_the_smscs_answer_stands_for_the_receipt(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        books.states = {"5": S.DELIVERED, "6": S.ENROUTE, "7": S.EXPIRED}
        for spool_id in (5, 6, 7):
            await books.send(segment(spool_id))
            await books.accept((segment(spool_id), str(spool_id)))
        await later(LIFE_S - 50)
        assert sorted(books.inbox.causes) == [(5, "delivered"), (7, "expired")]
        await later(60)
        assert books.inbox.causes[2:] == [(6, "no_receipt")]


async def test_nobody_is_asked_where_the_provider_cannot(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    settings = msgspec.structs.replace(SETTINGS, query=False)
    async with run(path) as books:
        await books.send(segment(), settings=settings)
        await books.accept((segment(), "5"))
        await later(LIFE_S + 5)
        assert books.asked == []
        assert books.inbox.causes == [(1, "no_receipt")]


async def test_a_text_has_a_validity_of_its_own(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        it = segment(validity_s=10.0)
        await books.send(it)
        await books.accept((it, "5"))
        assert closes_at(clock(), 10.0, SETTINGS) == clock() + timedelta(seconds=210)
        await later(215)
        assert books.inbox.causes == [(1, "no_receipt")]


async def test_where_only_failures_are_told_silence_is_success(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    settings = msgspec.structs.replace(SETTINGS, receipts="failure")
    async with run(path) as books:
        await books.send(segment(1), segment(2), settings=settings)
        await books.accept((segment(1), "1"), (segment(2), "2"))
        await books.receive(receipt("2", S.UNDELIVERABLE), settings=settings)
        await later(LIFE_S + 5)
        assert books.inbox.causes == [(2, "undelivered"), (1, "accepted")]


async def test_silence_of_one_part_and_failure_of_another(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    message = parts(1, 2)
    async with run(path) as books:
        await books.send(*message)
        await books.accept((message[0], "1"), (message[1], "2"))
        await books.receive(receipt("1", S.UNDELIVERABLE))
        await later(LIFE_S + 5)
        result = books.inbox.results[1]
        assert (result.cause, result.reached) == ("undelivered", Reached.PERSON)


async def test_a_receipt_after_the_end_is_only_counted(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment())
        await books.accept((segment(), "5"))
        await later(LIFE_S + 5)
        await books.receive(receipt("5"))
        assert books.inbox.causes == [(1, "no_receipt")]
        assert books.tracker.statistics()["late"] == 1


async def test_closed_messages_are_forgotten_after_keep_s(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path, keep_s=500.0) as books:
        await books.send(segment(1), segment(2))
        await books.accept((segment(1), "1"), (segment(2), "2"))
        await books.receive(receipt("1"))
        await later(490)
        assert await books.rows("segment") == 2
        await later(20)
        assert await books.rows("segment") == 1
        await later(LIFE_S)
        assert await books.rows("segment") == 0
        assert await books.rows("intent") == 0


# --- the engine and the disk ---------------------------------------------------------------------


async def test_a_report_not_taken_is_handed_in_again(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        books.inbox.fault = True
        await books.send(segment())
        await books.accept((segment(), "5"))
        await books.receive(receipt("5"))
        await later(7)
        assert books.inbox.refused == 2
        books.inbox.fault = False
        await later(6)
        assert books.inbox.causes == [(1, "delivered")]
        await later(20)
        assert len(books.inbox.reports) == 1


async def test_a_report_not_taken_before_the_crash_is_handed_in_after_it(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        books.inbox.fault = True
        await books.send(segment())
        await books.accept((segment(), "5"))
        await books.receive(receipt("5", S.EXPIRED, error="12"))
    async with run(path) as books:
        await later(6)
        assert books.inbox.causes == [(1, "expired")]
        assert ("err", "12") in rows(books.inbox.results[1])


# --- after a crash -------------------------------------------------------------------------------


async def test_recall_tells_every_message_apart(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    half = parts(5, 2)
    async with run(path) as books:
        await books.send(segment(1), segment(2), segment(3), segment(6))
        await books.accept((segment(2), "2"), (segment(3), "3"))
        await books.receive(receipt("3"))
        await books.send(half[0])
        await books.accept((half[0], "5"))
        accepted = clock()
    async with run(path) as books:
        fates = await books.tracker.recall([1, 2, 3, 4, 5])
        assert fates[1] == Awaiting(
            accepted_at=None, closes_at=clock() + timedelta(seconds=LIFE_S), rows=fates[1].rows
        )
        assert isinstance(fates[2], Awaiting)
        assert fates[2].accepted_at == accepted
        assert fates[2].closes_at == closes_at(accepted, 0, SETTINGS)
        assert rows(fates[2]) == [("message_id", "2"), ("parts", "1")]
        assert isinstance(fates[3], Result)
        assert fates[3].cause == "delivered"
        assert isinstance(fates[4], Result)
        assert (fates[4].cause, fates[4].blame) == ("not_sent", Blame.NODE)
        assert isinstance(fates[5], Awaiting)
        assert fates[5].accepted_at is None
        await books.receive(receipt("2"))
        await later(SETTINGS.unknown_wait_s + 2)
        assert sorted(books.inbox.causes) == [
            (1, "unknown"),
            (2, "delivered"),
            (5, "unknown"),
            (6, "unknown"),
        ]


async def test_a_policy_outlives_the_crash(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment(), settings=AGAIN)
    async with run(path) as books:
        await later(AGAIN.unknown_wait_s + 2)
        assert books.inbox.causes == [(1, "resent")]


async def test_recall_takes_any_number(path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with run(path) as books:
        fates = await books.tracker.recall([0, 2**62, 2**70])
        assert {fate.cause for fate in fates.values() if isinstance(fate, Result)} == {"not_sent"}
        assert await books.tracker.recall([]) == {}


# --- anything in any order -----------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["answer", "refuse", "lose", "delivered", "expired", "wait", "crash"]),
        st.integers(1, 3),
        st.integers(1, 2),
    ),
    max_size=14,
)


@given(STEPS)
def test_every_message_ends_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("walk") / "journal.db"
    trio.run(_walk, path, steps, clock=trio.testing.MockClock(autojump_threshold=0))


async def _walk(path: Path, steps: list[tuple[str, int, int]]) -> None:
    """Three messages of two parts; whatever happens, each is reported once or known as refused."""
    messages = {spool_id: parts(spool_id, 2) for spool_id in (1, 2, 3)}
    reported: list[int] = []
    steps = list(steps)
    async with run(path) as books:
        await books.send(*(it for message in messages.values() for it in message))
        await _play(books, messages, steps)
    reported += [spool_id for spool_id, _ in books.inbox.causes]
    while steps:
        async with run(path) as books:
            await _play(books, messages, steps)
        reported += [spool_id for spool_id, _ in books.inbox.causes]
    async with run(path) as books:
        await later(LIFE_S * 2)
        fates = await books.tracker.recall([1, 2, 3])
    reported += [spool_id for spool_id, _ in books.inbox.causes]
    assert sorted(reported) == [1, 2, 3]
    assert all(isinstance(fate, Result) for fate in fates.values())


async def _play(
    books: Books, messages: dict[int, list[Segment]], steps: list[tuple[str, int, int]]
) -> None:
    while steps:
        step, spool_id, number = steps.pop(0)
        it = messages[spool_id][number - 1]
        message_id = f"{spool_id}-{number}"
        match step:
            case "answer":
                await books.accept((it, message_id))
            case "refuse":
                await books.refuse(it, 0x0B)
            case "lose":
                await books.lose(it)
            case "delivered":
                await books.receive(receipt(message_id, reference=it.reference))
            case "expired":
                await books.receive(receipt(message_id, S.EXPIRED))
            case "wait":
                await later(40)
            case "crash":
                return


def test_settings_of_the_scene() -> None:
    assert SETTINGS.receipt_wait_s + SETTINGS.receipt_grace_s == LIFE_S
    assert SmppSettings().unknown == "at_most_once"
