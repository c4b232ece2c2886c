"""No row of somebody else is seen, changed or used: by any route, filter, or id in a body.

Generated from the route tables: a new route is tried without a line here. Both users hold every
permission their work can need, so that only ownership stands between them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from api.openapi import document
from api.paging import SCHEMA
from api.routing import Dialect, Route, Rows
from api.web import DIALECTS
from tests.api.belongings import EXTRA, GRANTED, Belongings, belongings
from tests.api.node import Node, running_node
from tests.api.permissions import PERMISSIONS, grants

_PARAMETER = re.compile(r"\{(\w+)\}")
DOCUMENT = document(DIALECTS.values())
OWNED = frozenset(
    {
        "account_id", "campaign_id", "contact_id", "did_id", "do_not_contact_id",
        "document_id", "extension_id",
        "group_id", "parent_id", "program_id", "provider_id", "recording_id", "spool_id",
        "template_id", "text_id", "transmission_id", "user_id", "username",
    }
)  # fmt: skip

NUMBERS = OWNED - {"username"}


class Scene(msgspec.Struct, frozen=True):
    """A node with two users that have one row of everything each."""

    node: Node
    owner: Belongings
    stranger: Belongings


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_node(tmp_path) as node:
        stranger = await belongings(node, "stranger")
        yield Scene(node, await belongings(node, "proprietor"), stranger)


def routes() -> Iterator[tuple[Dialect, Route]]:
    for dialect in DIALECTS.values():
        for route in dialect.routes:
            yield dialect, route


def parameters(route: Route) -> list[str]:
    return _PARAMETER.findall(route.path)


def owned(route: Route) -> list[str]:
    """The path's parameters that name a row of somebody."""
    return [name for name in parameters(route) if name in OWNED]


def mixtures(route: Route, scene: Scene) -> Iterator[dict[str, int | str]]:
    """Every way to put the owner's ids into the path, alone and beside the stranger's own."""
    names = owned(route)
    for chosen in itertools.product((scene.owner, scene.stranger), repeat=len(names)):
        if scene.owner in chosen:
            yield {name: whose.ids[name] for name, whose in zip(names, chosen, strict=True)}


def path_of(dialect: Dialect, route: Route, ids: dict[str, int | str]) -> str:
    words = {"name": "word", "type": "faxtoemail", **ids}
    return dialect.prefix + _PARAMETER.sub(lambda found: str(words.get(found[1], 1)), route.path)


async def request(
    client: httpx.AsyncClient,
    dialect: Dialect,
    route: Route,
    ids: dict[str, int | str],
    **more: Any,
) -> httpx.Response:
    return await client.request(route.verb, path_of(dialect, route, ids), **more)


def content_of(dialect: Dialect, route: Route, whose: Belongings) -> dict[str, Any]:
    """A body that would change something if it were let in."""
    if isinstance(route.body, tuple):
        return {"content": b"100\n", "headers": {"Content-Type": route.body[0]}}
    return {"json": {"value": "stolen", **own_body(dialect, route, whose)}}


@pytest.mark.parametrize("more", [frozenset(), frozenset({"user", "role", "permission"})])
async def test_no_route_reaches_the_row_of_somebody_else(
    scene: Scene, more: frozenset[str]
) -> None:
    """Neither for who works nor for who keeps users: only ``_admin`` opens other people's rows."""
    permissions = tuple(sorted(EXTRA | more))
    stranger = msgspec.structs.replace(scene.stranger.user, permissions=permissions)
    await scene.node.engine.store.update(stranger)
    before = await scene.owner.rows(scene.node)
    leaks = []
    for dialect, route in routes():
        for ids in mixtures(route, scene):
            sent = content_of(dialect, route, scene.stranger)
            response = await request(scene.stranger.client, dialect, route, ids, **sent)
            if response.status_code not in (403, 404) or scene.owner.marker in response.text:
                leaks.append((dialect.name, route.verb, route.path, ids, response.status_code))
    assert leaks == [], "\n".join(map(str, leaks))
    assert await scene.owner.rows(scene.node) == before


async def test_the_owner_reaches_all_of_it(scene: Scene) -> None:
    """What the test above asks for is there: the very same requests find the rows."""
    missing = []
    for verbs in (("GET",), ("PUT", "POST")):
        for dialect, route in routes():
            if route.verb not in verbs or not owned(route):
                continue
            if not grants(GRANTED, PERMISSIONS[route.verb, route.path]):
                continue
            sent = content_of(dialect, route, scene.owner)
            ids = scene.owner.ids
            response = await request(scene.owner.client, dialect, route, ids, **sent)
            if response.status_code in (401, 403, 404):
                missing.append((dialect.name, route.verb, route.path, response.text))
    assert missing == [], "\n".join(map(str, missing))


