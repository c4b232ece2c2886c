"""Octets of strangers' mail as text, whatever they say they are. Pure."""

from __future__ import annotations

import binascii
import codecs
import re
from functools import lru_cache

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,39}")
# No charsets: some need more than linear time, some make text of escapes.
_NONE = frozenset({"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "oem"})
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                          b"0123456789+/"))  # fmt: skip
_HALVES = re.compile(r"[\ud800-\udfff]")
_GROUP = 4


def decoded(octets: bytes, charset: str) -> str:
    """Never fails: where the charset is unknown or does not fit, UTF-8, else Latin-1."""
    codec = _codec(charset.lower())
    if codec and codec != "ascii":
        return _HALVES.sub("\ufffd", octets.decode(codec, "replace"))
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def transferred(octets: bytes, encoding: str) -> bytes:
    """Without its Content-Transfer-Encoding; what is wrong in base64 is passed over."""
    encoding = encoding.strip().lower()
    if encoding == "base64":
        return _base64(octets)
    return binascii.a2b_qp(octets) if encoding == "quoted-printable" else octets


def word(charset: str, encoding: str, text: str) -> tuple[str, bytes]:
    """Charset and octets of an encoded word (RFC 2047 §2; RFC 2231 §5: it may name a language)."""
    octets = text.encode("utf-8", "replace")
    if encoding in "qQ":
        return charset.partition("*")[0], binascii.a2b_qp(octets, header=True)
    return charset.partition("*")[0], _base64(octets)


def _base64(octets: bytes) -> bytes:
    letters = octets.translate(None, _NOT_BASE64)
    if len(letters) % _GROUP == 1:
        letters = letters[:-1]
    return binascii.a2b_base64(letters + b"=" * (-len(letters) % _GROUP))


@lru_cache(maxsize=256)
def _codec(charset: str) -> str:
    """Its name among Python's text encodings, "" for none."""
    if not _NAME.fullmatch(charset):
        return ""
    try:
        name = codecs.lookup(charset).name
        b"x".decode(name, "replace")  # refuses what is no text encoding
    except (LookupError, UnicodeError):
        return ""
    return "" if name in _NONE else name
