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
    Settings,
    Text,
    changes,
    decode,
    read_body,
    read_fields,
    seconds,
)
from api.ictcore.lists import page, rows
from api.paging import Filter, integer, service_bits, string
from api.routing import Ask, Created, Done, Handler, Item, Reply, Route, Rows, Status
from engine.errors import InvalidError
from engine.model import Account, Contact, Direction, Program, Service, Transmission, User
from engine.store.base import Condition, Op, Query


class TransmissionEdit(msgspec.Struct, kw_only=True):
    """What may change of a transmission; program, contact and account only before it is sent.

    ``retry_delays`` are seconds until the next try by outcome: ``busy``, ``no_answer``, ``failed``;
    the campaign's or the node's hold for those not named.
    """

    title: Text = UNSET
    origin: Text = UNSET
    program_id: Id = UNSET
    contact_id: Id = UNSET
    account_id: Id = UNSET
    try_allowed: Integer = UNSET
    retry_delays: Settings = UNSET


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
    """A transmission as clients read it; ``response`` is the cause of its last result.

    ``pages`` is how many a fax had; only when read alone.
    """

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
    contact_id: int | None
    contact_phone: str | None
    contact_email: str | None
    user_id: int | None
    username: str | None
    created_by: int | None
    try_allowed: int
    try_done: int
    retry_delays: dict[str, float]
    due_at: int | None
    last_run: int | None
    date_created: int | None
    last_updated: int | None
    contact: contacts.ContactView | None
    account: accounts.AccountView | None
    pages: int | None = None


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
    "phone": Filter("party.phone", Op.CONTAINS, string),
    "email": Filter("party.email", Op.CONTAINS, string),
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


def to_json(
    transmission: Transmission, related: Related, pages: int | None = None
) -> TransmissionView:
    """The transmission on the wire, with what it refers to."""
    contact = related.contacts.get(transmission.contact_id or 0)
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
        retry_delays=transmission.retry_delays,
        due_at=seconds(transmission.due_at),
        last_run=seconds(transmission.last_run),
        date_created=seconds(transmission.created_at),
        last_updated=seconds(transmission.updated_at),
        contact=contacts.to_json(contact) if contact else None,
        account=accounts.to_json(account) if account else None,
        pages=pages,
    )


# A campaign calls everybody once, so what is cloned belongs to none.
_COPIED = (
    "title", "service", "program_id", "account_id", "contact_id", "origin", "try_allowed",
    "retry_delays",
)  # fmt: skip


async def create(ask: Ask) -> Reply:
    """POST /transmissions."""
    return await create_from(ask, await read_body(ask, TransmissionBody, creating=True))


async def create_for_program(ask: Ask) -> Reply:
    """PUT or POST /programs/{program_id}/transmissions.

    The body is flat as in the guide, or in ``transmission_data`` as deployed clients send it; the
    program is the one of the path, whatever ``program_data`` says.
    """
    ask.who.require("transmission_create")
    sent = await read_fields(ask)
    nested = "transmission_data" in sent or "program_data" in sent
    data = sent.get("transmission_data") if nested else sent
    if not data or not isinstance(data, dict):
        raise InvalidError("Transmission data is missing", field="transmission_data")
    body = decode({**data, "program_id": ask.id("program_id")}, TransmissionBody, creating=True)
    return await create_from(ask, body)


async def index(ask: Ask) -> Reply:
    """GET /transmissions."""
    return await _index(ask)


def index_of(service: Service) -> Handler:
    """GET /calls, /faxes, /smses, /emails: the transmissions of one service."""

    async def listed(ask: Ask) -> Reply:
        return await _index(ask, Condition("service", Op.HAS_BITS, service))

    return listed


async def index_for_program(ask: Ask) -> Reply:
    """GET /programs/{program_id}/transmissions."""
    ask.who.require("transmission_list")
    program = await ask.engine.catalog.visible(ask.who, Program, ask.id("program_id"))
    return await _index(ask, Condition("program_id", Op.EQ, program.id))


async def show(ask: Ask) -> Reply:
    """GET /transmissions/{transmission_id}."""
    transmission = await ask.engine.catalog.read(ask.who, Transmission, ask.id("transmission_id"))
    return await _shown(ask, transmission)


async def update(ask: Ask) -> Reply:
    """PUT /transmissions/{transmission_id}."""
    body = await read_body(ask, TransmissionEdit, creating=False)
    transmission = await ask.engine.catalog.update(
        ask.who, Transmission, ask.id("transmission_id"), changes(body)
    )
    return await _shown(ask, transmission)


async def clone(ask: Ask) -> Reply:
    """GET /transmissions/{transmission_id}/clone: the same once more, not sent yet."""
    ask.who.require("transmission_read", "transmission_create")
    original = await ask.engine.catalog.read(ask.who, Transmission, ask.id("transmission_id"))
    copied = {name: getattr(original, name) for name in _COPIED}
    copy = await ask.engine.catalog.create(ask.who, Transmission(**copied))
    return Created("transmission_id", copy.id)


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
    ask.who.require("transmission_read", "spool_read", "result_read")
    found = await ask.engine.reports.spools(ask.who, ask.id("transmission_id"), Query())
    return await spools.results_of(ask, found)


async def create_from(ask: Ask, body: TransmissionBody) -> Reply:
    """Create what a body says: for every route that creates a transmission."""
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
    if not transmission.program_id:
        raise InvalidError("program_id is missing", field="program_id")
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


async def _shown(ask: Ask, transmission: Transmission) -> Reply:
    related = await _related(ask, [transmission])
    return Item(to_json(transmission, related, await ask.engine.reports.fax_pages(transmission)))


async def _related(ask: Ask, found: list[Transmission]) -> Related:
    by_id = ask.engine.catalog.by_id
    return Related(
        contacts=await by_id(Contact, {row.contact_id for row in found if row.contact_id}),
        accounts=await by_id(Account, {row.account_id for row in found if row.account_id}),
        users=await by_id(User, {row.owner_id for row in found if row.owner_id}),
    )


_ALL = "/transmissions"
_ONE = "/transmissions/{transmission_id}"
_OF_PROGRAM = "/programs/{program_id}/transmissions"
_BY_SERVICE = {
    "/calls": Service.VOICE,
    "/faxes": Service.FAX,
    "/smses": Service.SMS,
    "/emails": Service.EMAIL,
}

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
    Route(verb="GET", path=_ONE + "/clone", handler=clone, summary="Copy it, to be sent again",
          answer=Created, view="transmission_id", statuses=(412,)),
    *(
        Route(verb="GET", path=_ONE + path, handler=detail, summary="List its attempts",
              answer=Rows, view=spools.SpoolView, filters=spools.FILTERS)
        for path in ("/detail", "/logs", "/spools")
    ),
    *(
        Route(verb="GET", path=_ONE + path, handler=result, summary="What its attempts collected",
              answer=Rows, view=spools.ResultView, filters=spools.RESULT_FILTERS)
        for path in ("/result", "/results")
    ),
    *(
        Route(verb="GET", path=path, handler=index_of(service), summary=f"List {path[1:]}",
              answer=Rows, view=TransmissionView, filters=FILTERS)
        for path, service in _BY_SERVICE.items()
    ),
)  # fmt: skip
