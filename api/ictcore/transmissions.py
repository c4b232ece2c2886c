"""/transmissions: one message to one contact, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from api.ictcore import accounts, contacts, spools
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
from api.ictcore.lists import page, rows
from api.paging import Filter, integer, service_bits, string
from api.routing import Ask, Created, Done, Item, Reply, Route, Rows, Status
from engine.errors import InvalidError
from engine.model import Account, Contact, Direction, Program, Transmission, User
from engine.store.base import Condition, Op, Query


class TransmissionEdit(msgspec.Struct, kw_only=True):
    """What may change of a transmission; program, contact and account only before it is sent."""

    title: Text = UNSET
    origin: Text = UNSET
    program_id: Id = UNSET
    contact_id: Id = UNSET
    account_id: Id = UNSET
    try_allowed: Integer = UNSET


class TransmissionBody(TransmissionEdit, kw_only=True):
    """A transmission as clients write it: program and contact are needed.

    Instead of ``contact_id``, ``phone`` or ``email`` (with names) make a new contact. Without
    ``account_id`` the caller's default account is used.
    """

    direction: Text = UNSET
    phone: Text = UNSET
    email: Text = UNSET
    first_name: Text = UNSET
    last_name: Text = UNSET


class TransmissionView(msgspec.Struct, kw_only=True):
    """A transmission as clients read it; ``response`` is the cause of its last result."""

    transmission_id: int
    title: str
    origin: str
    service_flag: int
    direction: str
    status: str
    response: str
    program_id: int
    campaign_id: int | None
    account_id: int | None
    account_phone: str | None
    account_email: str | None
    contact_id: int
    contact_phone: str | None
    contact_email: str | None
    user_id: int | None
    username: str | None
    created_by: int | None
    try_allowed: int
    try_done: int
    due_at: int | None
    last_run: int | None
    date_created: int | None
    last_updated: int | None
    contact: contacts.ContactView | None
    account: accounts.AccountView | None


FILTERS = {
    "transmission_id": Filter("id", Op.EQ, integer),
    "program_id": Filter("program_id", Op.EQ, integer),
    "account_id": Filter("account_id", Op.EQ, integer),
    "contact_id": Filter("contact_id", Op.EQ, integer),
    "campaign_id": Filter("campaign_id", Op.EQ, integer),
    "service_flag": Filter("service", Op.HAS_BITS, service_bits),
    "title": Filter("title", Op.CONTAINS, string),
    "origin": Filter("origin", Op.CONTAINS, string),
    "direction": Filter("direction", Op.CONTAINS, string),
    "status": Filter("status", Op.CONTAINS, string),
    "response": Filter("response", Op.CONTAINS, string),
    "phone": Filter("contact.phone", Op.CONTAINS, string),
    "email": Filter("contact.email", Op.CONTAINS, string),
    "contact_phone": Filter("contact.phone", Op.CONTAINS, string),
    "contact_email": Filter("contact.email", Op.CONTAINS, string),
    "account_phone": Filter("account.phone", Op.CONTAINS, string),
    "account_email": Filter("account.email", Op.CONTAINS, string),
    **OWNER_FILTERS,
}


class Related(msgspec.Struct, frozen=True):
    """The rows that transmissions refer to, by id."""

    contacts: Mapping[int, Contact]
    accounts: Mapping[int, Account]
    users: Mapping[int, User]


def to_json(transmission: Transmission, related: Related) -> TransmissionView:
    """The transmission on the wire, with what it refers to."""
    contact = related.contacts.get(transmission.contact_id)
    account = related.accounts.get(transmission.account_id or 0)
    user = related.users.get(transmission.owner_id or 0)
    return TransmissionView(
        transmission_id=transmission.id,
        title=transmission.title,
        origin=transmission.origin,
        service_flag=int(transmission.service),
        direction=transmission.direction.value,
        status=transmission.status.value,
        response=transmission.response,
        program_id=transmission.program_id,
        campaign_id=transmission.campaign_id,
        account_id=transmission.account_id,
        account_phone=account.phone if account else None,
        account_email=account.email if account else None,
        contact_id=transmission.contact_id,
        contact_phone=contact.phone if contact else None,
        contact_email=contact.email if contact else None,
        user_id=transmission.owner_id,
        username=user.username if user else None,
        created_by=transmission.owner_id,
        try_allowed=transmission.try_allowed,
        try_done=transmission.try_done,
        due_at=seconds(transmission.due_at),
        last_run=seconds(transmission.last_run),
        date_created=seconds(transmission.created_at),
        last_updated=seconds(transmission.updated_at),
        contact=contacts.to_json(contact) if contact else None,
        account=accounts.to_json(account) if account else None,
    )


async def create(ask: Ask) -> Reply:
    """POST /transmissions."""
    return await _create(ask, await read_body(ask, TransmissionBody, creating=True))


async def create_for_program(ask: Ask) -> Reply:
    """PUT or POST /programs/{program_id}/transmissions.

    The body is flat as in the guide, or in ``transmission_data`` as deployed clients send it.
    """
    data = await read_fields(ask)
    nested = data.get("transmission_data")
    if isinstance(nested, dict):
        data = nested
    body = decode({**data, "program_id": ask.id("program_id")}, TransmissionBody, creating=True)
    return await _create(ask, body)


async def index(ask: Ask) -> Reply:
    """GET /transmissions."""
    return await _index(ask)


async def index_for_program(ask: Ask) -> Reply:
    """GET /programs/{program_id}/transmissions."""
    program = await ask.engine.catalog.visible(ask.who, Program, ask.id("program_id"))
    return await _index(ask, Condition("program_id", Op.EQ, program.id))


async def show(ask: Ask) -> Reply:
    """GET /transmissions/{transmission_id}."""
    transmission = await ask.engine.catalog.read(ask.who, Transmission, ask.id("transmission_id"))
    return Item(to_json(transmission, await _related(ask, [transmission])))


async def update(ask: Ask) -> Reply:
    """PUT /transmissions/{transmission_id}."""
    body = await read_body(ask, TransmissionEdit, creating=False)
    transmission = await ask.engine.catalog.update(
        ask.who, Transmission, ask.id("transmission_id"), changes(body)
    )
    return Item(to_json(transmission, await _related(ask, [transmission])))


async def delete(ask: Ask) -> Reply:
    """DELETE /transmissions/{transmission_id}."""
    await ask.engine.catalog.delete(ask.who, Transmission, ask.id("transmission_id"))
    return Done()


async def send(ask: Ask) -> Reply:
    """POST /transmissions/{transmission_id}/send: answers once the attempt is on record."""
    transmission = await _to_send(ask)
    return Created("spool_id", await ask.engine.send(transmission.id))


async def retry(ask: Ask) -> Reply:
    """POST /transmissions/{transmission_id}/retry."""
    transmission = await _to_send(ask)
    return Created("spool_id", await ask.engine.retry(transmission.id))


async def status(ask: Ask) -> Reply:
    """GET /transmissions/{transmission_id}/status."""
    transmission = await ask.engine.catalog.read(ask.who, Transmission, ask.id("transmission_id"))
    return Status(transmission.status.value)


async def detail(ask: Ask) -> Reply:
    """GET /transmissions/{transmission_id}/detail: its attempts."""
    query, limit = page(ask, spools.FILTERS)
    found = await ask.engine.reports.spools(ask.who, ask.id("transmission_id"), query)
    return rows(found, limit, spools.to_json)


async def result(ask: Ask) -> Reply:
    """GET /transmissions/{transmission_id}/result: what all its attempts collected."""
    found = await ask.engine.reports.spools(ask.who, ask.id("transmission_id"), Query())
    return await spools.results_of(ask, found)


async def _create(ask: Ask, body: TransmissionBody) -> Reply:
    if body.direction not in (UNSET, Direction.OUTBOUND):
        raise InvalidError("direction: only outbound can be created", field="direction")
    given = changes(body)
    given.pop("direction", None)
    person: dict[str, Any] = {
        name: given.pop(name)
        for name in ("phone", "email", "first_name", "last_name")
        if name in given
    }
    transmission = Transmission(**{"program_id": 0, "contact_id": 0, **given})
    if "contact_id" not in given and ("phone" in person or "email" in person):
        transmission = await _with_new_contact(ask, transmission, person)
    transmission = await ask.engine.catalog.create(ask.who, transmission)
    return Created("transmission_id", transmission.id)


async def _with_new_contact(
    ask: Ask, transmission: Transmission, person: dict[str, Any]
) -> Transmission:
    # What could still be refused is asked first, so that no contact is left over.
    ask.who.require("transmission_create")
    await ask.engine.catalog.visible(ask.who, Program, transmission.program_id)
    contact = await ask.engine.catalog.create(ask.who, Contact(**person))
    return msgspec.structs.replace(transmission, contact_id=contact.id)


async def _to_send(ask: Ask) -> Transmission:
    ask.who.require("transmission_send")
    return await ask.engine.catalog.visible(ask.who, Transmission, ask.id("transmission_id"))


async def _index(ask: Ask, *conditions: Condition) -> Reply:
    query, limit = page(ask, FILTERS, *conditions)
    found = await ask.engine.catalog.find(ask.who, Transmission, query)
    related = await _related(ask, found[:limit])
    return rows(found, limit, lambda row: to_json(row, related))


async def _related(ask: Ask, found: list[Transmission]) -> Related:
    by_id = ask.engine.catalog.by_id
    return Related(
        contacts=await by_id(Contact, {row.contact_id for row in found}),
        accounts=await by_id(Account, {row.account_id for row in found if row.account_id}),
        users=await by_id(User, {row.owner_id for row in found if row.owner_id}),
    )


_ALL = "/transmissions"
_ONE = "/transmissions/{transmission_id}"
_OF_PROGRAM = "/programs/{program_id}/transmissions"

ROUTES = (
    *(
        Route(verb=verb, path=_OF_PROGRAM, handler=create_for_program,
              summary="Create a transmission of a program", answer=Created,
              view="transmission_id", body=TransmissionBody)
        for verb in ("PUT", "POST")
    ),
    Route(verb="GET", path=_OF_PROGRAM, handler=index_for_program,
          summary="List a program's transmissions", answer=Rows, view=TransmissionView,
          filters=FILTERS),
    Route(verb="POST", path=_ALL, handler=create, summary="Create a transmission",
          answer=Created, view="transmission_id", body=TransmissionBody, statuses=(404,)),
    Route(verb="GET", path=_ALL, handler=index, summary="List transmissions",
          answer=Rows, view=TransmissionView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read a transmission",
          answer=Item, view=TransmissionView),
    Route(verb="PUT", path=_ONE, handler=update, summary="Update a transmission",
          answer=Item, view=TransmissionView, body=TransmissionEdit, statuses=(423,)),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete a transmission",
          answer=Done, statuses=(417, 423)),
    Route(verb="POST", path=_ONE + "/send", handler=send, summary="Send it now",
          answer=Created, view="spool_id", statuses=(423,)),
    Route(verb="POST", path=_ONE + "/retry", handler=retry, summary="Send it again",
          answer=Created, view="spool_id", statuses=(423,)),
    Route(verb="GET", path=_ONE + "/status", handler=status,
          summary="The status of a transmission", answer=Status),
    Route(verb="GET", path=_ONE + "/detail", handler=detail, summary="List its attempts",
          answer=Rows, view=spools.SpoolView, filters=spools.FILTERS),
    Route(verb="GET", path=_ONE + "/result", handler=result,
          summary="What its attempts collected", answer=Rows, view=spools.ResultView,
          filters=spools.RESULT_FILTERS),
)  # fmt: skip
