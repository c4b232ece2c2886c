"""Every endpoint of the guide is there, on both mounts, and has a test that exercises it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from api.web import DIALECTS
from tests.api.endpoints import chosen, written
from tests.api.guide import ENDPOINTS
from tests.api.node import Node
from tests.api.recorder import RECORDER, TABLE, endpoint_of, table

ROOT = Path(__file__).parents[2]


def test_the_guide_is_listed_whole() -> None:
    assert len(ENDPOINTS) == len(set(ENDPOINTS)) == 113


@pytest.mark.parametrize("name", DIALECTS)
def test_every_endpoint_of_the_guide_is_served(name: str) -> None:
    routes = {(route.verb, route.path) for route in DIALECTS[name].routes}
    assert set(ENDPOINTS) - routes == set()


def test_every_endpoint_of_the_guide_has_a_test() -> None:
    assert set(table()) == set(ENDPOINTS)


def test_every_test_of_the_table_exists() -> None:
    for test in table().values():
        file, _, name = test.partition("::")
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / file).read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name.partition("[")[0] in functions, test


def test_the_table_is_as_it_would_be_written() -> None:
    assert TABLE.read_text() == written(table())


def test_requests_are_told_by_verb_and_path() -> None:
    assert endpoint_of("GET", "/contacts/12") == ("GET", "/contacts/{contact_id}")
    assert endpoint_of("GET", "/groups/sample/csv") == ("GET", "/groups/sample/csv")
    assert endpoint_of("GET", "/groups/3/csv") == ("GET", "/groups/{group_id}/csv")
    assert endpoint_of("GET", "/users/csv") == ("GET", "/users/csv")
    assert endpoint_of("PATCH", "/contacts/12") is None
    assert endpoint_of("GET", "/api/contacts/12") is None


async def test_only_what_was_answered_counts(node: Node) -> None:
    await node.client.get("/contacts/1")
    await node.client.get("/groups")
    assert ("GET", "/groups") in RECORDER.seen
    assert ("GET", "/contacts/{contact_id}") not in RECORDER.seen


def test_an_endpoint_keeps_its_test_while_that_asks_it() -> None:
    one, other = ENDPOINTS[:2]
    asked = {"broad": {one, other}, "narrow": {one}, "test_ownership.py::all": {one, other}}
    assert chosen(asked, {}) == {one: "narrow", other: "broad"}
    assert chosen(asked, {one: "broad"}) == {one: "broad", other: "broad"}
    assert chosen(asked, {one: "gone"}) == {one: "narrow", other: "broad"}
    at_home = "tests/api/test_programs.py::all"
    assert chosen({**asked, at_home: {one, other}}, {other: "broad"})[other] == at_home
