"""Every route of every mount, asked by every kind of user: who gets 401, who 403, who neither."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import msgspec

from api.routing import Dialect, Route
from api.web import DIALECTS
from engine.model import User
from tests.api.node import Node
from tests.api.permissions import PERMISSIONS, ROLES, Needed, grants

_PARAMETER = re.compile(r"\{(\w+)\}")
# No row has it: whoever may ask is told 404, and nothing is done.
NOBODYS = 987_654_321


class Kind(msgspec.Struct, frozen=True):
    """A kind of user, and what it may do."""

    name: str
    roles: tuple[str, ...] = ()
    permissions: frozenset[str] = frozenset()

    @property
    def granted(self) -> frozenset[str]:
        return self.permissions.union(*(ROLES[role] for role in self.roles))


ROLE_KINDS = (
    Kind("without a role"),
    Kind("role user", ("user",)),
    Kind("role admin", ("admin",)),
    Kind("both roles", ("user", "admin")),
)


def routes() -> Iterator[tuple[Dialect, Route]]:
    for dialect in DIALECTS.values():
        for route in dialect.routes:
            yield dialect, route


def needed_by(route: Route) -> Needed:
    return PERMISSIONS[route.verb, route.path]


def exact_kinds(needed: Needed) -> Iterator[Kind]:
    """A user with just what is needed, and for each of it one who lacks only that."""
    if needed:
        needed = frozenset(choice.partition("|")[0] for choice in needed)
        yield Kind("exactly " + ", ".join(sorted(needed)), permissions=needed)
        for lacking in sorted(needed):
            rest = needed - {lacking}
            yield Kind(f"all but {lacking} of " + ", ".join(sorted(needed)), permissions=rest)


def kinds_for(route: Route) -> Iterator[Kind]:
    yield from ROLE_KINDS
    yield from exact_kinds(needed_by(route))


class People:
    """One user of every kind, made when first asked for."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._users: dict[Kind, User] = {}

    async def authorization(self, kind: Kind) -> str:
        # A token for each request: giving one back (/authenticate/cancel) takes it from nobody.
        if kind not in self._users:
            user = User(
                username=f"kind{len(self._users)}",
                roles=kind.roles,
                permissions=tuple(sorted(kind.permissions)),
            )
            self._users[kind] = await self._node.engine.store.insert(user)
        return f"Bearer {self._node.tokens.issue(self._users[kind])}"


async def ask(
    nobody: httpx.AsyncClient, dialect: Dialect, route: Route, authorization: str | None
) -> int:
    path = dialect.prefix + _PARAMETER.sub(_value, route.path)
    headers = {} if authorization is None else {"Authorization": authorization}
    response = await nobody.request(route.verb, path, headers=headers, json={})
    return response.status_code


def _value(parameter: re.Match[str]) -> str:
    return str(NOBODYS) if parameter[1].endswith("_id") else "word"


def test_every_route_says_what_it_needs() -> None:
    known = {(route.verb, route.path) for _, route in routes()}
    assert known - set(PERMISSIONS) == set(), "routes without a line in tests/api/permissions.py"
    assert set(PERMISSIONS) - known == set(), "lines without a route"
    assert all(route.public is (needed_by(route) is None) for _, route in routes())


async def test_who_is_not_logged_in_is_told_so(node: Node) -> None:
    nobody = await node.speaking()
    wrong = []
    for dialect, route in routes():
        if route.public:
            continue
        for authorization in (None, "Bearer no.such.token"):
            status = await ask(nobody, dialect, route, authorization)
            if status != 401:
                wrong.append((dialect.name, route.verb, route.path, authorization, status))
    assert wrong == [], "\n".join(map(str, wrong))


async def test_every_kind_of_user_at_every_route(node: Node) -> None:
    nobody = await node.speaking()
    people = People(node)
    wrong = []
    for dialect, route in routes():
        if route.public:
            continue
        for kind in kinds_for(route):
            status = await ask(nobody, dialect, route, await people.authorization(kind))
            refused = status == 403
            if status in (401, 500) or refused is grants(kind.granted, needed_by(route)):
                wrong.append((dialect.name, route.verb, route.path, kind.name, status))
    assert wrong == [], "\n".join(map(str, wrong))


async def test_no_permission_is_needed_for_public_routes(node: Node) -> None:
    nobody = await node.speaking()
    for dialect, route in routes():
        if route.public:
            status = await ask(nobody, dialect, route, None)
            # 401 of /authenticate: no name came.
            assert status in (200, 401), route.path


def test_the_roles_are_the_documented_ones() -> None:
    """What both roles together may do: everything any route asks for."""
    both = ROLES["user"] | ROLES["admin"]
    assert all(grants(both, needed) for needed in PERMISSIONS.values())
