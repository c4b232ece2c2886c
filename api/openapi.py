"""The OpenAPI 3.1 document, made from the same route tables the server is made from.

Every route is in it with its body, filters and all statuses it may answer: it cannot fall behind.
Examples and the meaning of every field come from ``api.examples``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import msgspec

from api.examples import CSV, FIELDS, example
from api.paging import DEFAULT_LIMIT, MAX_LIMIT, SCHEMA, Filter, sort_pattern
from api.routing import Created, Dialect, File, Route, Rows, Status, Value

REF = "#/components/schemas/{name}"
JSON = "application/json"
_PARAMETER = re.compile(r"\{(\w+)\}")
_WORDS = re.compile(r"\W+")
_MAX_ID = 2**63 - 1
_OK = 200
_UNAUTHORIZED = 401
_NOT_READY = (423, 429)
_ALWAYS = ("X-Request-Id",)
# OpenAPI 3.1 needs no schema for raw bytes; with this one Swagger UI offers to choose a file.
_FILE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}

DESCRIPTION = """\
Outspool speaks the vocabulary of ICTCore, twice: at the paths of its guide, and below `/api` the
way deployed ICTCore servers answer, for the clients that exist.

Log in with `POST /authenticate` and send `Authorization: Bearer <token>`, or send a name and
password with every request (HTTP Basic). A user sees its own rows; rows of others are 404 wherever
their number is named.

