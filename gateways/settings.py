"""The settings of a provider as operators write them → the struct of its gateway. Pure."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from engine.errors import InvalidError

Settings = TypeVar("Settings", bound=msgspec.Struct)

_PLACE = re.compile(r"Invalid enum value .* - at `\$(.*)`", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[[^\]]*\]")


def converted(given: dict[str, Any], kind: type[Settings], name: str) -> Settings:
    """``given`` as ``kind``; ``InvalidError`` says what is wrong, and what may stand there.

    ``name`` is what the settings are called (``smpp settings``).
    """
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        message = f"{name}: {error}{_choice(kind, str(error))}"
        raise InvalidError(message, field="settings") from error


def _choice(kind: type[msgspec.Struct], message: str) -> str:
    """The words that an enumeration has, for msgspec only says which one it has not."""
    place = _PLACE.fullmatch(message)
    if place is None:
        return ""
    allowed = _words(_at(inspect.type_info(kind), place[1]))
    return f"; one of {', '.join(allowed)}" if allowed else ""


def _at(kind: inspect.Type, path: str) -> inspect.Type:
    """The type at a path as msgspec writes it: ``.imap.tls``, ``.statuses[...]``."""
    for step in _STEP.finditer(path):
        kind = _below(kind, step[1])
    return kind


def _below(kind: inspect.Type, field: str | None) -> inspect.Type:
    for one in _alternatives(kind):
        match one:
            case inspect.StructType(fields=fields) if field:
                return next((each.type for each in fields if each.encode_name == field), one)
            case inspect.DictType(value_type=inner):
                return inner
            case inspect.VarTupleType(item_type=inner) | inspect.ListType(item_type=inner):
                return inner
    return kind


def _words(kind: inspect.Type) -> list[str]:
    found = (one for one in _alternatives(kind) if isinstance(one, inspect.LiteralType))
    return [str(value) for one in found for value in one.values]


def _alternatives(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)
