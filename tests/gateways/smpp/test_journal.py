"""The journal's file: groups, faults, versions, and kill -9."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from engine.clock import now
from engine.errors import ConflictError, UnavailableError
from engine.results import Awaiting, Result
from engine.store.journal import connect
from gateways.smpp.bookings import (
    by_ids,
    by_references,
    claim_orphans,
    due_spools,
    forget_orphans,
)
from gateways.smpp.journal import SCHEMA, Journal
from gateways.smpp.tracker import Tracker
from tests.gateways.smpp.books import PROVIDER, SETTINGS, answer, receipt, segment

ROOT = Path(__file__).parents[3]
DEADLINE_S = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Journal]:
    journal = Journal(path)
    await journal.open()
    try:
        yield journal
    finally:
        await journal.aclose()


def orphan(number: int) -> str:
    return f"INSERT INTO orphan VALUES ({number}, 1, 'x', NULL, 0, '')"  # noqa: S608 - a number


def count(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("SELECT count(*) FROM orphan").fetchone()[0]
    return found


# --- writing -------------------------------------------------------------------------------------


async def test_what_was_written_is_read_and_stays(path: Path) -> None:
    async with opened(path) as journal:
        assert await journal.write(lambda it: it.execute(orphan(1)).lastrowid) == 1
        assert await journal.read(count) == 1
    async with opened(path) as journal:
        assert await journal.read(count) == 1


async def test_many_writers_share_a_commit(path: Path) -> None:
    async with opened(path) as journal:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(
                    journal.write, lambda it, number=number: it.execute(orphan(number))
                )
        assert await journal.read(count) == 100
        assert journal.statistics()["commits"] < 50


async def test_an_error_of_one_is_nobody_elses(path: Path) -> None:
    failed: list[Exception] = []

    async def one(number: int) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(orphan(100 + number))
            connection.execute(orphan(number % 5))

        try:
            await journal.write(work)
        except ConflictError as error:
            failed.append(error)

    async with opened(path) as journal:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(one, number)
        assert len(failed) == 45
        assert await journal.read(count) == 10


async def test_who_is_cancelled_before_it_was_queued_wrote_nothing(path: Path) -> None:
    async with opened(path) as journal:
        with trio.CancelScope() as scope:
            scope.cancel()
            await journal.write(lambda it: it.execute(orphan(1)))
        assert scope.cancelled_caught
        assert await journal.read(count) == 0


async def test_who_is_cancelled_later_still_hears_that_it_is_written(path: Path) -> None:
    async with opened(path) as journal:
        with trio.CancelScope() as scope:

            def work(connection: sqlite3.Connection) -> int:
                trio.from_thread.run_sync(scope.cancel, trio_token=token)
                return connection.execute(orphan(1)).rowcount

            token = trio.lowlevel.current_trio_token()
            assert await journal.write(work) == 1
        assert await journal.read(count) == 1


async def test_a_note_is_written_with_the_next_commit(path: Path) -> None:
    async with opened(path) as journal:
        journal.post(lambda it: it.execute(orphan(1)))
        await journal.write(lambda it: it.execute(orphan(2)))
        assert await journal.read(count) == 2


async def test_a_full_disk_keeps_nothing_and_says_so(path: Path) -> None:
    async with opened(path) as journal:
        pages = await journal.write(lambda it: it.execute("PRAGMA page_count").fetchone()[0])
        await journal.write(lambda it: it.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        big = "INSERT INTO orphan VALUES (?, 1, 'x', NULL, 0, zeroblob(100000))"
        with pytest.raises(UnavailableError):
            await journal.write(lambda it: it.execute(big, (1,)))
        assert not journal.statistics()["writable"]
        assert await journal.read(count) == 0


async def test_segments_stay_pending_while_the_file_takes_no_writes(path: Path) -> None:
    async with opened(path) as journal:
        tracker = Tracker(journal, now)
        it = segment()
        await tracker.intend(PROVIDER, [it], SETTINGS)
        await journal.write(lambda db: db.execute("PRAGMA busy_timeout = 0").fetchone())
        other = connect(path, SCHEMA)
        other.execute("BEGIN IMMEDIATE")
        for booked in (
            tracker.answered(PROVIDER, [answer(it, "5")]),
            tracker.unknown(PROVIDER, [it], SETTINGS),
            tracker.unsent([it]),
            tracker.receipts(PROVIDER, SETTINGS, [receipt("5")]),
        ):
            with pytest.raises(UnavailableError):
                await booked
        assert tracker.statistics()["pending"] == 1
        other.close()
        await tracker.answered(PROVIDER, [answer(it, "5")])
        assert tracker.statistics()["pending"] == 0


async def test_a_closed_journal_takes_nothing(path: Path) -> None:
    async with opened(path) as journal:
        pass
    with pytest.raises(UnavailableError):
        await journal.write(count)
    with pytest.raises(UnavailableError):
        await Journal(path).write(count)
    with pytest.raises(UnavailableError):
        await Journal(path).read(count)


# --- the file ------------------------------------------------------------------------------------


def test_a_new_version_is_reached_from_the_one_before(path: Path) -> None:
    connect(path, SCHEMA).close()
    newer = (*SCHEMA, "CREATE TABLE parcel (id INTEGER PRIMARY KEY);")
    connection = connect(path, newer)
    assert connection.execute("SELECT count(*) FROM parcel").fetchone() == (0,)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(newer),)
    connection.close()


async def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    connection = connect(path, SCHEMA)
    connection.execute("PRAGMA user_version = 1000")
    connection.close()
    with pytest.raises(UnavailableError, match="newer"):
        await Journal(path).open()


async def test_a_file_that_is_none_is_refused(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(UnavailableError):
        await Journal(path).open()


@pytest.mark.parametrize("version", range(1, len(SCHEMA)))
def test_a_file_of_an_older_run_has_the_same_ways_to_a_row(path: Path, version: int) -> None:
    connect(path, SCHEMA[:version]).close()
    older, newer = connect(path, SCHEMA), connect(path.with_name("new.db"), SCHEMA)
    layout = "SELECT sql FROM sqlite_schema ORDER BY name"
    assert older.execute(layout).fetchall() == newer.execute(layout).fetchall()
    older.close()
    newer.close()


def plans_of(connection: sqlite3.Connection, *calls: Callable[[], object]) -> list[str]:
    """How SQLite goes about what these calls ask of it."""
    explained: list[str] = []
    connection.set_trace_callback(explained.append)
    for call in calls:
        call()
    connection.set_trace_callback(None)
    asked = [it for it in explained if it.startswith(("SELECT", "DELETE"))]
    return [
        row[3] for it in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {it}").fetchall()
    ]


def test_the_ways_to_a_row_have_an_index(path: Path) -> None:
    connection = connect(path, SCHEMA)
    plans = plans_of(
        connection,
        lambda: by_ids(connection, 1, ["x"]),
        lambda: by_references(connection, 1, [5]),
        lambda: due_spools(connection, 1, 5),
    )
    connection.close()
    for index in ("segment_of_id", "segment_nameless", "segment_due"):
        assert any(f"SEARCH segment USING INDEX {index}" in plan for plan in plans), plans
    assert not any(plan.startswith("SCAN segment") for plan in plans), plans


def test_no_receipt_that_matches_nothing_is_looked_at_for_another(path: Path) -> None:
    connection = connect(path, SCHEMA)
    plans = plans_of(
        connection, lambda: claim_orphans(connection, 1, id_keys=["x"], references=[5])
    )
    aged = plans_of(connection, lambda: forget_orphans(connection, 1))
    connection.close()
    assert {plan for plan in plans if " orphan" in plan} == {
        "SEARCH orphan USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH orphan USING COVERING INDEX orphan_of_id (provider_id=? AND id_key=?)",
        "SEARCH orphan USING COVERING INDEX orphan_of_reference (provider_id=? AND reference=?)",
    }
    assert "SEARCH orphan USING INDEX orphan_age (received_at<?)" in aged


# --- kill -9 -------------------------------------------------------------------------------------

KILLS = 4
ENOUGH = 400  # lines before the blow falls


def _killed(path: Path, first: int) -> dict[str, set[int]]:
    """Run the peer until it has said enough, kill it; what it had said by then."""
    command = [sys.executable, "-m", "tests.gateways.smpp.journal_peer", str(path), str(first)]
    said: dict[str, set[int]] = {}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdout is not None
        for number, line in enumerate(peer.stdout):
            if line.endswith("\n"):
                word, spool_id = line.split()
                said.setdefault(word, set()).add(int(spool_id))
            if number == ENOUGH:
                peer.send_signal(signal.SIGKILL)
    assert peer.returncode == -signal.SIGKILL
    return said


async def test_what_was_said_to_be_durable_outlives_kill_9(path: Path) -> None:
    for kill in range(KILLS):
        first = 1 + kill * 1_000_000
        with trio.fail_after(DEADLINE_S):
            said = await trio.to_thread.run_sync(_killed, path, first)
        async with opened(path) as journal:
            tracker = Tracker(journal, now)
            await tracker.open()
            fates = await tracker.recall(sorted(said["intended"]))
        for spool_id, fate in fates.items():
            _judge(spool_id, fate, said)


def _judge(spool_id: int, fate: Result | Awaiting, said: dict[str, set[int]]) -> None:
    """It knows at least as much as it said; the next step may have been on the disk already."""
    cause = fate.cause if isinstance(fate, Result) else ""
    if spool_id in said["received"]:
        assert cause == "delivered"
    elif spool_id in said["answered"]:
        assert cause == "delivered" or (isinstance(fate, Awaiting) and fate.accepted_at)
    elif spool_id in said["unsent"]:
        assert cause == "not_sent"
    else:
        assert cause in ("", "delivered", "not_sent")
        # Only the first two of a batch may turn out not to have been sent.
        assert cause != "not_sent" or (spool_id - 1) % 8 < 2