async def test_no_list_shows_a_row_of_somebody_else(scene: Scene) -> None:
    leaks = []
    for dialect, route in routes():
        if route.answer is not Rows or owned(route):
            continue
        for query in queries(route, scene.owner):
            response = await request(scene.stranger.client, dialect, route, {}, params=query)
            if response.status_code == 403:
                continue
            assert response.status_code == 200, (route.path, query, response.text)
            if scene.owner.marker in response.text or not_own(response, scene):
                leaks.append((dialect.name, route.path, query, response.text[:200]))
            counted = int(response.headers.get("X-Total-Count", len(response.json())))
            assert counted == len(response.json()), (route.path, query)
    assert leaks == [], "\n".join(map(str, leaks))


def queries(route: Route, owner: Belongings) -> Iterator[dict[str, str | int]]:
    """Every filter of a list, as somebody would use it who knows what the owner has."""
    yield {}
    known: dict[str, str | int] = {
        **owner.ids, "created_by": owner.user.id, "phone": owner.user.id, "email": owner.marker,
        "contact_phone": owner.user.id, "account_phone": owner.user.id, "before": 2**33,
        "after": 0, "service_flag": 1, "active": 1, "status": "failed", "type": "sip",
        "node_id": 1,
    }  # fmt: skip
    for name, spec in (route.filters or {}).items():
        schema = SCHEMA[spec.read]
        number = schema.get("type") == "integer"
        (likely, *_) = schema.get("enum", (owner.user.id if number else owner.marker,))
        yield {name: known.get(name, likely)}
    if route.filters is not None:
        yield {"user_id": owner.user.id, "limit": 1}
        yield {"created_by": owner.user.id, "sort": "-id"}


def not_own(response: httpx.Response, scene: Scene) -> bool:
    return any(
        str(row["user_id"]) != str(scene.stranger.user.id)
        for row in response.json()
        if isinstance(row, dict) and row.get("user_id") is not None
    )


async def test_lists_below_an_own_row_show_no_row_of_somebody_else(scene: Scene) -> None:
    leaks = []
    for dialect, route in routes():
        if route.answer is not Rows or not owned(route):
            continue
        for query in queries(route, scene.owner):
            ids = scene.stranger.ids
            response = await request(scene.stranger.client, dialect, route, ids, params=query)
            if response.status_code != 403 and scene.owner.marker in response.text:
                leaks.append((dialect.name, route.path, query, response.text[:200]))
    assert leaks == [], "\n".join(map(str, leaks))


async def test_no_body_can_name_a_row_of_somebody_else(scene: Scene) -> None:
    """A body of one's own ids is taken; with one of them somebody else's it is not."""
    before = await scene.owner.rows(scene.node)
    leaks = []
    tried = set()
    for dialect, route in routes():
        body = own_body(dialect, route, scene.stranger)
        for name in sorted(set(body) & NUMBERS - set(parameters(route))):
            taken = await request(
                scene.stranger.client, dialect, route, scene.stranger.ids, json=body
            )
            theirs = {**body, name: scene.owner.ids[name]}
            refused = await request(
                scene.stranger.client, dialect, route, scene.stranger.ids, json=theirs
            )
            if taken.status_code == 403:
                continue
            tried.add(name)
            used = await uses(scene, name, theirs[name])
            if taken.status_code != 200 or used or scene.owner.marker in refused.text:
                leaks.append((dialect.name, route.verb, route.path, name, taken.text, refused.text))
    assert leaks == [], "\n".join(map(str, leaks))
    assert {"program_id", "group_id", "contact_id", "account_id", "recording_id"} <= tried
    assert await scene.owner.rows(scene.node) == before


async def uses(scene: Scene, name: str, number: int | str) -> bool:
    """Whether a row of the stranger's refers to this row."""
    found = await scene.stranger.rows(scene.node)
    rows = [row for kind, listed in found.items() if kind != "members" for row in listed]
    named = (getattr(row, name, getattr(row, "data", None)) for row in rows)
    return any(one == number or (isinstance(one, dict) and one.get(name) == number)
               for one in named)  # fmt: skip


def own_body(dialect: Dialect, route: Route, whose: Belongings) -> dict[str, Any]:
    """The documented example of the route's body, with this user's ids in it."""
    operation = DOCUMENT["paths"][dialect.prefix + route.path][route.verb.lower()]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None or route.public:
        return {}
    return {
        name: whose.ids[name] if name in NUMBERS else value
        for name, value in content["example"].items()
    }


async def test_statistics_count_no_row_of_somebody_else(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        stranger = await belongings(node, "stranger")
        asked = ("/statistics", "/api/statistics")
        before = [(await stranger.client.get(path)).json() for path in asked]
        owner = await belongings(node, "proprietor")
        for who in ("", f"?user_id={owner.user.id}", f"?created_by={owner.user.id}"):
            for path, counts in zip(asked, before, strict=True):
                now = (await stranger.client.get(path + who)).json()
                assert all(int(now[key]) <= int(counts[key]) for key in counts), path + who


async def test_an_administrator_reaches_everybodys(scene: Scene) -> None:
    missing = []
    for dialect, route in routes():
        if route.verb == "GET" and owned(route):
            ids = scene.owner.ids
            response = await request(scene.node.client, dialect, route, ids)
            if response.status_code in (401, 403, 404):
                missing.append((dialect.name, route.path, response.text))
    assert missing == [], "\n".join(map(str, missing))
