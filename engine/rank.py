"""Who may manage whom: pure rules that keep rights from growing and the last key from being lost.

Whoever manages users manages those who hold no more than he does himself, or no more than the role
``user`` (an administrator of the node need not dial to have people who do). That holds for what
they held before and for what they hold after, so nobody gets by another name what he was not given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.access import PERMISSIONS, USER, Principal, principal_of
from engine.errors import ConflictError, ForbiddenError
from engine.model import User

Roles = Mapping[str, frozenset[str]]

ADMINISTERS = ("user_admin", "user_update", "role_update", "permission_create")
"""What it takes to give anybody anything."""

_SHOWN = 5


def require_rank(who: Principal, user: User, roles: Roles) -> None:
    """``ForbiddenError`` where ``user`` holds more than ``who`` may manage.

    Oneself gets nothing by way of the role ``user`` either.
    """
    held = principal_of(user, roles).permissions
    ordinary = user.id != who.user_id and held <= roles.get(USER, frozenset())
    if not ordinary:
        require_held(who, held)


def require_held(who: Principal, permissions: Iterable[str]) -> None:
    """``ForbiddenError`` naming what ``who`` does not hold of ``permissions``.

    Names the node itself never asks for are held by everybody who may make such names.
    """
    makes_names = who.may("permission_create")
    missing = sorted(
        name
        for name in permissions
        if not who.may(name) and not (makes_names and name not in PERMISSIONS)
    )
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (" …" if len(missing) > _SHOWN else "")
        raise ForbiddenError(f"User not permitted to manage what it does not hold: {shown}")


def administers(user: User, roles: Roles) -> bool:
    """Whether a user can log in and give anybody anything."""
    return user.active and bool(user.password_hash) and principal_of(user, roles).holds(ADMINISTERS)


def require_administrator(
    before: Iterable[User], old: Roles, after: Iterable[User], new: Roles
) -> None:
    """``ConflictError`` where a change takes the last one away who administers."""
    if any(administers(user, old) for user in before) and not any(
        administers(user, new) for user in after
    ):
        raise ConflictError("Nobody would be left who can administer users and roles")
