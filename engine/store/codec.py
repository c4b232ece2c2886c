"""Structs to rows and back: the spelling of every field type in the tables.

A row is a tuple in the order of the struct's fields.
"""

from __future__ import annotations

import functools
import os
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, TypeVar
from uuid import UUID

import orjson

from engine.errors import InvalidError
from engine.model import EPOCH, Entity

E = TypeVar("E", bound=Entity)
Convert = Callable[[Any], Any]

_MICROSECOND = timedelta(microseconds=1)
_UID_SIZE = 16
# The byte that says version 4 and the one that says RFC variant, whatever else is in them.
_FIXED_BITS = (
    (6, bytes(value & 0x0F | 0x40 for value in range(256))),
    (8, bytes(value & 0x3F | 0x80 for value in range(256))),
)


def micros(at: datetime) -> int:
    """Microseconds since 1970 UTC; ``at`` must be aware."""
    return (at - EPOCH) // _MICROSECOND


def maybe_micros(at: datetime | None) -> int | None:
    """``micros``, None staying None."""
    return None if at is None else (at - EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """The aware UTC time of ``micros``."""
    return EPOCH + timedelta(microseconds=value)


def uid_bytes(count: int) -> bytes:
    """Random version-4 UUIDs in one piece (RFC 9562 §5.4), from one read of the system's source."""
    noise = bytearray(os.urandom(_UID_SIZE * count))
    for place, table in _FIXED_BITS:
        noise[place::_UID_SIZE] = noise[place::_UID_SIZE].translate(table)
    return bytes(noise)


def new_uids(count: int) -> list[bytes]:
    """``uid_bytes`` one by one."""
    uids = uid_bytes(count)
    return [uids[start : start + _UID_SIZE] for start in range(0, len(uids), _UID_SIZE)]


def _from_uuid(value: UUID) -> bytes:
    return value.bytes


def _to_uuid(value: bytes) -> UUID:
    return UUID(bytes=value)


def _from_enum(value: Enum) -> Any:
    return value.value


def _from_json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:
        raise InvalidError(f"not storable as JSON: {error}") from error


def _to_list(value: str) -> tuple[str, ...]:
    return tuple(orjson.loads(value))


def _optional(convert: Convert) -> Convert:
    def maybe(value: Any) -> Any:
        return None if value is None else convert(value)

    return maybe


_SPELLINGS: dict[Any, tuple[Convert, Convert]] = {
    dict: (_from_json, orjson.loads),
    tuple: (_from_json, _to_list),
    UUID: (_from_uuid, _to_uuid),
    datetime: (micros, moment),
    bool: (int, bool),
}


def _converters(hint: Any) -> tuple[Convert, Convert] | None:
    """(to the row, from the row) for a field type; None where the driver takes it as it is."""
    if isinstance(hint, types.UnionType):
        [inner] = [part for part in typing.get_args(hint) if part is not types.NoneType]
        pair = _converters(inner)
        return None if pair is None else (_optional(pair[0]), _optional(pair[1]))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _from_enum, hint
    return _SPELLINGS.get(typing.get_origin(hint) or hint)


class Codec:
    """How the fields of one noun are spelled in its table."""

    def __init__(self, kind: type[Entity]) -> None:
        hints = typing.get_type_hints(kind)
        self.fields: tuple[str, ...] = kind.__struct_fields__
        pairs = {name: _converters(hints[name]) for name in self.fields}
        self._encode = {name: pair[0] for name, pair in pairs.items() if pair is not None}
        self._decode = [
            (place, pair[1]) for place, pair in enumerate(pairs.values()) if pair is not None
        ]

    def value(self, field: str, value: Any) -> Any:
        """One value as the column holds it, for rows and for conditions."""
        convert = self._encode.get(field)
        return value if convert is None or value is None else convert(value)

    def values(self, entity: Entity) -> dict[str, Any]:
        """The whole row by column name."""
        return {name: self.value(name, getattr(entity, name)) for name in self.fields}

    def named(self, row: Sequence[Any]) -> dict[str, Any]:
        """The struct's arguments out of a row in field order."""
        values = list(row)
        for place, convert in self._decode:
            values[place] = convert(values[place])
        return dict(zip(self.fields, values, strict=True))


@functools.cache
def codec(kind: type[Entity]) -> Codec:
    """The codec of a noun, made once."""
    return Codec(kind)


def struct(kind: type[E], row: Sequence[Any]) -> E:
    """A noun out of a row in field order."""
    return kind(**codec(kind).named(row))


def structs(kind: type[E], rows: Iterable[Sequence[Any]]) -> list[E]:
    """Nouns out of rows."""
    named = codec(kind).named
    return [kind(**named(row)) for row in rows]
