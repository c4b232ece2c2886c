"""/users: who may log in, their passwords, roles and permissions. No hash ever comes out."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from api.ictcore import accounts, permissions, roles
from api.ictcore.fields import OWNER_FILTERS, Flag, Id, Integer, Text, changes, read_body, seconds
from api.ictcore.lists import page, rows
from api.paging import Filter, boolean, integer, string
from api.routing import Ask, Changed, Created, Done, Item, Reply, Route, Rows
from engine.access import USER
from engine.model import User
from engine.store.base import Op


class UserEdit(msgspec.Struct, kw_only=True):
    """What may change of a user. ``passwd`` is the guide's word for ``password``, both plain."""

    password: Text = UNSET
    passwd: Text = UNSET
    first_name: Text = UNSET
    last_name: Text = UNSET
    phone: Text = UNSET
    email: Text = UNSET
    address: Text = UNSET
    company: Text = UNSET
    country_id: Integer = UNSET
    language_id: Text = UNSET
    timezone_id: Integer = UNSET
    active: Flag = UNSET


class UserBody(UserEdit, kw_only=True):
    """A user as clients write it: the name is needed, and stays.

    Without ``roles`` (names or ids) and ``role_id`` it gets the role ``user``.
    """

    username: Text = UNSET
    role_id: Id = UNSET
    roles: list[int | str] | UnsetType = UNSET


class PasswordBody(msgspec.Struct, kw_only=True):
    """The new password."""

    password: Text = UNSET
    passwd: Text = UNSET


class UserView(msgspec.Struct, kw_only=True):
    """A user as clients read it."""

    user_id: int
    username: str
    first_name: str
    last_name: str
    phone: str
    email: str
    address: str
    company: str
    country_id: int | None
    language_id: str | None
    timezone_id: int | None
    active: int
    owner_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None


FILTERS = {
    **OWNER_FILTERS,
    "user_id": Filter("id", Op.EQ, integer),
    "username": Filter("username", Op.EQ, string),
    "phone": Filter("phone", Op.EQ, string),
    "email": Filter("email", Op.EQ, string),
    "first_name": Filter("first_name", Op.EQ, string),
    "last_name": Filter("last_name", Op.EQ, string),
    "active": Filter("active", Op.EQ, boolean),
}


def to_json(user: User) -> UserView:
    """The user on the wire."""
    return UserView(
        user_id=user.id,
        username=user.username,
        first_name=user.first_name,
        last_name=user.last_name,
        phone=user.phone,
        email=user.email,
        address=user.address,
        company=user.company,
        country_id=user.country_id,
        language_id=user.language_id or None,
        timezone_id=user.timezone_id,
        active=int(user.active),
        owner_id=user.owner_id,
        created_by=user.owner_id,
        date_created=seconds(user.created_at),
        last_updated=seconds(user.updated_at),
    )


async def create(ask: Ask) -> Reply:
    """POST /users."""
    body = await read_body(ask, UserBody, creating=True)
    return Created("user_id", (await store(ask, body)).id)


async def store(ask: Ask, body: UserBody) -> User:
    """Make the user that a body or a line of a CSV tells of."""
    fields = _fields(body)
    asked = fields.pop("roles", [])
    if "role_id" in fields:
        asked = [*asked, fields.pop("role_id")]
    names = await ask.engine.roles.names(asked) if asked else (USER,)
    user = User(**{"username": "", **fields})
    return await ask.engine.people.create(ask.who, user, _password(body), names)


async def index(ask: Ask) -> Reply:
    """GET /users."""
    query, limit = page(ask, FILTERS)
    return rows(await ask.engine.people.find(ask.who, query), limit, to_json)


async def show(ask: Ask) -> Reply:
    """GET /users/{user_id}."""
    return Item(to_json(await ask.engine.people.read(ask.who, ask.id("user_id"))))


async def show_named(ask: Ask) -> Reply:
    """GET /users/{username}: by username or e-mail address, as deployed servers take it."""
    return Item(to_json(await ask.engine.people.named(ask.who, ask.text("username"))))


async def update(ask: Ask) -> Reply:
    """PUT /users/{user_id}."""
    body = await read_body(ask, UserEdit, creating=False)
    user = await ask.engine.people.update(
        ask.who, ask.id("user_id"), _fields(body), _password(body)
    )
    return Item(to_json(user))


async def set_password(ask: Ask) -> Reply:
    """PUT /users/{user_id}/password."""
    body = await read_body(ask, PasswordBody, creating=False)
    user = await ask.engine.people.set_password(ask.who, ask.id("user_id"), _password(body))
    return Item(to_json(user))


