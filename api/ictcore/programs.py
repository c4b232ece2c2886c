"""/programs: the logic of a delivery, of ten types."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from api.ictcore import transmissions
from api.ictcore.fields import (
    OWNER_FILTERS,
    Id,
    Integer,
    Text,
    changes,
    decode,
    read_body,
    read_fields,
    seconds,
)
from api.ictcore.lists import find, page, rows
from api.paging import Filter, integer, string
from api.routing import Ask, Created, Done, Handler, Item, Reply, Route, Rows
from engine.errors import InvalidError, OutspoolError
from engine.model import Direction, Program
from engine.programs import PROGRAMS
from engine.store.base import Condition, Op


class ProgramBody(msgspec.Struct, kw_only=True):
    """What every type of program has; the name is needed."""

    name: Text = UNSET
    parent_id: Id = UNSET
    account_id: Id = UNSET


class VoiceMessageBody(ProgramBody, kw_only=True):
    """Call, play ``recording_id``, hang up. Name and recording are needed."""

    recording_id: Id = UNSET


class SpeechBody(ProgramBody, kw_only=True):
    """Call, say ``text`` twice with ``delay`` ms of silence between. Name and text are needed.

    The text has 4000 characters at most; tokens are replaced.
    """

    text: Text = UNSET
    delay: Integer = UNSET


class SendFaxBody(ProgramBody, kw_only=True):
    """Fax ``document_id``. Name and document are needed."""

    document_id: Id = UNSET


class SendSmsBody(ProgramBody, kw_only=True):
    """Send ``text_id`` as an SMS. Name and text are needed."""

    text_id: Id = UNSET


class SendEmailBody(ProgramBody, kw_only=True):
    """Send ``template_id`` as an e-mail. Name and template are needed."""

    template_id: Id = UNSET


class ReceiveBody(ProgramBody, kw_only=True):
    """Serve what comes in for ``account_id``. Name and account are needed."""


class ProgramEdit(ProgramBody, kw_only=True):
    """What may change of a program: its name, its parent, the parameters its type has."""

    recording_id: Id = UNSET
    document_id: Id = UNSET
    template_id: Id = UNSET
    text_id: Id = UNSET
    text: Text = UNSET
    delay: Integer = UNSET


class ProgramPost(ProgramEdit, kw_only=True):
    """A program of the given ``type`` with its parameters."""

    type: Text = UNSET


class ShortcutBody(msgspec.Struct, kw_only=True):
    """A new program and a transmission of it in one go."""

    program_data: ProgramEdit | None = None
    transmission_data: transmissions.TransmissionBody | None = None


class ProgramView(msgspec.Struct, kw_only=True):
    """A program as clients read it, with the parameters of its type; others are null."""

    program_id: int
    name: str
    type: str
    service_flag: int
    direction: str
    parent_id: int | None
    account_id: int | None
    recording_id: int | None
    document_id: int | None
    template_id: int | None
    text_id: int | None
    text: str | None
    delay: int | None
    user_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None


FILTERS = {
    "program_id": Filter("id", Op.EQ, integer),
    "name": Filter("name", Op.CONTAINS, string),
    "type": Filter("type", Op.CONTAINS, string),
    "parent_id": Filter("parent_id", Op.EQ, integer),
    **OWNER_FILTERS,
}

BODIES: dict[str, type[ProgramBody]] = {
    "voicemessage": VoiceMessageBody,
    "voicetts": SpeechBody,
    "sendfax": SendFaxBody,
    "sendsms": SendSmsBody,
    "sendemail": SendEmailBody,
    **{name: ReceiveBody for name, kind in PROGRAMS.items() if kind.direction is Direction.INBOUND},
}

_PARAMETERS = ("account_id", "recording_id", "document_id", "template_id", "text_id", "text",
               "delay")  # fmt: skip


def to_json(program: Program) -> ProgramView:
    """The program on the wire."""
    kind = PROGRAMS[program.type]
    return ProgramView(
        program_id=program.id,
        name=program.name,
        type=program.type,
        service_flag=int(kind.service),
        direction=kind.direction.value,
        parent_id=program.parent_id,
        **{name: program.data.get(name) for name in _PARAMETERS},
        user_id=program.owner_id,
        created_by=program.owner_id,
        date_created=seconds(program.created_at),
        last_updated=seconds(program.updated_at),
    )


def create_of(kind: str) -> Handler:
    """POST /programs/{type}."""

    async def create(ask: Ask) -> Reply:
        given = changes(await read_body(ask, BODIES[kind], creating=True))
        program = await ask.engine.catalog.create(ask.who, _new(kind, given))
        return Created("program_id", program.id)

    return create


async def create_any(ask: Ask) -> Reply:
    """POST /programs: the type is in the body."""
    ask.who.require("program_create")
    given = changes(await read_body(ask, ProgramPost, creating=True))
    if "type" not in given:
        raise InvalidError("type is missing", field="type")
    program = await ask.engine.catalog.create(ask.who, _new(given.pop("type"), given))
    return Created("program_id", program.id)


def transmit_of(kind: str) -> Handler:
    """POST /programs/{type}/transmissions: a program and a transmission of it, or neither.

    The body holds ``program_data`` and ``transmission_data``, or the fields of both in one.
    """

    async def transmit(ask: Ask) -> Reply:
        ask.who.require("program_create", "transmission_create")
        sent = await read_fields(ask)
        body = decode(_part(sent, "program_data"), BODIES[kind], creating=True)
        data = _part(sent, "transmission_data")
        if "name" not in changes(body):
            body.name = str(data.get("title") or kind)[:64]
        # What makes no sense is refused before anything is stored.
        decode(data, transmissions.TransmissionBody, creating=True)
        program = await ask.engine.catalog.create(ask.who, _new(kind, changes(body)))
        transmission = decode(
            {**data, "program_id": program.id}, transmissions.TransmissionBody, creating=True
        )
        try:
            return await transmissions.create_from(ask, transmission)
        except OutspoolError:
            await ask.engine.store.delete(Program, program.id)
            raise

    return transmit


async def index(ask: Ask) -> Reply:
    """GET /programs."""
    return await find(ask, Program, FILTERS, to_json)


def index_of(kind: str) -> Handler:
    """GET /programs/{type}."""

    async def listed(ask: Ask) -> Reply:
        query, limit = page(ask, FILTERS, Condition("type", Op.EQ, kind))
        return rows(await ask.engine.catalog.find(ask.who, Program, query), limit, to_json)

    return listed


async def show(ask: Ask) -> Reply:
    """GET /programs/{program_id}."""
    return Item(to_json(await ask.engine.catalog.read(ask.who, Program, ask.id("program_id"))))


async def update(ask: Ask) -> Reply:
    """PUT /programs/{program_id}: parameters of other types are ignored."""
    given = changes(await read_body(ask, ProgramEdit, creating=False))
    catalog, program_id = ask.engine.catalog, ask.id("program_id")
    ask.who.require("program_update")
    program = await catalog.visible(ask.who, Program, program_id)
    edit: dict[str, Any] = {name: given[name] for name in ("name", "parent_id") if name in given}
    data = {**program.data, **_data(program.type, given)}
    return Item(to_json(await catalog.update(ask.who, Program, program_id, {**edit, "data": data})))


async def delete(ask: Ask) -> Reply:
    """DELETE /programs/{program_id}."""
    await ask.engine.catalog.delete(ask.who, Program, ask.id("program_id"))
    return Done()


def _new(kind: str, given: dict[str, Any]) -> Program:
    return Program(
        name=given.get("name", ""),
        type=kind,
        parent_id=given.get("parent_id"),
        data=_data(kind, given),
    )


def _data(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The parameters that the type has; a type nobody knows is refused later."""
    known = PROGRAMS[kind].parameters if kind in PROGRAMS else ()
    return {name: given[name] for name in known if name in given}


