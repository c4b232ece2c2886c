"""The statements of the hot path, compiled at import."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Table,
    and_,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    update,
)

from engine.model import SpoolStatus
from engine.store import schema
from engine.store.base import Intent
from engine.store.statements import Bulk, Statement, as_json, given, source

LAST_IDS = "SELECT name, seq FROM sqlite_sequence WHERE name IN ('transmission', 'spool')"

_spool, _transmission, _campaign = schema.spool, schema.transmission, schema.campaign


def _open(table: Table) -> ColumnElement[bool]:
    """In the words of the partial index, or the planner does not know it again."""
    return literal_column(f"{table.name}.{schema.OPEN}")


def _insert(table: Table, names: str, constants: dict[str, str]) -> Bulk:
    rows = source(*names.split())
    columns = [*names.split(), *constants]
    values = [*rows.columns, *(literal_column(value) for value in constants.values())]
    return Bulk(rows, insert(table).from_select(columns, select(*values).where(given(rows))))


NEW_TRANSMISSIONS = _insert(
    _transmission,
    "id uid owner_id created_at updated_at title service program_id account_id contact_id"
    " campaign_id origin direction status response try_allowed try_done due_at last_run screened",
    {},
)
NEW_SPOOLS = _insert(
    _spool,
    "id uid owner_id created_at updated_at transmission_id campaign_id service account_id"
    " provider_id node_id destination spooled_at",
    {
        "status": f"'{SpoolStatus.INITIATED}'",
        "response": "''",
        "disposition": "''",
        "code": "''",
        "amount_s": "0.0",
    },
)
NEW_RESULTS = _insert(
    schema.spool_result, "uid owner_id created_at updated_at spool_id type name data", {}
)


def _taken() -> Bulk:
    rows = source("campaign_id", "contact_id")
    found = select(_transmission.c.campaign_id, _transmission.c.contact_id).select_from(
        rows.join(
            _transmission,
            and_(
                _transmission.c.campaign_id == rows.c.campaign_id,
                _transmission.c.contact_id == rows.c.contact_id,
            ),
        )
    )
    return Bulk(rows, as_json(found))


def _held() -> Bulk:
    rows = source("id")
    is_open = (
        select(_spool.c.id)
        .where(_spool.c.transmission_id == _transmission.c.id, _open(_spool))
        .exists()
        .label("open")
    )
    columns = _transmission.c
    found = select(
        columns.id, columns.status, columns.try_done, columns.campaign_id, columns.owner_id, is_open
    ).select_from(rows.join(_transmission, columns.id == rows.c.id))
    return Bulk(rows, as_json(found))


def _open_spools() -> Bulk:
    """Spools without a result and their transmissions, as ``finish`` reads them."""
    rows = source("id")
    found = (
        select(
            _spool.c.id, _spool.c.status, _spool.c.owner_id, _spool.c.campaign_id,
            _transmission.c.id.label("t_id"), _transmission.c.status.label("t_status"),
            _transmission.c.campaign_id.label("t_campaign_id"),
            _transmission.c.owner_id.label("t_owner_id"),
            _spool.c.closes_at.is_not(None).label("waiting"),
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


def _collected() -> Bulk:
    """What was collected for spools so far."""
    rows = source("id")
    kept = schema.spool_result
    found = select(kept.c.spool_id, kept.c.type, kept.c.name, kept.c.data).select_from(
        rows.join(kept, kept.c.spool_id == rows.c.id)
    )
    return Bulk(rows, as_json(found))


TAKEN = _taken()
HELD = _held()
OPEN_SPOOLS = _open_spools()
COLLECTED = _collected()


def _update(table: Table, names: str, constants: dict[str, Any]) -> Bulk:
    """Set the named columns of the rows by ``id``; a constant is SQL or a function of the rows."""
    rows = source(*names.split())
    values: dict[str, Any] = {name: rows.c[name] for name in names.split() if name in table.c}
    del values["id"]
    for name, value in constants.items():
        values[name] = value(rows.c) if callable(value) else literal_column(value)
    return Bulk(rows, update(table).values(values).where(table.c.id == rows.c.id))


def _kept(column: ColumnElement[Any]) -> Any:
    """The new value of a column, the old one where there is none."""
    return lambda rows: func.coalesce(rows[column.key], column)


CLAIM_TRANSMISSIONS = _update(
    _transmission, "id status try_done last_run", {"due_at": "NULL", "updated_at": "v.last_run"}
)
REFUSE_TRANSMISSIONS = _update(
    _transmission, "id status response updated_at", {"due_at": "NULL", "screened": "1"}
)
MOVE_TRANSMISSIONS = _update(_transmission, "id status response due_at updated_at", {})
UNCOUNT_TRIES = _update(
    _transmission, "id", {"try_done": lambda _: func.max(_transmission.c.try_done - 1, 0)}
)
CLOSE_SPOOLS = _update(
    _spool,
    "id status response disposition code started_at connected_at ended_at amount_s updated_at",
    {"started_at": _kept(_spool.c.started_at), "connected_at": _kept(_spool.c.connected_at)},
)
MOVE_CURSORS = _update(
    _campaign, "id cursor", {"cursor": lambda rows: func.max(_campaign.c.cursor, rows.cursor)}
)


def _connect() -> Bulk:
    rows = source("id", "status", "connected_at")
    return Bulk(
        rows,
        update(_spool)
        .values(
            status=rows.c.status, connected_at=rows.c.connected_at, updated_at=rows.c.connected_at
        )
        .where(
            _spool.c.id == rows.c.id, literal_column(f"spool.status = '{SpoolStatus.INITIATED}'")
        ),
    )


CONNECT_SPOOLS = _connect()


def _exists(table: Table) -> Statement:
    return Statement(select(table.c.id).where(table.c.id == bindparam("id")))


_ACCOUNT, _PROVIDER = _exists(schema.account), _exists(schema.provider)


def detached(connection: sqlite3.Connection, intent: Intent) -> Intent:
    """The intent without the account or provider that was deleted meanwhile."""
    if not _ACCOUNT.run(connection, id=intent.account_id).fetchone():
        intent = msgspec.structs.replace(intent, account_id=None)
    if not _PROVIDER.run(connection, id=intent.provider_id).fetchone():
        intent = msgspec.structs.replace(intent, provider_id=None)
    return intent
