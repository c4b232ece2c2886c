"""Contacts and groups: membership, import and export, and whom a campaign may try next."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
import orjson
from sqlalchemy import (
    ColumnElement,
    Integer,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)

from engine.errors import NotFoundError
from engine.model import Contact, Group, Transmission
from engine.store import queries, schema
from engine.store.base import Address, Candidate, ContactRow
from engine.store.codec import codec, micros, moment, uid_bytes
from engine.store.rows import columns
from engine.store.statements import Bulk, Statement, as_json, given, source
from engine.store.transaction import Transaction

_link, _contact, _group = schema.contact_link, schema.contact, schema.contact_group
_transmission = schema.transmission

_TEXTS = ContactRow.__struct_fields__
_LAST_ID = "SELECT seq FROM sqlite_sequence WHERE name = 'contact'"
_UID_BYTES = 16


def link(tx: Transaction, contact_id: int, group_id: int) -> bool:
    """Put a contact into a group; False where it was there already."""
    for kind, entity_id in ((Contact, contact_id), (Group, group_id)):
        if queries.get(tx.connection, kind, entity_id) is None:
            raise NotFoundError(f"{kind.__name__} {entity_id} not found")
    if _IS_MEMBER.run(tx.connection, group_id=group_id, contact_id=contact_id).fetchone():
        return False
    _JOIN.run(tx.connection, group_id=group_id, contact_id=contact_id)
    _ADD.run(tx.connection, group_id=group_id, more=1)
    return True


def unlink(tx: Transaction, contact_id: int, group_id: int) -> bool:
    """Take it out; False where it was not there."""
    if not _LEAVE.run(tx.connection, group_id=group_id, contact_id=contact_id).rowcount:
        return False
    _ADD.run(tx.connection, group_id=group_id, more=-1)
    return True


def import_rows(
    tx: Transaction,
    group_id: int,
    owner_id: int | None,
    rows: Sequence[ContactRow],
    at: datetime,
) -> int:
    """Create the contacts and link them."""
    if not _ADD.run(tx.connection, group_id=group_id, more=len(rows)).rowcount:
        raise NotFoundError(f"Group {group_id} not found")
    first = _last_id(tx.connection) + 1
    _CONTACTS.run(
        tx.connection,
        [(place, *msgspec.structs.astuple(row)) for place, row in enumerate(rows)],
        first=first,
        uids=uid_bytes(len(rows)),
        owner_id=owner_id,
        stamp=micros(at),
    )
    _LINKS.run(tx.connection, group_id=group_id, first=first)
    tx.tally.contacts(len(rows), owner_id)
    return len(rows)


def _last_id(connection: sqlite3.Connection) -> int:
    [last] = connection.execute(_LAST_ID).fetchone() or [0]
    return int(last)


def members(
    connection: sqlite3.Connection, group_id: int, after_link_id: int, limit: int
) -> list[Candidate]:
    """Members in the order they joined."""
    rows = _MEMBERS.run(connection, group_id=group_id, after=after_link_id, limit=limit)
    return _new(rows)


def new_candidates(
    connection: sqlite3.Connection,
    campaign_id: int,
    group_id: int,
    after_link_id: int,
    limit: int,
) -> list[Candidate]:
    """Members without a transmission of the campaign."""
    rows = _UNTRIED.run(
        connection, campaign_id=campaign_id, group_id=group_id, after=after_link_id, limit=limit
    )
    return _new(rows)


def untried_addresses(
    connection: sqlite3.Connection,
    campaign_id: int,
    group_id: int,
    after_link_id: int,
    limit: int,
) -> list[Address]:
    """The same in short, as one value: a step a row would take turns with the event loop."""
    values = {"campaign_id": campaign_id, "group_id": group_id, "after": after_link_id}
    [text] = _UNTRIED_ADDRESSES.run_with(connection, values | {"limit": limit}).fetchone()
    return [Address(*row) for row in orjson.loads(text)]


def due_candidates(
    connection: sqlite3.Connection,
    campaign_id: int,
    now: datetime,
    exclude: Collection[int],
    limit: int,
) -> list[Candidate]:
    """Pending transmissions due by now, earliest first; campaign 0 = those of none."""
    # More than asked for, so that the excluded ones cannot crowd out the others.
    rows = (_DUE if campaign_id else _DUE_ALONE).run(
        connection, campaign_id=campaign_id, now=micros(now), limit=limit + len(exclude)
    )
    return [_due(row) for row in rows if row[0] not in exclude][:limit]


def next_due_at(connection: sqlite3.Connection, campaign_id: int) -> datetime | None:
    """When the earliest pending transmission is due."""
    statement = _NEXT_DUE if campaign_id else _NEXT_DUE_ALONE
    row = statement.run(connection, campaign_id=campaign_id).fetchone()
    return None if row is None else moment(row[0])


def _new(rows: sqlite3.Cursor) -> list[Candidate]:
    named = codec(Contact).named
    return [Candidate(contact=Contact(**named(row[1:])), link_id=row[0]) for row in rows]


def _due(row: Sequence[Any]) -> Candidate:
    split = len(Transmission.__struct_fields__)
    transmission = Transmission(**codec(Transmission).named(row[:split]))
    return Candidate(
        contact=Contact(**codec(Contact).named(row[split:])), transmission=transmission
    )


_IS_MEMBER = Statement(
    select(_link.c.link_id).where(
        _link.c.group_id == bindparam("group_id"), _link.c.contact_id == bindparam("contact_id")
    )
)
_JOIN = Statement(
    insert(_link)
    .values(group_id=bindparam("group_id"), contact_id=bindparam("contact_id"))
    .inline()
)
_LEAVE = Statement(
    delete(_link).where(
        _link.c.group_id == bindparam("group_id"), _link.c.contact_id == bindparam("contact_id")
    )
)
_ADD = Statement(
    update(_group)
    .values(contact_total=_group.c.contact_total + bindparam("more"))
    .where(_group.c.id == bindparam("group_id"))
)


_row = source("place", *_TEXTS)
_CONTACTS = Bulk(
    _row,
    insert(_contact).from_select(
        ["id", "uid", "owner_id", "created_at", "updated_at", *_TEXTS],
        select(
            bindparam("first", type_=Integer) + _row.c.place,
            func.substr(bindparam("uids"), _row.c.place * _UID_BYTES + 1, _UID_BYTES),
            bindparam("owner_id"),
            bindparam("stamp"),
            bindparam("stamp"),
            *(_row.c[name] for name in _TEXTS),
        ).where(given(_row)),
    ),
)
# Only those just made have such ids: they are given in order, and never twice.
_LINKS = Statement(
    insert(_link).from_select(
        ["group_id", "contact_id"],
        select(bindparam("group_id"), _contact.c.id)
        .where(_contact.c.id >= bindparam("first"))
        .order_by(_contact.c.id),
    )
)

_joined = (
    select(_link.c.link_id, *columns(Contact).values())
    .select_from(_link.join(_contact, _contact.c.id == _link.c.contact_id))
    .where(_link.c.group_id == bindparam("group_id"), _link.c.link_id > bindparam("after"))
    .order_by(_link.c.link_id)
    .limit(bindparam("limit"))
)
_untried = (
    ~select(_transmission.c.id)
    .where(
        _transmission.c.campaign_id == bindparam("campaign_id"),
        _transmission.c.contact_id == _link.c.contact_id,
    )
    .exists()
)
_MEMBERS = Statement(_joined)
_UNTRIED = Statement(_joined.where(_untried))
_UNTRIED_ADDRESSES = Statement(
    as_json(
        _joined.with_only_columns(
            _link.c.link_id, _contact.c.id, _contact.c.phone, _contact.c.email
        ).where(_untried)
    )
)
_campaign_id, _due_at = _transmission.c.campaign_id, _transmission.c.due_at
_of_campaign: ColumnElement[bool] = _campaign_id == bindparam("campaign_id")
_of_none: ColumnElement[bool] = _campaign_id.is_(None)
_pending: ColumnElement[bool] = literal_column(f"transmission.{schema.PENDING}")


def _due_of(whose: ColumnElement[bool]) -> Statement:
    return Statement(
        select(*columns(Transmission).values(), *columns(Contact).values())
        .select_from(_transmission.join(_contact, _contact.c.id == _transmission.c.contact_id))
        .where(whose, _pending, _due_at <= bindparam("now"))
        .order_by(_due_at)
        .limit(bindparam("limit"))
    )


def _next_due_of(whose: ColumnElement[bool]) -> Statement:
    return Statement(
        select(_due_at)
        # Its contact may have been deleted while it waited for a report.
        .where(whose, _pending, _due_at.is_not(None), _transmission.c.contact_id.is_not(None))
        .order_by(_due_at)
        .limit(literal_column("1"))
    )


_DUE, _DUE_ALONE = _due_of(_of_campaign), _due_of(_of_none)
_NEXT_DUE, _NEXT_DUE_ALONE = _next_due_of(_of_campaign), _next_due_of(_of_none)
