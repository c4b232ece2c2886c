"""Plain writes: insert, update and delete of any noun, counters kept right."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from engine.errors import ConflictError, InvalidError, NotFoundError
from engine.model import (
    EPOCH,
    Account,
    Campaign,
    CampaignStatus,
    Contact,
    Entity,
    Group,
    Program,
    Provider,
    Spool,
    Transmission,
    TransmissionStatus,
)
from engine.store import queries, schema
from engine.store.codec import codec, micros
from engine.store.rows import stored
from engine.store.statements import Statement
from engine.store.transaction import Transaction

E = TypeVar("E", bound=Entity)

# What an update leaves as it is, besides id, uid and created_at.
_KEPT: dict[type[Entity], frozenset[str]] = {
    Group: frozenset({"contact_total"}),
    Campaign: frozenset({"status", "cursor", "last_run"}),
    Transmission: frozenset({"status", "response", "try_done", "due_at", "last_run"}),
}
_IDENTITY = frozenset({"id", "uid", "created_at"})
_CHUNK = 2000


def insert_row(tx: Transaction, entity: E) -> E:
    """Store a new row; times that were not given are now."""
    now = tx.clock()
    entity = msgspec.structs.replace(
        entity,
        created_at=now if entity.created_at == EPOCH else entity.created_at,
        updated_at=now if entity.updated_at == EPOCH else entity.updated_at,
    )
    kind = type(entity)
    values = codec(kind).values(entity)
    if kind is Group:
        values["contact_total"] = 0
    try:
        cursor = _insert(kind).run_with(tx.connection, values)
    except sqlite3.IntegrityError:
        _check_references(tx.connection, kind, values)
        raise
    entity_id = int(cursor.lastrowid or 0)
    _count(tx, kind, entity_id, 1)
    if kind in (Group, Campaign):
        return _reread(tx, kind, entity_id)
    return msgspec.structs.replace(entity, id=entity_id)


def update_row(tx: Transaction, entity: E) -> E:
    """Replace the row with the entity's id; answers it as it is now."""
    kind = type(entity)
    _count(tx, kind, entity.id, -1)
    values = codec(kind).values(entity)
    try:
        _update(kind).run_with(tx.connection, values)
    except sqlite3.IntegrityError:
        _check_references(tx.connection, kind, values)
        raise
    _count(tx, kind, entity.id, 1)
    return _reread(tx, kind, entity.id)


def overwrite_row(tx: Transaction, entity: E) -> E:
    """``update_row`` with what it frees filled with zeros; too dear for every row."""
    tx.connection.execute("PRAGMA secure_delete = ON")
    try:
        return update_row(tx, entity)
    finally:
        tx.connection.execute("PRAGMA secure_delete = OFF")


def save_rows(tx: Transaction, rows: Sequence[Entity], *, owned: bool) -> list[Entity]:
    """Insert what has no id yet, replace what has one."""
    saved: list[Entity] = []
    for row in rows:
        if owned and saved:
            row = msgspec.structs.replace(row, owner_id=saved[0].id)  # noqa: PLW2901
        saved.append(update_row(tx, row) if row.id else insert_row(tx, row))
    return saved


def set_campaign_status(
    tx: Transaction, campaign_id: int, status: CampaignStatus, at: datetime
) -> None:
    """Move a campaign; the caller had the move from ``engine.states``."""
    last_run = micros(at) if status is CampaignStatus.RUNNING else None
    values = {"id": campaign_id, "state": status.value, "at": micros(at), "last_run": last_run}
    if not _SET_STATUS.run_with(tx.connection, values).rowcount:
        raise NotFoundError(f"Campaign {campaign_id} not found")


def delete_row(tx: Transaction, kind: type[Entity], entity_id: int) -> bool:
    """Delete a row and what belongs to it alone; True where there was one."""
    check_delete(tx, kind, entity_id)
    if kind is Contact:
        _LEAVE_GROUPS.run(tx.connection, id=entity_id)
    if kind is Account:
        _FORGET_ACCOUNT.run(tx.connection, id=entity_id)
    if kind is Transmission:
        _delete_spools(tx, entity_id)
    if kind is Spool:
        _DELETE_RESULTS.run(tx.connection, id=entity_id)
    if kind in (Contact, Transmission, Spool):
        _count(tx, kind, entity_id, -1)
    return _delete(kind).run(tx.connection, id=entity_id).rowcount > 0


