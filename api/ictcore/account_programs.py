"""What hangs on an account: programs that serve it, whose it is, its settings, its provisioning."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
from msgspec import UNSET, UnsetType

from api.ictcore import programs
from api.ictcore.accounts import AccountView, to_json
from api.ictcore.fields import parse
from api.ictcore.lists import page, rows
from api.routing import Ask, Changed, Done, Item, Reply, Route, Rows, Value
from engine.errors import ConflictError
from engine.model import Account


class SettingBody(msgspec.Struct, kw_only=True):
    """A setting as clients write it; ``data`` is another word for ``value``, a bare value a third.

    A form or plain text does as well.
    """

    value: str | float | bool | dict[str, Any] | list[Any] | UnsetType = UNSET
    data: str | float | bool | dict[str, Any] | list[Any] | UnsetType = UNSET


class Dialplan(msgspec.Struct, kw_only=True):
    """What a phone dials to log in as an agent, and for its voicemail."""

    agent_login: str
    voicemail: str


class ProvisioningView(msgspec.Struct, kw_only=True):
    """What a phone needs to register as an account.

    The one answer of the API that holds a password, and only for callers who may set it.
    """

    username: str
    password: str | UnsetType = UNSET
    callerid: str
    host: str
    port: int
    wss: int
    dialplan: Dialplan
    account: AccountView


async def index(ask: Ask) -> Reply:
    """GET /accounts/{account_id}/programs."""
    query, limit = page(ask, programs.FILTERS)
    found = await ask.engine.accounts.programs(ask.who, ask.id("account_id"), query)
    return rows(found, limit, programs.to_json)


async def subscribe(ask: Ask) -> Reply:
    """PUT /accounts/{account_id}/programs/{program_id}."""
    program_id = ask.id("program_id")
    account = await ask.engine.accounts.subscribe(ask.who, ask.id("account_id"), program_id)
    return Changed(to_json(account), program_id)


async def unsubscribe(ask: Ask) -> Reply:
    """DELETE /accounts/{account_id}/programs/{program_id}."""
    account = await ask.engine.accounts.unsubscribe(
        ask.who, ask.id("account_id"), ask.id("program_id")
    )
    return Changed(to_json(account))


async def equip(ask: Ask) -> Reply:
    """PUT /accounts/{account_id}/programs/{type}: a program of its own, made where it has none."""
    account, program_id = await ask.engine.accounts.equip(
        ask.who, ask.id("account_id"), ask.text("type")
    )
    return Changed(to_json(account), program_id)


async def unequip(ask: Ask) -> Reply:
    """DELETE /accounts/{account_id}/programs/{type}."""
    account = await ask.engine.accounts.unequip(ask.who, ask.id("account_id"), ask.text("type"))
    return Changed(to_json(account))


async def clear(ask: Ask) -> Reply:
    """DELETE /accounts/{account_id}/programs."""
    return Changed(to_json(await ask.engine.accounts.clear(ask.who, ask.id("account_id"))))


async def give(ask: Ask) -> Reply:
    """PUT /accounts/{account_id}/users/{user_id}: the account is that user's from now on."""
    account = await ask.engine.accounts.give(ask.who, ask.id("account_id"), ask.id("user_id"))
    return Changed(to_json(account))


async def free(ask: Ask) -> Reply:
    """DELETE /accounts/{account_id}/users: the account is nobody's."""
    return Changed(to_json(await ask.engine.accounts.free(ask.who, ask.id("account_id"))))


async def setting(ask: Ask) -> Reply:
    """GET /accounts/{account_id}/settings/{name}."""
    name = ask.text("name")
    return Value(await ask.engine.accounts.setting(ask.who, ask.id("account_id"), name))


async def set_setting(ask: Ask) -> Reply:
    """PUT /accounts/{account_id}/settings/{name}."""
    ask.who.require("account_update")
    raw = await ask.request.whole_body(ask.engine.config.http.max_body_bytes)
    value = _value(raw, ask.request.headers.get("Content-Type", ""))
    account = await ask.engine.accounts.set_setting(
        ask.who, ask.id("account_id"), ask.text("name"), value
    )
    return Changed(to_json(account))


