"""The embedded store: SQLite in WAL mode, one writer, some readers."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from engine.clock import Clock
from engine.errors import UnavailableError
from engine.model import CampaignStatus, DoNotContact, Entity, Service, Transmission
from engine.results import Awaiting, Result, ResultRow
from engine.store import (
    arrivals,
    awaiting,
    batch,
    claims,
    closed,
    contacts,
    hotpath,
    media,
    nouns,
    queries,
    reports,
)
from engine.store.arrival import Arrival, Kept, Served
from engine.store.awaiting import Await
from engine.store.base import (
    Address,
    Begun,
    Candidate,
    ContactRow,
    Identity,
    Intent,
    Interrupted,
    Outcome,
    Query,
    Standing,
)
from engine.store.reader import Readers
from engine.store.writer import Writer

E = TypeVar("E", bound=Entity)

_STATEMENTS = 512  # prepared statements a connection keeps

_WRITER = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA busy_timeout = 5000;
    PRAGMA cache_size = -8192;
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA journal_size_limit = 67108864;
"""
_READER = """
    PRAGMA query_only = ON;
    PRAGMA busy_timeout = 5000;
    PRAGMA cache_size = -1024;
"""


def connect(path: Path, pragmas: str) -> sqlite3.Connection:
    """A connection in the driver's autocommit mode: we begin transactions ourselves."""
    with contextlib.ExitStack() as undo:
        try:
            connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, cached_statements=_STATEMENTS
            )
            undo.callback(connection.close)
            connection.executescript(pragmas)
        except sqlite3.Error as error:
            raise UnavailableError(f"store: cannot open {path}: {error}") from error
        undo.pop_all()
    return connection


