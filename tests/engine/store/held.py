"""A store whose writer can be held still, so that a test decides what shares a transaction."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from engine.config import Config, NodeConfig, StoreConfig
from engine.store import open_store
from engine.store.sqlite import SqliteStore
from engine.store.transaction import Transaction

_DEADLINE_S = 30.0


@asynccontextmanager
async def opened(
    folder: Path, max_batch: int = 2000, max_queue: int = 50_000
) -> AsyncIterator[SqliteStore]:
    """An SQLite store on ``folder``."""
    config = Config(
        node=NodeConfig(data_dir=str(folder)),
        store=StoreConfig(max_batch=max_batch, max_queue=max_queue),
    )
    async with open_store(config) as store:
        assert isinstance(store, SqliteStore)
        yield store


async def on_writer(store: SqliteStore, work: Callable[[Transaction], Any]) -> Any:
    """Have something done on the writer's connection, within a transaction."""
    return await store._writer.submit(work)


@asynccontextmanager
async def held(store: SqliteStore) -> AsyncIterator[None]:
    """Hold the writer in the middle of a transaction; what is asked inside queues up behind it."""
    reached, release = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def hold(_: Transaction) -> None:
        token.run_sync_soon(reached.set)
        assert release.wait(_DEADLINE_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(on_writer, store, hold)
        await reached.wait()
        try:
            yield
        finally:
            release.set()


async def in_one_batch(store: SqliteStore, *operations: Callable[[], Any]) -> list[Any]:
    """Run the operations in one group commit; what each returned or raised."""
    answers: list[Any] = [None] * len(operations)

    async def run(place: int) -> None:
        try:
            answers[place] = await operations[place]()
        except Exception as error:  # noqa: BLE001 - the answers are what is looked at
            answers[place] = error

    async with trio.open_nursery() as nursery, held(store):
        for place in range(len(operations)):
            nursery.start_soon(run, place)
        await trio.testing.wait_all_tasks_blocked()
    return answers
