"""Who is asking: credentials → ``Principal``."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import trio

from engine.access import GUEST, ROLES, Access, Principal
from engine.config import Config
from engine.errors import ConflictError, ThrottledError, UnauthenticatedError
from engine.jwts import Claims, Tokens, epoch_of
from engine.model import RevokedToken, User
from engine.passwords import Passwords
from engine.store.base import Condition, Op, Query, Store
from engine.throttle import Attempt, Limits, Throttle, attempt_of

if TYPE_CHECKING:
    from engine.people import People

__all__ = ["GUEST", "ROLES", "Access", "Authenticator", "Passwords", "Principal", "Tokens"]

# Credentials that were right are believed this long without asking argon2 again (a changed
# password or a disabled user ends it at once).
CACHE_LIFETIME_S = 300.0
CACHE_SIZE = 1024
# Tokens a user has given back that have not ended yet; one more ends all of his.
MAX_REVOKED = 100
_MAX_ID_DIGITS = 18  # always fits SQL's 64-bit integers
_MAX_KEY = 128  # of a name nobody has, as it is counted


class Authenticator:
    """Turns credentials into a ``Principal``; a refusal is an ``UnauthenticatedError``.

    Or a ``ThrottledError``: too many wrong ones came from this address or for this account.
    """

    def __init__(self, people: People, tokens: Tokens, throttle: Throttle) -> None:
        self._people = people
        self._store: Store = people.store
        self._tokens = tokens
        self._throttle = throttle
        self._cache_key = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._verifying: WeakValueDictionary[bytes, trio.Lock] = WeakValueDictionary()
        self._revoked: dict[str, int] = {}

    @classmethod
    async def open(cls, people: People, config: Config) -> Authenticator:
        """The authenticator of a node; makes its signing key on the first start."""
        tokens = await Tokens.open(
            config.data_path / "keys" / "jwt.pem",
            lifetime_s=config.http.token_lifetime_s,
            clock=people.clock,
        )
        opened = cls(people, tokens, Throttle(limits(config)))
        await opened.sweep()
        rows = await people.store.find(RevokedToken, Query())
        opened._revoked = {row.jti: row.owner_id or 0 for row in rows}
        return opened

    async def login(self, name: str, password: str, address: str = "") -> tuple[User, str]:
        """The user and a fresh token. ``name`` is a username, an e-mail address or a user id."""
        user = await self._check(name, password, address)
        is_admin = self._people.access.principal(user).may("user_create")
        return user, self._tokens.issue(user, is_admin=is_admin)

    async def basic(self, name: str, password: str, address: str = "") -> Principal:
        """Who sent ``name`` and ``password`` with a request from ``address``."""
        return self._people.access.principal(await self._check(name, password, address))

    async def bearer(self, token: str) -> Principal:
        """Who sent ``token``; roles and activity are those of now, not of the day it was issued."""
        claims = self._tokens.read(token)
        user = await self._store.get(User, claims.user_id)
        if user is None or not user.active or not self._counts(claims, user):
            raise UnauthenticatedError("Invalid or expired token")
        return self._people.access.principal(user)

    async def revoke(self, token: str) -> None:
        """End a token of ours before its time; any other is none already."""
        try:
            claims = self._tokens.read(token)
        except UnauthenticatedError:
            return
        if claims.jti in self._revoked:
            return
        row = RevokedToken(owner_id=claims.user_id, jti=claims.jti, expires_at=claims.expires_at)
        try:
            await self._store.insert(row)
        except ConflictError:
            return  # given back twice at the same moment
        self._revoked[claims.jti] = claims.user_id
        await self.sweep()
        if sum(owner == claims.user_id for owner in self._revoked.values()) > MAX_REVOKED:
            await self._people.end_sessions(claims.user_id)
            await self._forget(Condition("owner_id", Op.EQ, claims.user_id))

    async def sweep(self) -> None:
        """Forget revoked tokens that would have ended by now anyway."""
        await self._forget(Condition("expires_at", Op.LE, self._people.clock()))

    def statistics(self) -> dict[str, Any]:
        """Logins in progress, credentials remembered, tokens revoked, failures counted."""
        return {
            **self._people.passwords.statistics(),
            "remembered": len(self._verified),
            "revoked": len(self._revoked),
            "throttle": self._throttle.statistics(),
        }

    def _counts(self, claims: Claims, user: User) -> bool:
        return claims.epoch == epoch_of(user) and claims.jti not in self._revoked

    async def _forget(self, which: Condition) -> None:
        for row in await self._store.find(RevokedToken, Query(conditions=(which,))):
            await self._store.delete(RevokedToken, row.id)
            self._revoked.pop(row.jti, None)

    async def _check(self, name: str, password: str, address: str) -> User:
        """Whose name and password these are; equal ones at once are verified once."""
        entry = self._digest(name, password)
        lock = self._verifying.setdefault(entry, trio.Lock())
        async with lock:
            user = await self._find(name)
            if user is None or not user.active or not self._remembers(entry, user):
                user = await self._verify(user, name, password, address)
                self._remember(entry, user)
        return user

    async def _verify(self, user: User | None, name: str, password: str, address: str) -> User:
        account = f"id {user.id}" if user is not None else f"name {name[:_MAX_KEY]}"
        attempt = attempt_of(account, address)
        self._admit(attempt)
        usable = user is not None and user.active
        password_hash = user.password_hash if user is not None and usable else ""
        try:
            right = await self._people.passwords.verify(password_hash, password)
        except BaseException:
            self._throttle.take_back(attempt, trio.current_time())
            raise
        if user is None or not right:
            raise UnauthenticatedError("Invalid username or password")
        self._throttle.succeeded(attempt, trio.current_time())
        return user

    def _admit(self, attempt: Attempt) -> None:
        now = trio.current_time()
        wait_s = self._throttle.wait_s(attempt, now)
        if wait_s > 0.0:
            raise ThrottledError("Too many failed logins, try again later", retry_after_s=wait_s)
        self._throttle.begin(attempt, now)

    def _remembers(self, entry: bytes, user: User) -> bool:
        until, password_hash = self._verified.get(entry, (0.0, ""))
        return until > trio.current_time() and password_hash == user.password_hash

    def _remember(self, entry: bytes, user: User) -> None:
        self._verified[entry] = (trio.current_time() + CACHE_LIFETIME_S, user.password_hash)
        while len(self._verified) > CACHE_SIZE:
            self._verified.popitem(last=False)

    def _digest(self, name: str, password: str) -> bytes:
        secret = f"{len(name)}:{name}:{password}".encode("utf-8", "surrogatepass")
        return hmac.new(self._cache_key, secret, hashlib.sha256).digest()

    async def _find(self, name: str) -> User | None:
        users = await self._store.find(User, where("username", name))
        if not users and "@" in name:
            users = await self._store.find(User, where("email", name))
        if not users and name.isascii() and name.isdigit() and len(name) <= _MAX_ID_DIGITS:
            return await self._store.get(User, int(name))
        return users[0] if users else None


def limits(config: Config) -> Limits:
    """How often one may fail, by the configuration."""
    return Limits(
        per_account=config.login.failures_per_account,
        per_address=config.login.failures_per_address,
        window_s=config.login.failure_window_s,
    )


def where(field: str, value: object) -> Query:
    """The one row with this value."""
    return Query(conditions=(Condition(field, Op.EQ, value),), limit=1)
