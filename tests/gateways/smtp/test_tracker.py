"""The journal of mails: what is known of each, and what the engine is told when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from engine.errors import UnavailableError
from engine.gateway import Report
from engine.results import Awaiting, Disposition, Fate, Reached, Result, ResultRow
from gateways.agenda import REPORT_AGAIN_S
from gateways.smtp import results
from gateways.smtp.books import Flag
from gateways.smtp.journal import Journal
from gateways.smtp.tracker import RECALL_S, Booked, Bounce, Intent, Tracker, awaiting
from tests.support.inbox import Tray

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
WAIT_S = 900.0
KEEP_S = 3_600.0


class Stubborn(Tray):
    """Takes no reports while ``fault``."""

    def __init__(self) -> None:
        super().__init__()
        self.fault = False
        self.refused = 0

    async def report(self, reports: Sequence[Report]) -> None:
        if self.fault:
            self.refused += 1
            raise UnavailableError("store: full")
        await super().report(reports)


class Books:
    """A tracker whose calendar goes with Trio's clock."""

    def __init__(self, path: Path, start: datetime) -> None:
        began = trio.current_time()
        self.inbox = Stubborn()
        self.journal = Journal(path, inline=True)
        self.clock: Callable[[], datetime] = lambda: (
            start + timedelta(seconds=trio.current_time() - began)
        )
        self.tracker = Tracker(self.journal, self.clock, keep_s=KEEP_S)

    async def send(self, spool_id: int, fate: Fate | None = None, **fields: bool) -> None:
        """A mail that was answered so; by default it may bounce."""
        await self.tracker.intend([intent(spool_id)])
        fate = fate or awaiting(self.clock(), WAIT_S, code="250")
        fields = fields or {"left": True}
        await self.tracker.answered([Booked(spool_id=spool_id, fate=fate, **fields)])

    async def fate(self, spool_id: int) -> Fate:
        return (await self.tracker.recall([spool_id]))[spool_id]

    def results(self, spool_id: int) -> list[Result]:
        return [it.result for it in self.inbox.reports if it.spool_id == spool_id]


@asynccontextmanager
async def opened(path: Path, start: datetime = START) -> AsyncIterator[Books]:
    books = Books(path, start)
    await books.journal.open()
    await books.tracker.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(books.tracker.run, books.inbox)
        await trio.testing.wait_all_tasks_blocked()
        yield books
        nursery.cancel_scope.cancel()
    await books.journal.aclose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def books(path: Path, autojump_clock: object) -> AsyncIterator[Books]:
    async with opened(path) as books:
        yield books


def intent(spool_id: int, flags: Flag = Flag.SUPPRESS, transmission_id: int = 0) -> Intent:
    return Intent(
        spool_id=spool_id,
        transmission_id=transmission_id or 1000 + spool_id,
        provider_id=1,
        recipient="ada@example.net",
        flags=flags,
    )


def bounce(spool_id: int, status: str = "5.1.1", **fields: object) -> Bounce:
    return Bounce(
        **{  # type: ignore[arg-type]
            "spool_id": spool_id,
            "action": "failed",
            "status": status,
            "diagnostic": "smtp; 550 5.1.1 no such user",
            "recipient": "Ada@Example.net",
            "final": True,
            **fields,
        }
    )


# --- silence and bounces ------------------------------------------------------------------------
async def test_silence_is_success_after_the_wait_and_not_before(
    books: Books, autojump_clock: object
) -> None:
    await books.send(1)
    await trio.sleep(WAIT_S - 1)
    assert not books.inbox.reports
    await trio.sleep(2)
    (result,) = books.results(1)
    assert (result.disposition, result.cause) == (Disposition.ANSWERED, "accepted")


async def test_a_bounce_is_reported_once_with_what_it_says(
    books: Books, autojump_clock: object
) -> None:
    await books.send(1)
    assert await books.tracker.bounce(bounce(1))
    assert await books.tracker.bounce(bounce(1, "5.2.2"))
    await trio.sleep(2 * WAIT_S)
    (result,) = books.results(1)
    assert (result.disposition, result.cause) == (Disposition.INVALID, "no_such_address")
    assert result.code == "5.1.1"
    assert result.suppress.startswith("bounce 5.1.1: ")
    assert ResultRow("email", "bounce_status", "5.1.1") in result.rows
    assert ResultRow("email", "bounce_action", "failed") in result.rows


async def test_a_late_bounce_is_reported_after_the_success(
    books: Books, autojump_clock: object
) -> None:
    await books.send(1)
    await trio.sleep(WAIT_S + 1)
    assert await books.tracker.bounce(bounce(1))
    first, second = books.results(1)
    assert first.succeeded
    assert second.suppress


async def test_a_final_bounce_with_a_temporary_code_closes_no_address(
    books: Books, autojump_clock: object
) -> None:
    await books.send(1)
    assert await books.tracker.bounce(bounce(1, "4.4.1"))
    (result,) = books.results(1)
    assert result.disposition is Disposition.FAILED
    assert not result.suppress


