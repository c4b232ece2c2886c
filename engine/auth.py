"""Who is asking and what they may do: passwords, tokens, roles, permissions.

Permission names are ICTCore's (specs/ictcore.md §4.5): ``<family>_<verb>``. The bare family
(``contact``) grants every verb of it but ``_admin``, which has to be named: the right to see other
people's rows.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import argon2
import msgspec
import trio
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from engine.clock import Clock
from engine.config import Config
from engine.errors import (
    ForbiddenError,
    InvalidError,
    UnauthenticatedError,
    UnavailableError,
)
from engine.model import Account, Entity, User
from engine.store.base import Condition, Op, Query, Store

ISSUER = "outspool"
ALGORITHM = "RS256"  # what deployed ICTCore servers sign with; clients only decode the payload
ADMIN = "admin"
MAX_PASSWORD_LENGTH = 1024
KEY_BITS = 2048
# Basic credentials that were right are believed this long without asking argon2 again (a changed
# password or a disabled user ends it at once).
CACHE_LIFETIME_S = 300.0
CACHE_SIZE = 1024

R = TypeVar("R")

_OWNED = (
    "contact", "group", "recording", "document", "template", "text", "program", "campaign",
    "transmission", "spool", "result", "account", "provider", "statistic", "task", "schedule",
)  # fmt: skip

ROLES: dict[str, frozenset[str]] = {
    # ICTCore's role 1: everything one's own work needs.
    "user": frozenset(
        {
            "api", "statistic_read", "configuration_read", "user_read", "user_password",
            "usr_read", "usr_password", "account_read", "account_update", "account_list",
            "contact", "document", "recording", "template", "text", "program", "transmission",
            "task", "schedule", "spool", "result", "group", "campaign",
        }
    ),
    # ICTCore's role 2: the node itself. Alone it cannot touch contacts or transmissions; together
    # with "user" it sees everybody's rows.
    "admin": frozenset(
        {
            "api", "statistic", "configuration", "user", "usr", "role", "permission", "account",
            "provider",
        }
        | {f"{family}_admin" for family in _OWNED}
    ),
}  # fmt: skip


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking. ``permissions`` are names as in ``ROLES``."""

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


GUEST = Principal(user_id=-1, username="guest")
"""Nobody we know (ICTCore's special user id)."""


def principal_of(user: User) -> Principal:
    """What a user may do: the union of its roles; a role nobody knows grants nothing."""
    granted: frozenset[str] = frozenset().union(*(ROLES.get(role, ()) for role in user.roles))
    return Principal(user_id=user.id, username=user.username, permissions=granted)


class Passwords:
    """argon2id (RFC 9106) off the event loop, few at once.

    19 MiB, 2 passes, 1 lane is OWASP's first choice. argon2-cffi's default (64 MiB, 3 passes) takes
    six times as long: 0.2 s of the cores that calls need for their audio.
    """

    def __init__(self, *, workers: int = 2, max_waiting: int = 64) -> None:
        self._hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
        self._limiter = trio.CapacityLimiter(workers)
        self._max_waiting = max_waiting
        self._nobody = ""

    async def hash(self, password: str) -> str:
        """The encoded hash to store; ``InvalidError`` for an empty or absurdly long password."""
        if not 0 < len(password) <= MAX_PASSWORD_LENGTH:
            raise InvalidError("password: must have 1 to 1024 characters", field="password")
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, password_hash: str, password: str) -> bool:
        """Whether the password is the right one; an empty hash takes as long and is never right."""
        if len(password) > MAX_PASSWORD_LENGTH:
            return False
        if not self._nobody:
            self._nobody = await self.hash(secrets.token_urlsafe(16))
        matches = await self._run(lambda: self._matches(password_hash or self._nobody, password))
        return matches and bool(password_hash)

    def statistics(self) -> dict[str, int]:
        """Hashes being computed and callers waiting for one."""
        state = self._limiter.statistics()
        return {"hashing": state.borrowed_tokens, "waiting": state.tasks_waiting}

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False

    async def _run(self, job: Callable[[], R]) -> R:
        if self._limiter.statistics().tasks_waiting >= self._max_waiting:
            raise UnavailableError("Too many logins at once, try again later")
        return await trio.to_thread.run_sync(job, limiter=self._limiter)


class Tokens:
    """JSON Web Tokens of this node, signed with the key of its data directory."""

    def __init__(self, key: RSAKey, *, lifetime_s: int, clock: Clock) -> None:
        self._key = key
        self._kid = key.thumbprint()
        self._lifetime_s = lifetime_s
        self._clock = clock

    @classmethod
    async def open(cls, path: Path, *, lifetime_s: int, clock: Clock) -> Tokens:
        """Read the key at ``path``, or make it (0600) where there is none."""
        pem = await trio.to_thread.run_sync(_load_or_create_key, path)
        return cls(RSAKey.import_key(pem), lifetime_s=lifetime_s, clock=clock)

    def issue(self, user: User) -> str:
        """A token for ``user``; ids are strings, flags "1"/"0": deployed clients read them so."""
        now = int(self._clock().timestamp())
        claims = {
            "iss": ISSUER,
            "iat": now,
            "nbf": now,
            "exp": now + self._lifetime_s,
            "user_id": str(user.id),
            "username": user.username,
            "is_admin": "1" if principal_of(user).may("user_create") else "0",
        }
        return jwt.encode({"alg": ALGORITHM, "kid": self._kid}, claims, self._key)

    def user_id(self, token: str) -> int:
        """Whose token it is; ``UnauthenticatedError`` unless we signed it and it is in its time."""
        try:
            decoded = jwt.decode(token, self._key, algorithms=[ALGORITHM])
            self._registry().validate(decoded.claims)
            return int(decoded.claims["user_id"])
        except (JoseError, ValueError, TypeError, KeyError):
            raise UnauthenticatedError("Invalid or expired token") from None

    def _registry(self) -> jwt.JWTClaimsRegistry:
        return jwt.JWTClaimsRegistry(
            now=int(self._clock().timestamp()),
            iss={"essential": True, "value": ISSUER},
            exp={"essential": True},
            user_id={"essential": True},
        )


