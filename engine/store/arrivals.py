"""What comes in: the writes and reads of ``Store`` about it."""

from __future__ import annotations

import sqlite3
import string
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import orjson
from sqlalchemy import ColumnElement, bindparam, delete, func, literal_column, select
from sqlalchemy.dialects.sqlite import insert

from engine.model import (
    Contact,
    Direction,
    Spool,
    SpoolResult,
    SpoolStatus,
    Template,
    Text,
    Transmission,
    TransmissionStatus,
)
from engine.results import Disposition, ResultRow
from engine.store import closed, schema
from engine.store.arrival import Arrival, Kept, Served
from engine.store.codec import micros
from engine.store.nouns import insert_row
from engine.store.statements import Statement
from engine.store.transaction import Transaction

KEYS_KEPT = timedelta(days=8)
"""How long an arrival's key is remembered: a day longer than anybody may ask back for."""

_PURGED = 50  # keys forgotten with each arrival, so that no single one pays for a busy day
_RECEIVED = "received"
_NAME = 64  # characters of a contact's first and of its last name


# --- what comes in ----------------------------------------------------------------------------


def receive(tx: Transaction, arrival: Arrival) -> Kept | None:
    """Keep a message with all that follows from it; None where it had come before."""
    if _repeated(tx, arrival):
        return None
    at = micros(arrival.at)
    _REMEMBER.run(tx.connection, provider_id=arrival.provider_id, key=arrival.key, at=at)
    _PURGE.run(tx.connection, before=at - _MICROS_KEPT, size=_PURGED)
    if arrival.forbids is not None:
        closed.forbid(tx, arrival.forbids)
    if arrival.allows is not None:
        entry = arrival.allows
        closed.allow(tx, entry.owner_id, entry.service, entry.address)
    return _keep(tx, arrival)


_MICROS_KEPT = KEYS_KEPT // timedelta(microseconds=1)


def _repeated(tx: Transaction, arrival: Arrival) -> bool:
    since = arrival.repeat_since
    return since is not None and came(tx.connection, arrival.provider_id, arrival.key, since)


def came(connection: sqlite3.Connection, provider_id: int, key: str, since: datetime) -> bool:
    """Whether a message with this key came from this provider since then."""
    found = _CAME.run(connection, provider_id=provider_id, key=key, since=micros(since))
    return found.fetchone() is not None


def _keep(tx: Transaction, arrival: Arrival) -> Kept:
    own: dict[str, Any] = {
        "owner_id": arrival.owner_id,
        "created_at": arrival.at,
        "updated_at": arrival.at,
    }
    rows = list(arrival.rows)
    contact_id = _contact_of(tx, arrival)
    if contact_id is None:
        contact_id = insert_row(tx, _contact_for(arrival, own)).id
        rows.append(ResultRow("contact", "contact_new", str(contact_id)))
    message: Text | Template = insert_row(tx, msgspec.structs.replace(arrival.message, **own))
    kind = "text" if isinstance(message, Text) else "template"
    rows.append(ResultRow("message", kind, str(message.id)))
    transmission = insert_row(tx, _transmission(arrival, contact_id, own))
    spool = insert_row(tx, _spool(tx, arrival, transmission.id, own))
    for row in rows:
        result = SpoolResult(spool_id=spool.id, type=row.type, name=row.name, data=row.data, **own)
        insert_row(tx, result)
    return Kept(transmission.id, spool.id, contact_id, message.id)


def _contact_of(tx: Transaction, arrival: Arrival) -> int | None:
    if arrival.phone:
        statement, forms = _CONTACT, _forms(arrival.phone)
    else:
        statement, forms = _CONTACT_BY_EMAIL, _spellings(arrival.email)
    values = {"forms": orjson.dumps(forms).decode(), "owner_id": arrival.owner_id}
    row = statement.run_with(tx.connection, values).fetchone()
    return None if row is None else int(row[0])


def _contact_for(arrival: Arrival, own: dict[str, Any]) -> Contact:
    """First word and rest of the name it gave itself."""
    first, _, last = " ".join(arrival.name.split()).partition(" ")
    return Contact(
        phone=arrival.phone,
        email=arrival.email,
        first_name=first[:_NAME],
        last_name=last[:_NAME],
        **own,
    )


def _transmission(arrival: Arrival, contact_id: int, own: dict[str, Any]) -> Transmission:
    return Transmission(
        title=arrival.title,
        service=arrival.service,
        program_id=arrival.program_id,
        account_id=arrival.account_id,
        contact_id=contact_id,
        origin=arrival.origin,
        direction=Direction.INBOUND,
        status=TransmissionStatus.COMPLETED,
        response=_RECEIVED,
        try_done=1,
        last_run=arrival.at,
        **own,
    )


def _spool(tx: Transaction, arrival: Arrival, transmission_id: int, own: dict[str, Any]) -> Spool:
    # A provider deleted a moment ago is detached, as if it had been deleted a moment later.
    known = _PROVIDER.run(tx.connection, id=arrival.provider_id).fetchone()
    return Spool(
        transmission_id=transmission_id,
        service=arrival.service,
        account_id=arrival.account_id,
        provider_id=arrival.provider_id if known else None,
        node_id=arrival.node_id,
        destination=arrival.destination,
        status=SpoolStatus.COMPLETED,
        response=_RECEIVED,
        disposition=Disposition.ANSWERED.value,
        spooled_at=arrival.at,
        started_at=arrival.at,
        connected_at=arrival.at,
        ended_at=arrival.at,
        **own,
    )


