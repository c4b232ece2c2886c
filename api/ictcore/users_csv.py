"""/users/csv: users as a spreadsheet (specs/ictcore.md §6.2, variant A).

The first line names the columns, any fields of a user in any order. A bad line costs only itself.
Passwords are plain on the way in; on the way out their column is empty. A line without a password
makes a user who cannot log in yet.

Spreadsheets run cells that begin with ``= + - @`` as formulas. Exported texts get an apostrophe in
front of these, which the import takes off again, but for passwords: they are taken as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator, Iterator
from itertools import islice

import msgspec

from api.ictcore.fields import decode
from api.ictcore.users import FILTERS, UserBody, store
from api.routing import Ask, File, Item, Reply, Route
from engine.errors import ConflictError, ForbiddenError, InvalidError, MissingBodyError
from engine.imports import MAX_ERRORS, LineError
from engine.model import User
from engine.store.base import Query

COLUMNS = (
    "username", "passwd", "first_name", "last_name", "email", "address", "company", "active",
)  # fmt: skip
IMPORTED = frozenset(UserBody.__struct_fields__) - {"roles", "role_id"}
MAX_USERS = 2000
"""Of one import: hashing a password takes tens of milliseconds."""

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r]")
_SECRETS = frozenset({"password", "passwd"})


class UsersImportView(msgspec.Struct, kw_only=True):
    """What became of a CSV: the good lines are stored when this is answered."""

    imported: int
    rejected: int
    errors: list[LineError]


class Line(msgspec.Struct, frozen=True):
    """A line of the file: its fields, or what is wrong with it."""

    number: int
    fields: dict[str, str] = {}
    error: str = ""


async def import_csv(ask: Ask) -> Reply:
    """POST /users/csv."""
    ask.who.require("user_create")
    raw = await ask.request.whole_body(ask.engine.config.http.max_body_bytes)
    lines = list(islice(parse(raw), MAX_USERS + 1))
    if len(lines) > MAX_USERS:
        raise InvalidError(f"More than {MAX_USERS} users in one file")
    errors = [error for line in lines if (error := await _take(ask, line)) is not None]
    view = UsersImportView(
        imported=len(lines) - len(errors), rejected=len(errors), errors=errors[:MAX_ERRORS]
    )
    return Item(view)


async def export_csv(ask: Ask) -> Reply:
    """GET /users/csv: those the filters let through."""
    ask.who.require("user_list")
    query = ask.query(FILTERS)
    whole = "limit" not in ask.request.args
    chunks = _export(ask, msgspec.structs.replace(query, counted=False), whole=whole)
    return File("users.csv", "text/csv; charset=utf-8", chunks)


def parse(raw: bytes) -> Iterator[Line]:
    """The lines below the header; ``InvalidError`` where that names no field or too little."""
    text = _decoded(raw)
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    header = _header(reader)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield Line(reader.line_num, error=str(error))
            continue
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            message = f"{len(cells)} columns instead of {len(header)}"
            yield Line(reader.line_num, error=message)
        else:
            yield Line(reader.line_num, dict(map(_taken, header, cells)))


def export_line(user: User) -> list[str]:
    """The cells of one user."""
    fields = {name: "" if name == "passwd" else getattr(user, name) for name in COLUMNS}
    fields["active"] = int(user.active)
    return [_shown(str(value)) for value in fields.values()]


async def _take(ask: Ask, line: Line) -> LineError | None:
    if line.error:
        return LineError(line.number, line.error)
    try:
        await store(ask, decode(line.fields, UserBody, creating=True))
    except (InvalidError, ConflictError, ForbiddenError) as error:
        return LineError(line.number, str(error))
    return None


async def _export(ask: Ask, query: Query, *, whole: bool) -> AsyncIterator[bytes]:
    """One page, or page after page."""
    yield _csv([list(COLUMNS)])
    while users := await ask.engine.people.find(ask.who, query):
        yield _csv([export_line(user) for user in users])
        if not whole:
            return
        query = msgspec.structs.replace(query, offset=query.offset + len(users))


def _csv(lines: list[list[str]]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue().encode()


def _decoded(raw: bytes) -> str:
    if not raw.strip():
        raise MissingBodyError("Empty file")
    if b"\0" in raw:
        raise InvalidError("control characters are not allowed (is the file UTF-16?)")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _header(reader: Iterator[list[str]]) -> list[str]:
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
    except csv.Error as error:
        raise InvalidError(f"The first line must name the columns: {error}") from None
    unknown = [name for name in header if name not in IMPORTED]
    if unknown:
        raise InvalidError(f"{unknown[0] or 'a column'}: is no field of a user")
    if "username" not in header or len(set(header)) < len(header):
        raise InvalidError("The first line must name the columns, username among them, once each")
    return header


def _taken(name: str, cell: str) -> tuple[str, str]:
    if name in _SECRETS:
        return name, cell
    cell = cell.strip()
    return name, cell[1:] if _ESCAPED.match(cell) else cell


def _shown(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


ROUTES = (
    Route(verb="GET", path="/users/csv", handler=export_csv, summary="Export users",
          answer=File, view="text/csv", filters=FILTERS),
    Route(verb="POST", path="/users/csv", handler=import_csv, summary="Import users",
          answer=Item, view=UsersImportView, body=("text/csv", "text/plain"),
          statuses=(411, 412, 413, 417)),
)  # fmt: skip
