"""/messages/texts: SMS messages."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.ictcore import fields
from api.ictcore.fields import OWNER_FILTERS, Id, Number, changes, plain, read_body, seconds
from api.ictcore.lists import find
from api.paging import Filter, integer, string
from api.routing import Ask, Created, Done, Item, Reply, Route, Rows, both
from engine.errors import InvalidError
from engine.model import Contact, Provider, Text
from engine.quotes import TextPreview, preview_text
from engine.segments import Alphabet, TextSize, kind_of, measure
from engine.store.base import Op
from engine.validation import check

# ICTCore's numbers (specs/ictcore.md §4.1); it has none for Latin-1.
_ENCODINGS = {Alphabet.GSM: 0, Alphabet.BINARY: 1, Alphabet.UCS2: 2, Alphabet.LATIN1: 3}
_FLASH, _NORMAL = 0, 1  # the class of a message: shown at once and not kept, or kept

Class = Annotated[int, Meta(ge=_FLASH, le=_NORMAL)] | UnsetType


class TextBody(msgspec.Struct, kw_only=True):
    """An SMS as clients write it. Name and data (at most 4000 characters) are needed.

    ``type`` is plain, unicode, binary (data are hexadecimal digits) or the name of a charset, at
    most 16 characters. ``validity`` is how long the network may try, in seconds, 0 for as long as
    the provider does.
    """

    name: fields.Text = UNSET
    data: fields.Text = UNSET
    type: fields.Text = UNSET
    description: fields.Text = UNSET
    class_: Class = msgspec.field(name="class", default=UNSET)
    validity: Number = UNSET


class TextView(msgspec.Struct, kw_only=True):
    """An SMS as clients read it; ``length`` in characters, ``encoding`` as its characters need.

    ``parts`` counts the SMS it takes as it is written, 0 where it cannot be sent at all.
    """

    text_id: int
    message_id: int
    name: str
    data: str
    type: str
    description: str
    length: int
    parts: int
    class_: int = msgspec.field(name="class")
    encoding: int
    validity: float
    user_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None


class TextPreviewBody(msgspec.Struct, kw_only=True):
    """A text to be previewed: ``text_id`` of one that is stored, or its fields, or both.

    ``contact_id`` is whose words replace the tokens, ``provider_id`` who would carry it.
    """

    text_id: Id = UNSET
    data: fields.Text = UNSET
    type: fields.Text = UNSET
    class_: Class = msgspec.field(name="class", default=UNSET)
    contact_id: Id = UNSET
    provider_id: Id = UNSET


class TextPreviewView(msgspec.Struct, kw_only=True):
    """What a text comes to; ``data`` is what the handset shows, ``texts`` the text of each part.

    Without a provider it is at the dearest of those that carry SMS. ``estimated`` is 1 where tokens
    make it longer for one contact than for another.
    """

    data: str
    length: int
    alphabet: str
    encoding: int
    units: int
    per_part: int
    parts: int
    texts: list[str]
    unsupported: list[str]
    unresolved: list[str]
    provider_id: int | None
    price: float
    currency: str
    estimated: int


FILTERS = {
    "text_id": Filter("id", Op.EQ, integer),
    "name": Filter("name", Op.CONTAINS, string),
    "type": Filter("type", Op.CONTAINS, string),
    "description": Filter("description", Op.CONTAINS, string),
    **OWNER_FILTERS,
}


def to_json(text: Text) -> TextView:
    """The text on the wire."""
    size = _size(text)
    return TextView(
        text_id=text.id,
        message_id=text.id,
        name=text.name,
        data=text.data,
        type=text.type,
        description=text.description,
        length=len(text.data),
        parts=size.parts if size else 0,
        class_=_FLASH if text.flash else _NORMAL,
        encoding=_ENCODINGS[size.alphabet if size else Alphabet.BINARY],
        validity=plain(text.validity_s),
        user_id=text.owner_id,
        created_by=text.owner_id,
        date_created=seconds(text.created_at),
        last_updated=seconds(text.updated_at),
    )


async def create(ask: Ask) -> Reply:
    """POST /messages/texts."""
    given = _given(await read_body(ask, TextBody, creating=True))
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
    given = _given(await read_body(ask, TextBody, creating=False))
    return Item(to_json(await ask.engine.catalog.update(ask.who, Text, ask.id("text_id"), given)))


async def delete(ask: Ask) -> Reply:
    """DELETE /messages/texts/{text_id}."""
    await ask.engine.catalog.delete(ask.who, Text, ask.id("text_id"))
    return Done()


async def preview(ask: Ask) -> Reply:
    """POST /messages/texts/preview: an addition to the guide; nothing is stored or sent."""
    ask.who.require("text_read")
    body = await read_body(ask, TextPreviewBody, creating=True)
    catalog, who = ask.engine.catalog, ask.who
    text = await _previewed(ask, body)
    contact = await catalog.read(who, Contact, body.contact_id) if body.contact_id else None
    provider = await catalog.read(who, Provider, body.provider_id) if body.provider_id else None
    found = await preview_text(catalog, who, text, contact=contact, provider=provider)
    return Item(_preview_json(found, ask.engine.config.sms.currency))


async def _previewed(ask: Ask, body: TextPreviewBody) -> Text:
    """The text that is stored, with what the body says otherwise; checked like one to be stored."""
    given = _given(body)
    names = {name: given[name] for name in ("data", "type", "flash") if name in given}
    text = Text(name="preview")
    if body.text_id:
        text = await ask.engine.catalog.read(ask.who, Text, body.text_id)
    text = msgspec.structs.replace(text, **names)
    check(text)
    return text


def _preview_json(found: TextPreview, currency: str) -> TextPreviewView:
    quote, size = found.quote, found.quote.size
    return TextPreviewView(
        data=quote.text,
        length=len(quote.text),
        alphabet=size.alphabet.value,
        encoding=_ENCODINGS[size.alphabet],
        units=size.units,
        per_part=size.per_part,
        parts=size.parts,
        texts=list(quote.texts),
        unsupported=list(quote.unsupported),
        unresolved=list(found.unresolved),
        provider_id=quote.tariff.provider_id,
        price=plain(quote.price),
        currency=currency,
        estimated=int(found.estimated),
    )


def _given(body: TextBody | TextPreviewBody) -> dict[str, Any]:
    """What a body says, by the model's field names."""
    given = changes(body, {"class_": "flash", "validity": "validity_s"})
    if "flash" in given:
        given["flash"] = given["flash"] == _FLASH
    return given


def _size(text: Text) -> TextSize | None:
    """Its size as it is written; None for a binary one that is older than the check of its data."""
    try:
        return measure(text.data, kind_of(text.type))
    except InvalidError:
        return None


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
    Route(verb="POST", path=_ALL + "/preview", handler=preview,
          summary="Preview an SMS text: parts and price; nothing is sent",
          answer=Item, view=TextPreviewView, body=TextPreviewBody, statuses=(404,)),
)  # fmt: skip
