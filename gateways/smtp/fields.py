"""Header fields of strangers' mail: read within limits, harmless afterwards. Pure.

The library's parsers raise, recurse or take quadratic time for some of what comes
(messaging.md 21); everything here is linear and total.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from engine.addresses import plain
from engine.mail import MailAddress
from gateways.smtp.charsets import decoded, word

MAX_HEAD = 65_536
"""Octets of a header block; what is behind is not looked at."""

MAX_LINES = 1_000
_MAX_VALUE = 8_192
_MAX_PARAMETERS = 100
_MAX_NAME = 255
_LINE = re.compile(rb"\r?\n")
_FIELD = re.compile(rb"([!-9;-~]{1,100})[ \t]*:(.*)", re.DOTALL)
_ENCODED = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?]*)\?=")
_ODD = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+"
)
_PARAMETER = re.compile(r';\s*([^\s=;"]{1,60})\s*=\s*(?:"((?:[^"\\]|\\.)*+)"|([^;\s]*))', re.DOTALL)
_SECTION = re.compile(r"([^*]+)(?:\*([0-9]{1,3}))?(\*)?")
_PIECE = re.compile(
    r'\s*(?:"((?:[^"\\]|\\.)*+)"?|<([^<>]*)>?|([,;:])|([^\s"<>,;:()]+)|(.))', re.DOTALL
)


class Head(NamedTuple):
    """A header block, where the body behind it begins, and whether it was over a limit."""

    fields: Fields
    body: int
    cut: bool


class Fields:
    """The fields of one block. All of a name are kept; the first one counts."""

    def __init__(self, block: bytes) -> None:
        lines = _LINE.split(block, MAX_LINES)
        self.cut = len(lines) > MAX_LINES
        self._raw: dict[str, bytes] = {}
        name, values = "", [b""]
        for line in [*lines[:MAX_LINES], b"-:"]:
            if line[:1] in (b" ", b"\t"):
                values.append(line)
            elif found := _FIELD.fullmatch(line):
                self._raw.setdefault(name, b"".join(values))
                name, values = found[1].decode("ascii").lower(), [found[2]]

    def raw(self, name: str) -> bytes:
        """Unfolded, as it came; b"" for none. ``name`` in small letters."""
        return self._raw.get(name, b"").strip()

    def value(self, name: str) -> str:
        """Without control characters; encoded words are left as they are."""
        return harmless(decoded(self.raw(name)[:_MAX_VALUE], ""))

    def text(self, name: str) -> str:
        """With its encoded words decoded, and harmless after that too."""
        return words(decoded(self.raw(name)[:_MAX_VALUE], ""))

    def mailbox(self, name: str) -> MailAddress:
        """The first mailbox; "" where there is none that we could write to."""
        return first_mailbox(decoded(self.raw(name)[:_MAX_VALUE], ""))

    def structured(self, name: str) -> tuple[str, dict[str, str]]:
        """Value in small letters and parameters (RFC 2231 joined and decoded) of a MIME field."""
        value = decoded(self.raw(name)[:_MAX_VALUE], "")
        first = value.partition(";")[0].strip().lower()
        return harmless(first), _parameters(value[len(value.partition(";")[0]) :])


def head_of(raw: bytes, start: int = 0, end: int | None = None) -> Head:
    """The header block that begins at ``start``; what is behind the limits is passed over."""
    end = len(raw) if end is None else end
    if raw[start : start + 1] == b"\n" or raw[start : start + 2] == b"\r\n":
        return Head(Fields(b""), min(raw.index(b"\n", start) + 1, end), cut=False)
    last, body = _blank_line(raw, start, end)
    fields = Fields(raw[start : min(last, start + MAX_HEAD)])
    return Head(fields, body, cut=fields.cut or last - start > MAX_HEAD)


def _blank_line(raw: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the line before the first blank one ends, and where the next one begins."""
    bare = raw.find(b"\n\n", start, end)
    last = end if bare < 0 else bare
    full = raw.find(b"\n\r\n", start, last)
    if full >= 0:
        return full, full + 3
    return last, min(last + 2, end)


def harmless(text: str) -> str:
    """In one line: control characters, line and paragraph separators, direction marks go.

    Fit for a header of ours (RFC 5322 §2.2), whatever a stranger put into his.
    """
    return _ODD.sub(" ", text).strip()


def words(text: str) -> str:
    """Encoded words decoded (RFC 2047); those in a row are one text, blanks between them go."""
    pieces, last = [], 0
    charset, octets = "", b""
    for found in _ENCODED.finditer(text):
        between = text[last : found.start()]
        its_charset, more = word(found[1], found[2], found[3])
        if between.strip() or its_charset != charset:
            pieces.append(decoded(octets, charset))
            pieces.append(between if between.strip() or not last else "")
            octets = b""
        charset, octets, last = its_charset, octets + more, found.end()
    return harmless("".join([*pieces, decoded(octets, charset), text[last:]]))


def first_mailbox(text: str) -> MailAddress:
    """The first mailbox of a field (RFC 5322 §3.4); comments go, names are decoded last."""
    name: list[str] = []
    address = ""
    for found in _PIECE.finditer(_without_comments(text)):
        quoted, bracketed, mark, atom, _ = found.groups()
        if bracketed is not None:
            address = bracketed
            break
        if mark == ":":
            name.clear()  # the name of a group
        elif mark:
            if name:
                break
        elif quoted is not None:
            name.append(re.sub(r"\\(.)", r"\1", quoted))
        elif atom:
            name.append(atom)
    if not address and name:
        address = name.pop()
        name = []
    known = plain(harmless(address))
    return MailAddress(known, words(" ".join(name))[:_MAX_NAME]) if known else MailAddress("")


def _without_comments(text: str) -> str:
    if "(" not in text:
        return text
    return "".join(_outside(text))


def _outside(text: str) -> Iterator[str]:
    """What is in no comment; they nest, and quotes hold no comments (RFC 5322 §3.2.2)."""
    depth, quoted, escaped = 0, False, False
    for one in text:
        if not escaped and not depth and one == '"':
            quoted = not quoted
        opens = one == "(" and not quoted and not escaped
        depth += opens
        if not depth:
            yield one
        elif one == ")" and not escaped:
            depth -= 1
        escaped = one == "\\" and not escaped


def _parameters(text: str) -> dict[str, str]:
    """RFC 2231 §3, §4. The first of a name counts; extended ones before plain ones."""
    plain_ones: dict[str, str] = {}
    sections: dict[str, dict[int, tuple[str, bool]]] = {}
    for count, found in enumerate(_PARAMETER.finditer(text)):
        if count == _MAX_PARAMETERS:
            break
        value = found[3] if found[2] is None else re.sub(r"\\(.)", r"\1", found[2])
        section = _SECTION.fullmatch(found[1].lower())
        if section and (section[2] or section[3]):
            parts = sections.setdefault(section[1], {})
            parts.setdefault(int(section[2] or 0), (value, bool(section[3])))
        else:
            plain_ones.setdefault(found[1].lower(), words(value))
    return plain_ones | {name: _joined(parts) for name, parts in sections.items()}


def _joined(parts: dict[int, tuple[str, bool]]) -> str:
    first, encoded = parts.get(0, ("", False))
    charset, octets = "", b""
    if encoded and first.count("'") > 1:
        charset, _, rest = first.split("'", 2)
        parts = {**parts, 0: (rest, True)}
    for _, (value, percent) in sorted(parts.items()):
        octets += unquote_to_bytes(value) if percent else value.encode("utf-8", "replace")
    return harmless(decoded(octets, charset))
