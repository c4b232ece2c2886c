"""Who may manage whom: rights never grow, and somebody who administers is always left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.access import PERMISSIONS, ROLES, Principal, principal_of
from engine.errors import ConflictError, ForbiddenError
from engine.model import User
from engine.rank import (
    ADMINISTERS,
    administers,
    require_administrator,
    require_held,
    require_rank,
)

names = st.frozensets(st.sampled_from(PERMISSIONS), max_size=6)
role_sets = st.sampled_from([(), ("user",), ("admin",), ("user", "admin"), ("nowhere",)])


def user(user_id: int, roles: tuple[str, ...] = (), *permissions: str, active: bool = True) -> User:
    return User(
        id=user_id, username=f"u{user_id}", password_hash="x", roles=roles,  # noqa: S106 - a hash is none
        permissions=permissions, active=active,
    )  # fmt: skip


def principal(user_id: int, *permissions: str) -> Principal:
    return Principal(user_id=user_id, username="who", permissions=frozenset(permissions))


@given(names, role_sets, names)
def test_whom_one_manages_can_do_no_more_than_oneself_or_an_ordinary_user(
    held: frozenset[str], roles: tuple[str, ...], beside: frozenset[str]
) -> None:
    who = principal(1, *held - {"permission", "permission_create"})
    other = user(2, roles, *beside)
    try:
        require_rank(who, other, ROLES)
    except ForbiddenError:
        return
    able = principal_of(other, ROLES)
    ordinary = principal_of(user(3, ("user",)), ROLES)
    for permission in PERMISSIONS:
        assert not able.may(permission) or who.may(permission) or ordinary.may(permission)
    if not all(ordinary.may(permission) for permission in able.permissions):
        assert all(who.may(permission) for permission in able.permissions)


@given(names, role_sets, names)
def test_nobody_gains_anything_himself(
    held: frozenset[str], roles: tuple[str, ...], beside: frozenset[str]
) -> None:
    who = principal(1, *held - {"permission", "permission_create"})
    oneself = user(1, roles, *beside)
    try:
        require_rank(who, oneself, ROLES)
    except ForbiddenError:
        return
    able = principal_of(oneself, ROLES)
    assert all(who.may(permission) for permission in PERMISSIONS if able.may(permission))


def test_an_administrator_of_the_node_manages_those_who_dial_but_gives_nobody_both() -> None:
    keeper = principal_of(user(1, ("admin",)), ROLES)
    for roles in ((), ("user",), ("admin",)):
        require_rank(keeper, user(2, roles), ROLES)
    for other in (user(2, ("user", "admin")), user(1, ("user",)), user(2, ("user",), "role_list")):
        with pytest.raises(ForbiddenError):
            require_rank(keeper, other, ROLES)


def test_names_of_ones_own_are_for_who_makes_names() -> None:
    require_held(principal(1, "permission_create"), ["crm_export"])
    with pytest.raises(ForbiddenError, match="crm_export"):
        require_held(principal(1, "contact"), ["crm_export"])
    with pytest.raises(ForbiddenError, match="provider"):
        require_held(principal(1, "permission_create"), ["provider"])


def test_who_administers() -> None:
    assert administers(user(1, ("admin",)), ROLES)
    assert administers(user(1, (), *ADMINISTERS), ROLES)
    assert not administers(user(1, ("user",)), ROLES)
    assert not administers(user(1, ("admin",), active=False), ROLES)
    assert not administers(User(username="x", roles=("admin",)), ROLES), "no password"


def test_the_last_one_who_administers_cannot_go() -> None:
    one, other, nobody = user(1, ("admin",)), user(2, ("admin",)), user(3, ("user",))
    require_administrator([one, other, nobody], ROLES, [other, nobody], ROLES)
    require_administrator([nobody], ROLES, [], ROLES)  # there was none before
    with pytest.raises(ConflictError):
        require_administrator([one, nobody], ROLES, [nobody], ROLES)
    with pytest.raises(ConflictError):
        require_administrator([one], ROLES, [one], {**ROLES, "admin": frozenset({"user"})})
