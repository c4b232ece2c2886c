"""DKIM keys as providers' settings have them: DNS name and PEM text, checked. Pure."""

from __future__ import annotations

import re

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from engine.addresses import domain_ascii
from engine.errors import InvalidError

PrivateKey = RSAPrivateKey | Ed25519PrivateKey

RSA_BITS = (1024, 4096)
"""RFC 8301 §3.2: verifiers need take no more than 4096 and must refuse less than 1024."""

RSA_BITS_WISE = 2048
_MARK = "._domainkey."
_MAX_PEM = 8_192
_LEAST_EXPONENT = 3  # RFC 8017 §3.1
_PROBE = b"probe"
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


def selector_and_domain(dns_name: str) -> tuple[str, str]:
    """``s1._domainkey.example.org`` → ``s1``, ``example.org`` (RFC 6376 §3.6.2.1), lower case.

    ``InvalidError`` where it is no such name.
    """
    selector, mark, domain = dns_name.strip().rstrip(".").lower().partition(_MARK)
    labels = selector.split(".")
    if not mark or "." not in domain or not all(_LABEL.fullmatch(each) for each in labels):
        raise InvalidError(
            f"dkim: {dns_name[:64]!r} is not like selector._domainkey.example.org", field="settings"
        )
    return selector, domain_ascii(domain)


def private_key(dns_name: str, pem: str) -> PrivateKey:
    """The key of a PEM text (PKCS #8 or #1, not encrypted); ``InvalidError`` says what is wrong."""
    try:
        # OpenSSL's own check takes 50 ms with RSA-2048 and 350 ms with RSA-4096; see ``_works``.
        key = load_pem_private_key(
            pem[:_MAX_PEM].encode("ascii"), password=None, unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What the library says may quote the text.
        raise _refused(dns_name, "is no private key in PEM, or has a passphrase") from None
    if isinstance(key, RSAPrivateKey):
        low, high = RSA_BITS
        if not low <= key.key_size <= high:
            raise _refused(dns_name, f"must have {low} to {high} bits")
        if not _works(key):
            raise _refused(dns_name, "is damaged")
        return key
    if isinstance(key, Ed25519PrivateKey):
        return key
    raise _refused(dns_name, "must be RSA or Ed25519")


def is_short(key: PrivateKey) -> bool:
    """Whether it is RSA with fewer bits than signers should use (RFC 8301 §3.2)."""
    return isinstance(key, RSAPrivateKey) and key.key_size < RSA_BITS_WISE


def _works(key: RSAPrivateKey) -> bool:
    """Whether what it signs is believed: its numbers fit together."""
    public = key.public_key()
    if public.public_numbers().e < _LEAST_EXPONENT:
        return False
    try:
        public.verify(key.sign(_PROBE, PKCS1v15(), SHA256()), _PROBE, PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def _refused(dns_name: str, why: str) -> InvalidError:
    return InvalidError(f"dkim.{dns_name[:64]}.private_key: {why}", field="settings")