def check_delete(tx: Transaction, kind: type[Entity], entity_id: int) -> None:
    """``ConflictError`` where something that needs the row forbids its end."""
    for users, message in _FORBIDS.get(kind, ()):
        if users.run(tx.connection, id=entity_id).fetchone():
            raise ConflictError(f"{kind.__name__} {entity_id}: {message}")


def detach_some(tx: Transaction, kind: type[Entity], entity_id: int) -> bool:
    """Detach a bounded number of rows before a delete; True where there may be more.

    A million rows in the one transaction of the delete would hold up every other writer.
    """
    check_delete(tx, kind, entity_id)
    changed = 0
    for statement in _DETACH[kind]:
        changed = max(changed, statement.run(tx.connection, id=entity_id, size=_CHUNK).rowcount)
    if kind is Group:
        _RECOUNT_GROUP.run(tx.connection, id=entity_id, gone=changed)
    return changed >= _CHUNK


def detaches(kind: type[Entity]) -> bool:
    """Whether rows hang on this noun that are worth detaching in portions."""
    return kind in _DETACH


def _delete_spools(tx: Transaction, transmission_id: int) -> None:
    for [spool_id] in _SPOOLS_OF.run(tx.connection, id=transmission_id).fetchall():
        _count(tx, Spool, spool_id, -1)
        _DELETE_RESULTS.run(tx.connection, id=spool_id)
        _delete(Spool).run(tx.connection, id=spool_id)


def _count(tx: Transaction, kind: type[Entity], entity_id: int, sign: int) -> None:
    """Add or take away what the row contributes to the tallies."""
    if kind is Transmission:
        row = _TRANSMISSION.run(tx.connection, id=entity_id).fetchone()
        if row is not None:
            names = ("direction", "status", "try_done", "screened", "response")
            tx.tally.transmission(sign, row[0], row[1], **dict(zip(names, row[2:], strict=True)))
    elif kind is Spool:
        row = _SPOOL.run(tx.connection, id=entity_id).fetchone()
        if row is not None:
            tx.tally.spool(sign, row[0], row[1], status=row[2], disposition=row[3], response=row[4])
    elif kind is Contact:
        row = _CONTACT.run(tx.connection, id=entity_id).fetchone()
        if row is not None:
            tx.tally.contacts(sign, row[0])


def _reread(tx: Transaction, kind: type[E], entity_id: int) -> E:
    entity = queries.get(tx.connection, kind, entity_id)
    if entity is None:
        raise NotFoundError(f"{kind.__name__} {entity_id} not found")
    return entity


def _check_references(
    connection: sqlite3.Connection, kind: type[Entity], values: dict[str, Any]
) -> None:
    """Name the reference that leads nowhere (SQLite does not)."""
    for key in schema.TABLES[kind].foreign_keys:
        name, target = key.parent.name, key.column.table
        if values[name] is None:
            continue
        if not _exists(target.name).run(connection, id=values[name]).fetchone():
            raise InvalidError(f"there is no {target.name} {values[name]}", field=name)


@functools.cache
def _exists(table: str) -> Statement:
    key = schema.METADATA.tables[table].c.id
    return Statement(select(key).where(key == bindparam("id")))


@functools.cache
def _insert(kind: type[Entity]) -> Statement:
    names = [name for name in stored(kind) if name != "id"]
    values: dict[str, Any] = {name: bindparam(name) for name in names}
    if kind is Transmission:
        values["screened"] = literal_column("0")
    return Statement(insert(schema.TABLES[kind]).values(values).inline())


@functools.cache
def _update(kind: type[Entity]) -> Statement:
    table = schema.TABLES[kind]
    kept = _IDENTITY | _KEPT.get(kind, frozenset())
    values: dict[str, Any] = {name: bindparam(name) for name in stored(kind) if name not in kept}
    return Statement(update(table).values(values).where(table.c.id == bindparam("id")))


@functools.cache
def _delete(kind: type[Entity]) -> Statement:
    table = schema.TABLES[kind]
    return Statement(delete(table).where(table.c.id == bindparam("id")))


def _is(column: Any) -> ColumnElement[bool]:
    same: ColumnElement[bool] = column == bindparam("id")
    return same


def _first(column: Any, *more: ColumnElement[Any]) -> Statement:
    return Statement(
        select(literal_column("1")).where(_is(column), *more).limit(literal_column("1"))
    )


_link, _spool, _transmission = schema.contact_link, schema.spool, schema.transmission
_group, _campaign = schema.contact_group, schema.campaign

