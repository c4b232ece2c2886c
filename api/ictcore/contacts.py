"""/contacts: people and numbers to reach, and their places in groups."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from api.ictcore.fields import OWNER_FILTERS, Text, changes, read_body, seconds
from api.ictcore.lists import find
from api.paging import Filter, integer, string
from api.routing import Ask, Changed, Created, Done, Item, Reply, Route, Rows
from engine.model import Contact
from engine.store.base import Op


class ContactBody(msgspec.Struct, kw_only=True):
    """A contact as clients write it: a phone or an e-mail address is needed."""

    first_name: Text = UNSET
    last_name: Text = UNSET
    phone: Text = UNSET
    email: Text = UNSET
    address: Text = UNSET
    custom1: Text = UNSET
    custom2: Text = UNSET
    custom3: Text = UNSET
    description: Text = UNSET


class ContactView(msgspec.Struct, kw_only=True):
    """A contact as clients read it."""

    contact_id: int
    first_name: str
    last_name: str
    phone: str
    email: str
    address: str
    custom1: str
    custom2: str
    custom3: str
    description: str
    user_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None


FILTERS = {
    "contact_id": Filter("id", Op.EQ, integer),
    "group_id": Filter("group_id", Op.EQ, integer, sorts=False),
    "phone": Filter("phone", Op.ENDS_WITH, string),
    "email": Filter("email", Op.EQ, string),
    "first_name": Filter("first_name", Op.CONTAINS, string),
    "last_name": Filter("last_name", Op.CONTAINS, string),
    **OWNER_FILTERS,
}


def to_json(contact: Contact) -> ContactView:
    """The contact on the wire."""
    return ContactView(
        contact_id=contact.id,
        first_name=contact.first_name,
        last_name=contact.last_name,
        phone=contact.phone,
        email=contact.email,
        address=contact.address,
        custom1=contact.custom1,
        custom2=contact.custom2,
        custom3=contact.custom3,
        description=contact.description,
        user_id=contact.owner_id,
        created_by=contact.owner_id,
        date_created=seconds(contact.created_at),
        last_updated=seconds(contact.updated_at),
    )


async def create(ask: Ask) -> Reply:
    """POST /contacts."""
    body = await read_body(ask, ContactBody, creating=True)
    contact = await ask.engine.catalog.create(ask.who, Contact(**changes(body)))
    return Created("contact_id", contact.id)


async def index(ask: Ask) -> Reply:
    """GET /contacts."""
    return await find(ask, Contact, FILTERS, to_json)


async def show(ask: Ask) -> Reply:
    """GET /contacts/{contact_id}."""
    return Item(to_json(await ask.engine.catalog.read(ask.who, Contact, ask.id("contact_id"))))


async def update(ask: Ask) -> Reply:
    """PUT /contacts/{contact_id}."""
    body = await read_body(ask, ContactBody, creating=False)
    contact = await ask.engine.catalog.update(ask.who, Contact, ask.id("contact_id"), changes(body))
    return Item(to_json(contact))


async def delete(ask: Ask) -> Reply:
    """DELETE /contacts/{contact_id}."""
    await ask.engine.catalog.delete(ask.who, Contact, ask.id("contact_id"))
    return Done()


async def link(ask: Ask) -> Reply:
    """PUT /contacts/{contact_id}/link/{group_id}."""
    ids = ask.id("contact_id"), ask.id("group_id")
    return Changed(to_json(await ask.engine.catalog.link(ask.who, *ids)))


async def unlink(ask: Ask) -> Reply:
    """DELETE /contacts/{contact_id}/link/{group_id}."""
    ids = ask.id("contact_id"), ask.id("group_id")
    return Changed(to_json(await ask.engine.catalog.unlink(ask.who, *ids)))


_ONE = "/contacts/{contact_id}"
_LINK = "/contacts/{contact_id}/link/{group_id}"

ROUTES = (
    Route(verb="POST", path="/contacts", handler=create, summary="Create a contact",
          answer=Created, view="contact_id", body=ContactBody),
    Route(verb="GET", path="/contacts", handler=index, summary="List contacts",
          answer=Rows, view=ContactView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read a contact",
          answer=Item, view=ContactView),
    Route(verb="PUT", path=_ONE, handler=update, summary="Update a contact",
          answer=Item, view=ContactView, body=ContactBody),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete a contact", answer=Done,
          statuses=(417, 423)),
    Route(verb="PUT", path=_LINK, handler=link, summary="Put a contact into a group",
          answer=Changed, view=ContactView, statuses=(417,)),
    Route(verb="DELETE", path=_LINK, handler=unlink, summary="Take a contact out of a group",
          answer=Changed, view=ContactView),
)  # fmt: skip
