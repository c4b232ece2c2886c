"""How a gateway with a journal lives: it serves until cancelled, then ends in its own order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from engine.store.journal import Journal

Serve = Callable[[trio.Event, trio.Event], Awaitable[None]]
"""Called with ``ready``, which it sets, and ``shut``, after which it ends within a bounded time."""


@asynccontextmanager
async def opened(journal: Journal) -> AsyncIterator[None]:
    """The journal is open for as long as the block lasts, and closed however that ends."""
    await journal.open()
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await journal.aclose()


async def until_cancelled(serve: Serve, task_status: trio.TaskStatus[None]) -> None:
    """``started`` once ``serve`` is ready; cancelled, tell it to shut and wait until it has.

    It outlives the cancellation. No ``nursery.start`` for it: one cancelled before the task is
    ready waits for a shielded task that nobody tells.
    """
    ready, shut = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_shielded, serve, ready, shut)
        try:
            await ready.wait()
            task_status.started()
            await trio.sleep_forever()
        finally:
            shut.set()


async def _shielded(serve: Serve, ready: trio.Event, shut: trio.Event) -> None:
    with trio.CancelScope(shield=True):
        await serve(ready, shut)
