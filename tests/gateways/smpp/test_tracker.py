"""The tracker in virtual time, on a real file without a thread: what becomes of messages."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from engine.results import Disposition, Reached, Result
from gateways.smpp.aggregate import closes_at
from gateways.smpp.bookings import TAKEN_S
from gateways.smpp.pdu import Address
from gateways.smpp.records import ReceiptState
from tests.gateways.smpp.books import (
    LIFE_S,
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
UNRECEIPTED = msgspec.structs.replace(SETTINGS, receipts="none")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


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
        for spool_id in range(1000, 1100):
            await books.send(segment(spool_id))
            await books.accept((segment(spool_id), f"{spool_id:x}"))
        assert await books.rows("intent") < 20, "forgotten by and by"


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
    async with run(path) as books:
        await books.send(segment(), settings=UNRECEIPTED)
        await books.accept((segment(), "5"))
        await later(LIFE_S * 2)
        assert books.inbox.reports == []
        fate = (await books.tracker.recall([1]))[1]
        assert isinstance(fate, Result)
        assert fate.cause == "accepted"


async def test_without_receipts_a_restart_long_after_still_knows_what_was_taken(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    many = [segment(spool_id) for spool_id in range(1, 301)]
    async with run(path) as books:
        await books.send(*many, settings=UNRECEIPTED)
        await books.accept(*((it, f"00{it.spool_id:X}") for it in many[:200]))
        accepted = clock()
        await books.accept(*((it, f"00{it.spool_id:X}") for it in many[200:299]))
        assert await books.rows("segment") == 0
    await trio.sleep(30 * 3600)
    async with run(path) as books:
        fates = await books.tracker.recall([1, 200, 201, 299, 300, 301])
        for spool_id in (1, 200, 201, 299):
            fate = fates[spool_id]
            assert isinstance(fate, Result)
            assert (fate.cause, fate.connected_at) == ("accepted", accepted)
            assert rows(fate) == [("message_id", f"00{spool_id:X}"), ("parts", "1")]
        assert not isinstance(fates[300], Result), "it may have left: a late receipt may tell"
        never = fates[301]
        assert isinstance(never, Result)
        assert never.cause == "not_sent"


async def test_without_receipts_nothing_is_kept_for_long(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        await books.send(segment(1), segment(2), *parts(3, 2), settings=UNRECEIPTED)
        await books.accept((segment(1), "1"), *((it, f"3{it.number}") for it in parts(3, 2)))
        await books.refuse(segment(2), 0x0B)
        assert (await books.rows("taken"), await books.rows("segment")) == (1, 3)
        await later(3700)
        assert (await books.rows("taken"), await books.rows("segment")) == (0, 3)


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


async def test_a_restart_long_after_still_knows_what_was_settled(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The engine asks only once the gateways run: a part arrived, it must not count as not sent."""
    message = parts(1, 2)
    async with run(path, keep_s=100.0) as books:
        await books.send(*message)
        await books.accept((message[0], "1"))
        await books.refuse(message[1], 0x45)
        await books.tracker.settled([1])
    await trio.sleep(30 * 3600)
    async with run(path, keep_s=100.0) as books:
        fate = (await books.tracker.recall([1]))[1]
        assert isinstance(fate, Result)
        assert (fate.reached, fate.again) == (Reached.PERSON, False)
        await later(2 * TAKEN_S)
        assert await books.rows("segment") == 0


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
