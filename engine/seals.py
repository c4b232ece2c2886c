"""Short proofs that something in a link or an address was made by this node, and secrets in it.

Pure but for ``seals``. Keys come from the node's secret key, one for each purpose, so that what was
made for one is worth nothing for another.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.config import Config
from engine.secrets import Secrets

_NONCE_BYTES = 12  # NIST SP 800-38D §5.2.1.1
_TOKEN = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class Seals:
    """Of one purpose; the first key makes, all of them open."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._mac_keys = [_subkey(key, b"mac") for key in keys]
        self._nonce_keys = [_subkey(key, b"nonce") for key in keys]
        self._ciphers = [AESGCM(_subkey(key, b"hide")) for key in keys]

    def mac(self, data: bytes, size: int) -> bytes:
        """HMAC-SHA256 with the current key, cut to ``size`` bytes (RFC 2104 §5)."""
        return _hmac(self._mac_keys[0], data)[:size]

    def holds(self, data: bytes, mac: bytes) -> bool:
        """Whether ``mac`` is of ``data`` and any of the keys; takes the same time for all."""
        found = [hmac.compare_digest(_hmac(key, data)[: len(mac)], mac) for key in self._mac_keys]
        return bool(mac) and any(found)

    def hide(self, data: bytes) -> str:
        """``data`` for a URL, unreadable and not to be changed: AES-256-GCM, URL-safe base64.

        The same data give the same text: the nonce is made of them, so that it is never used for
        others, however many links there are (the idea of RFC 5297).
        """
        nonce = _hmac(self._nonce_keys[0], data)[:_NONCE_BYTES]
        return _encoded(nonce + self._ciphers[0].encrypt(nonce, data, None))

    def reveal(self, token: str) -> bytes | None:
        """What was hidden; None for whatever ``hide`` did not make, to the last bit."""
        raw = _decoded(token)
        if raw is None:
            return None
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], None)
            except (InvalidTag, ValueError):
                continue
        return None


def _subkey(key: bytes, use: bytes) -> bytes:
    return _hmac(key, use)


def _hmac(key: bytes, data: bytes) -> bytes:
    # hmac.digest() lets go of the interpreter, which costs more than the digest of so few bytes.
    return hmac.new(key, data, hashlib.sha256).digest()


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decoded(token: str) -> bytes | None:
    # One in four characters too many would be no base64; the last may hide bits that nobody reads.
    if not _TOKEN.fullmatch(token) or len(token) % 4 == 1:
        return None
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    return raw if _encoded(raw) == token else None


async def seals(config: Config, purpose: str) -> Seals:
    """The node's own for ``purpose``; its key is made at the first need (``Secrets.ring``)."""
    return Seals((await Secrets(config).ring()).derived(purpose))
