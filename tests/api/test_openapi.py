"""The OpenAPI document: valid, complete, with examples that are what they are examples of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from api.examples import FIELDS
from api.openapi import document
from api.routing import File, Rows
from api.web import DIALECTS
from tests.api.node import Node

DOCUMENT = document(DIALECTS.values())
COMPONENTS = DOCUMENT["components"]
ROUTES = [
    pytest.param(dialect, route, id=f"{route.verb} {dialect.prefix}{route.path}")
    for dialect in DIALECTS.values()
    for route in dialect.routes
]
OWN = {("get", "/healthz")}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, verbs in DOCUMENT["paths"].items():
        for verb, operation in verbs.items():
            yield verb, path, operation


def contents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every media type of every body and answer, with where it is."""
    for verb, path, operation in operations():
        bodies = {"body": operation["requestBody"]} if "requestBody" in operation else {}
        for place, described in {**bodies, **operation["responses"]}.items():
            for media_type, content in described["content"].items():
                yield f"{verb} {path} {place} {media_type}", content


def validator(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft202012Validator({**schema, "components": COMPONENTS})


async def test_it_is_served_as_made(node: Node) -> None:
    nobody = await node.speaking()
    response = await nobody.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == DOCUMENT


def test_it_is_valid_openapi_31() -> None:
    assert [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(DOCUMENT)] == []
    assert DOCUMENT["openapi"] == "3.1.0"


def test_every_route_is_described() -> None:
    routes = {
        (route.verb.lower(), dialect.prefix + route.path)
        for dialect in DIALECTS.values()
        for route in dialect.routes
    }
    assert {(verb, path) for verb, path, _ in operations()} == routes | OWN
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)


def test_every_reference_leads_somewhere() -> None:
    for reference in _references(DOCUMENT):
        _, _, kind, name = reference.split("/")
        assert name in COMPONENTS[kind]


def test_every_schema_is_one_that_something_fits() -> None:
    for name, schema in COMPONENTS["schemas"].items():
        jsonschema_rs.meta.validate(schema)
        for field, part in schema.get("properties", {}).items():
            kinds, enum = part.get("type"), part.get("enum")
            if enum is not None and kinds is not None:
                typed = jsonschema_rs.Draft202012Validator({"type": kinds})
                assert all(typed.is_valid(value) for value in enum), f"{name}.{field}"


def test_every_body_and_answer_has_an_example_that_fits_it() -> None:
    for where, content in contents():
        if content["schema"].get("format") == "binary" and "csv" not in where:
            continue
        assert "example" in content, where
        errors = list(validator(content["schema"]).iter_errors(content["example"]))
        assert errors == [], f"{where}: {errors[0]}"


def test_every_field_says_what_it_is() -> None:
    silent = {
        f"{name}.{field}"
        for name, schema in COMPONENTS["schemas"].items()
        for field, part in schema.get("properties", {}).items()
        if name != "Error" and not part.get("description") and "$ref" not in part
    }
    assert silent == set()


def test_every_parameter_says_what_it_is() -> None:
    silent = {
        f"{verb} {path} {parameter['name']}"
        for verb, path, operation in operations()
        for parameter in operation.get("parameters", [])
        if not parameter.get("description")
    }
    assert silent == set()


def test_no_word_is_explained_that_nobody_uses() -> None:
    used = {
        field for schema in COMPONENTS["schemas"].values() for field in schema.get("properties", {})
    }
    used |= {
        parameter["name"]
        for _, _, operation in operations()
        for parameter in operation.get("parameters", [])
    }
    used |= {name for where, content in contents() for name in _keys(content.get("example"))}
    assert set(FIELDS) - used == set()


def test_every_tag_is_explained() -> None:
    explained = {tag["name"]: tag["description"] for tag in DOCUMENT["tags"]}
    assert all(explained.values())
    assert {tag for _, _, operation in operations() for tag in operation["tags"]} == set(explained)


@pytest.mark.parametrize(("dialect", "route"), ROUTES)
def test_every_route_has_its_refusals_and_headers(dialect: Any, route: Any) -> None:
    operation = DOCUMENT["paths"][dialect.prefix + route.path][route.verb.lower()]
    answers = operation["responses"]
    assert {"200", "423", "500", *map(str, route.statuses)} <= set(answers)
    assert ("security" in operation) is route.public
    if not route.public:
        assert {"401", "403"} <= set(answers)
    if "{" in route.path:
        assert "404" in answers
    if route.body is not None:
        assert {"412", "413"} <= set(answers)
    for answer in answers.values():
        assert "X-Request-Id" in answer["headers"]
    if route.answer is Rows and route.filters is not None:
        assert {"X-Total-Count", "Link"} <= set(answers["200"]["headers"])
        names = {parameter["name"] for parameter in operation["parameters"]}
        assert {"limit", "offset", "sort"} <= names
    media_types = {route.view} if route.answer is File else set(dialect.media_types)
    assert set(answers["200"]["content"]) == media_types


def test_secrets_are_only_written() -> None:
    secrets = {"password", "passwd", "passwd_pin", "password_hash"}
    for name, schema in COMPONENTS["schemas"].items():
        # What a phone needs to register is for who may set it anyway.
        if name.endswith("View") and not name.endswith("ProvisioningView"):
            assert secrets.isdisjoint(schema["properties"]), name


def test_no_machine_is_named() -> None:
    assert re.findall(r"https?://[^\"\\ ]+", str(DOCUMENT)) == []


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