def served(connection: sqlite3.Connection, number: str, program_type: str) -> list[Served]:
    """Active accounts with this bare number and their program of a type: DIDs first, then by id."""
    values = {"numbers": orjson.dumps(_forms(number)).decode(), "type": program_type}
    return _first_served(
        [Served(*row) for row in statement.run_with(connection, values)]
        for statement in (_SERVED, _SERVED_DECORATED)
    )


def served_address(connection: sqlite3.Connection, address: str, program_type: str) -> list[Served]:
    """Active accounts with this e-mail address and their program of a type."""
    local, at, domain = address.rpartition("@")
    user, plus, _ = local.partition("+")
    asked = [address, f"{user}@{domain}"] if at and user and plus else [address]
    values = [
        {"addresses": orjson.dumps(_spellings(a)).decode(), "type": program_type} for a in asked
    ]
    return _first_served(
        [Served(*row) for row in _SERVED_ADDRESS.run_with(connection, one)] for one in values
    )


def _first_served(found: Iterable[list[Served]]) -> list[Served]:
    """The first with a program in it: who only carries an address takes nothing from who serves."""
    carried: list[Served] = []
    for accounts in found:
        if any(one.program_id is not None for one in accounts):
            return accounts
        carried = carried or accounts
    return carried


def _spellings(address: str) -> tuple[str, ...]:
    """An address in small letters, as we and as SQLite see them (it knows those of ASCII)."""
    return tuple({address.lower(), address.translate(_SMALL)})


_SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def _forms(number: str) -> tuple[str, ...]:
    """A number as people may have written it, whatever of it is given."""
    bare = number.removeprefix("+").removeprefix("00")
    return (number, bare, f"+{bare}", f"00{bare}") if bare else (number,)


# --- statements -------------------------------------------------------------------------------

_arrival, _account, _contact = schema.arrival, schema.account, schema.contact
_program, _subscription = schema.program, schema.subscription

_CAME = Statement(
    select(_arrival.c.at).where(
        _arrival.c.provider_id == bindparam("provider_id"),
        _arrival.c.key == bindparam("key"),
        _arrival.c.at >= bindparam("since"),
    )
)


def _remember() -> Statement:
    new = insert(_arrival).values(
        provider_id=bindparam("provider_id"), key=bindparam("key"), at=bindparam("at")
    )
    return Statement(
        new.on_conflict_do_update(
            index_elements=["provider_id", "key"],
            set_={"at": func.max(_arrival.c.at, new.excluded.at)},
        )
    )


_REMEMBER = _remember()
_PURGE = Statement(
    delete(_arrival).where(
        literal_column("(provider_id, key)").in_(
            select(_arrival.c.provider_id, _arrival.c.key)
            .where(_arrival.c.at < bindparam("before"))
            .order_by(_arrival.c.at)
            .limit(bindparam("size"))
        )
    )
)
_PROVIDER = Statement(select(schema.provider.c.id).where(schema.provider.c.id == bindparam("id")))
_given = func.json_each(bindparam("forms")).table_valued("value")


def _contact_by(column: ColumnElement[Any], indexed: str) -> Statement:
    return Statement(
        select(_contact.c.id)
        .where(
            column.in_(select(_given.c.value)),
            # In the words of the partial index.
            literal_column(indexed),
            # +: by address, not by way of the owner's index, which may lead through a million.
            literal_column("+contact.owner_id").is_not_distinct_from(bindparam("owner_id")),
        )
        .order_by(_contact.c.id)
        .limit(literal_column("1"))
    )


_CONTACT = _contact_by(_contact.c.phone, "phone <> ''")
_CONTACT_BY_EMAIL = _contact_by(func.lower(_contact.c.email), "email <> ''")


def _undecorated(column: Any) -> Any:
    """A number without what ``screening.normalise_number`` takes off."""
    for sign in " -/().\t":
        column = func.replace(column, literal_column(f"'{sign}'"), literal_column("''"))
    return column


def _programs() -> ColumnElement[Any]:
    """The program of a type that an account is subscribed to, else one made for it."""
    by_subscription = (
        select(func.min(_program.c.id))
        .select_from(_subscription.join(_program, _program.c.id == _subscription.c.program_id))
        .where(_subscription.c.account_id == _account.c.id, _program.c.type == bindparam("type"))
        .correlate(_account)
        .scalar_subquery()
    )
    by_data = (
        select(func.min(_program.c.id))
        .where(
            _program.c.type == bindparam("type"),
            func.json_extract(_program.c.data, literal_column("'$.account_id'")) == _account.c.id,
        )
        .correlate(_account)
        .scalar_subquery()
    )
    return func.coalesce(by_subscription, by_data)


def _served(phone: Any) -> Statement:
    numbers = func.json_each(bindparam("numbers")).table_valued("value")
    return Statement(
        select(_account.c.id, _account.c.owner_id, _programs())
        .where(
            _account.c.active,
            _account.c.type.in_([literal_column(f"'{kind}'") for kind in _NUMBERED]),
            literal_column("account.phone <> ''"),
            phone.in_(select(numbers.c.value)),
        )
        .order_by(_account.c.type != literal_column("'did'"), _account.c.id)
    )


_NUMBERED = ("did", "account", "extension")
_SERVED = _served(_account.c.phone)


def _served_address() -> Statement:
    addresses = func.json_each(bindparam("addresses")).table_valued("value")
    return Statement(
        select(_account.c.id, _account.c.owner_id, _programs())
        .where(
            _account.c.active,
            literal_column("account.email <> ''"),
            func.lower(_account.c.email).in_(select(addresses.c.value)),
        )
        .order_by(_account.c.type != literal_column("'eaddress'"), _account.c.id)
    )


_SERVED_ADDRESS = _served_address()
# Looks at every account: only where none serves the number in one of the plain forms.
_SERVED_DECORATED = _served(_undecorated(_account.c.phone))
