"""What a gateway must not forget, in a SQLite file of its own beside the store.

Writes of many callers become one transaction and one fsync in a thread of its own (the engine's
``Writer``). What a caller may do in it is up to the caller: ``work`` gets the connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import outcome
import trio

from engine.errors import UnavailableError
from engine.store.reader import Readers
from engine.store.transaction import domain_error, storage_failure
from engine.store.writer import Job, Writer

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_PRAGMAS = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA busy_timeout = 5000;
    PRAGMA cache_size = -32768;
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA journal_size_limit = 67108864;
"""
_MAX_BATCH = 64  # operations in one transaction; each is a batch of segments already
_MAX_QUEUE = 1024
_READERS = 2


class Journal:
    """The file at ``path``. ``inline``: no thread, for tests in virtual time (threads stop it).

    ``schema``: one script per version of the file, in order.
    """

    def __init__(self, path: Path, schema: Sequence[str], *, inline: bool = False) -> None:
        self.made = False  # whether ``open`` had to make the file: it knows nothing of before
        self._path = path
        self._schema = schema
        self._inline = inline
        self._connection: sqlite3.Connection | None = None
        self._writer: Writer | None = None
        self._readers: Readers | None = None

    async def open(self) -> None:
        """Make or migrate the file and take writes; ``UnavailableError`` where it cannot be."""
        self.made = not self._path.exists()
        if self._inline:
            self._connection = self._connect()
            return
        await trio.to_thread.run_sync(lambda: self._connect().close())
        self._writer = Writer(self._connect, _run, max_batch=_MAX_BATCH, max_queue=_MAX_QUEUE)
        self._readers = Readers(self._connect, _READERS)

    def _connect(self) -> sqlite3.Connection:
        return connect(self._path, self._schema)

    async def aclose(self) -> None:
        """Commit what is queued and close."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._readers is not None:
            await self._readers.aclose()
        if self._writer is not None:
            await self._writer.aclose()

    async def write(self, work: Work[T]) -> T:
        """``work(connection)`` within a transaction; returns its value once that is on the disk.

        ``work`` runs in the journal's thread, and again where another in its group failed; all or
        nothing of it is kept.
        Cancellation is heard before it is queued, never after. ``UnavailableError``: the disk takes
        no writes, nothing was kept.
        """
        if self._connection is not None:
            await trio.lowlevel.checkpoint()
            return _write_inline(self._connection, work)
        if self._writer is None:
            raise UnavailableError("journal: closed")
        answer: T = await self._writer.submit(work)
        return answer

    def post(self, work: Work[Any]) -> None:
        """Have ``work`` done with the next commit; nobody waits, and losing it must be harmless."""
        if self._connection is not None:
            _write_inline(self._connection, work)
        elif self._writer is not None:
            self._writer.post(work)

    async def read(self, work: Work[T]) -> T:
        """``work(connection)`` on a connection beside the writer's; sees what is committed."""
        if self._connection is not None:
            await trio.lowlevel.checkpoint()
            return work(self._connection)
        if self._readers is None:
            raise UnavailableError("journal: closed")
        return await self._readers.run(work)

    def statistics(self) -> dict[str, Any]:
        """Queue, batches, commits, and whether the disk takes writes."""
        return self._writer.statistics() if self._writer else {"queue": 0, "writable": True}


def connect(path: Path, schema: Sequence[str]) -> sqlite3.Connection:
    """A connection to the journal, its schema up to date; ``UnavailableError`` where it fails."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.executescript(_PRAGMAS)
        migrate(connection, schema)
    except sqlite3.Error as error:
        raise UnavailableError(f"journal: {error}") from error
    return connection


def migrate(connection: sqlite3.Connection, schema: Sequence[str]) -> None:
    """Bring the schema to the newest version, in one transaction per version.

    A file of a newer version than this program knows is refused with ``UnavailableError``.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(schema):
        raise UnavailableError(f"journal: its version {version} is newer than this program")
    for number, script in enumerate(schema[version:], start=version + 1):
        closing = f"PRAGMA user_version = {number}; COMMIT;"
        connection.executescript(f"BEGIN IMMEDIATE; {script} {closing}")


def _run(connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
    """All of them in one go; only where one fails, again with a savepoint for each.

    Every statement waits for the interpreter beside a busy event loop: as few as can be.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        for job in jobs:
            job.answer = outcome.Value(job.work(connection))
    except Exception as error:
        if storage_failure(error):
            raise
        connection.execute("ROLLBACK")
        _run_apart(connection, jobs)


def _run_apart(connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for job in jobs:
        connection.execute("SAVEPOINT one")
        try:
            job.answer = outcome.Value(job.work(connection))
        except Exception as error:
            if storage_failure(error):
                raise
            connection.execute("ROLLBACK TO one")
            job.answer = outcome.Error(domain_error(error))
        connection.execute("RELEASE one")


def _write_inline(connection: sqlite3.Connection, work: Work[T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        answer = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return answer
