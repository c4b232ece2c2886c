"""``Query`` to SQL: one compiled statement per shape of query, values always as parameters."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, TypeVar

import msgspec
from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    bindparam,
    exists,
    false,
    func,
    literal_column,
    or_,
    select,
)

from engine.errors import InvalidError
from engine.model import Account, Campaign, Contact, Entity, Program, Spool, Transmission
from engine.store import schema
from engine.store.base import Condition, Found, Op, Query
from engine.store.codec import codec, structs
from engine.store.rows import columns
from engine.store.statements import Statement

E = TypeVar("E", bound=Entity)

_ESCAPE = "\\"
_NO_LIMIT = -1
_MAX_IN = 10_000
_SHAPES = 512


class _Filter(msgspec.Struct, frozen=True):
    """The part of a condition that shapes the SQL; ``size`` counts the values of an IN.

    ``word`` is a status asked for: as a literal, because SQLite uses a partial index (``PENDING``)
    only where it reads the value in the statement.
    """

    field: str
    op: Op
    null: bool
    size: int
    word: str = ""


class _Join(msgspec.Struct, frozen=True):
    """Another table a condition looks at: which, how it hangs on ours, the noun that spells it."""

    table: Any
    on: Any
    kind: type[Entity] | None


_JOINS: dict[tuple[type[Entity], str], _Join] = {
    (Contact, ""): _Join(
        schema.contact_link, schema.contact_link.c.contact_id == schema.contact.c.id, None
    ),
    (Transmission, "contact"): _Join(
        schema.contact, schema.contact.c.id == schema.transmission.c.contact_id, Contact
    ),
    (Transmission, "account"): _Join(
        schema.account, schema.account.c.id == schema.transmission.c.account_id, Account
    ),
    (Campaign, "program"): _Join(
        schema.program, schema.program.c.id == schema.campaign.c.program_id, Program
    ),
}
_PARTY = "party."
_PARTIES = {f"{_PARTY}phone", f"{_PARTY}email"}
_JOINED = {
    (Contact, "group_id"),
    (Transmission, "contact.phone"),
    (Transmission, "contact.email"),
    (Transmission, "account.phone"),
    (Transmission, "account.email"),
    (Campaign, "program.type"),
}

_TALLIED: dict[type[Entity], str] = {
    Contact: "contact_total",
    Transmission: "transmission_total",
    Spool: "spool_total",
}


def find(connection: sqlite3.Connection, kind: type[E], query: Query) -> list[E]:
    """The rows that match, in order."""
    statement = _select(kind, _shape(query), query.order)
    values = _values(kind, query)
    values["limit"] = _NO_LIMIT if query.limit is None else query.limit
    values["offset"] = query.offset
    cursor = statement.run_with(connection, values)
    if not query.counted:
        return structs(kind, cursor)
    page = _Page(cursor, query.octets)
    rows = structs(kind, page)
    last = not page.cut and (query.limit is None or len(rows) < query.limit)
    if last and (rows or not query.offset):
        return Found(rows, query.offset + len(rows))
    return Found(rows, count(connection, kind, query), cut=page.cut)


class _Page:
    """The rows of a cursor up to so many octets of text; ``cut`` where there are more."""

    def __init__(self, cursor: sqlite3.Cursor, octets: int | None) -> None:
        self._cursor = cursor
        self._octets = octets
        self.cut = False

    def __iter__(self) -> Iterator[Sequence[Any]]:
        size = 0
        with contextlib.closing(self._cursor):
            for number, row in enumerate(self._cursor):
                size += sum([_octets(text) for text in row if type(text) is str])
                if number and self._octets is not None and size > self._octets:
                    self.cut = True
                    return
                yield row


def _octets(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def count(connection: sqlite3.Connection, kind: type[Entity], query: Query) -> int:
    """How many rows match: out of the tallies where only an owner is asked for, or nothing."""
    owners = {c.value for c in query.conditions if (c.field, c.op) == ("owner_id", Op.EQ)}
    if kind in _TALLIED and len(owners) == len(query.conditions) and None not in owners:
        if not owners:
            return _tallied(connection, kind, None)
        if len(owners) == 1:
            return _tallied(connection, kind, owners.pop())
    statement = _count(kind, _shape(query))
    [total] = statement.run_with(connection, _values(kind, query)).fetchone()
    return int(total)


def get(connection: sqlite3.Connection, kind: type[E], entity_id: int) -> E | None:
    """The row by id."""
    found = structs(kind, _by_id(kind).run(connection, id=entity_id))
    return found[0] if found else None


def _tallied(connection: sqlite3.Connection, kind: type[Entity], owner_id: int | None) -> int:
    [total] = _tally(kind, owned=owner_id is not None).run(connection, id=owner_id).fetchone()
    return int(total)


@functools.cache
def _tally(kind: type[Entity], *, owned: bool) -> Statement:
    tally = schema.owner_tally
    query = select(func.coalesce(func.sum(tally.c.value), 0)).where(
        tally.c.name == literal_column(f"'{_TALLIED[kind]}'")
    )
    return Statement(query.where(tally.c.owner_id == bindparam("id")) if owned else query)


@functools.cache
def _by_id(kind: type[Entity]) -> Statement:
    return Statement(
        select(*columns(kind).values()).where(schema.TABLES[kind].c.id == bindparam("id"))
    )


def _shape(query: Query) -> tuple[_Filter, ...]:
    return tuple(
        _Filter(
            condition.field,
            condition.op,
            condition.value is None,
            len(_members(condition)) if condition.op is Op.IN else 0,
            _word(condition),
        )
        for condition in query.conditions
    )


def _word(condition: Condition) -> str:
    """The value where it is one of the few words of an enum."""
    value = condition.value
    return value.value if condition.op is Op.EQ and isinstance(value, StrEnum) else ""


def _members(condition: Condition) -> Sequence[Any]:
    members = list(condition.value)
    if len(members) > _MAX_IN:
        raise InvalidError(f"more than {_MAX_IN} values", field=condition.field)
    return members


def _values(kind: type[Entity], query: Query) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for place, condition in enumerate(query.conditions):
        spell = _speller(kind, condition.field)
        if condition.op is Op.IN:
            for member, value in enumerate(_members(condition)):
                values[f"p{place}_{member}"] = spell(value)
        elif condition.op in (Op.CONTAINS, Op.ENDS_WITH):
            values[f"p{place}"] = _pattern(condition)
        else:
            values[f"p{place}"] = spell(condition.value)
    return values


def _pattern(condition: Condition) -> str:
    value = str(condition.value)
    for special in (_ESCAPE, "%", "_"):
        value = value.replace(special, _ESCAPE + special)
    return f"%{value}%" if condition.op is Op.CONTAINS else f"%{value}"


def _speller(kind: type[Entity], field: str) -> Any:
    join, _, name = field.rpartition(".")
    owner = kind if (kind, field) not in _JOINED else _JOINS[kind, join].kind
    if owner is None:
        return lambda value: value

    def spell(value: Any) -> Any:
        try:
            return codec(owner).value(name, value)
        except (AttributeError, TypeError) as error:
            raise InvalidError(f"{value!r} is no value of {field}", field=field) from error

    return spell


def _column(kind: type[Entity], field: str) -> ColumnElement[Any]:
    if (kind, field) in _JOINED:
        join, _, name = field.rpartition(".")
        joined: ColumnElement[Any] = _JOINS[kind, join].table.c[name]
        return joined
    try:
        return columns(kind)[field]
    except KeyError:
        raise InvalidError(f"{kind.__name__} has no field {field}", field=field) from None


def _criterion(kind: type[Entity], place: int, part: _Filter) -> ColumnElement[bool]:
    if (kind, part.field) == (Contact, "group_id") and part.op is not Op.EQ:
        return _member(_compare(schema.contact_link.c.group_id, place, part))
    if kind is Transmission and part.field in _PARTIES:
        return _party(part.field.removeprefix(_PARTY), place, part)
    return _compare(_column(kind, part.field), place, part)


def _member(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """In any of several groups: a join would give the contact once a group."""
    link = schema.contact_link
    return exists().where(link.c.contact_id == schema.contact.c.id, condition)


def _party(name: str, place: int, part: _Filter) -> ColumnElement[bool]:
    """Of the contact or of the account, which may be none."""
    ours, contact, account = schema.transmission.c, schema.contact.c, schema.account.c
    of_contact = exists().where(contact.id == ours.contact_id, _compare(contact[name], place, part))
    of_account = exists().where(account.id == ours.account_id, _compare(account[name], place, part))
    # Named, because another filter may have joined the same tables outside.
    return or_(of_contact.correlate(schema.transmission), of_account.correlate(schema.transmission))


def _compare(ours: ColumnElement[Any], place: int, part: _Filter) -> ColumnElement[bool]:
    value: ColumnElement[Any] = bindparam(f"p{place}")
    if part.op is Op.IN:
        members: list[ColumnElement[Any]] = [
            bindparam(f"p{place}_{member}") for member in range(part.size)
        ]
        return ours.in_(members) if members else false()
    if part.op is Op.EQ:
        if part.word:
            value = literal_column(f"'{part.word}'")
        return ours.is_(None) if part.null else ours == value
    if part.op is Op.GE:
        return ours >= value
    if part.op is Op.LE:
        return ours <= value
    if part.op is Op.HAS_BITS:
        return ours.op("&")(value) == value
    return ours.ilike(value, escape=_ESCAPE)


def _from(kind: type[Entity], filters: tuple[_Filter, ...]) -> FromClause:
    """Our table and each joined one, once. Inner joins: the condition needs the row."""
    source: FromClause = schema.TABLES[kind]
    prefixes = {
        part.field.rpartition(".")[0]
        for part in filters
        if (kind, part.field) in _JOINED and (kind is not Contact or part.op is Op.EQ)
    }
    for prefix in sorted(prefixes):
        join = _JOINS[kind, prefix]
        source = source.join(join.table, join.on)
    return source


def _where(kind: type[Entity], filters: tuple[_Filter, ...], query: Select[Any]) -> Select[Any]:
    for place, part in enumerate(filters):
        query = query.where(_criterion(kind, place, part))
    return query


def _in_one_group(filters: tuple[_Filter, ...]) -> bool:
    return any(part.field == "group_id" and part.op is Op.EQ for part in filters)


@functools.lru_cache(_SHAPES)
def _select(kind: type[Entity], filters: tuple[_Filter, ...], order: str) -> Statement:
    query = _where(kind, filters, select(*columns(kind).values()).select_from(_from(kind, filters)))
    query = query.order_by(*_keys(kind, filters, order))
    return Statement(query.limit(bindparam("limit")).offset(bindparam("offset")))


def _keys(kind: type[Entity], filters: tuple[_Filter, ...], order: str) -> list[ColumnElement[Any]]:
    """What to sort by. Ids tell ties apart, in the direction of the key before them."""
    wanted = order.split(",")
    if wanted[-1].removeprefix("-") != "id":
        wanted.append("-id" if wanted[-1].startswith("-") else "id")
    keys: list[ColumnElement[Any]] = []
    for part in wanted:
        key = _sort_key(kind, filters, part.removeprefix("-"))
        keys.append(key.desc() if part.startswith("-") else key.asc())
    return keys


def _sort_key(kind: type[Entity], filters: tuple[_Filter, ...], name: str) -> ColumnElement[Any]:
    if (kind, name) in _JOINED:
        raise InvalidError(f"{kind.__name__} cannot be sorted by {name}", field=name)
    # Members of a group come sorted by contact out of the link's index: no sort of the whole group.
    if name == "id" and kind is Contact and _in_one_group(filters):
        return schema.contact_link.c.contact_id
    return _column(kind, name)


@functools.lru_cache(_SHAPES)
def _count(kind: type[Entity], filters: tuple[_Filter, ...]) -> Statement:
    query = select(func.count()).select_from(_from(kind, filters))
    return Statement(_where(kind, filters, query))
