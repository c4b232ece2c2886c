"""What nobody saw the answer of, crashes, and anything in any order; in virtual time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from engine.results import Awaiting, Blame, Reached, Result
from gateways.smpp.aggregate import closes_at
from gateways.smpp.records import ReceiptState, Segment
from gateways.smpp.settings import SmppSettings
from gateways.smpp.timers import IN_HAND_S
from tests.gateways.smpp.books import (
    AGAIN,
    LIFE_S,
    PROVIDER,
    SETTINGS,
    Books,
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


async def test_while_there_is_no_bind_silence_says_nothing(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wait_s = SETTINGS.unknown_wait_s
    async with run(path) as books:
        books.patience = {PROVIDER: wait_s}  # it is down
        await books.send(segment(), segment(2))
        await books.lose(segment(), segment(2))
        await later(3 * wait_s)
        assert books.inbox.reports == []
        books.patience = {PROVIDER: 0.0}  # bound for as long as it takes
        await books.receive(receipt("77", reference=2))
        await later(wait_s + 2)
        assert books.inbox.causes == [(2, "delivered"), (1, "unknown")]


async def test_no_outage_outlasts_the_validity(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with run(path) as books:
        books.patience = {PROVIDER: SETTINGS.unknown_wait_s}
        await books.send(segment())
        await books.lose(segment())
        await later(LIFE_S - 1)
        assert books.inbox.reports == []
        await later(3)
        assert books.inbox.causes == [(1, "unknown")]


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


@pytest.mark.parametrize("heard", ["late answer", "intermediate receipt"])
async def test_what_is_there_after_all_is_asked_about_before_it_is_given_up(
    path: Path, autojump_clock: trio.testing.MockClock, heard: str
) -> None:
    async with run(path) as books:
        for spool_id in (1, 2):
            await books.send(segment(spool_id))
            await books.lose(segment(spool_id))
        await later(1)
        if heard == "late answer":
            await books.accept((segment(1), "77"), (segment(2), "78"))
        else:
            told = [receipt(f"7{n}", S.ENROUTE, reference=n - 6) for n in (7, 8)]
            await books.receive(*told)
        books.states = {"77": S.DELIVERED}
        await later(LIFE_S - 50)
        assert sorted(message_id for _, message_id, _ in books.asked) == ["77", "78"]
        assert books.inbox.causes == [(1, "delivered")]
        await later(55)
        assert books.inbox.causes[1:] == [(2, "no_receipt")]
        assert len(books.asked) == 2


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


@pytest.mark.parametrize("wait_s", [SETTINGS.unknown_wait_s, LIFE_S])
async def test_nothing_is_given_up_while_its_other_parts_have_to_leave(
    path: Path, autojump_clock: trio.testing.MockClock, wait_s: float
) -> None:
    message = parts(1, 2)
    async with run(path) as books:
        books.in_hand.add(1)
        await books.send(message[0], segment(2), settings=AGAIN)
        await books.lose(message[0], segment(2), settings=AGAIN)
        await later(wait_s + 2)
        assert books.inbox.causes == [(2, "resent")]
        await books.send(message[1], settings=AGAIN)
        await books.accept((message[1], "2"))
        books.in_hand.clear()
        await later(IN_HAND_S + 1)
        assert books.inbox.causes == [(2, "resent"), (1, "resent")]


@pytest.mark.parametrize(
    ("policy", "cause"), [("at_most_once", "unknown"), ("at_least_once", "resent")]
)
async def test_without_receipts_a_lost_part_is_decided_by_the_policy_all_the_same(
    path: Path, autojump_clock: trio.testing.MockClock, policy: str, cause: str
) -> None:
    settings = msgspec.structs.replace(UNRECEIPTED, unknown=policy)
    message = parts(1, 2)
    async with run(path) as books:
        await books.send(*message, settings=settings)
        await books.accept((message[0], "1"))
        await books.lose(message[1], settings=settings)
        await later(SETTINGS.unknown_wait_s + 2)
        assert books.inbox.causes == [(1, cause)]
        await later(LIFE_S)
        assert len(books.inbox.reports) == 1


async def test_without_receipts_a_late_answer_to_the_last_part_is_the_end(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    message = parts(1, 2)
    async with run(path) as books:
        await books.send(*message, settings=UNRECEIPTED)
        await books.accept((message[0], "1"))
        await books.lose(message[1], settings=UNRECEIPTED)
        await later(1)
        await books.accept((message[1], "2"))
        await later(0.1)
        assert books.inbox.causes == [(1, "accepted")]


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