Bodies are JSON. Unknown fields are ignored, an empty string on create means "not given", numbers
may come as digit strings and flags as 1 and 0. Files are raw bodies; with `Content-Type: base64` a
body is a data URL of the file. Deletes are `DELETE` only: the guide also mentions
`GET` for them, but a `GET` must not delete.
"""

TAGS = {
    "accounts": "Our own addresses: caller ids, extensions, direct numbers, mailboxes",
    "authenticate": "Name and password for a token",
    "calls": "Voice transmissions",
    "campaigns": "Bulk: a program run over a group at a pace",
    "contacts": "People and numbers to reach",
    "dids": "Accounts that are direct inward numbers",
    "do_not_contact": "Addresses that nothing may be sent to",
    "documents": "Fax messages",
    "emails": "E-mail transmissions",
    "extensions": "Accounts that are telephones",
    "faxes": "Fax transmissions",
    "groups": "Sets of contacts, with CSV import and export",
    "node": "The node itself",
    "permissions": "What may be granted",
    "programs": "The logic of a delivery",
    "providers": "Trunks",
    "recordings": "Voice messages",
    "roles": "Named sets of permissions",
    "schedules": "What starts, stops or is sent at a later time",
    "smses": "SMS transmissions",
    "spools": "The attempts of a transmission and what each collected",
    "statistics": "How much there is of everything",
    "templates": "E-mail messages",
    "texts": "SMS messages",
    "transmissions": "One message to one contact, and what became of it",
    "users": "Who may log in, and what for",
}
"""Every first word of a path."""

_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {
        "description": "The client's own, or a new one: names the request in the log",
        "schema": {"type": "string"},
        "example": "7f8e0c5b2a9d4c1e8b3f6a7d9c0e1f2a",
    },
    "X-Total-Count": {
        "description": "How many rows match on all pages",
        "schema": {"type": "integer", "minimum": 0},
        "example": 1000,
    },
    "Link": {
        "description": 'The next page (RFC 8288, rel="next"), where there is one; a page of long '
        "rows ends before its `limit`",
        "schema": {"type": "string"},
        "example": '</contacts?offset=100&limit=100>; rel="next"',
    },
    "Content-Disposition": {
        "description": "The file's name",
        "schema": {"type": "string"},
        "example": 'attachment; filename="group_1.csv"',
    },
    "WWW-Authenticate": {
        "description": "How to log in",
        "schema": {"type": "string"},
        "example": 'Bearer, Basic realm="Outspool", charset="UTF-8"',
    },
    "Retry-After": {
        "description": "Seconds to wait before the next try, where that is known",
        "schema": {"type": "integer", "minimum": 0},
        "example": 30,
    },
}
_ERROR = {"$ref": REF.format(name="Error")}
_ERROR_SCHEMA = {
    "title": "Error",
    "description": "Why a request was refused",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "integer", "description": "The status once more"},
                "message": {"type": "string", "description": "What is wrong; names the field"},
            },
        }
    },
}
_HEALTH_SCHEMA = {
    "title": "Health",
    "description": "Whether the node takes work, and what keeps it",
    "type": "object",
    "required": ["ready"],
    "properties": {"ready": {"type": "boolean", "description": "Whether it takes work"}},
}


def document(dialects: Iterable[Dialect]) -> dict[str, Any]:
    """The document of all ``dialects``."""
    dialects = tuple(dialects)
    writer = _Writer(dialects)
    paths: dict[str, dict[str, Any]] = {"/healthz": {"get": _health()}}
    tags: dict[str, str] = {"node": TAGS["node"]}
    for dialect in dialects:
        for route in dialect.routes:
            operations = paths.setdefault(dialect.prefix + route.path, {})
            operations[route.verb.lower()] = writer.operation(dialect, route)
            tags.setdefault(_tag(dialect, route), TAGS.get(_subject(route), ""))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Outspool",
            "version": version("outspool"),
            "summary": "Real-time outbound telephony and messaging",
            "description": DESCRIPTION,
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        # Relative to this document, so that it holds behind a proxy that adds a prefix too.
        "servers": [{"url": ".", "description": "This node"}],
        "tags": [{"name": name, "description": meaning} for name, meaning in tags.items()],
        "paths": paths,
        "components": {
            "schemas": writer.components,
            "headers": _HEADERS,
            "securitySchemes": _SECURITY,
        },
        "security": [{"bearer": []}, {"basic": []}],
    }


_SECURITY = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The token of `POST /authenticate`",
    },
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "User name (or e-mail address, or user id) and password with every request",
    },
}


class _Writer:
    """Describes routes; ``components`` are the schemas they share."""

    def __init__(self, dialects: tuple[Dialect, ...]) -> None:
        described = (kind for d in dialects for r in d.routes for kind in (r.body, r.view))
        kinds = list(dict.fromkeys(kind for kind in described if _is_struct(kind)))
        references, components = msgspec.json.schema_components(kinds, ref_template=REF)
        self._reference = dict(zip(kinds, references, strict=True))
        self.components = {name: _worded(schema) for name, schema in components.items()}
        for dialect in dialects:
            self.components |= dialect.translator.components(self._views(dialect))
        self.components |= {"Error": _ERROR_SCHEMA, "Health": _HEALTH_SCHEMA}

    def operation(self, dialect: Dialect, route: Route) -> dict[str, Any]:
        """One verb of one path."""
        name = f"{dialect.name} {route.verb.lower()}{route.path}"
        operation: dict[str, Any] = {
            "operationId": _WORDS.sub("_", name).strip("_"),
            "summary": route.summary,
            "tags": [_tag(dialect, route)],
            "parameters": _path_parameters(route) + _query_parameters(route),
            "responses": {str(_OK): self._success(dialect, route), **_refusals(dialect, route)},
        }
        if route.public:
            operation["security"] = []
        if route.body is not None:
            operation["requestBody"] = self._body(route)
        return operation

    def _views(self, dialect: Dialect) -> dict[str, dict[str, Any]]:
        """What the dialect's answers refer to, by name."""
        kinds = (route.view for route in dialect.routes if _is_struct(route.view))
        _, names = msgspec.json.schema_components(kinds, ref_template=REF)
        return {name: self.components[name] for name in names}

    def _body(self, route: Route) -> dict[str, Any]:
        if isinstance(route.body, tuple):
            # A label that is no media type (ICTCore's "base64") cannot be in an OpenAPI document.
            files = dict.fromkeys((kind for kind in route.body if "/" in kind), _file(route))
            return {"description": "The file itself", "required": True, "content": files}
        schema = self._schema(route.body)
        shown = {"schema": schema, "example": example(schema, self.components)}
        return {"required": False, "content": {JSON: shown}}

    def _success(self, dialect: Dialect, route: Route) -> dict[str, Any]:
        if route.answer is File:
            headers = _headers(*_ALWAYS, "Content-Disposition")
            content = {route.view: _file(route)}
            return {"description": "The file", "headers": headers, "content": content}
        names = (*_ALWAYS, "X-Total-Count", "Link") if route.answer is Rows else _ALWAYS
        schema = dialect.translator.schema(route, self._schema)
        shown = {"schema": schema, "example": example(schema, self.components, _name(route))}
        return {
            "description": route.summary,
            "headers": _headers(*names),
            "content": dict.fromkeys(dialect.media_types, shown),
        }

    def _schema(self, kind: Any) -> dict[str, Any]:
        if kind in self._reference:
            return self._reference[kind]
        return msgspec.json.schema(kind)


