"""Full disk, read-only file, kill -9: nothing acknowledged is lost, nothing broken stays."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from engine.errors import UnavailableError
from engine.model import Contact, Spool, SpoolStatus, Transmission, TransmissionStatus
from engine.store.base import ContactRow, Query
from engine.store.sqlite import SqliteStore
from tests.engine.store.held import on_writer, opened
from tests.suites.store_scene import AT, BUSY, Scene, set_scene
from tests.support import wait_until

_PEER = [sys.executable, "-m", "tests.engine.store.peer"]
_ROUNDS = 6


async def _limit_pages(store: SqliteStore, more: int | None) -> None:
    """Let the file grow by ``more`` pages only; None = as it likes."""

    def limit(tx: object) -> None:
        connection = tx.connection  # type: ignore[attr-defined]
        [pages] = connection.execute("PRAGMA page_count").fetchone()
        most = 2**30 if more is None else pages + more
        connection.execute(f"PRAGMA max_page_count = {most}")

    await on_writer(store, limit)


async def _fill(store: SqliteStore, group_id: int) -> None:
    rows = [ContactRow(phone=str(n), description="x" * 100) for n in range(100)]

    async def import_on() -> None:
        while True:
            await store.import_contacts(group_id, None, rows, AT)

    with pytest.raises(UnavailableError, match="SQLITE_FULL"):
        await import_on()


async def _nothing_but_the_truth(scene: Scene) -> None:
    """The counters equal the tables."""
    store = scene.store
    tally = await store.campaign_tally(scene.campaign.id)
    rows = await store.find(Transmission, Query())
    for status in TransmissionStatus:
        assert tally[status.value] == len([row for row in rows if row.status is status])
    assert tally["transmissions"] == len(rows)
    assert tally["dialled"] == await store.count(Spool, Query())
    campaign = await scene.progress()
    assert campaign.contact_total == await store.count(Contact, Query())


async def test_a_full_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        scene = await set_scene(store)
        members = await scene.members(400)
        begun = await scene.begin(members[:200])
        await _limit_pages(store, 4)
        await _fill(store, scene.group.id)
        state = store.statistics()
        assert not state["writable"]
        assert "SQLITE_FULL" in state["cause"]
        assert state["rollbacks"] > 0
        with pytest.raises(UnavailableError):
            await store.begin_spools([scene.intent(one) for one in members[200:]])
        assert await store.count(Spool, Query()) == 200  # reading goes on
        await _nothing_but_the_truth(scene)
        # Ends of calls are told the same; they are not lost, their caller still has them.
        async with trio.open_nursery() as nursery:
            for one in begun:
                nursery.start_soon(_finish_sooner_or_later, scene, one)
            await _limit_pages(store, None)
        assert store.statistics()["writable"]
        await scene.begin(members[200:])
        await _nothing_but_the_truth(scene)
        assert (await store.campaign_tally(scene.campaign.id))["failed"] == 200


async def _finish_sooner_or_later(scene: Scene, begun: object) -> None:
    while True:
        try:
            await scene.finish(begun, BUSY)  # type: ignore[arg-type]
        except UnavailableError:
            continue
        return


async def test_a_store_that_cannot_write_looks_by_itself_whether_it_can_again(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as store:
        scene = await set_scene(store)
        # Fails without having taken the last page, so that the limit alone decides about the probe.
        await _limit_pages(store, 0)
        with pytest.raises(UnavailableError):
            await store.import_contacts(scene.group.id, None, [ContactRow(phone="1")] * 4000, AT)
        assert not store.statistics()["writable"]
        await _unseen(store, f"PRAGMA max_page_count = {2**30}")

        async def writable() -> bool:
            return bool(store.statistics()["writable"])

        commits = store.statistics()["commits"]
        await wait_until(writable, "the probe of the writer's thread")
        assert store.statistics()["commits"] == commits  # nobody wrote: it was the probe
        await _nothing_but_the_truth(scene)


async def _unseen(store: SqliteStore, pragma: str) -> None:
    """Behind the queue's back: a commit of ours would itself make the store writable again."""
    await trio.to_thread.run_sync(store._writer._connection.execute, pragma)


async def test_a_read_only_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        scene = await set_scene(store)
        await on_writer(store, lambda tx: tx.connection.execute("PRAGMA query_only = ON"))
        for _ in range(3):
            with pytest.raises(UnavailableError, match="READONLY"):
                await store.insert(Contact(phone="1"))
        assert "READONLY" in store.statistics()["cause"]
        await _unseen(store, "PRAGMA query_only = OFF")
        await scene.begin(await scene.members(1))
        assert store.statistics()["writable"]
        await _nothing_but_the_truth(scene)


async def test_an_aborted_transaction_poisons_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        # What SQLite does by itself on some I/O errors: the transaction is gone under our feet.
        with pytest.raises(UnavailableError):
            await on_writer(store, lambda tx: tx.connection.execute("ROLLBACK"))
        with pytest.raises(ZeroDivisionError):
            await on_writer(store, lambda _: 1 / 0)
        row = await store.insert(Contact(phone="1"))
        assert await store.get(Contact, row.id) == row
        assert store.statistics()["writable"]


async def test_a_lost_connection_is_replaced(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        store._writer._connection.close()
        with pytest.raises(UnavailableError):
            await store.insert(Contact(phone="1"))
        assert await store.insert(Contact(phone="2"))
        assert [row.phone for row in await store.find(Contact, Query())] == ["2"]


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: the real write() fails, in a process of its own."""
    done = subprocess.run(
        [*_PEER, "limited", str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    told = json.loads(done.stdout)
    assert told["failed"] == "UnavailableError"
    assert not told["writable_then"]
    assert told["cause"]
    assert told["writable_later"]
    assert told["stored"] == told["acknowledged"] > 0


@pytest.mark.slow
async def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    acknowledged: set[tuple[str, int]] = set()
    async with opened(tmp_path) as store:
        scene = await set_scene(store)
        await scene.members(20_000)
    for _ in range(_ROUNDS):
        acknowledged |= await trio.to_thread.run_sync(_killed, tmp_path, random.randint(1, 3000))
        async with opened(tmp_path) as store:
            await _all_there(Scene(**{**vars(scene), "store": store}), acknowledged)
    assert len(acknowledged) > _ROUNDS


def _killed(folder: Path, after: int) -> set[tuple[str, int]]:
    """Run a writing process, kill it after some acknowledgements; all it acknowledged."""
    with subprocess.Popen([*_PEER, "write", str(folder)], stdout=subprocess.PIPE) as peer:
        assert peer.stdout is not None
        lines = [peer.stdout.readline() for _ in range(after)]
        os.kill(peer.pid, signal.SIGKILL)
        lines += peer.stdout.readlines()
    # The last line may be cut.
    words = [line.split() for line in lines if line.endswith(b"\n")]
    return {(word.decode(), int(key)) for word, key in words}


async def _all_there(scene: Scene, acknowledged: set[tuple[str, int]]) -> None:
    spools = {row.id: row for row in await scene.store.find(Spool, Query())}
    for word, spool_id in acknowledged:
        assert spool_id in spools
        if word == "end":
            assert spools[spool_id].status is SpoolStatus.COMPLETED
    rows = await scene.store.find(Transmission, Query())
    assert len({row.contact_id for row in rows}) == len(rows) == len(spools)
    found = await scene.store.interrupted_spools(1, 100_000)
    assert {one.spool.id for one in found} == {
        row.id for row in spools.values() if row.status is SpoolStatus.INITIATED
    }
    await _nothing_but_the_truth(scene)