_OPEN: ColumnElement[bool] = literal_column(schema.OPEN)
# What was handed over and only waits for its report needs its contact no more.
_HANDED_OVER = (
    select(_spool.c.id)
    .where(
        _spool.c.transmission_id == _transmission.c.id,
        _spool.c.closes_at.is_not(None),
        literal_column(f"spool.{schema.OPEN}"),
    )
    .exists()
)
_UNFINISHED: ColumnElement[bool] = or_(
    literal_column(f"transmission.status = '{TransmissionStatus.PENDING}'"),
    and_(literal_column(f"transmission.status = '{TransmissionStatus.PROCESSING}'"), ~_HANDED_OVER),
)
_OPEN_SPOOL = _first(_spool.c.transmission_id, _OPEN)
_SPOOLS_OF = Statement(select(_spool.c.id).where(_is(_spool.c.transmission_id)))
_DELETE_RESULTS = Statement(delete(schema.spool_result).where(_is(schema.spool_result.c.spool_id)))
_TRANSMISSION = Statement(
    select(
        *(_transmission.c[name] for name in (
            "campaign_id", "owner_id", "direction", "status", "try_done", "screened", "response",
        ))
    ).where(_is(_transmission.c.id))
)  # fmt: skip
_SPOOL = Statement(
    select(
        *(_spool.c[name] for name in (
            "campaign_id", "owner_id", "status", "disposition", "response",
        ))
    ).where(_is(_spool.c.id))
)  # fmt: skip
_CONTACT = Statement(select(schema.contact.c.owner_id).where(_is(schema.contact.c.id)))
_SET_STATUS = Statement(
    update(_campaign)
    .values(
        status=bindparam("state"),
        updated_at=bindparam("at"),
        last_run=func.coalesce(bindparam("last_run"), _campaign.c.last_run),
    )
    .where(_is(_campaign.c.id))
)
_LEAVE_GROUPS = Statement(
    update(_group)
    .values(contact_total=_group.c.contact_total - literal_column("1"))
    .where(_group.c.id.in_(select(_link.c.group_id).where(_is(_link.c.contact_id))))
)
_RECOUNT_GROUP = Statement(
    update(_group)
    .values(contact_total=_group.c.contact_total - bindparam("gone"))
    .where(_is(_group.c.id))
)
_FORGET_ACCOUNT = Statement(
    update(_spool)
    .values(account_id=literal_column("NULL"))
    .where(
        _spool.c.transmission_id.in_(
            select(_transmission.c.id).where(_is(_transmission.c.account_id))
        )
    )
)
_FORBIDS: dict[type[Entity], tuple[tuple[Statement, str], ...]] = {
    Account: ((_first(_campaign.c.account_id), "a campaign uses it"),),
    Contact: (
        (_first(_transmission.c.contact_id, _UNFINISHED), "a transmission to it is not over"),
    ),
    Group: ((_first(_campaign.c.group_id), "a campaign uses it"),),
    Program: (
        (_first(_campaign.c.program_id), "a campaign uses it"),
        (_first(_transmission.c.program_id), "transmissions use it"),
    ),
    Campaign: (
        (
            _first(_campaign.c.id, literal_column(f"status = '{CampaignStatus.RUNNING}'")),
            "it is running",
        ),
    ),
    Transmission: ((_OPEN_SPOOL, "a spool of it is not over"),),
    Spool: ((_first(_spool.c.id, _OPEN), "it is not over"),),
}


def _detach(table: Any, column: Any) -> Statement:
    some = select(table.c.id).where(_is(column)).limit(bindparam("size"))
    return Statement(
        update(table).values({column.name: literal_column("NULL")}).where(table.c.id.in_(some))
    )


_SOME_OF_ACCOUNT = (
    select(_transmission.c.id).where(_is(_transmission.c.account_id)).limit(bindparam("size"))
)
_DETACH: dict[type[Entity], tuple[Statement, ...]] = {
    Account: (
        # The spools first: they are found by way of the transmissions detached next.
        Statement(
            update(_spool)
            .values(account_id=literal_column("NULL"))
            .where(_spool.c.transmission_id.in_(_SOME_OF_ACCOUNT))
        ),
        _detach(_transmission, _transmission.c.account_id),
    ),
    Provider: (_detach(_spool, _spool.c.provider_id),),
    Campaign: (
        _detach(_spool, _spool.c.campaign_id),
        _detach(_transmission, _transmission.c.campaign_id),
    ),
    Group: (
        Statement(
            delete(_link).where(
                _link.c.link_id.in_(
                    select(_link.c.link_id).where(_is(_link.c.group_id)).limit(bindparam("size"))
                )
            )
        ),
    ),
}
