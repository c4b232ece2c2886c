"""Users: who there is, their passwords, roles and permissions; by permission, ownership and rank.

A user is visible to itself, to whoever made it and to holders of ``user_admin``; to all others it
is a ``NotFoundError``. What every change has to keep is in ``engine.rank``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from engine.access import USER, Access, Principal
from engine.catalog import Catalog, guarded
from engine.enrolment import default_account, enrol
from engine.errors import ConflictError, InvalidError, NotFoundError, NotReadyError
from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Entity,
    Permission,
    Role,
    Task,
    TaskStatus,
    User,
)
from engine.passwords import Passwords
from engine.rank import administers, require_administrator, require_rank
from engine.store.base import Condition, Op, Query
from engine.validation import check

E = TypeVar("E", bound=Entity)

# What an edit of a user leaves alone: the rest of it has verbs of its own.
_EDITABLE = frozenset(
    {
        "first_name", "last_name", "phone", "email", "address", "company", "country_id",
        "language_id", "timezone_id", "active",
    }
)  # fmt: skip


class People:
    """The users of one node. Changes of who may do what happen one at a time."""

    def __init__(self, catalog: Catalog, access: Access, passwords: Passwords) -> None:
        self._catalog = catalog
        self.store = catalog.store
        self.clock = catalog.clock
        self.access = access
        self.passwords = passwords
        self._changes = catalog.edits[User]

    # --- reading -------------------------------------------------------------------------------
    async def read(self, who: Principal, user_id: int) -> User:
        """The user."""
        who.require("user_read")
        return await self._visible(who, user_id)

    async def named(self, who: Principal, name: str) -> User:
        """The user of this username or e-mail address."""
        who.require("user_read")
        for field in ("username", "email"):
            for user in await self.store.find(User, _where(field, name, limit=1)):
                if _sees(who, user):
                    return user
        raise NotFoundError("User not found")

    async def find(self, who: Principal, query: Query) -> list[User]:
        """The users that match: everybody's, one's own, or oneself alone without ``user_list``."""
        if not who.may("user_list"):
            who.require("user_read")
        if not (who.may("user_list") and who.may("user_admin")):
            ids = [who.user_id]
            if who.may("user_list"):
                made = await self.store.find(User, _where("owner_id", who.user_id))
                ids += [user.id for user in made]
            seen = Condition("id", Op.IN, tuple(sorted(set(ids))))
            query = msgspec.structs.replace(query, conditions=(*query.conditions, seen))
        return await self.store.find(User, query)

    async def accounts(self, who: Principal, user_id: int, query: Query) -> list[Account]:
        """The accounts of a user that the caller may see."""
        who.require("user_read", "account_list")
        user = await self._visible(who, user_id)
        own = Condition("owner_id", Op.EQ, user.id)
        query = msgspec.structs.replace(query, conditions=(*query.conditions, own))
        return await self._catalog.find(who, Account, query)

    async def roles(self, who: Principal, user_id: int, query: Query) -> list[Role]:
        """The roles of a user; one's own need no more than ``user_read``."""
        self._require_of(who, user_id, "role_list")
        names = (await self._visible(who, user_id)).roles
        return await self.store.find(Role, _named(query, names))

    async def permissions(self, who: Principal, user_id: int, query: Query) -> list[Permission]:
        """What a user has beside its roles; one's own need no more than ``user_read``."""
        self._require_of(who, user_id, "permission_list")
        names = (await self._visible(who, user_id)).permissions
        return await self.store.find(Permission, _named(query, names))

    # --- writing -------------------------------------------------------------------------------
    async def create(
        self, who: Principal, user: User, password: str = "", roles: tuple[str, ...] = (USER,)
    ) -> User:
        """Store a new user and its default account, both or neither.

        Without a password it cannot log in. Raises ``InvalidError`` naming a field,
        ``ConflictError`` where username or e-mail are taken, ``ForbiddenError`` where ``roles``
        grant what the caller does not hold.
        """
        who.require("user_create")
        at = self.clock()
        user = msgspec.structs.replace(
            user, owner_id=who.user_id, roles=roles, created_at=at, updated_at=at
        )
        check(user)
        password_hash = await self.passwords.hash(password) if password else ""
        user = msgspec.structs.replace(user, password_hash=password_hash)
        account = await self._catalog.secrets.sealed(default_account(user))
        async with self._changes:
            unknown = set(roles) - self.access.roles.keys()
            if unknown:
                names = ", ".join(sorted(unknown))
                raise InvalidError(f"roles: {names}: no such role", field="roles")
            require_rank(who, user, self.access.roles)
            await self._require_own_names(user)
            return await enrol(self.store, user, account)

    async def update(
        self, who: Principal, user_id: int, changes: Mapping[str, Any], password: str = ""
    ) -> User:
        """The user after ``changes``; e-mail and phone are copied to its default account.

        Making it inactive, or giving it another password, ends its tokens.
        """
        who.require("user_update")
        if password:
            self._require_password(who, user_id)
        await self._manageable(who, user_id)
        password_hash = await self.passwords.hash(password) if password else ""
        allowed = {name: value for name, value in changes.items() if name in _EDITABLE}
        if password_hash:
            allowed["password_hash"] = password_hash
        async with self._changes:
            before = await self._manageable(who, user_id)
            return await self._store(who, before, msgspec.structs.replace(before, **allowed))

    async def set_password(self, who: Principal, user_id: int, password: str) -> User:
        """Give a user another password; its tokens end.

        One's own needs ``user_password``, anybody else's ``user_update`` and ``user_admin``.
        """
        self._require_password(who, user_id)
        if not password:
            raise InvalidError("password is missing", field="password")
        await self._manageable(who, user_id)
        password_hash = await self.passwords.hash(password)
        async with self._changes:
            before = await self._manageable(who, user_id)
            after = msgspec.structs.replace(before, password_hash=password_hash)
            return await self._store(who, before, after)

    async def delete(self, who: Principal, user_id: int) -> None:
        """Delete a user. What it owned stays, for holders of ``<family>_admin`` to see.

        Its accounts become inactive, and the name of its default account is free again. Raises
        ``NotReadyError`` while a campaign of it runs or a schedule of it waits, ``ConflictError``
        where nobody would be left who administers.
        """
        who.require("user_delete")
        async with self._changes:
            user = await self._manageable(who, user_id)
            await self._require_idle(user)
            gone = msgspec.structs.replace(user, active=False, updated_at=self.clock())
            await self._require_administrator(user, gone)
            accounts = await self.store.find(Account, _where("owner_id", user.id))
            # Nobody logs in as a user that a crash left half deleted.
            await self.store.save_all([gone, *(self._retired(each) for each in accounts)])
            await self._catalog.remove(user)

    async def end_sessions(self, user_id: int) -> None:
        """End every token of a user."""
        async with self._changes:
            user = await self.store.get(User, user_id)
            if user is not None:
                await self.store.update(msgspec.structs.replace(user, tokens_from=self.clock()))

    # --- what it may do ------------------------------------------------------------------------
    async def add_role(self, who: Principal, user_id: int, role_id: int) -> User:
        """Give a user a role; nothing changes where it has it."""
        who.require("user_update", "role_update")
        async with self._changes:
            role = await self._row(Role, role_id)
            user = await self._manageable(who, user_id)
            if role.name in user.roles:
                return user
            return await self._regrant(who, user, roles=(*user.roles, role.name))

    async def remove_role(self, who: Principal, user_id: int, role_id: int) -> User:
        """Take a role from a user; ``NotFoundError`` where it has it not."""
        who.require("user_update", "role_update")
        async with self._changes:
            role = await self._row(Role, role_id)
            user = await self._manageable(who, user_id)
            if role.name not in user.roles:
                raise NotFoundError("Role not found")
            left = tuple(name for name in user.roles if name != role.name)
            return await self._regrant(who, user, roles=left)

    async def add_permission(self, who: Principal, user_id: int, permission_id: int) -> User:
        """Grant a user a permission beside its roles; nothing changes where it has it so."""
        who.require("user_update", "permission_create")
        async with self._changes:
            name = (await self._row(Permission, permission_id)).name
            user = await self._manageable(who, user_id)
            if name in user.permissions:
                return user
            return await self._regrant(who, user, permissions=(*user.permissions, name))

    async def remove_permission(self, who: Principal, user_id: int, permission_id: int) -> User:
        """Take back what was granted beside the roles; ``NotFoundError`` where it was not."""
        who.require("user_update", "permission_delete")
        async with self._changes:
            name = (await self._row(Permission, permission_id)).name
            user = await self._manageable(who, user_id)
            if name not in user.permissions:
                raise NotFoundError("Permission not found")
            left = tuple(each for each in user.permissions if each != name)
            return await self._regrant(who, user, permissions=left)

    async def _regrant(self, who: Principal, before: User, **changes: tuple[str, ...]) -> User:
        after = msgspec.structs.replace(before, **changes)
        require_rank(who, after, self.access.roles)
        return await self._store(who, before, after)

    # --- rules ---------------------------------------------------------------------------------
    async def _store(self, who: Principal, before: User, after: User) -> User:
        """Write a user with what follows from the change; for whoever holds the lock."""
        at = self.clock()
        check(after)
        await self._require_administrator(before, after)
        if after.email != before.email:
            await self._require_own_names(after)
        after = msgspec.structs.replace(after, updated_at=at)
        if after.password_hash != before.password_hash or (before.active and not after.active):
            after = msgspec.structs.replace(after, tokens_from=at)
        rows: list[Entity] = [after]
        if (after.phone, after.email) != (before.phone, before.email):
            rows += await self._readdressed(after)
        [stored, *_] = await self.store.save_all(rows, guarded=guarded(who))
        assert isinstance(stored, User)  # noqa: S101 - what was given
        return stored

    async def _readdressed(self, user: User) -> list[Account]:
        """The default account with its user's addresses, where the user still has it."""
        query = Query(
            conditions=(
                Condition("owner_id", Op.EQ, user.id),
                Condition("type", Op.EQ, "account"),
                Condition("username", Op.EQ, user.username),
            ),
            limit=1,
        )
        return [
            msgspec.structs.replace(
                account, phone=user.phone, email=user.email, updated_at=user.updated_at
            )
            for account in await self.store.find(Account, query)
        ]

    def _retired(self, account: Account) -> Account:
        name = "" if account.type == "account" else account.username
        return msgspec.structs.replace(
            account, active=False, username=name, updated_at=self.clock()
        )

    async def _visible(self, who: Principal, user_id: int) -> User:
        user = await self._row(User, user_id)
        if not _sees(who, user):
            raise NotFoundError("User not found")
        return user

    async def _manageable(self, who: Principal, user_id: int) -> User:
        user = await self._visible(who, user_id)
        if user.id != who.user_id:
            require_rank(who, user, self.access.roles)
        return user

    async def _row(self, kind: type[E], row_id: int) -> E:
        row = await self.store.get(kind, row_id) if 0 < row_id < 2**63 else None
        if row is None:
            raise NotFoundError(f"{kind.__name__} not found")
        return row

    async def _require_administrator(self, before: User, after: User) -> None:
        roles = self.access.roles
        if administers(before, roles) and not administers(after, roles):
            others = [u for u in await self.store.find(User, Query()) if u.id != after.id]
            require_administrator([before, *others], roles, others, roles)

    async def _require_own_names(self, user: User) -> None:
        """One logs in by username or e-mail: neither may be another's other one."""
        for field, value in (("email", user.username), ("username", user.email)):
            found = await self.store.find(User, _where(field, value)) if value else []
            if any(other.id != user.id for other in found):
                raise ConflictError(f"exists already: {value} is the {field} of another user")

    async def _require_idle(self, user: User) -> None:
        owned = Condition("owner_id", Op.EQ, user.id)
        running = Condition("status", Op.EQ, CampaignStatus.RUNNING)
        if await self.store.count(Campaign, Query(conditions=(owned, running))):
            raise NotReadyError("A campaign of the user is running, stop it first")
        waiting = Condition("status", Op.EQ, TaskStatus.PENDING)
        if await self.store.count(Task, Query(conditions=(owned, waiting))):
            raise NotReadyError("A schedule of the user is waiting, cancel it first")

    def _require_password(self, who: Principal, user_id: int) -> None:
        if user_id == who.user_id:
            who.require("user_password")
        else:
            who.require("user_update", "user_admin")

    def _require_of(self, who: Principal, user_id: int, permission: str) -> None:
        if user_id == who.user_id:
            who.require("user_read")
        else:
            who.require("user_list", permission)


def _sees(who: Principal, user: User) -> bool:
    return user.id == who.user_id or who.sees("user", user)


def _where(field: str, value: object, *, limit: int | None = None) -> Query:
    return Query(conditions=(Condition(field, Op.EQ, value),), limit=limit)


def _named(query: Query, names: tuple[str, ...]) -> Query:
    among = Condition("name", Op.IN, names)
    return msgspec.structs.replace(query, conditions=(*query.conditions, among))