def _part(sent: dict[str, Any], name: str) -> dict[str, Any]:
    part = sent.get(name, sent)
    if not part or not isinstance(part, dict):
        raise InvalidError(f"{name.replace('_', ' ').capitalize()} is missing", field=name)
    return part


def _refusals(kind: str) -> tuple[int, ...]:
    """What comes in for another user's address is not for a program of one's own."""
    return (417,) if PROGRAMS[kind].direction is Direction.INBOUND else ()


_ALL = "/programs"
_ONE = "/programs/{program_id}"

ROUTES = (
    *(
        Route(verb="POST", path=f"{_ALL}/{kind}", handler=create_of(kind),
              summary=f"Create a {kind} program", answer=Created, view="program_id", body=body,
              statuses=_refusals(kind))
        for kind, body in BODIES.items()
    ),
    *(
        Route(verb="GET", path=f"{_ALL}/{kind}", handler=index_of(kind),
              summary=f"List {kind} programs", answer=Rows, view=ProgramView, filters=FILTERS)
        for kind in BODIES
    ),
    *(
        Route(verb="POST", path=f"{_ALL}/{kind}/transmissions", handler=transmit_of(kind),
              summary=f"Create a {kind} program and a transmission of it", answer=Created,
              view="transmission_id", body=ShortcutBody, statuses=_refusals(kind))
        for kind in BODIES
    ),
    Route(verb="POST", path=_ALL, handler=create_any, summary="Create a program of a given type",
          answer=Created, view="program_id", body=ProgramPost, statuses=(417,)),
    Route(verb="GET", path=_ALL, handler=index, summary="List programs",
          answer=Rows, view=ProgramView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read a program",
          answer=Item, view=ProgramView),
    Route(verb="PUT", path=_ONE, handler=update, summary="Update a program",
          answer=Item, view=ProgramView, body=ProgramEdit, statuses=(417,)),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete a program", answer=Done,
          statuses=(417, 423)),
)  # fmt: skip
