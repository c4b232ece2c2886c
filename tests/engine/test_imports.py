"""Imports inside the engine: held back, refused, cancelled. Over HTTP: tests/api."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from api.ictcore.contacts_csv import ContactParser
from engine.access import Principal
from engine.app import Engine
from engine.errors import ForbiddenError, MissingBodyError
from engine.imports import CHUNK_ROWS, CUT_OFF
from engine.model import Contact, Group
from engine.store.base import Query
from tests.support.engine import config_in, running_engine

WHO = Principal(user_id=1, username="x", permissions=frozenset({"contact_create"}))
PIECE = b"%030d\n" % 1 * CHUNK_ROWS  # one chunk, and more than is parsed at once


class Pieces(AsyncIterator[bytes]):
    """A file that has its next piece whenever it is asked, and knows how often it was."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.taken = 0

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        self.taken += 1
        return PIECE


async def _import(engine: Engine, group: Group, pieces: Pieces) -> int:
    done = await engine.imports.run(WHO, group, pieces, ContactParser())
    return done.imported


async def test_a_writer_that_is_behind_holds_the_sender_back(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        group = await engine.store.insert(Group(name="g"))
        pieces = Pieces(20)
        with closing(sqlite3.connect(tmp_path / "outspool.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # the writer waits for its turn
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_import, engine, group, pieces)
                await wait_all_tasks_blocked(0.2)
                # With the writer, in the channel, and before it.
                assert pieces.taken <= 3
                assert engine.imports.statistics()["running"] == 1
                other.execute("ROLLBACK")
        assert await engine.store.count(Contact, Query()) == 20 * CHUNK_ROWS


async def test_a_cancelled_import_keeps_whole_chunks_and_says_so(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        group = await engine.store.insert(Group(name="g"))
        with trio.CancelScope() as scope:

            class Cut(Pieces):
                async def __anext__(self) -> bytes:
                    if self.taken == 3:
                        scope.cancel()
                    return await super().__anext__()

            await _import(engine, group, Cut(20))
        assert scope.cancelled_caught
        [one] = engine.imports.of(group.id)
        assert one.failure == CUT_OFF
        assert one.finished_at is not None
        stored = await engine.store.count(Contact, Query())
        assert stored == one.imported
        assert 0 < stored < 20 * CHUNK_ROWS
        assert stored % CHUNK_ROWS == 0
        statistics = engine.imports.statistics()
        assert (statistics["running"], statistics["failed"]) == (0, 1)


async def test_an_empty_file_is_no_import(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        group = await engine.store.insert(Group(name="g"))
        with pytest.raises(MissingBodyError):
            await _import(engine, group, Pieces(0))
        assert [one.failure for one in engine.imports.of(group.id)] == ["Empty file"]


async def test_who_may_not_create_contacts_imports_none(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        group = await engine.store.insert(Group(name="g"))
        reader = Principal(user_id=1, username="x", permissions=frozenset({"contact_read"}))
        with pytest.raises(ForbiddenError):
            await engine.imports.run(reader, group, Pieces(1), ContactParser())
        assert engine.imports.of(group.id) == []
