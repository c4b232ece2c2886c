"""/do_not_contact: addresses that nothing may be sent to. Ours; ICTCore has no such list."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from api.ictcore import fields
from api.ictcore.fields import OWNER_FILTERS, read_body, seconds
from api.ictcore.lists import find
from api.paging import Filter, bare, service_bits
from api.routing import Ask, Created, Done, Item, Reply, Route, Rows
from engine.errors import InvalidError
from engine.model import Contact, DoNotContact, Service
from engine.store.base import Op
from engine.validation import check_texts

_BY_NUMBER = Service.VOICE | Service.FAX | Service.SMS
_ALL = _BY_NUMBER | Service.EMAIL


class DoNotContactBody(msgspec.Struct, kw_only=True):
    """An address to be closed: either ``phone`` or ``email``.

    ``service_flag`` are the services it is closed for, by default all that could reach it. An
    address that is closed already is closed for these too.
    """

    phone: fields.Text = UNSET
    email: fields.Text = UNSET
    service_flag: fields.Integer = UNSET
    reason: fields.Text = UNSET


class DoNotContactView(msgspec.Struct, kw_only=True):
    """An address that is closed: a number without ``+`` or ``00``, or an e-mail address.

    ``user_id`` is whose work it is closed for; null for everybody's.
    """

    do_not_contact_id: int
    phone: str
    email: str
    service_flag: int
    reason: str
    user_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None


FILTERS = {
    "address": Filter("address", Op.CONTAINS, bare),
    "phone": Filter("address", Op.CONTAINS, bare, sorts=False),
    "email": Filter("address", Op.CONTAINS, bare, sorts=False),
    "service_flag": Filter("service", Op.HAS_BITS, service_bits),
    **OWNER_FILTERS,
}


def to_json(entry: DoNotContact) -> DoNotContactView:
    """The address on the wire."""
    by_mail = "@" in entry.address
    return DoNotContactView(
        do_not_contact_id=entry.id,
        phone="" if by_mail else entry.address,
        email=entry.address if by_mail else "",
        service_flag=int(entry.service),
        reason=entry.reason,
        user_id=entry.owner_id,
        created_by=entry.owner_id,
        date_created=seconds(entry.created_at),
        last_updated=seconds(entry.updated_at),
    )


def to_model(body: DoNotContactBody) -> DoNotContact:
    """The entry a body asks for."""
    phone, email = body.phone or "", body.email or ""
    if bool(phone) is bool(email):
        problem = "give either phone or email" if phone else "phone is missing"
        raise InvalidError(problem, field="phone")
    check_texts(Contact, {"phone": phone, "email": email})
    return DoNotContact(
        address=phone or email,
        service=_service(body.service_flag, _BY_NUMBER if phone else Service.EMAIL),
        reason=body.reason or "",
    )


def _service(flag: fields.Integer, reachable: Service) -> Service:
    """The services asked for, of those that reach such an address."""
    if flag is UNSET:
        return reachable
    if not 1 <= flag <= int(_ALL) or not flag & reachable:
        raise InvalidError("service_flag: no service that reaches it", field="service_flag")
    return Service(flag) & reachable


async def create(ask: Ask) -> Reply:
    """POST /do_not_contact: once it is answered, nothing more is started to the address."""
    ask.who.require("contact_create")  # who may not is not told what is wrong with the body
    entry = to_model(await read_body(ask, DoNotContactBody, creating=True))
    closed = await ask.engine.do_not_contact.create(ask.who, entry)
    return Created("do_not_contact_id", closed.id)


async def index(ask: Ask) -> Reply:
    """GET /do_not_contact."""
    return await find(ask, DoNotContact, FILTERS, to_json)


async def show(ask: Ask) -> Reply:
    """GET /do_not_contact/{do_not_contact_id}."""
    key = ask.id("do_not_contact_id")
    return Item(to_json(await ask.engine.catalog.read(ask.who, DoNotContact, key)))


async def delete(ask: Ask) -> Reply:
    """DELETE /do_not_contact/{do_not_contact_id}: the address is open again."""
    await ask.engine.catalog.delete(ask.who, DoNotContact, ask.id("do_not_contact_id"))
    return Done()


_LIST = "/do_not_contact"
_ONE = "/do_not_contact/{do_not_contact_id}"

ROUTES = (
    Route(verb="POST", path=_LIST, handler=create, summary="Close an address",
          answer=Created, view="do_not_contact_id", body=DoNotContactBody),
    Route(verb="GET", path=_LIST, handler=index, summary="List closed addresses",
          answer=Rows, view=DoNotContactView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read a closed address",
          answer=Item, view=DoNotContactView),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Open an address again",
          answer=Done),
)  # fmt: skip
