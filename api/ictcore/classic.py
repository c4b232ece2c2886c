"""How deployed ICTCore servers answer below /api, for their existing clients (specs/ictcore.md §1).

Creates answer a bare integer, statuses a bare string, deeds ``true``; lists hold strings and nulls
only, as they fell out of MySQL. Handlers are the guide's: this is their second spelling, and the
few calls that only deployed servers have.

Two habits of theirs are not copied. A create whose body holds the entity's own id changed that
row; here it creates, and the id is ignored like every unknown key. A reply was sometimes empty,
which clients take for a failure; here none is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from quart import Request, Response, request

from api.ictcore import campaigns, contacts, groups
from api.ictcore.translate import Guide
from api.routing import (
    Ask,
    Changed,
    Created,
    Done,
    Item,
    Reply,
    Route,
    Rows,
    Status,
    Value,
)

_JSON = "application/json"
_SUFFIX = ".json"
_OVERRIDES = frozenset({"PUT", "DELETE", "PATCH"})
# Numbers to the clients, and maps that a client sends back the way it read them.
_NATIVE = frozenset({"expires_in", "settings"})
_DIGITS = {"type": "string", "pattern": "^[0-9]+$"}
_ID = {"anyOf": [{"type": "integer"}, _DIGITS]}


class Classic(Guide):
    """The mount for existing clients."""

    def render(self, reply: Reply) -> Response:
        """The response to a request that was served: always 200, never empty."""
        return _uncached(super().render(reply))

    def refuse(self, error: Exception) -> Response:
        """ICTCore's error body."""
        return _uncached(super().refuse(error))

    def spell(self, reply: Reply) -> Any:
        """What a reply says, as JSON values."""
        value: Any = True
        match reply:
            case Created(_, id_, fresh):
                value = id_ if fresh else str(id_)
            case Item(view):
                value = _strings(msgspec.to_builtins(view), native=_NATIVE)
            case Rows(views):
                value = [self.row(view) for view in views]
            case Status(status):
                value = status
            case Changed(_, int(id_)):
                value = id_
            case Done(int(id_)):
                value = str(id_)
        return value

    def row(self, view: Any) -> Any:
        """One object of a list: strings and nulls."""
        return _strings(msgspec.to_builtins(view))

    def schema(self, route: Route, of: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """JSON Schema of what ``spell`` makes of the route's answer."""
        fixed: dict[type, dict[str, Any]] = {
            Created: _ID,
            Status: {"type": "string"},
            Value: {"const": True},
            Changed: {"anyOf": [{"type": "integer"}, {"const": True}]},
            Done: {"anyOf": [{"const": True}, _DIGITS]},
        }
        if route.answer in fixed:
            return fixed[route.answer]
        schema = _string_schema(of(route.view))
        return {"type": "array", "items": schema} if route.answer is Rows else schema

    def components(self, views: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Every view once more, of strings."""
        return {_named(name): _string_schema(schema) for name, schema in views.items()}

    def _labelled(self, body: bytes, status: int) -> Response:
        return Response(body, status, content_type=_label())


def readdress(given: Request) -> None:
    """Take off a path's ``.json``; let a POST be the verb that its client could not send."""
    bare = given.path.removesuffix(_SUFFIX)
    if bare != given.path:
        given.path = bare
        given.query_string += b"&format=json"
    if given.method == "POST":
        named = given.headers.get("X-HTTP-Method-Override") or given.args.get("method", "")
        if named.upper() in _OVERRIDES:
            given.method = named.upper()


def routes(shared: tuple[Route, ...]) -> tuple[Route, ...]:
    """``shared`` as this mount has them, and what it has alone."""
    own = {(route.verb, route.path): route for route in ROUTES}
    kept = (route for route in shared if (route.verb, route.path) not in own)
    return (*kept, *own.values())


async def import_csv(ask: Ask) -> Reply:
    """POST /api/groups/{group_id}/csv: answers the group's id; the guide's mount tells of lines."""
    await groups.import_csv(ask)
    return Created("group_id", ask.id("group_id"), fresh=False)


async def link(ask: Ask) -> Reply:
    """PUT /api/contacts/{contact_id}/link/{group_id}: shows the contact, as the guide's mount."""
    reply = await contacts.link(ask)
    return Item(reply.view) if isinstance(reply, Changed) else reply


_CAMPAIGN = "/campaigns/{campaign_id}"

ROUTES = (
    Route(verb="PUT", path="/contacts/{contact_id}/link/{group_id}", handler=link,
          summary="Put a contact into a group", answer=Item, view=contacts.ContactView,
          statuses=(417,)),
    Route(verb="POST", path="/groups/{group_id}/csv", handler=import_csv,
          summary="Import contacts", answer=Created, view="group_id",
          body=("text/csv", "text/plain"), statuses=(411, 413, 415)),
    Route(verb="GET", path=_CAMPAIGN + "/start", handler=campaigns.start,
          summary="Start or resume dialling", answer=Done, statuses=(423,)),
    Route(verb="GET", path=_CAMPAIGN + "/stop", handler=campaigns.stop, summary="Stop dialling",
          answer=Done, statuses=(423,)),
)  # fmt: skip


def _label() -> str:
    """The media type a client can bear: one that does not ask for JSON parses the text itself."""
    accepted = [item.strip() for item in request.headers.get("Accept", "").split(",")]
    if _JSON in accepted or request.args.get("format") == "json":
        return _JSON
    return "text/plain; charset=utf-8"


def _uncached(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-cache, must-revalidate"
    response.headers["Expires"] = "0"
    return response


def _strings(value: Any, *, native: frozenset[str] = frozenset()) -> Any:
    """``value`` with every scalar a string or null; what stands at a ``native`` key as it is."""
    match value:
        case dict():
            return {
                key: inner if key in native else _strings(inner, native=native)
                for key, inner in value.items()
            }
        case list():
            return [_strings(inner, native=native) for inner in value]
        case bool():
            return str(int(value))
        case None | str():
            return value
        case _:
            return str(value)


def _string_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of ``_strings`` of what ``schema`` describes."""
    changed = dict(schema)
    if "$ref" in schema:
        folder, _, name = schema["$ref"].rpartition("/")
        changed["$ref"] = f"{folder}/{_named(name)}"
    elif "anyOf" in schema:
        changed["anyOf"] = [_string_schema(one) for one in schema["anyOf"]]
    elif schema.get("type") == "object":
        changed |= _object_schema(schema)
    elif schema.get("type") == "array":
        changed["items"] = _string_schema(schema.get("items", {}))
    elif schema.get("type", "string") not in ("string", "null"):
        told: dict[str, Any] = {
            key: schema[key] for key in ("title", "description") if key in schema
        }
        changed = {**told, "type": "string"}
    return changed


def _object_schema(schema: dict[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    if "title" in schema:
        changed["title"] = _named(schema["title"])
    if isinstance(schema.get("additionalProperties"), dict):
        changed["additionalProperties"] = _string_schema(schema["additionalProperties"])
    if "properties" in schema:
        changed["properties"] = {
            name: inner if name in _NATIVE else _string_schema(inner)
            for name, inner in schema["properties"].items()
        }
    return changed


def _named(name: str) -> str:
    return f"Classic{name}"
