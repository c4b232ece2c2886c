"""The OpenAPI document, and the running server fuzzed from it."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
import schemathesis
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.web import DIALECTS
from tests.api.node import Node, made, made_program

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


async def test_every_route_is_described(node: Node) -> None:
    described = (await node.client.get("/openapi.json")).json()
    assert described["openapi"].startswith("3.1")
    routes = {
        (route.verb.lower(), dialect.prefix + route.path)
        for dialect in DIALECTS.values()
        for route in dialect.routes
    }
    operations = {(verb, path) for path, verbs in described["paths"].items() for verb in verbs} - {
        ("get", "/healthz")
    }
    assert operations == routes
    identifiers = [operation["operationId"] for operation in operations_of(described)]
    assert len(set(identifiers)) == len(identifiers)


async def test_every_reference_leads_somewhere(node: Node) -> None:
    text = (await node.client.get("/openapi.json")).text
    schemas = (await node.client.get("/openapi.json")).json()["components"]["schemas"]
    assert {name.rsplit("/", 1)[1] for name in re.findall(r'"\$ref":"([^"]+)"', text)} <= set(
        schemas
    )
    assert "password" not in schemas["ProviderView"]["properties"]


async def test_health_is_for_everybody(node: Node) -> None:
    nobody = await node.speaking()
    healthy = await nobody.get("/healthz")
    assert healthy.status_code == 200
    assert healthy.json()["ready"] is True
    await node.engine.drain()
    draining = await nobody.get("/healthz")
    assert draining.status_code == 503
    assert draining.json()["draining"] is True


@pytest.mark.slow
async def test_no_request_of_the_document_breaks_the_server(node: Node) -> None:
    """No 5xx and no answer the document does not know, whatever is sent."""
    group = await made(node.client, "/groups", name="people")
    await node.client.post(f"/groups/{group}/csv", content=b"1\n2\n")
    program = await made_program(node.client)
    await made(node.client, "/campaigns", program_id=program, group_id=group)
    await made(node.client, "/transmissions", program_id=program, phone="1")
    token = node.client.headers["Authorization"]
    document = (await node.client.get("/openapi.json")).json()
    url = f"http://127.0.0.1:{node.port}"
    await trio.to_thread.run_sync(partial(fuzz, document, url, token))
    assert (await node.client.get("/healthz")).status_code == 200


def fuzz(document: dict[str, Any], url: str, token: str) -> None:
    """Every operation with a bounded number of made-up requests, valid and not."""
    for operation in operations_of(document):
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                parameter["schema"]["maximum"] = 3  # rows that may exist
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        found = result.ok()
        fuzz_one(found.as_strategy(generation_mode=GenerationMode.POSITIVE), token)
        definition = document["paths"][found.path][found.method]
        if definition.get("parameters") or "requestBody" in definition:
            fuzz_one(found.as_strategy(generation_mode=GenerationMode.NEGATIVE), token)


def operations_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for verbs in document["paths"].values() for operation in verbs.values()]


def fuzz_one(requests: SearchStrategy[Case[Any]], token: str) -> None:
    @settings(
        max_examples=8,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests)
    def check(case: Case[Any]) -> None:
        case.call_and_validate(headers={"Authorization": token}, checks=CHECKS)

    check()