class SqliteStore:
    """``engine.store.base.Store`` on a file. Open it with ``engine.store.open_store``."""

    def __init__(
        self, path: Path, *, clock: Clock, readers: int, max_batch: int, max_queue: int
    ) -> None:
        self._readers = Readers(partial(connect, path, _READER), readers)
        self._writer = Writer(
            partial(connect, path, _WRITER),
            batch.Batch(clock).run,
            max_batch=max_batch,
            max_queue=max_queue,
        )

    async def aclose(self) -> None:
        """See ``Store.aclose``."""
        await self._writer.aclose()
        await self._readers.aclose()

    # --- plain nouns ---------------------------------------------------------------------------

    async def insert(self, entity: E, *, guarded: bool = False) -> E:
        """See ``Store.insert``; ``InvalidError`` names a reference that leads nowhere."""
        work = _guarded([entity], guarded, lambda tx: nouns.insert_row(tx, entity))
        return cast("E", await self._writer.submit(work))

    async def update(self, entity: E, *, guarded: bool = False) -> E:
        """See ``Store.update``."""
        work = _guarded([entity], guarded, lambda tx: nouns.update_row(tx, entity))
        return cast("E", await self._writer.submit(work))

    async def overwrite(self, entity: E) -> E:
        """See ``Store.overwrite``; the file follows the journal at the next checkpoint."""
        return cast("E", await self._writer.submit(lambda tx: nouns.overwrite_row(tx, entity)))

    async def save_all(
        self, rows: Sequence[Entity], *, owned: bool = False, guarded: bool = False
    ) -> list[Entity]:
        """See ``Store.save_all``."""
        work = _guarded(rows, guarded, partial(nouns.save_rows, rows=rows, owned=owned))
        return cast("list[Entity]", await self._writer.submit(work, weight=max(1, len(rows))))

    async def delete(self, kind: type[Entity], entity_id: int) -> bool:
        """See ``Store.delete``. Rows keep a deleted owner's id, which is never given again."""
        while nouns.detaches(kind) and await self._writer.submit(
            lambda tx: nouns.detach_some(tx, kind, entity_id)
        ):
            pass
        gone = await self._writer.submit(lambda tx: nouns.delete_row(tx, kind, entity_id))
        return bool(gone)

    async def get(self, kind: type[E], entity_id: int) -> E | None:
        """See ``Store.get``."""
        return await self._readers.run(queries.get, kind, entity_id)

    async def find(self, kind: type[E], query: Query) -> list[E]:
        """See ``Store.find``. LIKE folds the case of ASCII letters only, as SQLite does."""
        return await self._readers.run(queries.find, kind, query)

    async def count(self, kind: type[Entity], query: Query) -> int:
        """See ``Store.count``."""
        return await self._readers.run(queries.count, kind, query)

    async def unnamed(self, paths: Sequence[str]) -> list[str]:
        """See ``Store.unnamed``."""
        return await self._readers.run(media.unnamed, paths)

    async def identity(self) -> Identity:
        """See ``Store.identity``."""
        return await self._readers.run(media.identity)

    # --- contacts and groups -------------------------------------------------------------------

    async def link(self, contact_id: int, group_id: int) -> bool:
        """See ``Store.link``; ``NotFoundError`` where one of them is not."""
        return bool(await self._writer.submit(lambda tx: contacts.link(tx, contact_id, group_id)))

    async def unlink(self, contact_id: int, group_id: int) -> bool:
        """See ``Store.unlink``."""
        return bool(await self._writer.submit(lambda tx: contacts.unlink(tx, contact_id, group_id)))

    async def import_contacts(
        self, group_id: int, owner_id: int | None, rows: Sequence[ContactRow], at: datetime
    ) -> int:
        """See ``Store.import_contacts``; ``NotFoundError`` where the group is not."""
        work = partial(_import, group_id=group_id, owner_id=owner_id, rows=rows, at=at)
        return int(await self._writer.submit(work, weight=max(1, len(rows))))

    async def export_contacts(
        self, group_id: int, after_link_id: int, limit: int
    ) -> list[Candidate]:
        """See ``Store.export_contacts``."""
        return await self._readers.run(contacts.members, group_id, after_link_id, limit)

    # --- the hot path --------------------------------------------------------------------------

    async def new_candidates(
        self, campaign_id: int, group_id: int, after_link_id: int, limit: int
    ) -> list[Candidate]:
        """See ``Store.new_candidates``."""
        return await self._readers.run(
            contacts.new_candidates, campaign_id, group_id, after_link_id, limit
        )

    async def untried_addresses(
        self, campaign_id: int, group_id: int, after_link_id: int, limit: int
    ) -> list[Address]:
        """See ``Store.untried_addresses``."""
        return await self._readers.run(
            contacts.untried_addresses, campaign_id, group_id, after_link_id, limit
        )

    async def due_candidates(
        self, campaign_id: int, now: datetime, exclude: Sequence[int], limit: int
    ) -> list[Candidate]:
        """See ``Store.due_candidates``."""
        return await self._readers.run(
            contacts.due_candidates, campaign_id, now, frozenset(exclude), limit
        )

    async def next_due_at(self, campaign_id: int) -> datetime | None:
        """See ``Store.next_due_at``."""
        return await self._readers.run(contacts.next_due_at, campaign_id)

    async def begin_spools(self, intents: Sequence[Intent]) -> list[Begun | None]:
        """See ``Store.begin_spools``. None also where the contact or program is gone."""
        if not intents:
            return []
        answer = await self._writer.submit(batch.Begin(intents), weight=len(intents))
        return cast("list[Begun | None]", answer)

    def connected(self, spool_id: int, at: datetime) -> None:
        """See ``Store.connected``."""
        self._writer.post(batch.Connected(spool_id, at))

    async def finish_spool(self, outcome: Outcome) -> None:
        """See ``Store.finish_spool``."""
        await self._writer.submit(batch.Finish((outcome,)))

    async def finish_spools(self, outcomes: Sequence[Outcome]) -> None:
        """See ``Store.finish_spools``."""
        if outcomes:
            await self._writer.submit(batch.Finish(outcomes), weight=len(outcomes))

    async def await_report(self, spool_id: int, fate: Awaiting, at: datetime) -> None:
        """See ``Store.await_report``."""
        await self._writer.submit(Await(spool_id, fate, at))

    async def annotate(self, spool_id: int, rows: Sequence[ResultRow], at: datetime) -> None:
        """See ``Store.annotate``."""
        if rows:
            await self._writer.submit(lambda tx: awaiting.annotate(tx, spool_id, rows, at))

    async def open_spools(self, spool_ids: Sequence[int]) -> list[Standing]:
        """See ``Store.open_spools``."""
        return await self._readers.run(awaiting.open_spools, spool_ids)

    async def unreported_spools(
        self, node_id: int, closed_by: datetime, limit: int
    ) -> list[Interrupted]:
        """See ``Store.unreported_spools``."""
        return await self._readers.run(awaiting.unreported, node_id, closed_by, limit)

    async def screen_out(self, intents: Sequence[Intent], results: Sequence[Result]) -> None:
        """See ``Store.screen_out``."""
        if intents:
            await self._writer.submit(batch.Screen(intents, results), weight=len(intents))

    # --- what comes in, and who wants nothing ----------------------------------------------------

    async def served(self, number: str, program_type: str) -> list[Served]:
        """See ``Store.served``."""
        return await self._readers.run(arrivals.served, number, program_type)

    async def served_address(self, address: str, program_type: str) -> list[Served]:
        """See ``Store.served_address``."""
        return await self._readers.run(arrivals.served_address, address, program_type)

    async def came(self, provider_id: int, key: str, since: datetime) -> bool:
        """See ``Store.came``."""
        return await self._readers.run(arrivals.came, provider_id, key, since)

    async def receive(self, arrival: Arrival) -> Kept | None:
        """See ``Store.receive``."""
        kept = await self._writer.submit(lambda tx: arrivals.receive(tx, arrival))
        return cast("Kept | None", kept)

    async def forbidden(
        self, owner_id: int | None, service: Service, addresses: Sequence[str]
    ) -> set[str]:
        """See ``Store.forbidden``."""
        return await self._readers.run(closed.forbidden, owner_id, service, addresses)

    async def forbid(self, entry: DoNotContact) -> DoNotContact:
        """See ``Store.forbid``."""
        line = await self._writer.submit(lambda tx: closed.forbid(tx, entry))
        return cast("DoNotContact", line)

    async def suppress(self, spool_id: int, reason: str) -> DoNotContact | None:
        """See ``Store.suppress``."""
        line = await self._writer.submit(lambda tx: closed.suppress(tx, spool_id, reason))
        return cast("DoNotContact | None", line)

    async def allow(self, owner_id: int | None, service: Service, address: str) -> bool:
        """See ``Store.allow``."""
        work = partial(closed.allow, owner_id=owner_id, service=service, address=address)
        return bool(await self._writer.submit(work))

    # --- campaigns, recovery, reports ------------------------------------------------------------

    async def set_campaign_status(
        self, campaign_id: int, status: CampaignStatus, at: datetime
    ) -> None:
        """See ``Store.set_campaign_status``."""
        await self._writer.submit(lambda tx: nouns.set_campaign_status(tx, campaign_id, status, at))

    async def running_campaigns(self) -> list[int]:
        """See ``Store.running_campaigns``."""
        return await self._readers.run(reports.running_campaigns)

    async def campaign_tally(self, campaign_id: int) -> dict[str, int]:
        """See ``Store.campaign_tally``."""
        return await self._readers.run(reports.campaign_tally, campaign_id)

    async def interrupted_spools(self, node_id: int, limit: int) -> list[Interrupted]:
        """See ``Store.interrupted_spools``."""
        return await self._readers.run(reports.interrupted_spools, node_id, limit)

    async def first_spool_since(self, since: datetime, after_id: int) -> int:
        """See ``Store.first_spool_since``."""
        return await self._readers.run(reports.first_spool_since, since, after_id)

    async def overdue_spools(
        self, node_id: int, after_id: int, before_id: int, limit: int
    ) -> list[Interrupted]:
        """See ``Store.overdue_spools``."""
        return await self._readers.run(reports.overdue_spools, node_id, after_id, before_id, limit)

    async def orphaned_transmissions(self, idle_since: datetime, limit: int) -> list[Transmission]:
        """See ``Store.orphaned_transmissions``. Looks through the table a portion at a time."""
        found: list[Transmission] = []
        last_id = await self._readers.run(reports.last_if_orphans)
        for first_id in range(1, last_id + 1, reports.PORTION):
            found += await self._readers.run(reports.orphans, idle_since, first_id, limit)
            if len(found) >= limit:
                break
        return found[:limit]

    async def finish_transmission(self, outcome: Outcome) -> None:
        """See ``Store.finish_transmission``."""
        await self._writer.submit(lambda tx: hotpath.finish_alone(tx, outcome))

    async def counts(self, owner_id: int | None) -> dict[str, int]:
        """See ``Store.counts``."""
        return await self._readers.run(reports.counts, owner_id)

    def statistics(self) -> Mapping[str, Any]:
        """See ``Store.statistics``."""
        return self._writer.statistics() | self._readers.statistics()


def _guarded(rows: Sequence[Entity], guarded: bool, write: batch.Plain) -> batch.Plain:  # noqa: FBT001
    if not guarded:
        return write
    return lambda tx: claims.guarded(tx, rows, partial(write, tx))


def _import(tx: Any, **arguments: Any) -> int:
    return contacts.import_rows(tx, **arguments)