async def drop_setting(ask: Ask) -> Reply:
    """DELETE /accounts/{account_id}/settings/{name}."""
    await ask.engine.accounts.drop_setting(ask.who, ask.id("account_id"), ask.text("name"))
    return Done()


async def provisioning(ask: Ask) -> Reply:
    """GET /accounts/{account_id}/provisioning."""
    account = await ask.engine.catalog.read(ask.who, Account, ask.id("account_id"))
    password = await ask.engine.accounts.password(ask.who, account)
    config = ask.engine.config
    return Item(
        ProvisioningView(
            username=account.username,
            password=UNSET if password is None else password,
            callerid=account.phone,
            host=config.provisioning.host or config.sip.public_host or config.sip.host,
            port=config.provisioning.port,
            wss=config.provisioning.wss,
            dialplan=Dialplan(agent_login=f"*{account.phone}", voicemail="*78"),
            account=to_json(account),
        )
    )


def _value(raw: bytes, content_type: str) -> Any:
    """The value in a body; ``ConflictError`` (417, as ICTCore has it) where there is none."""
    try:
        given = orjson.loads(raw)
    except orjson.JSONDecodeError:
        # A form, or plain text.
        given = parse(raw, content_type) or raw.decode("utf-8", "replace")
    if isinstance(given, dict):
        given = next((given[key] for key in ("value", "data") if key in given), None)
    if given in (None, "", []):
        raise ConflictError("Setting update failed, no value given")
    return given


_PROGRAMS = "/accounts/{account_id}/programs"
_PROGRAM = "/accounts/{account_id}/programs/{program_id}"
_TYPE = "/accounts/{account_id}/programs/{type}"
_USERS = "/accounts/{account_id}/users"
_SETTING = "/accounts/{account_id}/settings/{name}"

ROUTES = (
    Route(verb="GET", path=_PROGRAMS, handler=index, summary="List the programs of an account",
          answer=Rows, view=programs.ProgramView, filters=programs.FILTERS),
    Route(verb="DELETE", path=_PROGRAMS, handler=clear,
          summary="Unsubscribe an account from all programs", answer=Changed, view=AccountView),
    Route(verb="PUT", path=_PROGRAM, handler=subscribe,
          summary="Subscribe an account to a program", answer=Changed, view=AccountView,
          statuses=(412, 417)),  # a word in place of the number is a type
    Route(verb="DELETE", path=_PROGRAM, handler=unsubscribe,
          summary="Unsubscribe an account from a program", answer=Changed, view=AccountView),
    Route(verb="PUT", path=_TYPE, handler=equip,
          summary="Give an account a program of an inbound type", answer=Changed,
          view=AccountView, statuses=(412, 417)),
    Route(verb="DELETE", path=_TYPE, handler=unequip,
          summary="Take the programs of a type from an account", answer=Changed, view=AccountView),
    Route(verb="PUT", path=_USERS + "/{user_id}", handler=give,
          summary="Make an account a user's", answer=Changed, view=AccountView,
          statuses=(412, 417)),
    Route(verb="DELETE", path=_USERS, handler=free, summary="Make an account nobody's",
          answer=Changed, view=AccountView, statuses=(417,)),
    Route(verb="GET", path=_SETTING, handler=setting, summary="Read a setting of an account",
          answer=Value),
    Route(verb="PUT", path=_SETTING, handler=set_setting, summary="Set a setting of an account",
          answer=Changed, view=AccountView, body=SettingBody, statuses=(412, 417)),
    Route(verb="DELETE", path=_SETTING, handler=drop_setting,
          summary="Remove a setting of an account", answer=Done),
    Route(verb="GET", path="/accounts/{account_id}/provisioning", handler=provisioning,
          summary="What a phone needs to register as an account", answer=Item,
          view=ProvisioningView),
)  # fmt: skip
