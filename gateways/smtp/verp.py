"""Names that bounces bring back: which spool an address, ENVID or Message-ID is of. Pure.

Each carries a MAC of the node's key, so that nobody can make a bounce up for a mail he never saw.
Address and ENVID stay between those who carry the mail; a Message-ID is quoted by whoever answers.
"""

from __future__ import annotations

from base64 import b32decode, b32encode
from binascii import Error as BinasciiError
from collections.abc import Sequence
from typing import Protocol

MAC_BYTES = 8
"""Of an address. 2**64 tries through an SMTP port are out of anybody's reach."""

TOKEN_CHARACTERS = 24
_ID_BYTES = 7
# The base32 of 10 octets has no spare bits: there is one way to write it.
_MESSAGE_MAC_BYTES = 10
_MESSAGE_MAC_CHARACTERS = 16
_HOLE = "{token}"
_SPOOL, _MESSAGE = b"spool\0", b"message\0"
_MAX_MESSAGE_ID = 998


class Sealing(Protocol):
    """What is needed of ``engine.seals.Seals``."""

    def mac(self, data: bytes, size: int) -> bytes:
        """The MAC of ``data``, cut to ``size`` octets."""
        ...

    def holds(self, data: bytes, mac: bytes) -> bool:
        """Whether it is one of ours, in constant time."""
        ...


class Verp:
    """Variable envelope return paths of one node, and what else names a mail of ours."""

    def __init__(self, seals: Sealing) -> None:
        self._seals = seals

    def token(self, spool_id: int) -> str:
        """24 characters of ``a-z2-7``: the id and its MAC. It is the ENVID too (RFC 3461 §4.4)."""
        number = spool_id.to_bytes(_ID_BYTES)
        return _base32(number + self._seals.mac(_SPOOL + number, MAC_BYTES))

    def spool_id(self, token: str) -> int | None:
        """Whose token this is, in any case; None where it is not one of ours."""
        if len(token) != TOKEN_CHARACTERS or (octets := _octets(token)) is None:
            return None
        number, mac = octets[:_ID_BYTES], octets[_ID_BYTES:]
        return int.from_bytes(number) if self._seals.holds(_SPOOL + number, mac) else None

    def address(self, pattern: str, spool_id: int) -> str:
        """The envelope sender of a spool's mail. ``pattern`` has ``{token}`` in its local part."""
        return pattern.replace(_HOLE, self.token(spool_id))

    def find(self, patterns: Sequence[str], address: str) -> int | None:
        """The spool whose envelope sender this is; case does not matter (gateways change it)."""
        low = address.lower()
        for pattern in patterns:
            before, hole, after = pattern.lower().partition(_HOLE)
            if not hole or not low.startswith(before) or not low.endswith(after):
                continue
            found = self.spool_id(low[len(before) : len(low) - len(after)])
            if found is not None:
                return found
        return None

    def message_id(self, transmission_id: int, domain: str) -> str:
        """``<o1f.mac@domain>``: the same for every spool of a transmission (RFC 5322 §3.6.4)."""
        mac = self._seals.mac(_MESSAGE + b"%x" % transmission_id, _MESSAGE_MAC_BYTES)
        return f"<o{transmission_id:x}.{_base32(mac)}@{domain}>"

    def transmission_id(self, message_id: str) -> int | None:
        """Whose Message-ID this is; None where we did not make it. The domain is not looked at."""
        if len(message_id) > _MAX_MESSAGE_ID:
            return None
        left = message_id.strip().removeprefix("<").partition("@")[0].lower()
        number, _, mac = left.removeprefix("o").partition(".")
        if len(mac) != _MESSAGE_MAC_CHARACTERS or (found := _hexadecimal(number)) is None:
            return None
        octets = _octets(mac)
        if octets is None or left != f"o{found:x}.{mac}":
            return None
        return found if self._seals.holds(_MESSAGE + b"%x" % found, octets) else None


def _base32(octets: bytes) -> str:
    return b32encode(octets).decode().lower()


def _octets(text: str) -> bytes | None:
    """None where it is no base32, which is ASCII: ``upper`` makes ``ß`` two characters."""
    if not text.isascii():
        return None
    try:
        return b32decode(text.upper())
    except BinasciiError:
        return None


def _hexadecimal(text: str) -> int | None:
    try:
        return int(text, 16) if len(text) <= 2 * _ID_BYTES else None
    except ValueError:
        return None
