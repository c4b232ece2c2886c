"""Filters and pages of list calls, out of the query string. Shared by the dialects.

A filter that is not in a resource's table is ignored; one that is must make sense
(``InvalidError`` names it), so a slip never lists everything. ``limit``, ``offset`` and ``sort``
are additions to ICTCore: without them a list is in the order of its ids, as its clients expect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from engine.errors import InvalidError
from engine.model import Service, SpoolStatus
from engine.screening import bare_number
from engine.store.base import Condition, Op, Query

DEFAULT_LIMIT = 5000
MAX_LIMIT = 10_000
MAX_PAGE_OCTETS = 8_000_000
"""Of the texts in a page's rows: one with longer ones ends early, whatever ``limit`` says."""

_MAX_TEXT = 255
_MAX_SORT_KEYS = 4
_MAX_INTEGER = 2**63 - 1
_ALL_SERVICES = 15


class Filter(msgspec.Struct, frozen=True):
    """One key of the query string: the field it compares, how, and how its value is read.

    ``sorts`` is False where rows cannot be sorted by it.
    """

    field: str
    op: Op
    read: Callable[[str], Any]
    sorts: bool = True


def integer(text: str) -> int:
    """A whole number that the store can compare."""
    value = int(text) if text.isascii() and text.strip("-").isdigit() else None
    if value is None or abs(value) > _MAX_INTEGER:
        raise ValueError("a whole number")
    return value


def string(text: str) -> str:
    """A piece of text."""
    if len(text) > _MAX_TEXT:
        raise ValueError(f"at most {_MAX_TEXT} characters")
    return text


def lowered(text: str) -> str:
    """A word that is stored in small letters and that clients spell as they like."""
    return string(text).lower()


def bare(text: str) -> str:
    """A piece of an address as lists of addresses hold it: no ``+`` or ``00``, small letters."""
    return bare_number(string(text)).lower()


def boolean(text: str) -> bool:
    """A flag: 1 or 0, also as words."""
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in words:
        raise ValueError("1 or 0")
    return words[text.lower()]


def epoch(text: str) -> datetime:
    """A point in time as Unix seconds."""
    try:
        return datetime.fromtimestamp(integer(text), UTC)
    except (OverflowError, OSError, ValueError):
        raise ValueError("Unix seconds") from None


def service_bits(text: str) -> Service:
    """A ``service_flag``: the sum of voice 1, fax 2, SMS 4 and e-mail 8."""
    bits = integer(text)
    if bits not in range(_ALL_SERVICES + 1):
        raise ValueError(f"from 0 to {_ALL_SERVICES}")
    return Service(bits)


def spool_status(text: str) -> SpoolStatus:
    """The status of an attempt."""
    if text not in set(SpoolStatus):
        raise ValueError(f"one of {', '.join(SpoolStatus)}")
    return SpoolStatus(text)


SCHEMA: dict[Callable[[str], Any], dict[str, Any]] = {
    integer: {"type": "integer"},
    string: {"type": "string"},
    lowered: {"type": "string"},
    bare: {"type": "string"},
    boolean: {"type": "integer", "enum": [0, 1]},
    epoch: {"type": "integer", "description": "Unix seconds"},
    service_bits: {"type": "integer", "minimum": 0, "maximum": _ALL_SERVICES},
    spool_status: {"type": "string", "enum": list(SpoolStatus)},
}
"""JSON Schema of what each reader takes."""


def parse(args: Mapping[str, str], filters: Mapping[str, Filter]) -> Query:
    """The query a list call asks for; an empty value means that the filter was not given."""
    conditions = tuple(
        Condition(spec.field, spec.op, _read(name, args[name], spec.read))
        for name, spec in filters.items()
        if args.get(name)
    )
    limit = _read("limit", args.get("limit") or str(DEFAULT_LIMIT), integer)
    offset = _read("offset", args.get("offset") or "0", integer)
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidError(f"limit: must be from 1 to {MAX_LIMIT}", field="limit")
    if offset < 0:
        raise InvalidError("offset: must not be negative", field="offset")
    return Query(
        conditions=conditions,
        limit=limit,
        offset=offset,
        order=_order(args.get("sort") or "", sortable(filters)),
        counted=True,
        octets=MAX_PAGE_OCTETS,
    )


def sortable(filters: Mapping[str, Filter]) -> dict[str, str]:
    """What rows can be sorted by, as clients spell it: the field behind it.

    A bound of a range (``before``) is no field of a row, a field of another row is not the list's.
    """
    own = {
        name: spec.field
        for name, spec in filters.items()
        if spec.sorts and spec.op not in (Op.GE, Op.LE) and "." not in spec.field
    }
    return {**own, "id": "id", "date_created": "created_at", "last_updated": "updated_at"}


def sort_pattern(filters: Mapping[str, Filter]) -> str:
    """Regular expression of what ``sort`` takes."""
    one = f"-?({'|'.join(sortable(filters))})"
    return f"^{one}(,{one}){{0,{_MAX_SORT_KEYS - 1}}}$"


def _order(text: str, fields: Mapping[str, str]) -> str:
    """``sort`` in the store's spelling: a comma list of fields, ``-`` for descending ones."""
    keys = [key.strip() for key in text.split(",") if key.strip()]
    for key in keys:
        if key.removeprefix("-") not in fields:
            known = ", ".join(sorted(fields))
            raise InvalidError(
                f"sort: no field {key.removeprefix('-')!r}, only {known}", field="sort"
            )
    if len(keys) > _MAX_SORT_KEYS:
        raise InvalidError(f"sort: more than {_MAX_SORT_KEYS} fields", field="sort")
    signs = ("-" if key.startswith("-") else "" for key in keys)
    return (
        ",".join(s + fields[k.removeprefix("-")] for s, k in zip(signs, keys, strict=True)) or "id"
    )


def _read(name: str, text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise InvalidError(f"{name}: must be {error}", field=name) from None
