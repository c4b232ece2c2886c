"""Who wants nothing: the writes and reads of ``Store`` about them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec
import orjson
from sqlalchemy import bindparam, func, literal_column, select, union_all

from engine.model import DoNotContact, Service, Spool
from engine.screening import bare_spelling
from engine.store import queries, schema
from engine.store.nouns import delete_row, insert_row, update_row
from engine.store.statements import Statement
from engine.store.transaction import Transaction

_REASON = 255  # characters


def forbid(tx: Transaction, entry: DoNotContact) -> DoNotContact:
    """Close an address for services, beside those it was closed for."""
    known = _entry(tx, entry.owner_id, entry.address)
    if known is None:
        return insert_row(tx, entry)
    merged = msgspec.structs.replace(
        known,
        service=known.service | entry.service,
        reason=entry.reason or known.reason,
        updated_at=tx.clock(),
    )
    return update_row(tx, merged)


def suppress(tx: Transaction, spool_id: int, reason: str) -> DoNotContact | None:
    """Close a spool's destination for its service and owner."""
    spool = queries.get(tx.connection, Spool, spool_id)
    if spool is None:
        return None
    address = bare_spelling(spool.service)(spool.destination)
    known = _entry(tx, spool.owner_id, address)
    if known is not None and known.service & spool.service:
        return known
    entry = DoNotContact(
        address=address,
        service=spool.service,
        reason=reason[:_REASON],
        owner_id=spool.owner_id,
        created_at=tx.clock(),
        updated_at=tx.clock(),
    )
    return forbid(tx, entry)


def allow(tx: Transaction, owner_id: int | None, service: Service, address: str) -> bool:
    """Open an address for services; a line that closes nothing any more goes."""
    known = _entry(tx, owner_id, address)
    if known is None or not known.service & service:
        return False
    left = known.service & ~service
    if left:
        update_row(tx, msgspec.structs.replace(known, service=left, updated_at=tx.clock()))
    else:
        delete_row(tx, DoNotContact, known.id)
    return True


def _entry(tx: Transaction, owner_id: int | None, address: str) -> DoNotContact | None:
    statement = _OF_NODE if owner_id is None else _OF_OWNER
    row = statement.run(tx.connection, owner_id=owner_id, address=address).fetchone()
    return None if row is None else queries.get(tx.connection, DoNotContact, int(row[0]))


def forbidden(
    connection: sqlite3.Connection,
    owner_id: int | None,
    service: Service,
    addresses: Sequence[str],
) -> set[str]:
    """Those of the addresses that are closed for this owner, by its own list or the node's."""
    values = {
        "addresses": orjson.dumps(list(addresses)).decode(),
        "owner_id": owner_id,
        "service": int(service),
    }
    return {address for [address] in _FORBIDDEN.run_with(connection, values)}


_list = schema.do_not_contact
_ENTRY = select(_list.c.id).where(_list.c.address == bindparam("address"))
_OF_OWNER = Statement(_ENTRY.where(_list.c.owner_id == bindparam("owner_id")))
_OF_NODE = Statement(_ENTRY.where(_list.c.owner_id.is_(None)))


def _forbidden() -> Statement:
    addresses = func.json_each(bindparam("addresses")).table_valued("value")
    closed = [
        select(_list.c.address).where(
            _list.c.address.in_(select(addresses.c.value)),
            whose,
            _list.c.service.op("&")(bindparam("service")) != literal_column("0"),
        )
        # Apart, or neither of the two partial indexes would serve.
        for whose in (_list.c.owner_id == bindparam("owner_id"), _list.c.owner_id.is_(None))
    ]
    return Statement(union_all(*closed))


_FORBIDDEN = _forbidden()
