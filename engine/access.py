"""What there is to be allowed, the roles that bundle it, and who holds what.

Permission names are ICTCore's (specs/ictcore.md §4.5): ``<family>_<verb>``. The bare family
(``contact``) grants every verb of it but ``_admin``, which has to be named: the right to see other
people's rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from engine.clock import Clock
from engine.errors import ForbiddenError
from engine.model import Entity, Permission, Role, User
from engine.store.base import Query, Store

_EDIT = "create list read update delete"
_VERBS: dict[str, str] = {
    "api": "access",
    "statistic": "read admin",
    "configuration": "read write",
    "program": f"{_EDIT} execute admin",
    "transmission": f"{_EDIT} send admin",
    "task": f"{_EDIT} admin",
    "schedule": f"{_EDIT} admin",
    "spool": "read list admin",
    "result": "read list admin",
    "provider": f"{_EDIT} admin",
    "contact": f"{_EDIT} admin",
    "group": f"{_EDIT} admin",
    "account": f"{_EDIT} admin",
    "user": f"{_EDIT} password admin",
    "usr": f"{_EDIT} password admin",
    "role": f"{_EDIT} admin",
    "permission": f"{_EDIT} admin",
    "campaign": f"{_EDIT} start stop admin",
    "document": f"{_EDIT} admin",
    "recording": f"{_EDIT} admin",
    "template": f"{_EDIT} admin",
    "text": f"{_EDIT} admin",
}

PERMISSIONS: tuple[str, ...] = tuple(
    name
    for family, verbs in _VERBS.items()
    for name in (family, *(f"{family}_{verb}" for verb in verbs.split()))
)
"""Every name the node itself asks for; their rows cannot be deleted."""

USER, ADMIN = "user", "admin"

ROLES: dict[str, frozenset[str]] = {
    # ICTCore's role 1: everything one's own work needs.
    USER: frozenset(
        {
            "api", "statistic_read", "configuration_read", "user_read", "user_password",
            "usr_read", "usr_password", "account_read", "account_update", "account_list",
            "contact", "document", "recording", "template", "text", "program", "transmission",
            "task", "schedule", "spool", "result", "group", "campaign",
        }
    ),
    # ICTCore's role 2: the node itself. Alone it cannot touch contacts or transmissions; together
    # with "user" it sees everybody's rows.
    ADMIN: frozenset(
        {
            "api", "statistic", "configuration", "user", "usr", "role", "permission", "account",
            "provider",
        }
        | {name for name in PERMISSIONS if name.endswith("_admin")}
    ),
}  # fmt: skip
"""What the two roles that are always there are made with; their rows say what they grant now."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking. ``permissions`` are names as in ``PERMISSIONS``."""

    user_id: int
    username: str
    permissions: frozenset[str] = frozenset()

    def may(self, permission: str) -> bool:
        """Whether ``contact_create`` (or its bare family ``contact``) was granted."""
        if permission in self.permissions:
            return True
        family, _, verb = permission.partition("_")
        return verb != "admin" and family in self.permissions

    def require(self, *permissions: str) -> None:
        """Raise ``ForbiddenError`` unless every one of ``permissions`` was granted."""
        if not all(self.may(permission) for permission in permissions):
            raise ForbiddenError("User not permitted to perform required action")

    def sees(self, family: str, row: Entity) -> bool:
        """Whether a row of this family is the caller's own, or the caller may see everybody's."""
        return row.owner_id == self.user_id or self.may(f"{family}_admin")

    def holds(self, permissions: Iterable[str]) -> bool:
        """Whether all of these were granted."""
        return all(self.may(permission) for permission in permissions)


GUEST = Principal(user_id=-1, username="guest")
"""Nobody we know (ICTCore's special user id)."""


class Access:
    """What each role grants, in memory: asked by every request, loaded again by every edit."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._roles: Mapping[str, frozenset[str]] = {}

    async def open(self) -> None:
        """Make the rows that must be there, and read what the roles grant."""
        await ensure_access(self._store, self._clock)
        await self.load()

    async def load(self) -> None:
        """Read what the roles grant; until the first time they grant nothing."""
        self._roles = granted(await self._store.find(Role, Query()))

    @property
    def roles(self) -> Mapping[str, frozenset[str]]:
        """The permissions of every role, by its name."""
        return self._roles

    def principal(self, user: User) -> Principal:
        """What a user may do now."""
        return principal_of(user, self._roles)


def granted(roles: Iterable[Role]) -> dict[str, frozenset[str]]:
    """What each of ``roles`` grants, by its name."""
    return {role.name: frozenset(role.permissions) for role in roles}


def principal_of(user: User, roles: Mapping[str, frozenset[str]]) -> Principal:
    """The union of a user's roles and own permissions; a role nobody knows grants nothing."""
    of_roles = (roles.get(role, frozenset()) for role in user.roles)
    permissions = frozenset(user.permissions).union(*of_roles)
    return Principal(user_id=user.id, username=user.username, permissions=permissions)


async def ensure_access(store: Store, clock: Clock) -> None:
    """Make the permissions and the two roles where they are missing, all in one transaction.

    A permission that a later release brings is added to the roles that have it by default; what an
    administrator has changed stays.
    """
    known = {row.name for row in await store.find(Permission, Query())}
    fresh = [name for name in PERMISSIONS if name not in known]
    roles = {row.name: row for row in await store.find(Role, Query())}
    if not fresh and roles.keys() >= ROLES.keys():
        return
    at = clock()
    rows: list[Entity] = [_role(name, roles.get(name), fresh) for name in ROLES]
    rows += [Permission(name=name) for name in fresh]
    stamped = [
        msgspec.structs.replace(row, updated_at=at, created_at=row.created_at if row.id else at)
        for row in rows
    ]
    await store.save_all(stamped)


def _role(name: str, row: Role | None, fresh: Iterable[str]) -> Role:
    if row is None:
        return Role(name=name, permissions=tuple(sorted(ROLES[name])))
    added = ROLES[name].intersection(fresh)
    return msgspec.structs.replace(row, permissions=tuple(sorted(added.union(row.permissions))))
