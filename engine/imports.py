"""Imports under way: pieces of a file in, committed chunks of contacts out, and how far it is.

Reading the next piece, parsing it (in a thread) and committing what was parsed before go on at the
same time, with a bounded channel between them: a writer that is behind holds the parser back, the
parser the body, and the body its sender. A chunk is one short transaction, so the dialer's commits
get their turn between any two; what is committed stays, whatever becomes of the rest.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec
import trio

from engine.auth import Principal
from engine.catalog import Catalog
from engine.errors import MissingBodyError, OutspoolError
from engine.model import Group
from engine.stats import Histogram
from engine.store.base import ContactRow

MAX_ERRORS = 100
"""Lines an import reports; the others are only counted."""
CHUNK_ROWS = 2500
"""Of one transaction: large enough to be fast, short enough not to hold up the dialer's.

Measured in a busy node: 15 ms (7 ms of them work), 45 ms where it has to checkpoint; chunks of
5,000 take twice that and are no faster.
"""
PARSED_BYTES = 65_536
"""Parsed at once: a few ms in which the event loop shares the interpreter with the parser."""
FINISHED_KEPT = 100
CUT_OFF = "cut off: the sender went away, or the node was stopped"
_WAITING_CHUNKS = 1


class LineError(msgspec.Struct, frozen=True):
    """A line that was not imported, and why."""

    line: int
    error: str


class Parser(Protocol):
    """How bytes become rows; called in a thread, never twice at a time. A dialect owns it."""

    rejected: int
    errors: list[LineError]  # the first MAX_ERRORS

    def feed(self, chunk: bytes) -> list[ContactRow]:
        """The rows that ``chunk`` completes."""
        ...

    def finish(self) -> list[ContactRow]:
        """The rows that the end of the file completes."""
        ...


class Import(msgspec.Struct, kw_only=True):
    """One import and how far it is. ``bytes_expected`` is None where nobody said.

    ``imported`` rows are durable. It runs until ``finished_at`` is set; ``failure`` says why it did
    not come to its end ("" = it did).
    """

    id: int
    group_id: int
    parser: Parser
    started_at: datetime
    bytes_expected: int | None = None
    bytes_received: int = 0
    imported: int = 0
    finished_at: datetime | None = None
    failure: str = ""


class Imports:
    """The imports of one node: those running, and the last that ended, until it stops."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._ids = itertools.count(1)
        self._running: dict[int, Import] = {}
        self._finished: deque[Import] = deque(maxlen=FINISHED_KEPT)
        # However many there are, the dialer shares the interpreter with one of them at a time.
        self._parsing = trio.CapacityLimiter(1)
        self._commits = Histogram()
        self._imported = 0
        self._failed = 0

    async def run(
        self,
        who: Principal,
        group: Group,
        pieces: AsyncIterator[bytes],
        parser: Parser,
        *,
        bytes_expected: int | None = None,
    ) -> Import:
        """Import a whole file into ``group``; returns once everything good in it is durable.

        Raises ``MissingBodyError`` where it is empty, ``NotFoundError`` where the group goes away
        meanwhile, ``UnavailableError`` where the store refuses, and what ``pieces`` raises. Then,
        and when it is cancelled, the chunks committed by then stay.
        """
        who.require("contact_create")
        this = Import(
            id=next(self._ids),
            group_id=group.id,
            parser=parser,
            started_at=self._catalog.clock(),
            bytes_expected=bytes_expected,
        )
        self._running[this.id] = this
        failure: Exception | None = None
        reason = CUT_OFF
        try:
            failure = await self._run(this, who, group, pieces)
            reason = "" if failure is None else str(failure)
        finally:
            self._end(this, reason)
        if failure is not None:
            raise failure
        return this

    def of(self, group_id: int) -> list[Import]:
        """The imports into a group, the last one first."""
        known = [*self._running.values(), *self._finished]
        known.sort(key=lambda one: one.id, reverse=True)
        return [one for one in known if one.group_id == group_id]

    def statistics(self) -> dict[str, Any]:
        """What runs, what was imported, and how long chunks took from the queue to the disk."""
        return {
            "running": len(self._running),
            "finished_kept": len(self._finished),
            "failed": self._failed,
            "imported": self._imported,
            "waiting_to_parse": self._parsing.statistics().tasks_waiting,
            "chunk_commit_ms": self._commits.milliseconds(),
        }

    def _end(self, this: Import, reason: str) -> None:
        this.finished_at = self._catalog.clock()
        this.failure = reason
        self._failed += bool(reason)
        del self._running[this.id]
        self._finished.append(this)

    async def _run(
        self, this: Import, who: Principal, group: Group, pieces: AsyncIterator[bytes]
    ) -> OutspoolError | None:
        """Parse in one task, commit in another; the error that ended it, where one did."""
        failures: list[OutspoolError] = []
        send, receive = trio.open_memory_channel[list[ContactRow]](_WAITING_CHUNKS)

        async def parse() -> None:
            async with send:
                try:
                    await self._parse(this, pieces, send)
                except OutspoolError as error:
                    failures.append(error)

        async with trio.open_nursery() as nursery, receive:
            nursery.start_soon(parse)
            try:
                async for rows in receive:
                    await self._commit(this, who, group, rows)
            except OutspoolError as error:
                failures.append(error)
                nursery.cancel_scope.cancel()
        return failures[0] if failures else None

    async def _parse(
        self,
        this: Import,
        pieces: AsyncIterator[bytes],
        chunks: trio.MemorySendChannel[list[ContactRow]],
    ) -> None:
        rows: list[ContactRow] = []
        gathered = bytearray()  # senders may send byte by byte
        async for piece in pieces:
            this.bytes_received += len(piece)
            gathered += piece
            if len(gathered) >= PARSED_BYTES:
                rows += await self._feed(this, gathered)
                rows = await _send_full(rows, chunks)
        if not this.bytes_received:
            raise MissingBodyError("Empty file")
        rows += await self._feed(this, gathered) + this.parser.finish()
        rows = await _send_full(rows, chunks)
        if rows:
            await chunks.send(rows)

    async def _feed(self, this: Import, gathered: bytearray) -> list[ContactRow]:
        """Parse what was gathered, and empty it."""
        data = bytes(gathered)
        gathered.clear()
        return await trio.to_thread.run_sync(this.parser.feed, data, limiter=self._parsing)

    async def _commit(
        self, this: Import, who: Principal, group: Group, rows: Sequence[ContactRow]
    ) -> None:
        began = trio.current_time()
        stored = await self._catalog.import_contacts(who, group, rows)
        self._commits.add(trio.current_time() - began)
        this.imported += stored
        self._imported += stored


async def _send_full(
    rows: list[ContactRow], chunks: trio.MemorySendChannel[list[ContactRow]]
) -> list[ContactRow]:
    """Send all full chunks; the rows left over."""
    full = len(rows) - len(rows) % CHUNK_ROWS
    for start in range(0, full, CHUNK_ROWS):
        await chunks.send(rows[start : start + CHUNK_ROWS])
    return rows[full:]