async def delete(ask: Ask) -> Reply:
    """DELETE /users/{user_id}."""
    await ask.engine.people.delete(ask.who, ask.id("user_id"))
    return Done()


async def list_accounts(ask: Ask) -> Reply:
    """GET /users/{user_id}/accounts."""
    query, limit = page(ask, accounts.FILTERS)
    found = await ask.engine.people.accounts(ask.who, ask.id("user_id"), query)
    return rows(found, limit, accounts.to_json)


async def list_roles(ask: Ask) -> Reply:
    """GET /users/{user_id}/roles."""
    query, limit = page(ask, roles.FILTERS)
    found = await ask.engine.people.roles(ask.who, ask.id("user_id"), query)
    return rows(found, limit, roles.to_json)


async def add_role(ask: Ask) -> Reply:
    """PUT /users/{user_id}/roles/{role_id}."""
    return Changed(
        to_json(await ask.engine.people.add_role(ask.who, ask.id("user_id"), ask.id("role_id")))
    )


async def remove_role(ask: Ask) -> Reply:
    """DELETE /users/{user_id}/roles/{role_id}."""
    return Changed(
        to_json(await ask.engine.people.remove_role(ask.who, ask.id("user_id"), ask.id("role_id")))
    )


async def list_permissions(ask: Ask) -> Reply:
    """GET /users/{user_id}/permissions."""
    query, limit = page(ask, permissions.FILTERS)
    found = await ask.engine.people.permissions(ask.who, ask.id("user_id"), query)
    return rows(found, limit, permissions.to_json)


async def add_permission(ask: Ask) -> Reply:
    """PUT /users/{user_id}/permissions/{permission_id}."""
    user = await ask.engine.people.add_permission(
        ask.who, ask.id("user_id"), ask.id("permission_id")
    )
    return Changed(to_json(user))


async def remove_permission(ask: Ask) -> Reply:
    """DELETE /users/{user_id}/permissions/{permission_id}."""
    user = await ask.engine.people.remove_permission(
        ask.who, ask.id("user_id"), ask.id("permission_id")
    )
    return Changed(to_json(user))


def _fields(body: UserEdit) -> dict[str, Any]:
    given = changes(body)
    return {name: value for name, value in given.items() if name not in ("password", "passwd")}


def _password(body: UserEdit | PasswordBody) -> str:
    given = (body.password, body.passwd)
    return next((password for password in given if isinstance(password, str)), "")


_ONE = "/users/{user_id}"
_ROLE = "/users/{user_id}/roles/{role_id}"
_PERMISSION = "/users/{user_id}/permissions/{permission_id}"

ROUTES = (
    Route(verb="POST", path="/users", handler=create, summary="Create a user with an account",
          answer=Created, view="user_id", body=UserBody, statuses=(417,)),
    Route(verb="GET", path="/users", handler=index, summary="List users",
          answer=Rows, view=UserView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read a user", answer=Item, view=UserView),
    Route(verb="GET", path="/users/{username}", handler=show_named,
          summary="Read a user by username or e-mail address", answer=Item, view=UserView),
    Route(verb="PUT", path=_ONE, handler=update, summary="Update a user",
          answer=Item, view=UserView, body=UserEdit, statuses=(417,)),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete a user", answer=Done,
          statuses=(417, 423)),
    Route(verb="PUT", path=_ONE + "/password", handler=set_password,
          summary="Set a user's password; its tokens end", answer=Item, view=UserView,
          body=PasswordBody),
    Route(verb="GET", path=_ONE + "/accounts", handler=list_accounts,
          summary="List the accounts of a user", answer=Rows, view=accounts.AccountView,
          filters=accounts.FILTERS),
    Route(verb="GET", path=_ONE + "/roles", handler=list_roles, summary="List a user's roles",
          answer=Rows, view=roles.RoleView, filters=roles.FILTERS),
    Route(verb="PUT", path=_ROLE, handler=add_role, summary="Give a user a role",
          answer=Changed, view=UserView),
    Route(verb="DELETE", path=_ROLE, handler=remove_role, summary="Take a role from a user",
          answer=Changed, view=UserView, statuses=(417,)),
    Route(verb="GET", path=_ONE + "/permissions", handler=list_permissions,
          summary="List what a user may beside its roles", answer=Rows,
          view=permissions.PermissionView, filters=permissions.FILTERS),
    Route(verb="PUT", path=_PERMISSION, handler=add_permission,
          summary="Grant a user a permission", answer=Changed, view=UserView),
    Route(verb="DELETE", path=_PERMISSION, handler=remove_permission,
          summary="Take a permission from a user", answer=Changed, view=UserView,
          statuses=(417,)),
)  # fmt: skip
