"""/providers: trunks of every kind.

Additive: ``transport``, ``calls_per_second`` (``cps``) and ``channels``, which may also stand
inside ``settings``. Passwords, and settings that look like secrets (``api_key``), go in and never
come out; a PUT of settings without them leaves them as they are.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
from msgspec import UNSET

from api.ictcore.fields import (
    OWNER_FILTERS,
    Flag,
    Integer,
    Number,
    Settings,
    Text,
    changes,
    decode,
    plain,
    read_body,
    seconds,
)
from api.ictcore.lists import find
from api.paging import Filter, boolean, integer, lowered, service_bits, string
from api.routing import Ask, Created, Done, Item, Reply, Route, Rows
from engine.model import Provider, Service
from engine.secrets import without_secrets
from engine.store.base import Op
from engine.validation import PROVIDER_TYPES


class Limits(msgspec.Struct, kw_only=True):
    """What may stand beside the guide's fields or inside ``settings``; limits of 0 = none."""

    transport: Text = UNSET
    calls_per_second: Number = UNSET
    cps: Number = UNSET
    channels: Integer = UNSET


class ProviderBody(Limits, kw_only=True):
    """A provider as clients write it: the name is needed, for SIP and SMPP the host too.

    ``type`` is sip, smpp, smtp, http, emailcmd or loopback; it says which ``service_flag`` (voice
    1, fax 2, SMS 4, e-mail 8 added up), port and channels there are without them. SMTP without a
    host goes to the mail servers of each domain itself; its settings are in
    gateways/smtp/PROVIDERS.md.
    """

    name: Text = UNSET
    type: Text = UNSET
    service_flag: Integer = UNSET
    node_id: Integer = UNSET
    host: Text = UNSET
    port: Integer = UNSET
    username: Text = UNSET
    password: Text = UNSET
    dialstring: Text = UNSET
    prefix: Text = UNSET
    settings: Settings = UNSET
    description: Text = UNSET
    register: Flag = UNSET
    weight: Integer = UNSET
    active: Flag = UNSET


class ProviderView(msgspec.Struct, kw_only=True):
    """A provider as clients read it; ``settings`` is JSON text, "" where there are none.

    Secrets are not among them.
    """

    provider_id: int
    name: str
    type: str
    service_flag: int
    node_id: int
    host: str
    port: int
    transport: str
    username: str
    dialstring: str
    prefix: str
    settings: str
    description: str
    register: int
    weight: int
    active: int
    calls_per_second: float
    channels: int
    user_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None


FILTERS = {
    "provider_id": Filter("id", Op.EQ, integer),
    "name": Filter("name", Op.EQ, string),
    "node_id": Filter("node_id", Op.EQ, integer),
    "host": Filter("host", Op.EQ, string),
    "type": Filter("type", Op.EQ, lowered),
    "active": Filter("active", Op.EQ, boolean),
    "service_flag": Filter("service", Op.HAS_BITS, service_bits),
    **OWNER_FILTERS,
}
_NAMES = {"cps": "calls_per_second", "service_flag": "service"}
_SIPS_PORT = 5061  # RFC 3261 §19.1.2


def from_json(body: ProviderBody) -> dict[str, Any]:
    """A body by the model's names, with what stood inside its settings lifted out of them."""
    given = changes(body, _NAMES)
    settings = given.get("settings", {})
    inside = {name: settings[name] for name in Limits.__struct_fields__ if name in settings}
    if inside:
        given["settings"] = {key: settings[key] for key in settings if key not in inside}
        given = {**changes(decode(inside, Limits, creating=True), _NAMES), **given}
    if "service" in given:
        given["service"] = Service(given["service"])
    for name in ("type", "transport"):
        if name in given:
            given[name] = given[name].lower()
    return given


def to_json(provider: Provider) -> ProviderView:
    """The provider on the wire, without its secrets."""
    settings = without_secrets(provider.settings)
    return ProviderView(
        provider_id=provider.id,
        name=provider.name,
        type=provider.type,
        service_flag=int(provider.service),
        node_id=provider.node_id,
        host=provider.host,
        port=provider.port,
        transport=provider.transport,
        username=provider.username,
        dialstring=provider.dialstring,
        prefix=provider.prefix,
        settings=orjson.dumps(settings).decode() if settings else "",
        description=provider.description,
        register=int(provider.register),
        weight=provider.weight,
        active=int(provider.active),
        calls_per_second=plain(provider.calls_per_second),
        channels=provider.channels,
        user_id=provider.owner_id,
        created_by=provider.owner_id,
        date_created=seconds(provider.created_at),
        last_updated=seconds(provider.updated_at),
    )


async def create(ask: Ask) -> Reply:
    """POST /providers."""
    given: dict[str, Any] = {"name": "", "type": "sip"}
    given |= from_json(await read_body(ask, ProviderBody, creating=True))
    provider = await ask.engine.catalog.create(ask.who, Provider(**{**_defaults(given), **given}))
    await ask.engine.providers_changed()
    return Created("provider_id", provider.id)


def _defaults(given: dict[str, Any]) -> dict[str, Any]:
    """What a provider of its type is where nothing is said; nothing for an unknown one."""
    kind = PROVIDER_TYPES.get(given["type"])
    if kind is None:
        return {}
    transport = given.get("transport", kind.transport)
    secure = given["type"] == "sip" and transport == "tls"
    return {
        "service": kind.service,
        "port": _SIPS_PORT if secure else kind.port,
        "transport": kind.transport,
        "channels": kind.channels,
    }


async def index(ask: Ask) -> Reply:
    """GET /providers."""
    return await find(ask, Provider, FILTERS, to_json)


async def show(ask: Ask) -> Reply:
    """GET /providers/{provider_id}."""
    return Item(to_json(await ask.engine.catalog.read(ask.who, Provider, ask.id("provider_id"))))


async def update(ask: Ask) -> Reply:
    """PUT /providers/{provider_id}."""
    given = from_json(await read_body(ask, ProviderBody, creating=False))
    provider = await ask.engine.catalog.update(ask.who, Provider, ask.id("provider_id"), given)
    await ask.engine.providers_changed()
    return Item(to_json(provider))


async def delete(ask: Ask) -> Reply:
    """DELETE /providers/{provider_id}."""
    await ask.engine.catalog.delete(ask.who, Provider, ask.id("provider_id"))
    await ask.engine.providers_changed()
    return Done()


_ONE = "/providers/{provider_id}"

ROUTES = (
    Route(verb="POST", path="/providers", handler=create, summary="Create a provider",
          answer=Created, view="provider_id", body=ProviderBody, statuses=(417,)),
    Route(verb="GET", path="/providers", handler=index, summary="List providers",
          answer=Rows, view=ProviderView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read a provider",
          answer=Item, view=ProviderView),
    Route(verb="PUT", path=_ONE, handler=update, summary="Update a provider",
          answer=Item, view=ProviderView, body=ProviderBody, statuses=(417,)),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete a provider", answer=Done,
          statuses=(417, 423)),
)  # fmt: skip
