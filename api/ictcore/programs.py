"""/programs: the logic of a delivery."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from api.ictcore.fields import OWNER_FILTERS, Id, Text, changes, read_body, seconds
from api.ictcore.lists import find
from api.paging import Filter, integer, string
from api.routing import Ask, Created, Done, Item, Reply, Route, Rows
from engine.model import Program
from engine.store.base import Op


class VoiceMessageBody(msgspec.Struct, kw_only=True):
    """Call, play ``recording_id``, hang up. Name and recording are needed."""

    name: Text = UNSET
    recording_id: Id = UNSET
    parent_id: Id = UNSET


class ProgramView(msgspec.Struct, kw_only=True):
    """A program as clients read it, with the parameters of its type."""

    program_id: int
    name: str
    type: str
    parent_id: int | None
    recording_id: int | None
    user_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None


FILTERS = {
    "program_id": Filter("id", Op.EQ, integer),
    "name": Filter("name", Op.CONTAINS, string),
    "type": Filter("type", Op.CONTAINS, string),
    **OWNER_FILTERS,
}


def to_json(program: Program) -> ProgramView:
    """The program on the wire."""
    return ProgramView(
        program_id=program.id,
        name=program.name,
        type=program.type,
        parent_id=program.parent_id,
        recording_id=program.data.get("recording_id"),
        user_id=program.owner_id,
        created_by=program.owner_id,
        date_created=seconds(program.created_at),
        last_updated=seconds(program.updated_at),
    )


async def create_voicemessage(ask: Ask) -> Reply:
    """POST /programs/voicemessage."""
    given = changes(await read_body(ask, VoiceMessageBody, creating=True))
    program = Program(
        name=given.get("name", ""),
        type="voicemessage",
        parent_id=given.get("parent_id"),
        data={"recording_id": given["recording_id"]} if "recording_id" in given else {},
    )
    program = await ask.engine.catalog.create(ask.who, program)
    return Created("program_id", program.id)


async def index(ask: Ask) -> Reply:
    """GET /programs."""
    return await find(ask, Program, FILTERS, to_json)


async def show(ask: Ask) -> Reply:
    """GET /programs/{program_id}."""
    return Item(to_json(await ask.engine.catalog.read(ask.who, Program, ask.id("program_id"))))


async def delete(ask: Ask) -> Reply:
    """DELETE /programs/{program_id}."""
    await ask.engine.catalog.delete(ask.who, Program, ask.id("program_id"))
    return Done()


_ONE = "/programs/{program_id}"

ROUTES = (
    Route(verb="POST", path="/programs/voicemessage", handler=create_voicemessage,
          summary="Create a voice message program", answer=Created, view="program_id",
          body=VoiceMessageBody, statuses=(404,)),
    Route(verb="GET", path="/programs", handler=index, summary="List programs",
          answer=Rows, view=ProgramView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read a program",
          answer=Item, view=ProgramView),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete a program", answer=Done,
          statuses=(417, 423)),
)  # fmt: skip
