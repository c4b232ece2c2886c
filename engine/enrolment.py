"""How a user comes to be: its row and default account in one transaction; the first administrator.

Straight on a store, for the CLI and the first start; ``engine.people`` asks for permissions first.
"""

from __future__ import annotations

import secrets

from engine.access import ADMIN, ROLES, ensure_access
from engine.clock import Clock
from engine.errors import InvalidError
from engine.model import Account, Role, User
from engine.passwords import Passwords
from engine.store.base import Condition, Op, Query, Store
from engine.validation import check

_PIN_DIGITS = 4


async def create_user(
    store: Store,
    clock: Clock,
    *,
    username: str,
    password: str,
    roles: tuple[str, ...],
    email: str = "",
) -> User:
    """Store a user and its default account; ``ConflictError`` where the name is taken.

    Raises ``InvalidError`` for an empty name or password or a role nobody knows.
    """
    await ensure_access(store, clock)
    known = {role.name for role in await store.find(Role, Query())}
    unknown = set(roles) - known
    if unknown:
        raise InvalidError(f"roles: {', '.join(sorted(unknown))}: no such role", field="roles")
    password_hash = await Passwords().hash(password)
    at = clock()
    user = User(
        username=username,
        password_hash=password_hash,
        email=email,
        roles=roles,
        created_at=at,
        updated_at=at,
    )
    check(user)
    return await enrol(store, user, default_account(user))


async def enrol(store: Store, user: User, account: Account) -> User:
    """Store a new user and its account, both or neither; the account belongs to the user.

    ``ConflictError`` where username or e-mail are taken.
    """
    [stored, _] = await store.save_all([user, account], owned=True)
    assert isinstance(stored, User)  # noqa: S101 - what was given
    return stored


def default_account(user: User) -> Account:
    """The account every user is born with: its name and addresses, and a random PIN."""
    return Account(
        username=user.username,
        passwd_pin="".join(secrets.choice("0123456789") for _ in range(_PIN_DIGITS)),
        first_name=user.first_name,
        last_name=user.last_name,
        phone=user.phone,
        email=user.email,
        active=user.active,
        created_at=user.created_at,
        updated_at=user.updated_at,
    )


async def ensure_admin(store: Store, password: str | None, clock: Clock) -> str | None:
    """Make the user ``admin`` (both roles, default account) where there is none.

    Returns the random password it was given, for the caller to print once; None where ``password``
    was used or the user existed (whose password stays as it is).
    """
    condition = Condition("username", Op.EQ, ADMIN)
    if await store.find(User, Query(conditions=(condition,))):
        return None
    chosen = password or secrets.token_urlsafe(15)
    await create_user(store, clock, username=ADMIN, password=chosen, roles=tuple(ROLES))
    return None if password else chosen
