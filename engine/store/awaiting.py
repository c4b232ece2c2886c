"""Spools that were handed over and wait for their report."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import orjson
from sqlalchemy import ColumnElement, bindparam, func, literal_column, select, update

from engine.model import Spool, SpoolStatus, Transmission
from engine.results import Awaiting, ResultRow
from engine.states import Event, advance
from engine.store import hotsql, schema
from engine.store.base import Interrupted, Standing
from engine.store.codec import maybe_micros, micros, new_uids, struct
from engine.store.rows import columns
from engine.store.statements import Bulk, Statement, as_json, source
from engine.store.transaction import Transaction

_spool, _transmission = schema.spool, schema.transmission
_OPEN: ColumnElement[bool] = literal_column(f"spool.{schema.OPEN}")
_CONNECTED = advance(SpoolStatus.INITIATED, Event.CONNECT)


class Await(msgspec.Struct, frozen=True):
    """Leave a spool waiting: an operation of the hot path (see ``engine.store.batch``)."""

    spool_id: int
    fate: Awaiting
    at: datetime


def await_reports(tx: Transaction, asked: Sequence[Await]) -> None:
    """Write down what each waits for; spools with a result keep it, rows are added once."""
    known = _STANDING.json(tx.connection, [(one.spool_id,) for one in asked])
    standing = {row[0]: row[1:] for row in known}
    spools: list[tuple[Any, ...]] = []
    results: list[tuple[Any, ...]] = []
    for one in asked:
        # Taken out: a spool waits once.
        state = standing.pop(one.spool_id, None)
        if state is None:
            continue
        owner_id, waiting = state
        spools.append(_waiting(one))
        if not waiting:
            at = micros(one.at)
            results += [
                (owner_id, at, at, one.spool_id, row.type, row.name, row.data)
                for row in one.fate.rows
            ]
    _AWAIT.run(tx.connection, spools)
    uids = new_uids(len(results))
    rows = [(uid, *row) for uid, row in zip(uids, results, strict=True)]
    hotsql.NEW_RESULTS.run(tx.connection, rows)


def annotate(tx: Transaction, spool_id: int, rows: Sequence[ResultRow], at: datetime) -> None:
    """Add rows to a closed spool, each as often as it is given at most."""
    found = _CLOSED.run(tx.connection, id=spool_id).fetchone()
    if found is None:
        return
    there = Counter(tuple(row[1:]) for row in hotsql.COLLECTED.json(tx.connection, [(spool_id,)]))
    asked = Counter((row.type, row.name, row.data) for row in rows)
    when, new = micros(at), list((asked - there).elements())
    hotsql.NEW_RESULTS.run(
        tx.connection,
        [
            (uid, found[0], when, when, spool_id, *datum)
            for uid, datum in zip(new_uids(len(new)), new, strict=True)
        ],
    )


def _waiting(one: Await) -> tuple[Any, ...]:
    fate, accepted_at = one.fate, maybe_micros(one.fate.accepted_at)
    status = None if accepted_at is None else _CONNECTED.value
    closes_at = micros(fate.closes_at)
    return (one.spool_id, status, accepted_at, closes_at, fate.code, micros(one.at))


def open_spools(connection: sqlite3.Connection, spool_ids: Sequence[int]) -> list[Standing]:
    """Those without a result."""
    found = _AMONG.json(connection, [(key,) for key in spool_ids])
    return [Standing(*(*row, orjson.loads(delays))) for *row, delays in found]


def unreported(
    connection: sqlite3.Connection, node_id: int, closed_by: datetime, limit: int
) -> list[Interrupted]:
    """Spools whose time to be reported is over, earliest first."""
    values = {"node_id": node_id, "by": micros(closed_by), "limit": limit}
    return both(_UNREPORTED.run_with(connection, values))


def both(rows: sqlite3.Cursor) -> list[Interrupted]:
    """Spools and their transmissions out of rows of ``with_transmission``."""
    split = len(Spool.__struct_fields__)
    return [
        Interrupted(
            spool=struct(Spool, row[:split]), transmission=struct(Transmission, row[split:])
        )
        for row in rows
    ]


def with_transmission() -> Any:
    """A select of whole spools and their transmissions."""
    return select(*columns(Spool).values(), *columns(Transmission).values()).select_from(
        _spool.join(_transmission, _transmission.c.id == _spool.c.transmission_id)
    )


def _standing() -> Bulk:
    rows = source("id")
    found = (
        select(_spool.c.id, _spool.c.owner_id, _spool.c.closes_at.is_not(None).label("waiting"))
        .select_from(rows.join(_spool, _spool.c.id == rows.c.id))
        # +: by id, not by way of the index of open spools.
        .where(literal_column(f"+spool.{schema.OPEN}"))
    )
    return Bulk(rows, as_json(found))


def _among() -> Bulk:
    rows = source("id")
    found = (
        select(
            _spool.c.id, _transmission.c.id.label("t_id"), _transmission.c.campaign_id,
            _transmission.c.contact_id, _transmission.c.try_done, _transmission.c.try_allowed,
            _transmission.c.retry_delays,
        )
        .select_from(
            rows.join(_spool, _spool.c.id == rows.c.id).join(
                _transmission, _transmission.c.id == _spool.c.transmission_id
            )
        )
        # +: by id, not by way of the index of open spools.
        .where(literal_column(f"+spool.{schema.OPEN}"))
    )  # fmt: skip
    return Bulk(rows, as_json(found))


def _await() -> Bulk:
    rows = source("id", "status", "connected_at", "closes_at", "code", "updated_at")
    return Bulk(
        rows,
        update(_spool)
        .values(
            status=func.coalesce(rows.c.status, _spool.c.status),
            connected_at=func.coalesce(rows.c.connected_at, _spool.c.connected_at),
            started_at=func.coalesce(_spool.c.started_at, rows.c.connected_at),
            closes_at=rows.c.closes_at,
            code=rows.c.code,
            updated_at=rows.c.updated_at,
        )
        .where(_spool.c.id == rows.c.id),
    )


_STANDING, _AWAIT = _standing(), _await()
_AMONG = _among()
_CLOSED = Statement(
    select(_spool.c.owner_id).where(
        _spool.c.id == bindparam("id"), literal_column(f"NOT (+spool.{schema.OPEN})")
    )
)
_UNREPORTED = Statement(
    with_transmission()
    .where(
        _OPEN,
        _spool.c.closes_at.is_not(None),
        _spool.c.closes_at <= bindparam("by"),
        _spool.c.node_id == bindparam("node_id"),
    )
    .order_by(_spool.c.closes_at)
    .limit(bindparam("limit"))
)
