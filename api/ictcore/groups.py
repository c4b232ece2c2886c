"""/groups: sets of contacts, with CSV import and export."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum

import msgspec
from msgspec import UNSET

from api.ictcore import contacts
from api.ictcore.contacts_csv import SAMPLE, ContactParser, export_line
from api.ictcore.fields import OWNER_FILTERS, Text, changes, read_body, seconds
from api.ictcore.lists import find, page, rows
from api.paging import Filter, integer, string
from api.routing import Ask, Created, Done, File, Item, Reply, Route, Rows
from engine.errors import UnsupportedMediaError
from engine.imports import Import, LineError
from engine.model import Group
from engine.store.base import Op

EXPORT_CHUNK = 1000
# Browsers, spreadsheets and "curl --data-binary" label a CSV file so.
_CSV_TYPES = (
    "text/",
    "application/csv",
    "application/vnd.ms-excel",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
)


class GroupBody(msgspec.Struct, kw_only=True):
    """A group as clients write it: the name is needed."""

    name: Text = UNSET
    description: Text = UNSET


class GroupView(msgspec.Struct, kw_only=True):
    """A group as clients read it (``id`` is the guide's spelling of ``group_id``)."""

    id: int
    group_id: int
    name: str
    description: str
    contact_total: int
    user_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None


class ImportView(msgspec.Struct, kw_only=True):
    """What became of a CSV: the good lines are stored when this is answered."""

    group_id: int
    imported: int
    rejected: int
    errors: list[LineError]


class ImportState(StrEnum):
    """How an import stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class ImportProgressView(msgspec.Struct, kw_only=True):
    """How far an import is: ``imported`` contacts are stored, whatever becomes of the rest.

    ``bytes_expected`` is null where the sender did not say; ``reason`` is of a failed one.
    """

    import_id: int
    group_id: int
    state: ImportState
    reason: str
    bytes_received: int
    bytes_expected: int | None
    imported: int
    rejected: int
    errors: list[LineError]
    started: int
    finished: int | None


FILTERS = {
    "group_id": Filter("id", Op.EQ, integer),
    "name": Filter("name", Op.CONTAINS, string),
    **OWNER_FILTERS,
}


def to_json(group: Group) -> GroupView:
    """The group on the wire."""
    return GroupView(
        id=group.id,
        group_id=group.id,
        name=group.name,
        description=group.description,
        contact_total=group.contact_total,
        user_id=group.owner_id,
        created_by=group.owner_id,
        date_created=seconds(group.created_at),
        last_updated=seconds(group.updated_at),
    )


def progress(one: Import) -> ImportProgressView:
    """An import on the wire."""
    ended = ImportState.FAILED if one.failure else ImportState.DONE
    return ImportProgressView(
        import_id=one.id,
        group_id=one.group_id,
        state=ended if one.finished_at else ImportState.RUNNING,
        reason=one.failure,
        bytes_received=one.bytes_received,
        bytes_expected=one.bytes_expected,
        imported=one.imported,
        rejected=one.parser.rejected,
        errors=list(one.parser.errors),
        started=int(one.started_at.timestamp()),
        finished=seconds(one.finished_at),
    )


async def create(ask: Ask) -> Reply:
    """POST /groups."""
    body = await read_body(ask, GroupBody, creating=True)
    group = await ask.engine.catalog.create(ask.who, Group(**{"name": "", **changes(body)}))
    return Created("group_id", group.id)


async def index(ask: Ask) -> Reply:
    """GET /groups."""
    return await find(ask, Group, FILTERS, to_json)


async def show(ask: Ask) -> Reply:
    """GET /groups/{group_id}."""
    return Item(to_json(await ask.engine.catalog.read(ask.who, Group, ask.id("group_id"))))


async def update(ask: Ask) -> Reply:
    """PUT /groups/{group_id}."""
    body = await read_body(ask, GroupBody, creating=False)
    group = await ask.engine.catalog.update(ask.who, Group, ask.id("group_id"), changes(body))
    return Item(to_json(group))


async def delete(ask: Ask) -> Reply:
    """DELETE /groups/{group_id}."""
    await ask.engine.catalog.delete(ask.who, Group, ask.id("group_id"))
    return Done()


async def members(ask: Ask) -> Reply:
    """GET /groups/{group_id}/contacts."""
    query, limit = page(ask, contacts.FILTERS)
    found = await ask.engine.catalog.members(ask.who, ask.id("group_id"), query)
    return rows(found, limit, contacts.to_json)


async def import_csv(ask: Ask) -> Reply:
    """POST /groups/{group_id}/csv: streamed, committed in chunks; a bad line loses no good one."""
    ask.who.require("contact_create")
    group = await ask.engine.catalog.visible(ask.who, Group, ask.id("group_id"))
    content_type = ask.request.headers.get("Content-Type", "").lower()
    if content_type and not content_type.startswith(_CSV_TYPES):
        raise UnsupportedMediaError("Unsupported File Type, text/csv is expected")
    done = await ask.engine.imports.run(
        ask.who,
        group,
        ask.request.body_chunks(ask.engine.config.http.max_csv_bytes),
        ContactParser(),
        bytes_expected=ask.request.content_length,
    )
    return Item(
        ImportView(
            group_id=group.id,
            imported=done.imported,
            rejected=done.parser.rejected,
            errors=done.parser.errors,
        )
    )


async def import_progress(ask: Ask) -> Reply:
    """GET /groups/{group_id}/csv/progress: imports into the group since the node's start."""
    ask.who.require("group_read")
    group = await ask.engine.catalog.visible(ask.who, Group, ask.id("group_id"))
    return Rows([progress(one) for one in ask.engine.imports.of(group.id)])


async def export_csv(ask: Ask) -> Reply:
    """GET /groups/{group_id}/csv: streamed, in the order the contacts joined."""
    ask.who.require("contact_list")
    group = await ask.engine.catalog.visible(ask.who, Group, ask.id("group_id"))
    return File(f"group_{group.id}.csv", "text/csv; charset=utf-8", _export(ask, group))


async def sample_csv(_ask: Ask) -> Reply:
    """GET /groups/sample/csv."""

    async def chunks() -> AsyncIterator[bytes]:
        yield SAMPLE

    return File("contact_sample.csv", "text/csv; charset=utf-8", chunks(), len(SAMPLE))


async def _export(ask: Ask, group: Group) -> AsyncIterator[bytes]:
    after = 0
    while True:
        found = await ask.engine.catalog.export_page(ask.who, group, after, EXPORT_CHUNK)
        if not found:
            return
        yield "".join(export_line(candidate.contact) for candidate in found).encode()
        after = found[-1].link_id


_ONE = "/groups/{group_id}"

ROUTES = (
    Route(verb="POST", path="/groups", handler=create, summary="Create a group",
          answer=Created, view="group_id", body=GroupBody),
    Route(verb="GET", path="/groups", handler=index, summary="List groups",
          answer=Rows, view=GroupView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read a group", answer=Item, view=GroupView),
    Route(verb="PUT", path=_ONE, handler=update, summary="Update a group",
          answer=Item, view=GroupView, body=GroupBody),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete a group", answer=Done,
          statuses=(417, 423)),
    Route(verb="GET", path=_ONE + "/contacts", handler=members, summary="List a group's contacts",
          answer=Rows, view=contacts.ContactView, filters=contacts.FILTERS),
    Route(verb="POST", path=_ONE + "/csv", handler=import_csv, summary="Import contacts",
          answer=Item, view=ImportView, body=("text/csv", "text/plain"), statuses=(411, 413, 415)),
    Route(verb="GET", path=_ONE + "/csv/progress", handler=import_progress,
          summary="Imports into a group: those running and the last that ended",
          answer=Rows, view=ImportProgressView),
    Route(verb="GET", path=_ONE + "/csv", handler=export_csv, summary="Export contacts",
          answer=File, view="text/csv"),
    Route(verb="GET", path="/groups/sample/csv", handler=sample_csv, summary="A sample CSV file",
          answer=File, view="text/csv"),
)  # fmt: skip
