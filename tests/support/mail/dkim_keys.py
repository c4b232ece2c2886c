"""Keys of a signing domain, and the DNS that dkimpy asks for them."""

from __future__ import annotations

import base64
import re

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

Key = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def _made(kind: str) -> Key:
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Keys:
    """An RSA-2048 and an Ed25519 key; their selectors are their ``kinds``."""

    def __init__(self, domain: str, kinds: tuple[str, ...] = ("rsa", "ed25519")) -> None:
        self.kinds = kinds
        self._domain = domain
        self._keys: dict[str, Key] = {kind: _made(kind) for kind in kinds}

    @property
    def settings(self) -> dict[str, dict[str, str]]:
        """As a provider's setting ``dkim``."""
        return {
            f"{kind}._domainkey.{self._domain}": {"private_key": self.pem(kind)}
            for kind in self.kinds
        }

    def pem(self, kind: str) -> str:
        """The private key."""
        return self._keys[kind].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()  # fmt: skip

    def txt(self, name: bytes, timeout: int = 5) -> bytes:
        """The key record (RFC 6376 §3.6.1, RFC 8463 §4.2); b"" where there is none."""
        kind, _, domain = name.decode().rstrip(".").partition("._domainkey.")
        if kind not in self._keys or domain != self._domain:
            return b""
        return f"v=DKIM1; k={kind}; p={base64.b64encode(self._public(kind)).decode()}".encode()

    def _public(self, kind: str) -> bytes:
        public = self._keys[kind].public_key()
        if isinstance(public, ed25519.Ed25519PublicKey):
            return public.public_bytes_raw()
        return public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @staticmethod
    def kind_of(signature: bytes) -> str:
        """The kind that a DKIM-Signature header says it is of."""
        found = re.search(rb"\ba=(rsa|ed25519)-sha256", signature)
        return found[1].decode() if found else ""
