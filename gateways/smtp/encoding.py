"""Transfer encodings of what we send (RFC 2045 §6.7, §6.8), piece by piece. Pure.

Whatever is encoded here is its own relaxed canonical form (RFC 6376 §3.4.4): runs of blanks, tabs
and blanks before a line end are written as ``=20`` and ``=09``, so DKIM hashes what is on the wire.
No line begins with ``.`` (nothing to stuff) or ``From `` (nothing for an mbox to damage).
"""

from __future__ import annotations

import re
from base64 import encodebytes
from collections.abc import Sequence

MOSTLY = 6
"""Quoted-printable makes three octets of one, base64 four of three: equal at one in six."""

_SAMPLE = 4096
_PLAIN = re.compile(r"(?![.F])[!-<>-~]+(?: [!-<>-~]+)*")
_PLAIN_LENGTH = 75
_LINE_END = re.compile(r"\r\n|\r|\n")
_ODD = re.compile(rb"[^ !-<>-~]|(?<= ) | \Z")
# Two less than a line may have beside its soft break: its first character may become three. No cut
# within ``=XX``: ``=`` stands for nothing else any more.
_UNCUT = 73
_CUT = re.compile(rb".{1,73}(?<!=)(?<!=.)")


def quoted(text: str) -> bytes:
    """Quoted-printable of UTF-8 in whole lines of at most 76; pieces of a text may be joined.

    Any line end of the text becomes CRLF. The last line ends softly, unless the text ends a line.
    """
    if len(text) <= _PLAIN_LENGTH and _PLAIN.fullmatch(text):
        return b"%b=\r\n" % text.encode()
    if "\n" not in text and "\r" not in text:
        return _quoted_line(text) + b"=\r\n" if text else b""
    *ended, rest = _LINE_END.split(text)
    lines = [_quoted_line(line) + b"\r\n" for line in ended]
    if rest:
        lines.append(_quoted_line(rest) + b"=\r\n")
    return b"".join(lines)


def wrapped(octets: bytes) -> bytes:
    """Base64 in lines of 76, each with CRLF."""
    return encodebytes(octets).replace(b"\n", b"\r\n")


def utf8(text: str) -> bytes:
    """With CRLF line ends; half surrogate pairs become question marks."""
    return _LINE_END.sub("\r\n", text).encode("utf-8", "replace")


def mostly_foreign(fixed: Sequence[str]) -> bool:
    """Whether more than a sixth of a text's first octets is not ASCII: base64 is shorter then."""
    sample = "".join(fixed)[:_SAMPLE].encode("utf-8", "replace")
    ascii_ = len(sample.decode("ascii", "ignore"))
    return (len(sample) - ascii_) * MOSTLY > len(sample)


def _quoted_line(line: str) -> bytes:
    encoded = _ODD.sub(_escaped, line.encode("utf-8", "replace"))
    if len(encoded) <= _UNCUT:
        return _begun(encoded)
    return b"=\r\n".join([_begun(part) for part in _CUT.findall(encoded)])


def _begun(line: bytes) -> bytes:
    if line.startswith((b".", b"From ")):
        return b"=%02X%b" % (line[0], line[1:])
    return line


def _escaped(octet: re.Match[bytes]) -> bytes:
    return b"=%02X" % octet[0][0]
