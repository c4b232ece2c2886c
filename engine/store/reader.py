"""A few reader connections, each query in a thread. Readers never wait for the writer (WAL)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import trio

from engine.errors import InvalidError, UnavailableError
from engine.store.transaction import storage_failure

P = ParamSpec("P")
T = TypeVar("T")

_DEADLINE_S = 60.0
_CHECK_EVERY = 1_000_000  # steps of SQLite's machine: some milliseconds


class Readers:
    """Connections to read with; more readers than connections wait their turn."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], count: int) -> None:
        self._idle = [connect() for _ in range(count)]
        self._limiter = trio.CapacityLimiter(count)
        self._closed = False

    async def run(
        self,
        query: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """``query(connection, …)`` in a thread; a query too slow raises ``UnavailableError``."""
        if self._closed:
            raise UnavailableError("store: closed")

        def work() -> T:
            connection = self._idle.pop()
            try:
                return _read(connection, lambda: query(connection, *args, **kwargs))
            finally:
                self._idle.append(connection)

        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    async def aclose(self) -> None:
        """Wait for the queries under way and close."""
        self._closed = True
        with trio.CancelScope(shield=True):
            for _ in range(int(self._limiter.total_tokens)):
                # Whoever holds a token has a query under way; each close is a turn in the queue.
                await trio.to_thread.run_sync(self._close_one, limiter=self._limiter)

    def statistics(self) -> dict[str, Any]:
        """How many there are, how many are busy, how many callers wait."""
        state = self._limiter.statistics()
        return {
            "readers": int(self._limiter.total_tokens),
            "readers_busy": state.borrowed_tokens,
            "readers_waiting": state.tasks_waiting,
        }

    def _close_one(self) -> None:
        if self._idle:
            self._idle.pop().close()


def _read(connection: sqlite3.Connection, query: Callable[[], T]) -> T:
    end = time.monotonic() + _DEADLINE_S
    connection.set_progress_handler(lambda: time.monotonic() > end, _CHECK_EVERY)
    try:
        return query()
    except (OverflowError, UnicodeEncodeError) as error:
        raise InvalidError(f"no such value: {error}") from error
    except sqlite3.Error as error:
        failure = storage_failure(error)
        if failure is None:
            raise
        raise failure from error
