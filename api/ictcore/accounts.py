"""/accounts, and those of one type: /dids, /extensions. Passwords go in and never come out."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from api.ictcore.fields import OWNER_FILTERS, Flag, Settings, Text, changes, read_body, seconds
from api.ictcore.lists import find, page, rows
from api.paging import Filter, boolean, integer, string
from api.routing import Ask, Created, Done, Item, Reply, Route, Rows
from engine.model import Account
from engine.store.base import Condition, Op


class AccountEdit(msgspec.Struct, kw_only=True):
    """What may change of an account."""

    username: Text = UNSET
    passwd: Text = UNSET
    passwd_pin: Text = UNSET
    first_name: Text = UNSET
    last_name: Text = UNSET
    phone: Text = UNSET
    email: Text = UNSET
    address: Text = UNSET
    settings: Settings = UNSET
    timezone: Text = UNSET
    active: Flag = UNSET


class AccountBody(AccountEdit, kw_only=True):
    """An account as clients write it; ``type`` is account, extension, did or eaddress for good."""

    type: Text = UNSET


class AccountView(msgspec.Struct, kw_only=True):
    """An account as clients read it."""

    account_id: int
    type: str
    username: str
    first_name: str
    last_name: str
    phone: str
    email: str
    address: str
    settings: dict[str, Any]
    timezone: str
    active: int
    user_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None


FILTERS = {
    "account_id": Filter("id", Op.EQ, integer),
    "type": Filter("type", Op.CONTAINS, string),
    "username": Filter("username", Op.CONTAINS, string),
    "phone": Filter("phone", Op.CONTAINS, string),
    "email": Filter("email", Op.CONTAINS, string),
    "first_name": Filter("first_name", Op.CONTAINS, string),
    "last_name": Filter("last_name", Op.CONTAINS, string),
    "active": Filter("active", Op.EQ, boolean),
    **OWNER_FILTERS,
}


def to_json(account: Account) -> AccountView:
    """The account on the wire, without its passwords."""
    return AccountView(
        account_id=account.id,
        type=account.type,
        username=account.username,
        first_name=account.first_name,
        last_name=account.last_name,
        phone=account.phone,
        email=account.email,
        address=account.address,
        settings=account.settings,
        timezone=account.timezone,
        active=int(account.active),
        user_id=account.owner_id,
        created_by=account.owner_id,
        date_created=seconds(account.created_at),
        last_updated=seconds(account.updated_at),
    )


async def create(ask: Ask) -> Reply:
    """POST /accounts."""
    given = changes(await read_body(ask, AccountBody, creating=True))
    if "type" in given:
        given["type"] = given["type"].lower()
    return await _created(ask, given)


async def create_did(ask: Ask) -> Reply:
    """POST /dids."""
    given = changes(await read_body(ask, AccountEdit, creating=True))
    return await _created(ask, {**given, "type": "did"})


async def create_extension(ask: Ask) -> Reply:
    """POST /extensions."""
    given = changes(await read_body(ask, AccountEdit, creating=True))
    return await _created(ask, {**given, "type": "extension"})


async def _created(ask: Ask, given: dict[str, Any]) -> Reply:
    account = await ask.engine.catalog.create(ask.who, Account(**given))
    return Created("account_id", account.id)


async def index(ask: Ask) -> Reply:
    """GET /accounts."""
    return await find(ask, Account, FILTERS, to_json)


async def dids(ask: Ask) -> Reply:
    """GET /dids."""
    return await _of_type(ask, "did")


async def extensions(ask: Ask) -> Reply:
    """GET /extensions."""
    return await _of_type(ask, "extension")


async def _of_type(ask: Ask, type_: str) -> Reply:
    query, limit = page(ask, FILTERS, Condition("type", Op.EQ, type_))
    return rows(await ask.engine.catalog.find(ask.who, Account, query), limit, to_json)


async def show(ask: Ask) -> Reply:
    """GET /accounts/{account_id}."""
    return Item(to_json(await ask.engine.catalog.read(ask.who, Account, ask.id("account_id"))))


async def update(ask: Ask) -> Reply:
    """PUT /accounts/{account_id}."""
    given = changes(await read_body(ask, AccountEdit, creating=False))
    if not given.get("username"):
        given.pop("username", None)  # it cannot be taken away
    account = await ask.engine.catalog.update(ask.who, Account, ask.id("account_id"), given)
    return Item(to_json(account))


async def delete(ask: Ask) -> Reply:
    """DELETE /accounts/{account_id}."""
    await ask.engine.catalog.delete(ask.who, Account, ask.id("account_id"))
    return Done()


_ONE = "/accounts/{account_id}"

ROUTES = (
    Route(verb="POST", path="/accounts", handler=create, summary="Create an account",
          answer=Created, view="account_id", body=AccountBody, statuses=(417,)),
    Route(verb="GET", path="/accounts", handler=index, summary="List accounts",
          answer=Rows, view=AccountView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read an account",
          answer=Item, view=AccountView),
    Route(verb="PUT", path=_ONE, handler=update, summary="Update an account",
          answer=Item, view=AccountView, body=AccountEdit, statuses=(417,)),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete an account", answer=Done,
          statuses=(417, 423)),
    Route(verb="POST", path="/dids", handler=create_did, summary="Create a DID", answer=Created,
          view="account_id", body=AccountEdit, statuses=(417,)),
    Route(verb="GET", path="/dids", handler=dids, summary="List DIDs", answer=Rows,
          view=AccountView, filters=FILTERS),
    Route(verb="POST", path="/extensions", handler=create_extension,
          summary="Create an extension", answer=Created, view="account_id", body=AccountEdit,
          statuses=(417,)),
    Route(verb="GET", path="/extensions", handler=extensions, summary="List extensions",
          answer=Rows, view=AccountView, filters=FILTERS),
)  # fmt: skip
