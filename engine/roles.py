"""Roles and permissions as rows: what there is, and what each role grants.

A change holds for the next request: ``Access`` reads the roles again before the change is answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from engine.access import PERMISSIONS, ROLES, Access, Principal, granted
from engine.catalog import Catalog
from engine.errors import ConflictError, InvalidError, NotFoundError
from engine.model import Entity, Permission, Role, User
from engine.rank import require_administrator, require_held, require_rank
from engine.store.base import Query
from engine.validation import check

E = TypeVar("E", bound=Entity)


class Roles:
    """The roles of one node. Changes of who may do what happen one at a time."""

    def __init__(self, catalog: Catalog, access: Access) -> None:
        self._store = catalog.store
        self._clock = catalog.clock
        self._access = access
        self._changes = catalog.edits[User]

    # --- roles ---------------------------------------------------------------------------------
    async def find(self, who: Principal, query: Query) -> list[Role]:
        """The roles that match."""
        who.require("role_list")
        return await self._store.find(Role, query)

    async def read(self, who: Principal, role_id: int) -> Role:
        """The role."""
        who.require("role_read")
        return await self._row(Role, role_id)

    async def names(self, asked: Iterable[int | str]) -> tuple[str, ...]:
        """The names of roles asked for by name or id; ``InvalidError`` where there is none."""
        rows = await self._store.find(Role, Query())
        known = {str(role.id): role.name for role in rows} | {role.name: role.name for role in rows}
        for each in asked:
            if str(each) not in known:
                raise InvalidError(f"roles: {each}: no such role", field="roles")
        return tuple(dict.fromkeys(known[str(each)] for each in asked))

    async def create(self, who: Principal, role: Role) -> Role:
        """Store a new role, which grants nothing yet; ``ConflictError`` where its name is taken."""
        who.require("role_create")
        check(role)
        async with self._changes:
            return await self._insert(who, role)

    async def update(self, who: Principal, role_id: int, changes: dict[str, Any]) -> Role:
        """Change name and description; the two built-in roles keep their names."""
        who.require("role_update")
        async with self._changes:
            before = await self._row(Role, role_id)
            after = msgspec.structs.replace(before, **changes, updated_at=self._clock())
            check(after)
            if after.name != before.name and before.name in ROLES:
                raise ConflictError(f"The role {before.name} keeps its name")
            return await self._write(who, before, after)

    async def delete(self, who: Principal, role_id: int) -> None:
        """Delete a role; ``ConflictError`` while somebody has it, and for the built-in ones."""
        who.require("role_delete")
        async with self._changes:
            role = await self._row(Role, role_id)
            if role.name in ROLES:
                raise ConflictError(f"The role {role.name} cannot be deleted")
            holders = await self._holders(role)
            if holders:
                raise ConflictError(f"{len(holders)} users have the role, take it from them first")
            await self._store.delete(Role, role.id)
            await self._access.load()

    async def add_permission(self, who: Principal, role_id: int, permission_id: int) -> Role:
        """Let a role grant a permission more; nothing changes where it does."""
        who.require("role_update", "permission_create")
        async with self._changes:
            role = await self._row(Role, role_id)
            name = (await self._row(Permission, permission_id)).name
            if name in role.permissions:
                return role
            return await self._regrant(who, role, (*role.permissions, name))

    async def remove_permission(self, who: Principal, role_id: int, permission_id: int) -> Role:
        """Let a role grant a permission less; ``NotFoundError`` where it does not."""
        who.require("role_update", "permission_delete")
        async with self._changes:
            role = await self._row(Role, role_id)
            name = (await self._row(Permission, permission_id)).name
            if name not in role.permissions:
                raise NotFoundError("Permission not found")
            left = tuple(each for each in role.permissions if each != name)
            return await self._regrant(who, role, left)

    # --- permissions ---------------------------------------------------------------------------
    async def permissions(self, who: Principal, query: Query) -> list[Permission]:
        """The permissions that match."""
        who.require("permission_list")
        return await self._store.find(Permission, query)

    async def permission(self, who: Principal, permission_id: int) -> Permission:
        """The permission."""
        who.require("permission_read")
        return await self._row(Permission, permission_id)

    async def create_permission(self, who: Principal, permission: Permission) -> Permission:
        """Store a new name, for programs in front of this node; the node never asks for it."""
        who.require("permission_create")
        check(permission)
        return await self._insert(who, permission)

    async def delete_permission(self, who: Principal, permission_id: int) -> None:
        """Delete a name; ``ConflictError`` while it is granted, and for those the node asks for."""
        who.require("permission_delete")
        async with self._changes:
            permission = await self._row(Permission, permission_id)
            if permission.name in PERMISSIONS:
                raise ConflictError(f"The permission {permission.name} cannot be deleted")
            roles = await self._store.find(Role, Query())
            users = await self._store.find(User, Query())
            held = [*(role.permissions for role in roles), *(user.permissions for user in users)]
            if any(permission.name in names for names in held):
                raise ConflictError("The permission is granted, take it back first")
            await self._store.delete(Permission, permission.id)

    # --- rules ---------------------------------------------------------------------------------
    async def _regrant(self, who: Principal, before: Role, names: tuple[str, ...]) -> Role:
        after = msgspec.structs.replace(before, permissions=names, updated_at=self._clock())
        return await self._write(who, before, after)

    async def _write(self, who: Principal, before: Role, after: Role) -> Role:
        """Store a role and the users it is renamed for; what it grants holds at once."""
        others = [r for r in await self._store.find(Role, Query()) if r.id != before.id]
        old, new = granted([*others, before]), granted([*others, after])
        users = await self._store.find(User, Query())
        changed = [_renamed(user, before.name, after.name) for user in users]
        if after.permissions != before.permissions:
            require_held(who, set(after.permissions) ^ set(before.permissions))
            for was, is_ in zip(users, changed, strict=True):
                if before.name in was.roles:
                    require_rank(who, was, old)
                    require_rank(who, is_, new)
            require_administrator(users, old, changed, new)
        edited = [is_ for was, is_ in zip(users, changed, strict=True) if is_ is not was]
        rows: list[Entity] = [after, *edited]
        [stored, *_] = await self._store.save_all(rows)
        await self._access.load()
        assert isinstance(stored, Role)  # noqa: S101 - what was given
        return stored

    async def _holders(self, role: Role) -> list[User]:
        return [u for u in await self._store.find(User, Query()) if role.name in u.roles]

    async def _insert(self, who: Principal, row: E) -> E:
        at = self._clock()
        row = msgspec.structs.replace(row, owner_id=who.user_id, created_at=at, updated_at=at)
        stored = await self._store.insert(row)
        await self._access.load()
        return stored

    async def _row(self, kind: type[E], row_id: int) -> E:
        row = await self._store.get(kind, row_id) if 0 < row_id < 2**63 else None
        if row is None:
            raise NotFoundError(f"{kind.__name__} not found")
        return row


def _renamed(user: User, old: str, new: str) -> User:
    if old == new or old not in user.roles:
        return user
    roles = tuple(new if name == old else name for name in user.roles)
    return msgspec.structs.replace(user, roles=roles)
