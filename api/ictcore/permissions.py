"""/permissions: everything there is to be allowed, by name."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from api.ictcore.fields import Text, changes, read_body
from api.ictcore.lists import page, rows
from api.paging import Filter, integer, string
from api.routing import Ask, Created, Done, Item, Reply, Route, Rows
from engine.model import Permission
from engine.store.base import Op


class PermissionBody(msgspec.Struct, kw_only=True):
    """A permission as clients write it: the name is needed (small letters, digits, ``_``)."""

    name: Text = UNSET
    description: Text = UNSET


class PermissionView(msgspec.Struct, kw_only=True):
    """A permission as clients read it."""

    permission_id: int
    name: str
    description: str


FILTERS = {
    "permission_id": Filter("id", Op.EQ, integer),
    "name": Filter("name", Op.CONTAINS, string),
}


def to_json(permission: Permission) -> PermissionView:
    """The permission on the wire."""
    return PermissionView(
        permission_id=permission.id, name=permission.name, description=permission.description
    )


async def create(ask: Ask) -> Reply:
    """POST /permissions."""
    body = await read_body(ask, PermissionBody, creating=True)
    permission = Permission(**{"name": "", **changes(body)})
    stored = await ask.engine.roles.create_permission(ask.who, permission)
    return Created("permission_id", stored.id)


async def index(ask: Ask) -> Reply:
    """GET /permissions."""
    query, limit = page(ask, FILTERS)
    return rows(await ask.engine.roles.permissions(ask.who, query), limit, to_json)


async def show(ask: Ask) -> Reply:
    """GET /permissions/{permission_id}."""
    return Item(to_json(await ask.engine.roles.permission(ask.who, ask.id("permission_id"))))


async def delete(ask: Ask) -> Reply:
    """DELETE /permissions/{permission_id}."""
    await ask.engine.roles.delete_permission(ask.who, ask.id("permission_id"))
    return Done()


_ONE = "/permissions/{permission_id}"

ROUTES = (
    Route(verb="POST", path="/permissions", handler=create, summary="Create a permission",
          answer=Created, view="permission_id", body=PermissionBody, statuses=(417,)),
    Route(verb="GET", path="/permissions", handler=index, summary="List permissions",
          answer=Rows, view=PermissionView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read a permission",
          answer=Item, view=PermissionView),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete a permission", answer=Done,
          statuses=(417,)),
)  # fmt: skip