def _health() -> dict[str, Any]:
    meanings = {200: "Ready", 503: "Not ready: the body says why"}
    schema = {"$ref": REF.format(name="Health")}
    return {
        "operationId": "healthz",
        "summary": "Whether the node takes work",
        "tags": ["node"],
        "security": [],
        "responses": {
            str(status): {
                "description": meaning,
                "headers": _headers(*_ALWAYS),
                "content": {JSON: {"schema": schema, "example": {"ready": status == _OK}}},
            }
            for status, meaning in meanings.items()
        },
    }


def _file(route: Route) -> dict[str, Any]:
    text = {"example": CSV[_subject(route)]} if route.path.endswith("/csv") else {}
    return {**_FILE, **text}


def _refusals(dialect: Dialect, route: Route) -> dict[str, Any]:
    return {
        str(status): {
            "description": dialect.meanings[status],
            "headers": _headers(*_ALWAYS, *_refusal_headers(status)),
            "content": dict.fromkeys(dialect.media_types, _error(status, dialect.meanings[status])),
        }
        for status in sorted(_refusal_statuses(route))
    }


def _error(status: int, meaning: str) -> dict[str, Any]:
    return {"schema": _ERROR, "example": {"error": {"code": status, "message": meaning}}}


def _refusal_statuses(route: Route) -> set[int]:
    """What the route says, and what follows from its form."""
    # Every route may meet a store that is full, or a node that has too many logins waiting.
    statuses = {423, 500, *route.statuses}
    if not route.public:
        statuses |= {401, 403}
    if "{" in route.path:
        statuses.add(404)
    if route.filters is not None:
        statuses.add(412)
    if route.body is not None:
        statuses |= {404, 412, 413}
    return statuses


def _refusal_headers(status: int) -> tuple[str, ...]:
    if status == _UNAUTHORIZED:
        return ("WWW-Authenticate",)
    return ("Retry-After",) if status in _NOT_READY else ()


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [_parameter(name, "path", _word(name)) for name in _PARAMETER.findall(route.path)]


def _word(name: str) -> dict[str, Any]:
    if name.endswith("_id"):
        return {"type": "integer", "minimum": 1, "maximum": _MAX_ID}
    return {"type": "string", "minLength": 1}


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.filters is None:
        return []
    schemas = {name: SCHEMA[spec.read] for name, spec in route.filters.items()}
    if route.answer is Rows:
        schemas |= _page(route.filters)
    return [_parameter(name, "query", schema) for name, schema in schemas.items()]


def _page(filters: Mapping[str, Filter]) -> dict[str, dict[str, Any]]:
    """What every list takes besides its filters."""
    return {
        "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
        "offset": {"type": "integer", "minimum": 0, "maximum": _MAX_ID, "default": 0},
        "sort": {"type": "string", "pattern": sort_pattern(filters), "default": "id"},
    }


def _parameter(name: str, place: str, schema: dict[str, Any]) -> dict[str, Any]:
    known = {"description": FIELDS[name].meaning} if name in FIELDS else {}
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "schema": schema,
        **known,
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _name(route: Route) -> str:
    """The field that a bare answer is the value of."""
    special: dict[type, str] = {Status: "status", Value: "value"}
    return str(route.view) if route.answer is Created else special.get(route.answer, "")


def _subject(route: Route) -> str:
    words = route.path.split("/")
    return words[2] if words[1] == "messages" else words[1]


def _tag(dialect: Dialect, route: Route) -> str:
    """Resources of another mount stand beside those of the guide, not among them."""
    return f"{dialect.prefix}/{_subject(route)}".removeprefix("/")


def _worded(schema: dict[str, Any]) -> dict[str, Any]:
    """A struct's schema with its docstring as Markdown and the meaning of every field."""
    worded = {**schema, "description": _markdown(schema.get("description", ""))}
    if "properties" in schema:
        worded["properties"] = {
            name: _field(name, part) for name, part in schema["properties"].items()
        }
    return worded


def _field(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    # A flag is a bool to msgspec, which lets no other word stand for its type; on the wire it is 1
    # or 0.
    flag = {"type": "integer"} if schema.get("enum") == [0, 1] else {}
    known = {"description": FIELDS[name].meaning} if name in FIELDS else {}
    return {**known, **schema, **flag}


def _markdown(docstring: str) -> str:
    return inspect.cleandoc(docstring).replace("``", "`")


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
