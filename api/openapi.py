"""The OpenAPI 3.1 document, made from the same route tables the server is made from.

Every route is in it with its body, filters and all statuses it may answer: it cannot fall behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from api.paging import DEFAULT_LIMIT, MAX_LIMIT, SCHEMA, sort_pattern
from api.routing import Dialect, File, Route

REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)\}")
_WORDS = re.compile(r"\W+")
_ERROR = {"$ref": REF.format(name="Error")}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "integer"}, "message": {"type": "string"}},
        }
    },
}
_HEALTH = {
    "get": {
        "operationId": "healthz",
        "summary": "Whether the node takes work",
        "tags": ["node"],
        "security": [],
        "responses": {
            str(status): {
                "description": meaning,
                "content": {"application/json": {"schema": {"type": "object"}}},
            }
            for status, meaning in ((200, "Ready"), (503, "Not ready: the body says why"))
        },
    }
}


def document(dialects: Iterable[Dialect]) -> dict[str, Any]:
    """The document of all ``dialects``."""
    dialects = tuple(dialects)
    described = [kind for d in dialects for r in d.routes for kind in (r.body, r.view)]
    structs = {kind for kind in described if _is_struct(kind)}
    _, components = msgspec.json.schema_components(structs, ref_template=REF)
    paths: dict[str, dict[str, Any]] = {"/healthz": _HEALTH}
    for dialect in dialects:
        for route in dialect.routes:
            operations = paths.setdefault(dialect.prefix + route.path, {})
            operations[route.verb.lower()] = _operation(dialect, route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Outspool", "version": "0.1.0"},
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR_SCHEMA},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
        "security": [{"bearer": []}, {"basic": []}],
    }


def _operation(dialect: Dialect, route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _WORDS.sub("_", f"{dialect.name} {route.verb.lower()}{route.path}").strip(
            "_"
        ),
        "summary": route.summary,
        "tags": [route.path.split("/")[1]],
        "parameters": _path_parameters(route) + _filters(route),
        "responses": {"200": _success(dialect, route), **_refusals(dialect, route)},
    }
    if route.public:
        operation["security"] = []
    if route.body is not None:
        operation["requestBody"] = {"required": _is_upload(route), "content": _body(route)}
    return operation


def _body(route: Route) -> dict[str, Any]:
    if isinstance(route.body, tuple):
        return {kind: {"schema": {"type": "string", "format": "binary"}} for kind in route.body}
    return {"application/json": {"schema": _schema(route.body)}}


def _success(dialect: Dialect, route: Route) -> dict[str, Any]:
    if route.answer is File:
        content = {route.view: {"schema": {"type": "string", "format": "binary"}}}
        return {"description": "The file", "content": content}
    return {
        "description": route.summary,
        "content": {"application/json": {"schema": dialect.translator.schema(route, _schema)}},
    }


def _refusals(dialect: Dialect, route: Route) -> dict[str, Any]:
    statuses = {500, *route.statuses}
    if not route.public:
        statuses |= {401, 403, 423}
    if "{" in route.path:
        statuses.add(404)
    if route.filters is not None:
        statuses.add(412)
    if route.body is not None:
        statuses |= {404, 412, 413, 423}
    if route.verb != "GET":
        statuses.add(423)
    return {
        str(status): {
            "description": dialect.meanings[status],
            "content": {"application/json": {"schema": _ERROR}},
        }
        for status in sorted(statuses)
    }


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _parameter_schema(name)}
        for name in _PARAMETER.findall(route.path)
    ]


def _parameter_schema(name: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1} if name.endswith("_id") else {"type": "string"}


def _filters(route: Route) -> list[dict[str, Any]]:
    if route.filters is None:
        return []
    schemas = {name: SCHEMA[spec.read] for name, spec in route.filters.items()}
    schemas["limit"] = {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_LIMIT,
        "default": DEFAULT_LIMIT,
    }
    schemas["offset"] = {"type": "integer", "minimum": 0}
    schemas["sort"] = {
        "type": "string",
        "pattern": sort_pattern(route.filters),
        "description": "Fields to sort by, separated by commas; - before one: descending",
    }
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in schemas.items()
    ]


def _schema(kind: Any) -> dict[str, Any]:
    if _is_struct(kind):
        return {"$ref": REF.format(name=kind.__name__)}
    return msgspec.json.schema(kind)


def _is_upload(route: Route) -> bool:
    return isinstance(route.body, tuple)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