async def test_a_provider_that_does_not_suppress(books: Books, autojump_clock: object) -> None:
    await books.tracker.intend([intent(1, Flag(0))])
    fate = awaiting(books.clock(), WAIT_S)
    await books.tracker.answered([Booked(spool_id=1, fate=fate, left=True)])
    assert await books.tracker.bounce(bounce(1))
    assert not books.results(1)[0].suppress


@pytest.mark.parametrize(
    "found",
    [bounce(1, recipient="eve@example.net"), bounce(2)],
    ids=["of another recipient", "of another mail"],
)
async def test_a_bounce_that_is_not_ours_changes_nothing(
    books: Books, found: Bounce, autojump_clock: object
) -> None:
    await books.send(1)
    assert not await books.tracker.bounce(found)
    assert isinstance(await books.fate(1), Awaiting)
    assert not books.inbox.reports


async def test_a_delay_changes_nothing(books: Books, autojump_clock: object) -> None:
    await books.send(1)
    assert await books.tracker.bounce(bounce(1, action="delayed", final=False))
    assert isinstance(await books.fate(1), Awaiting)
    assert not books.inbox.reports


async def test_a_bounce_of_a_mail_that_was_refused_is_made_up(
    books: Books, autojump_clock: object
) -> None:
    await books.send(1, results.invalid("destination"), left=False)
    assert not await books.tracker.bounce(bounce(1))
    assert not books.inbox.reports


async def test_a_bounce_before_the_answer_comes_again(books: Books, autojump_clock: object) -> None:
    await books.tracker.intend([intent(1)])
    with pytest.raises(UnavailableError):
        await books.tracker.bounce(bounce(1))
    fate = awaiting(books.clock(), WAIT_S)
    await books.tracker.answered([Booked(spool_id=1, fate=fate, left=True)])
    assert await books.tracker.bounce(bounce(1))
    assert len(books.results(1)) == 1


async def test_a_bounce_of_what_nobody_saw_taken_is_told(
    books: Books, autojump_clock: object
) -> None:
    await books.send(1, results.unknown("at_most_once"), left=True, unsure=True)
    assert await books.tracker.bounce(bounce(1))
    assert books.results(1)[0].cause == "no_such_address"


async def test_what_the_engine_did_not_take_is_reported_again(
    books: Books, autojump_clock: object
) -> None:
    await books.send(1)
    books.inbox.fault = True
    assert await books.tracker.bounce(bounce(1))
    assert not books.inbox.reports
    assert isinstance(await books.fate(1), Result)
    books.inbox.fault = False
    await trio.sleep(REPORT_AGAIN_S + 1)
    assert len(books.results(1)) == 1
    await trio.sleep(10 * REPORT_AGAIN_S)
    assert len(books.results(1)) == 1
    assert books.inbox.refused == 1


async def test_a_bounce_while_its_success_is_handed_in_is_not_lost(
    books: Books, autojump_clock: object
) -> None:
    """The report that is under way is not taken for the one that came meanwhile."""
    await books.send(1)

    async def slow(reports: Sequence[Report]) -> None:
        books.inbox.report = plain  # type: ignore[method-assign]
        assert await books.tracker.bounce(bounce(1))
        await plain(reports)
        books.inbox.fault = True

    plain, books.inbox.report = books.inbox.report, slow  # type: ignore[method-assign]
    await trio.sleep(WAIT_S + 1)
    assert {it.cause for it in books.results(1)} == {"accepted", "no_such_address"}


async def test_thousands_fall_due_together(books: Books, autojump_clock: object) -> None:
    ids = range(1, 2001)
    await books.tracker.intend([intent(n) for n in ids])
    fate = awaiting(books.clock(), WAIT_S)
    await books.tracker.answered([Booked(spool_id=n, fate=fate, left=True) for n in ids])
    await trio.sleep(WAIT_S + 1)
    assert sorted(it.spool_id for it in books.inbox.reports) == list(ids)


async def test_closed_mails_are_forgotten_after_their_time(
    books: Books, autojump_clock: object
) -> None:
    ids = list(range(1, 1200))
    await books.tracker.intend([intent(n) for n in ids])
    fate = results.accepted(())
    await books.tracker.answered([Booked(spool_id=n, fate=fate, left=True) for n in ids])
    await trio.sleep(KEEP_S - 1)
    assert set((await books.tracker.recall(ids)).values()) == {fate}
    await trio.sleep(60)
    assert set((await books.tracker.recall(ids)).values()) == {results.not_sent()}


# --- restarts -----------------------------------------------------------------------------------
async def test_recall_after_a_restart(path: Path, autojump_clock: object) -> None:
    async with opened(path) as books:
        await books.send(1)
        await books.send(2, results.accepted(()), left=True)
        await books.tracker.intend([intent(3), intent(4, Flag.AT_LEAST_ONCE), intent(5)])
        await books.tracker.unsent([5])
    async with opened(path) as books:
        known = await books.tracker.recall([1, 2, 3, 4, 5, 6])
        assert not books.journal.made
        assert isinstance(known[1], Awaiting)
        assert known[2] == results.accepted(())
        assert known[3] == results.unknown("at_most_once")
        assert known[4] == results.unknown("at_least_once")
        assert known[5] == known[6] == results.not_sent()
        assert isinstance(known[3], Result)
        assert known[3].reached is Reached.PERSON


