"""The writer: groups, back-pressure, cancellation, and one caller's error staying its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import trio
import trio.testing

from engine.errors import ConflictError, InvalidError, NotFoundError
from engine.model import Contact, Spool, Transmission, TransmissionStatus, User
from engine.store.base import Query
from engine.store.nouns import insert_row
from engine.store.transaction import Transaction
from tests.engine.store.held import held, in_one_batch, on_writer, opened
from tests.suites.store_scene import AT, set_scene


async def test_many_callers_share_a_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        before = store.statistics()
        inserts = [partial(store.insert, Contact(phone=str(n))) for n in range(300)]
        rows = await in_one_batch(store, *inserts)
        after = store.statistics()
        assert len({row.id for row in rows}) == 300
        assert after["operations"] - before["operations"] == 301
        assert after["commits"] - before["commits"] == 2  # the one that was held, and one for all
        assert after["largest_batch"] == 300
        assert (after["queue"], after["writable"], after["cause"]) == (0, True, "")


async def test_a_batch_is_no_larger_than_asked(tmp_path: Path) -> None:
    async with opened(tmp_path, max_batch=10) as store:
        inserts = [partial(store.insert, Contact(phone=str(n))) for n in range(55)]
        await in_one_batch(store, *inserts)
        assert store.statistics()["largest_batch"] == 10
        assert await store.count(Contact, Query()) == 55


async def test_one_callers_error_is_nobody_elses(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        scene = await set_scene(store)
        members = await scene.members(4)
        [begun] = await scene.begin(members[:1])
        gone = msgspec.structs.replace(scene.intent(members[1]), contact_id=4711)
        unstorable = msgspec.structs.replace(scene.intent(members[2]), destination="\ud800")
        answers = await in_one_batch(
            store,
            partial(store.insert, User(username="bob")),
            partial(store.insert, User(username="bob")),
            partial(store.update, Contact(id=4711)),
            partial(store.begin_spools, [gone]),
            partial(store.begin_spools, [unstorable]),
            partial(store.begin_spools, [scene.intent(members[3])]),
            partial(scene.finish, begun),
            partial(on_writer, store, _insert_and_fail),
        )
        assert {type(answer) for answer in answers[:2]} == {User, ConflictError}
        assert isinstance(answers[2], NotFoundError)
        assert answers[3] == [None]
        assert isinstance(answers[4], InvalidError)
        assert answers[5][0] is not None
        assert (await scene.transmission(begun)).status is TransmissionStatus.COMPLETED
        assert isinstance(answers[7], ZeroDivisionError)
        assert await store.count(Spool, Query()) == 2
        assert await store.count(Contact, Query()) == 4
        tally = await store.campaign_tally(scene.campaign.id)
        assert (tally["dialled"], tally["transmissions"], tally["completed"]) == (2, 2, 1)
        assert await store.insert(Contact(phone="1"))


def _insert_and_fail(tx: Transaction) -> None:
    insert_row(tx, Contact(phone="of a failed operation"))
    raise ZeroDivisionError


async def test_callers_wait_while_the_queue_is_full(tmp_path: Path) -> None:
    async with opened(tmp_path, max_queue=10) as store:
        async with trio.open_nursery() as nursery, held(store):
            for n in range(40):
                nursery.start_soon(store.insert, Contact(phone=str(n)))
            await trio.testing.wait_all_tasks_blocked()
            state = store.statistics()
            assert (state["queue"], state["held_back"]) == (10, 31)
            store.connected(1, AT)  # nobody waits for a note: dropped
            assert store.statistics()["dropped_notes"] == 1
        assert await store.count(Contact, Query()) == 40
        assert store.statistics()["held_back"] == 0


async def test_cancelled_before_it_queued_means_nothing_was_written(tmp_path: Path) -> None:
    async with opened(tmp_path, max_queue=2) as store:
        heard = []

        async def insert(phone: str, scope: trio.CancelScope) -> None:
            with scope:
                await store.insert(Contact(phone=phone))
            heard.append((phone, scope.cancelled_caught))

        scopes = [trio.CancelScope() for _ in range(3)]
        scopes[0].cancel()
        async with trio.open_nursery() as nursery, held(store):
            for phone, scope in zip(("at once", "queued", "held back"), scopes, strict=True):
                nursery.start_soon(insert, phone, scope)
                await trio.testing.wait_all_tasks_blocked()
            scopes[1].cancel()
            scopes[2].cancel()
            await trio.testing.wait_all_tasks_blocked()
            # Who is queued hears nothing until it is known what became of it.
            assert heard == [("at once", True), ("held back", True)]
        assert heard[2] == ("queued", False)
        assert [row.phone for row in await store.find(Contact, Query())] == ["queued"]


async def test_closing_commits_what_is_queued(tmp_path: Path) -> None:
    async with opened(tmp_path) as store, trio.open_nursery() as nursery, held(store):
        for n in range(20):
            nursery.start_soon(store.insert, Contact(phone=str(n)))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(store.aclose)
        await trio.testing.wait_all_tasks_blocked()
    async with opened(tmp_path) as store:
        assert await store.count(Contact, Query()) == 20


async def test_notes_are_written_with_the_next_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        scene = await set_scene(store)
        begun = await scene.begin(await scene.members(600))
        for one in begun:
            store.connected(one.spool_id, AT)
        await on_writer(store, lambda _: None)
        assert all(row.connected_at == AT for row in await store.find(Spool, Query()))
        rows = await store.find(Transmission, Query())
        assert {row.status for row in rows} == {TransmissionStatus.PROCESSING}
