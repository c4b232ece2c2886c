"""/roles: named sets of permissions. ``user`` (1) and ``admin`` (2) are always there."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from api.ictcore.fields import OWNER_FILTERS, Text, changes, read_body, seconds
from api.ictcore.lists import page, rows
from api.paging import Filter, integer, string
from api.routing import Ask, Changed, Created, Done, Item, Reply, Route, Rows
from engine.model import Role
from engine.store.base import Op


class RoleBody(msgspec.Struct, kw_only=True):
    """A role as clients write it: the name is needed."""

    name: Text = UNSET
    description: Text = UNSET


class RoleView(msgspec.Struct, kw_only=True):
    """A role as clients read it; ``permissions`` are names, separated by commas."""

    role_id: int
    name: str
    description: str
    permissions: str
    created_by: int | None
    date_created: int | None
    last_updated: int | None


FILTERS = {
    **OWNER_FILTERS,
    "role_id": Filter("id", Op.EQ, integer),
    "name": Filter("name", Op.CONTAINS, string),
}


def to_json(role: Role) -> RoleView:
    """The role on the wire."""
    return RoleView(
        role_id=role.id,
        name=role.name,
        description=role.description,
        permissions=",".join(sorted(role.permissions)),
        created_by=role.owner_id,
        date_created=seconds(role.created_at),
        last_updated=seconds(role.updated_at),
    )


async def create(ask: Ask) -> Reply:
    """POST /roles."""
    body = await read_body(ask, RoleBody, creating=True)
    role = await ask.engine.roles.create(ask.who, Role(**{"name": "", **changes(body)}))
    return Created("role_id", role.id)


async def index(ask: Ask) -> Reply:
    """GET /roles."""
    query, limit = page(ask, FILTERS)
    return rows(await ask.engine.roles.find(ask.who, query), limit, to_json)


async def show(ask: Ask) -> Reply:
    """GET /roles/{role_id}."""
    return Item(to_json(await ask.engine.roles.read(ask.who, ask.id("role_id"))))


async def update(ask: Ask) -> Reply:
    """PUT /roles/{role_id}."""
    body = await read_body(ask, RoleBody, creating=False)
    return Item(to_json(await ask.engine.roles.update(ask.who, ask.id("role_id"), changes(body))))


async def delete(ask: Ask) -> Reply:
    """DELETE /roles/{role_id}."""
    await ask.engine.roles.delete(ask.who, ask.id("role_id"))
    return Done()


async def add_permission(ask: Ask) -> Reply:
    """PUT /roles/{role_id}/permissions/{permission_id}."""
    role = await ask.engine.roles.add_permission(
        ask.who, ask.id("role_id"), ask.id("permission_id")
    )
    return Changed(to_json(role))


async def remove_permission(ask: Ask) -> Reply:
    """DELETE /roles/{role_id}/permissions/{permission_id}."""
    role = await ask.engine.roles.remove_permission(
        ask.who, ask.id("role_id"), ask.id("permission_id")
    )
    return Changed(to_json(role))


_ONE = "/roles/{role_id}"
_PERMISSION = "/roles/{role_id}/permissions/{permission_id}"

ROUTES = (
    Route(verb="POST", path="/roles", handler=create, summary="Create a role",
          answer=Created, view="role_id", body=RoleBody, statuses=(417,)),
    Route(verb="GET", path="/roles", handler=index, summary="List roles",
          answer=Rows, view=RoleView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read a role", answer=Item, view=RoleView),
    Route(verb="PUT", path=_ONE, handler=update, summary="Update a role",
          answer=Item, view=RoleView, body=RoleBody, statuses=(417,)),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete a role", answer=Done,
          statuses=(417,)),
    Route(verb="PUT", path=_PERMISSION, handler=add_permission,
          summary="Let a role grant a permission", answer=Changed, view=RoleView),
    Route(verb="DELETE", path=_PERMISSION, handler=remove_permission,
          summary="Take a permission out of a role", answer=Changed, view=RoleView,
          statuses=(417,)),
)  # fmt: skip
