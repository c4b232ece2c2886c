"""DKIM signatures (RFC 6376 relaxed/relaxed, RFC 8463): RSA-SHA256 and Ed25519-SHA256. Pure.

Signing with RSA lets go of the GIL, so that threads share it (``press.py``).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from engine.errors import InvalidError
from gateways.smtp.dkim_keys import private_key, selector_and_domain
from gateways.smtp.settings import DkimKey

SIGNED = (
    "Date", "From", "To", "Subject", "Message-ID", "Reply-To", "MIME-Version", "Content-Type",
    "List-Unsubscribe", "List-Unsubscribe-Post",
)  # fmt: skip
"""What is signed where it is there (§5.4.1). List-Unsubscribe-Post must be (RFC 8058 §4)."""

OVERSIGNED = "From"
"""Named once more than it is there: nobody can put a second one on top (§8.15)."""

VALID_S = 604_800
"""A signature counts for a week (``x=``): longer than mail is on its way, shorter than a replay."""

_NAME = "DKIM-Signature"
_SIGNED = frozenset(each.lower() for each in SIGNED)
_MAX_LINE = 78
_SIGNATURE_LINE = 74
_KEPT = 64  # header sets seen; a campaign has one
_PKCS1, _SHA256 = PKCS1v15(), SHA256()


class Signer:
    """One key. Safe to use from any thread; ``InvalidError`` for a name or PEM of no use."""

    def __init__(self, dns_name: str, pem: str) -> None:
        self.selector, self.domain = selector_and_domain(dns_name)
        self._key = private_key(dns_name, pem)
        self.algorithm = (
            "ed25519-sha256" if isinstance(self._key, Ed25519PrivateKey) else "rsa-sha256"
        )
        self._heads: dict[tuple[str, ...], tuple[str, bytes]] = {}

    def sign(self, headers: Sequence[tuple[str, str]], body_hash: bytes, at: int) -> bytes:
        """The whole folded header with its CRLF, to be put before ``headers``.

        ``headers``: name and value as they go out (folds and all), each name at most once;
        ``body_hash``: SHA-256 of the canonical body (§3.4.4); ``at``: seconds of the epoch.
        """
        signed = [header for header in headers if header[0].lower() in _SIGNED]
        head, canonical_head = self._head(tuple(name for name, _ in signed))
        tail = _tail(body_hash, at)
        canonical = b"".join(canonical_header(name, value) for name, value in signed)
        signature = self._signature(
            canonical + canonical_head + b" " + b" ".join(tail.encode("ascii").split())
        )
        return (head + tail + _folded(signature) + "\r\n").encode("ascii")

    def _signature(self, data: bytes) -> str:
        if isinstance(self._key, Ed25519PrivateKey):
            # RFC 8463 §3: the hash is what is signed.
            raw = self._key.sign(hashlib.sha256(data).digest())
        else:
            raw = self._key.sign(data, _PKCS1, _SHA256)
        return base64.b64encode(raw).decode("ascii")

    def _head(self, names: tuple[str, ...]) -> tuple[str, bytes]:
        """Tags that are the same for all mails with these headers, and their canonical form."""
        known = self._heads.get(names)
        if known is None:
            text = _static(self.algorithm, self.domain, self.selector, names)
            known = text, canonical_header(_NAME, text.partition(":")[2])[:-2]
            if len(self._heads) < _KEPT:
                self._heads[names] = known
        return known


def signers_for(keys: Mapping[str, DkimKey], from_domain: str) -> tuple[Signer, ...]:
    """Signers aligned with the From domain (A-labels): of that domain, else of the next above.

    RSA and Ed25519 both sign, and so do all selectors of that domain. ``InvalidError`` for a key
    that is configured and has no text: mail must not go out unsigned without a word.
    """
    domain = from_domain.lower()
    aligned = [
        (found, name)
        for name in keys
        if domain == (found := selector_and_domain(name)[1]) or domain.endswith(f".{found}")
    ]
    nearest = max((len(found) for found, _ in aligned), default=0)
    return tuple(_signer(name, keys[name]) for found, name in aligned if len(found) == nearest)


def canonical_header(name: str, value: str) -> bytes:
    """Relaxed (§3.4.2): lower-case name, unfolded, blanks as one, none at the ends; with CRLF."""
    # bytes.split() knows ASCII blanks only: U+00A0 in a name is no WSP.
    return name.lower().encode("ascii") + b":" + b" ".join(value.encode().split()) + b"\r\n"


def _signer(name: str, key: DkimKey) -> Signer:
    if not key.private_key:
        raise InvalidError(f"dkim.{name[:64]}.private_key: is missing", field="settings")
    return Signer(name, key.private_key)


def _static(algorithm: str, domain: str, selector: str, names: Sequence[str]) -> str:
    tags = ("v=1;", f"a={algorithm};", "c=relaxed/relaxed;", f"d={domain};", f"s={selector};")
    over = (OVERSIGNED,) if OVERSIGNED in names else ()
    signed = [*names, *over]
    # FWS is allowed round the colons of h= (§3.5).
    words = [*tags, f"h={signed[0]}", *(f":{name}" for name in signed[1:])]
    words[-1] += ";"
    lines = [f"{_NAME}:"]
    for word in words:
        space = "" if word.startswith(":") else " "
        if len(lines[-1]) + len(space) + len(word) > _MAX_LINE:
            lines.append(f" {word}")
        else:
            lines[-1] += space + word
    return "\r\n".join(lines)


def _tail(body_hash: bytes, at: int) -> str:
    encoded = base64.b64encode(body_hash).decode("ascii")
    return f"\r\n t={at}; x={at + VALID_S};\r\n bh={encoded};\r\n b="


def _folded(signature: str) -> str:
    lines = (
        signature[at : at + _SIGNATURE_LINE] for at in range(0, len(signature), _SIGNATURE_LINE)
    )
    return "\r\n ".join(lines)