class Authenticator:
    """Turns credentials into a ``Principal``; every refusal is an ``UnauthenticatedError``."""

    def __init__(self, store: Store, tokens: Tokens, passwords: Passwords) -> None:
        self._store = store
        self._tokens = tokens
        self._passwords = passwords
        self._cache_key = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    @classmethod
    async def open(cls, store: Store, config: Config, clock: Clock) -> Authenticator:
        """The authenticator of a node; makes its signing key on the first start."""
        tokens = await Tokens.open(
            config.data_path / "keys" / "jwt.pem",
            lifetime_s=config.http.token_lifetime_s,
            clock=clock,
        )
        return cls(store, tokens, Passwords())

    async def login(self, name: str, password: str) -> tuple[User, str]:
        """The user and a fresh token. ``name`` is a username, an e-mail address or a user id."""
        user = await self._verify(name, password)
        return user, self._tokens.issue(user)

    async def basic(self, name: str, password: str) -> Principal:
        """Who sent ``name`` and ``password`` with a request."""
        entry = self._digest(name, password)
        known = self._verified.get(entry)
        if known is not None and known[0] > trio.current_time():
            user = await self._find(name)
            if user is not None and user.active and user.password_hash == known[1]:
                return principal_of(user)
        user = await self._verify(name, password)
        self._verified[entry] = (trio.current_time() + CACHE_LIFETIME_S, user.password_hash)
        while len(self._verified) > CACHE_SIZE:
            self._verified.popitem(last=False)
        return principal_of(user)

    async def bearer(self, token: str) -> Principal:
        """Who sent ``token``; roles and activity are those of now, not of the day it was issued."""
        user = await self._store.get(User, self._tokens.user_id(token))
        if user is None or not user.active:
            raise UnauthenticatedError("Invalid or expired token")
        return principal_of(user)

    def statistics(self) -> dict[str, Any]:
        """Logins in progress and credentials remembered."""
        return {**self._passwords.statistics(), "remembered": len(self._verified)}

    def _digest(self, name: str, password: str) -> bytes:
        secret = f"{len(name)}:{name}:{password}".encode()
        return hmac.new(self._cache_key, secret, hashlib.sha256).digest()

    async def _verify(self, name: str, password: str) -> User:
        user = await self._find(name)
        usable = user is not None and user.active
        right = await self._passwords.verify(
            user.password_hash if user is not None and usable else "", password
        )
        if user is None or not right:
            raise UnauthenticatedError("Invalid username or password")
        return user

    async def _find(self, name: str) -> User | None:
        users = await self._store.find(User, _where("username", name))
        if not users and "@" in name:
            users = await self._store.find(User, _where("email", name))
        if not users and name.isascii() and name.isdigit() and len(name) <= _MAX_ID_DIGITS:
            return await self._store.get(User, int(name))
        return users[0] if users else None


_MAX_ID_DIGITS = 18  # always fits SQL's 64-bit integers


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
    if not username or not username.isprintable():
        raise InvalidError("username: must be printable and not empty", field="username")
    unknown = set(roles) - set(ROLES)
    if unknown:
        raise InvalidError(f"roles: {', '.join(sorted(unknown))}: no such role", field="roles")
    password_hash = await Passwords().hash(password)
    at = clock()
    user = await store.insert(
        User(
            username=username,
            password_hash=password_hash,
            email=email,
            roles=roles,
            created_at=at,
            updated_at=at,
        )
    )
    await _ensure_account(store, user, at)
    return user


async def ensure_admin(store: Store, password: str | None, clock: Clock) -> str | None:
    """Make the user ``admin`` (every role, default account) where there is none.

    Returns the random password it was given, for the caller to print once; None where ``password``
    was used or the user existed (whose password stays as it is).
    """
    found = await store.find(User, _where("username", ADMIN))
    if found:
        # A crash between the two inserts of a first start.
        await _ensure_account(store, found[0], clock())
        return None
    chosen = password or secrets.token_urlsafe(15)
    await create_user(store, clock, username=ADMIN, password=chosen, roles=tuple(ROLES))
    return None if password else chosen


async def _ensure_account(store: Store, user: User, at: datetime) -> None:
    if await store.find(Account, _where("owner_id", user.id)):
        return
    account = Account(
        owner_id=user.id,
        username=user.username,
        first_name=user.first_name,
        last_name=user.last_name,
        phone=user.phone,
        email=user.email,
        active=True,
        created_at=at,
        updated_at=at,
    )
    await store.insert(account)


def _where(field: str, value: object) -> Query:
    return Query(conditions=(Condition(field, Op.EQ, value),), limit=1)


def _load_or_create_key(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        _create_key(path)
    if path.stat().st_mode & 0o077:
        raise InvalidError(f"{path}: the signing key must be readable by its owner only (0600)")
    return path.read_bytes()


def _create_key(path: Path) -> None:
    pem = RSAKey.generate_key(KEY_BITS).as_pem(private=True)
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        # A whole file or none, also when two nodes start on one directory.
        os.link(scratch, path)
    except FileExistsError:
        return
    finally:
        scratch.unlink()
