"""/messages/texts: SMS messages."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from api.ictcore import fields
from api.ictcore.fields import OWNER_FILTERS, changes, read_body, seconds
from api.ictcore.lists import find
from api.paging import Filter, integer, string
from api.routing import Ask, Created, Done, Item, Reply, Route, Rows, both
from engine.gsm import is_gsm
from engine.model import Text
from engine.store.base import Op

_GSM, _BINARY, _UNICODE = range(3)  # ICTCore's numbers (specs/ictcore.md §4.1)
_NORMAL = 1  # the class of a message that stays on the phone


class TextBody(msgspec.Struct, kw_only=True):
    """An SMS as clients write it. Name and data (at most 4000 characters) are needed.

    ``type`` is plain, unicode, binary or the name of a charset, at most 16 characters.
    """

    name: fields.Text = UNSET
    data: fields.Text = UNSET
    type: fields.Text = UNSET
    description: fields.Text = UNSET


class TextView(msgspec.Struct, kw_only=True):
    """An SMS as clients read it; ``length`` in characters, ``encoding`` as its characters need."""

    text_id: int
    message_id: int
    name: str
    data: str
    type: str
    description: str
    length: int
    class_: int = msgspec.field(name="class")
    encoding: int
    user_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None


FILTERS = {
    "text_id": Filter("id", Op.EQ, integer),
    "name": Filter("name", Op.CONTAINS, string),
    "type": Filter("type", Op.CONTAINS, string),
    "description": Filter("description", Op.CONTAINS, string),
    **OWNER_FILTERS,
}


def to_json(text: Text) -> TextView:
    """The text on the wire."""
    return TextView(
        text_id=text.id,
        message_id=text.id,
        name=text.name,
        data=text.data,
        type=text.type,
        description=text.description,
        length=len(text.data),
        class_=_NORMAL,
        encoding=_encoding(text),
        user_id=text.owner_id,
        created_by=text.owner_id,
        date_created=seconds(text.created_at),
        last_updated=seconds(text.updated_at),
    )


async def create(ask: Ask) -> Reply:
    """POST /messages/texts."""
    given = changes(await read_body(ask, TextBody, creating=True))
    text = await ask.engine.catalog.create(ask.who, Text(**{"name": "", **given}))
    return Created("text_id", text.id)


async def index(ask: Ask) -> Reply:
    """GET /messages/texts."""
    return await find(ask, Text, FILTERS, to_json)


async def show(ask: Ask) -> Reply:
    """GET /messages/texts/{text_id}."""
    return Item(to_json(await ask.engine.catalog.read(ask.who, Text, ask.id("text_id"))))


async def update(ask: Ask) -> Reply:
    """PUT /messages/texts/{text_id}."""
    given = changes(await read_body(ask, TextBody, creating=False))
    return Item(to_json(await ask.engine.catalog.update(ask.who, Text, ask.id("text_id"), given)))


async def delete(ask: Ask) -> Reply:
    """DELETE /messages/texts/{text_id}."""
    await ask.engine.catalog.delete(ask.who, Text, ask.id("text_id"))
    return Done()


def _encoding(text: Text) -> int:
    if text.type.lower() == "binary":
        return _BINARY
    return _GSM if text.type.lower() != "unicode" and is_gsm(text.data) else _UNICODE


_ALL = "/messages/texts"
_ONE = "/messages/texts/{text_id}"

ROUTES = both(
    "/messages",
    Route(verb="POST", path=_ALL, handler=create, summary="Create an SMS text",
          answer=Created, view="text_id", body=TextBody),
    Route(verb="GET", path=_ALL, handler=index, summary="List SMS texts",
          answer=Rows, view=TextView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read an SMS text",
          answer=Item, view=TextView),
    Route(verb="PUT", path=_ONE, handler=update, summary="Update an SMS text",
          answer=Item, view=TextView, body=TextBody),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete an SMS text", answer=Done,
          statuses=(417,)),
)  # fmt: skip
