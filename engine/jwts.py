"""JSON Web Tokens of this node (RFC 7519, RS256), and the keys that sign and verify them.

``keys/jwt.pem`` signs. To change it, rename it to ``keys/jwt-<anything>.pem`` and start the node:
it makes a new one, and what the old one signed counts until that file is removed.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import trio
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from engine import keyfiles
from engine.clock import Clock
from engine.errors import UnauthenticatedError
from engine.model import User

ISSUER = "outspool"
ALGORITHM = "RS256"  # what deployed ICTCore servers sign with; clients only decode the payload
KEY_BITS = 2048


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token of ours says. ``epoch`` counts for as long as it is the user's own."""

    user_id: int
    jti: str
    expires_at: datetime
    epoch: int


def epoch_of(user: User) -> int:
    """Which tokens of a user count: those that carry this number (moved by ``tokens_from``).

    Comparing times instead would let a token live that was issued in the same second.
    """
    at = user.tokens_from
    return 0 if at is None else int(at.timestamp() * 1_000_000)


class Tokens:
    """Tokens signed with the key of the node's data directory."""

    def __init__(
        self, key: RSAKey, *, lifetime_s: int, clock: Clock, old: Sequence[RSAKey] = ()
    ) -> None:
        self._key = key
        self._kid = key.thumbprint()
        self._keys = {known.thumbprint(): known for known in (*old, key)}
        self._lifetime_s = lifetime_s
        self._clock = clock

    @classmethod
    async def open(cls, path: Path, *, lifetime_s: int, clock: Clock) -> Tokens:
        """Read the key at ``path``, or make it (0600) where there is none, and the old ones."""
        pem, *old = await trio.to_thread.run_sync(_load_keys, path)
        keys = [RSAKey.import_key(one) for one in old]
        return cls(RSAKey.import_key(pem), lifetime_s=lifetime_s, clock=clock, old=keys)

    def issue(self, user: User, *, is_admin: bool = False) -> str:
        """A token for ``user``; ids are strings, flags "1"/"0": deployed clients read them so."""
        now = int(self._clock().timestamp())
        claims = {
            "iss": ISSUER,
            "iat": now,
            "nbf": now,
            "exp": now + self._lifetime_s,
            "jti": secrets.token_urlsafe(12),
            "epoch": epoch_of(user),
            "user_id": str(user.id),
            "username": user.username,
            "is_admin": "1" if is_admin else "0",
            "api-version": "1.0",
        }
        return jwt.encode({"alg": ALGORITHM, "kid": self._kid}, claims, self._key)

    def read(self, token: str) -> Claims:
        """What it says; ``UnauthenticatedError`` unless we signed it and it is in its time."""
        try:
            decoded = jwt.decode(token, self._find_key, algorithms=[ALGORITHM])
            self._registry().validate(decoded.claims)
            return _claims(decoded.claims)
        except (JoseError, ValueError, TypeError, KeyError, OverflowError):
            raise UnauthenticatedError("Invalid or expired token") from None

    def _find_key(self, signed: Any) -> RSAKey:
        return self._keys[signed.headers()["kid"]]

    def _registry(self) -> jwt.JWTClaimsRegistry:
        return jwt.JWTClaimsRegistry(
            now=int(self._clock().timestamp()),
            iss={"essential": True, "value": ISSUER},
            exp={"essential": True},
            user_id={"essential": True},
        )


def _claims(claims: dict[str, Any]) -> Claims:
    return Claims(
        user_id=int(claims["user_id"]),
        jti=str(claims["jti"]),
        expires_at=datetime.fromtimestamp(int(claims["exp"]), UTC),
        epoch=int(claims["epoch"]),
    )


def _load_keys(path: Path) -> list[bytes]:
    """The key that signs, then those that only verify."""
    keyfiles.make(path, lambda: RSAKey.generate_key(KEY_BITS).as_pem(private=True))
    found = [path, *sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))]
    return [keyfiles.read(key) for key in found]
