"""ICTCore's spellings of field values, in and out (specs/ictcore.md §1.2, §1.8).

In: ids may be digit strings, a phone may be a number, flags are 1 and 0, unknown keys are ignored
(GUIs send whole objects back), an empty string on create means "not given". Out: times are Unix
seconds, flags 1 and 0.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, TypeVar, get_type_hints
from urllib.parse import parse_qsl

import msgspec
import orjson
from msgspec import UNSET, Meta, UnsetType

from api.paging import Filter, epoch, integer
from api.routing import Ask
from engine.errors import InvalidError
from engine.store.base import Op

B = TypeVar("B", bound=msgspec.Struct)

# The types of body fields; UNSET = not given.
Text = str | UnsetType
Id = int | UnsetType
Integer = int | UnsetType
Number = float | UnsetType
Flag = (
    Annotated[bool, Meta(extra_json_schema={"type": ["integer", "boolean"], "enum": [0, 1]})]
    | UnsetType
)
Settings = (
    Annotated[dict[str, Any], Meta(extra_json_schema={"type": ["object", "string"]})] | UnsetType
)

OWNER_FILTERS = {
    "user_id": Filter("owner_id", Op.EQ, integer),
    "created_by": Filter("owner_id", Op.EQ, integer),
    "before": Filter("created_at", Op.LE, epoch),
    "after": Filter("created_at", Op.GE, epoch),
}
"""The filters every list has."""

# An empty one in a form means "as it is", not "none".
_SECRETS = frozenset({"password", "passwd", "passwd_pin"})
_WORDS = {"yes": True, "no": False, "on": True, "off": False, "1": True, "0": False}
_BOM = b"\xef\xbb\xbf"
_PATH = re.compile(r"(.*) - at `\$\.(\w+)")


async def read_body(ask: Ask, kind: type[B], *, creating: bool) -> B:
    """The fields of a request's body; ``InvalidError`` names the one that makes no sense."""
    return decode(await read_fields(ask), kind, creating=creating)


async def read_fields(ask: Ask) -> dict[str, Any]:
    """A request's body as a map."""
    raw = await ask.request.whole_body(ask.engine.config.http.max_body_bytes)
    return parse(raw, ask.request.headers.get("Content-Type", ""))


def parse(raw: bytes, content_type: str) -> dict[str, Any]:
    """A body as a map; what is absent, no JSON or no map counts as no fields.

    Whatever a body is labelled as, it is JSON; only a form is a form, unless it begins as a map
    does (``curl -d '{…}'`` labels everything a form).
    """
    raw = raw.removeprefix(_BOM)
    is_form = content_type.strip().lower().startswith("application/x-www-form-urlencoded")
    if is_form and not raw.lstrip().startswith(b"{"):
        return dict(parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True))
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) else {}


def decode(data: Mapping[str, Any], kind: type[B], *, creating: bool) -> B:
    """``data`` as a struct whose absent fields are UNSET."""
    given: dict[str, Any] = {}
    for name, expected in _fields(kind).items():
        if name in data:
            value = _spell(name, data[name], expected, creating=creating)
            if value is not UNSET:
                given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        match = _PATH.match(str(error))
        field = match[2] if match else ""
        raise InvalidError(
            f"Data validation failed, for {field or 'body'}: {match[1] if match else error}",
            field=field,
        ) from None


def changes(body: msgspec.Struct, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a body says, by the model's field names (``names`` maps where they differ)."""
    return {
        (names or {}).get(name, name): value
        for name in body.__struct_fields__
        if (value := getattr(body, name)) is not UNSET
    }


def seconds(at: datetime | None) -> int | None:
    """A time as Unix seconds."""
    return None if at is None else int(at.timestamp())


def plain(number: float) -> float | int:
    """A number without a needless ``.0``."""
    return int(number) if float(number).is_integer() else number


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {one.encode_name: hints[one.name] for one in msgspec.structs.fields(kind)}


def _spell(name: str, value: Any, expected: Any, *, creating: bool) -> Any:
    if value is None or value == "":
        # To empty a text, a PUT sends "" (or null); for anything else both mean "not given".
        empties = expected == Text and not creating and name not in _SECRETS
        return "" if empties else UNSET
    if expected == Text:
        return _text(name, value)
    if expected == Flag and isinstance(value, str):
        return _WORDS.get(value.lower(), value)
    if expected == Settings:
        return _settings(name, value)
    return value


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidError(f"Data validation failed, for {name}: expected text", field=name)
    return str(plain(value)) if isinstance(value, float) else str(value)


def _settings(name: str, value: Any) -> Any:
    # PHP writes an empty map as an empty list.
    if value == []:
        return {}
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            value = None
    if not isinstance(value, dict):
        raise InvalidError(f"Data validation failed, for {name}: expected a map", field=name)
    return value