async def test_a_start_long_after_still_knows_what_was_decided(
    path: Path, autojump_clock: object
) -> None:
    """The engine asks only once the gateways run: what may be there must not count as not sent."""
    async with opened(path) as books:
        await books.send(1, results.accepted(()), left=True)
        await books.send(2, results.unknown("at_most_once"), left=True, unsure=True)
    async with opened(path, START + timedelta(days=365)) as books:
        known = await books.tracker.recall([1, 2])
        assert known == {1: results.accepted(()), 2: results.unknown("at_most_once")}
        await trio.sleep(RECALL_S + 60)
        assert set((await books.tracker.recall([1, 2])).values()) == {results.not_sent()}


async def test_the_wait_goes_on_over_a_restart(path: Path, autojump_clock: object) -> None:
    async with opened(path) as books:
        await books.send(1)
        until = books.clock() + timedelta(seconds=WAIT_S)
    async with opened(path) as books:
        assert not books.inbox.reports
        await trio.sleep((until - books.clock()).total_seconds() + 1)
        assert books.results(1)[0].succeeded


async def test_what_may_come_twice_is_known_of_the_next_spool(
    path: Path, autojump_clock: object
) -> None:
    async with opened(path) as books:
        await books.tracker.intend([intent(1, Flag.AT_LEAST_ONCE, transmission_id=7)])
    async with opened(path) as books:
        again = [intent(2, transmission_id=7), intent(3, transmission_id=8)]
        assert await books.tracker.intend(again) == {2}
        # It certainly did not leave that time: what may be there is still the first.
        await books.tracker.unsent([2])
        assert await books.tracker.intend([intent(4, transmission_id=7)]) == {4}


async def test_a_later_answer_does_not_change_what_was_decided(
    books: Books, autojump_clock: object
) -> None:
    await books.send(1, results.unknown("at_most_once"), left=True, unsure=True)
    await books.tracker.answered([Booked(spool_id=1, fate=results.accepted(()), left=True)])
    await books.tracker.unsent([1])
    assert await books.fate(1) == results.unknown("at_most_once")


# --- what anybody could have made up -----------------------------------------------------------


async def test_what_is_not_proven_closes_neither_mail_nor_address(
    books: Books, autojump_clock: object
) -> None:
    await books.send(1)
    assert not await books.tracker.bounce(bounce(1, proven=False))
    await trio.sleep(WAIT_S + 1)
    (silence,) = books.results(1)
    assert (silence.disposition, silence.cause) == (Disposition.ANSWERED, "accepted")

    assert await books.tracker.bounce(bounce(1, proven=False))
    assert await books.tracker.bounce(bounce(1, "5.2.2", proven=False))
    _, added = books.results(1)
    assert msgspec.structs.replace(added, rows=()) == msgspec.structs.replace(silence, rows=())
    assert [(row.name, row.data) for row in added.rows if row.name != "bounce_diagnostic"] == [
        ("bounce_action", "failed"),
        ("bounce_status", "5.1.1"),
        ("bounce_unproven", "yes"),
    ]


async def test_what_is_proven_counts_after_what_is_not(
    books: Books, autojump_clock: object
) -> None:
    await books.send(1, results.accepted(()), left=True)
    assert await books.tracker.bounce(bounce(1, "5.2.2", proven=False))
    assert await books.tracker.bounce(bounce(1))
    assert await books.tracker.bounce(bounce(1, "5.2.2", proven=False))
    unproven, proven = books.results(1)
    assert (unproven.suppress, unproven.succeeded) == ("", True)
    assert proven.suppress.startswith("bounce 5.1.1: ")
    assert "bounce_unproven" not in {row.name for row in proven.rows}


async def test_what_is_not_proven_is_kept_over_a_restart_until_it_is_taken(
    path: Path, autojump_clock: object
) -> None:
    async with opened(path) as books:
        await books.send(1, results.unknown("at_most_once"), left=True, unsure=True)
        books.inbox.fault = True
        assert await books.tracker.bounce(bounce(1, proven=False))
    async with opened(path) as books:
        fate = await books.fate(1)
        assert isinstance(fate, Result)
        assert (fate.cause, fate.suppress) == (results.unknown("at_most_once").cause, "")
        await trio.sleep(REPORT_AGAIN_S + 1)
        assert books.results(1) == [fate]


async def test_the_last_spool_that_left(books: Books, autojump_clock: object) -> None:
    await books.tracker.intend([intent(n, transmission_id=7) for n in (1, 2, 3)])
    assert await books.tracker.spool_of(7) is None
    fate = awaiting(books.clock(), WAIT_S)
    await books.tracker.answered([Booked(spool_id=n, fate=fate, left=n < 3) for n in (1, 2, 3)])
    assert await books.tracker.spool_of(7) == 2
    assert await books.tracker.spool_of(8) is None
