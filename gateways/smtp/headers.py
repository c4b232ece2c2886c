"""Header fields of what we send: RFC 5322 §2.2, words of RFC 2047, parameters of RFC 2231. Pure.

Nothing is cleaned silently: what could end a header early (CR, LF, NUL, any other control
character) is an ``InvalidError`` that names its field.
"""

from __future__ import annotations

import re
import unicodedata
from binascii import b2a_base64
from collections.abc import Iterator
from urllib.parse import quote

from engine.addresses import domain_ascii, needs_smtputf8, plain
from engine.errors import InvalidError
from engine.mail import MailAddress, MailFile

_LINE = 76  # RFC 2047 §2: of a line that has an encoded word
_WORD = 75
_LONGEST = 900  # of a word that cannot be folded; a line may have 998 (RFC 5322 §2.1.1)
_LONGEST_NAME = 60
_FRAME = len("=?utf-8?q??=")
_CLUSTER = 5  # characters kept together: 20 octets, 60 as Q; more do not fit a word for sure
_ZERO_WIDTH_JOINER = "\u200d"
_BASE64_SIZE = 4 / 3
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_WORDS = re.compile(r"[!-~]+(?: [!-~]+)*")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}")
_PLAIN_NAME = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")
_NOT_PLAIN = re.compile(r"[^ !#-\[\]-~]|(?<= ) |=\?")
_OCTETS = "application/octet-stream"
_PARAMETER = 60  # octets of a parameter's value in one line
_Q_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_Q = tuple("_" if n == 32 else chr(n) if n in _Q_SAFE else f"={n:02X}" for n in range(256))  # noqa: PLR2004


def header(name: str, value: str) -> bytes:
    """An unstructured field with its CRLF, in lines of at most 78 where words allow it.

    A value that would not come through as it is (other scripts, blanks at its ends or in a row,
    what looks like an encoded word) is written in encoded words of at most 75 octets, none of which
    cuts a character (RFC 2047 §5). Raises ``InvalidError`` for control characters.
    """
    _refuse_controls(name, value)
    return f"{name}:{_text(value, len(name) + 2)}\r\n".encode("ascii")


def address_header(name: str, who: MailAddress) -> bytes:
    """A field with one mailbox; UTF-8 only where the address is (RFC 6532).

    Raises ``InvalidError`` for an address that is none and for control characters in the name.
    """
    address = f"<{mailbox(name, who.address)}>"
    _refuse_controls(name, who.name)
    phrase = _phrase(who.name, len(name) + 2)
    if not phrase:
        return f"{name}: {address[1:-1]}\r\n".encode()
    last = phrase.rpartition("\r\n")[2]
    used = len(last) + (len(name) + 1 if last is phrase else 0)
    blank = " " if used + 1 + len(address) <= _LINE else "\r\n "
    return f"{name}:{phrase}{blank}{address}\r\n".encode()


def mailbox(name: str, address: str) -> str:
    """An address for a header: its domain in A-labels wherever that avoids SMTPUTF8.

    Raises ``InvalidError`` with the field of the header ``name``.
    """
    if plain(address) != address:
        raise InvalidError(f"{name}: not an e-mail address", field=_field(name))
    local, _, domain = address.rpartition("@")
    return address if needs_smtputf8(address) else f"{local}@{domain_ascii(domain)}"


def attachment_header(file: MailFile) -> bytes:
    """The fields of an attachment in base64.

    The name is ``filename*`` (RFC 2231) unless it is plain ASCII; its ASCII form then stands as the
    type's ``name``, for readers prefer a plain ``filename`` to the real one. ``message/*`` may not
    be in base64 (RFC 2046 §5.2.1), so such a file goes as octets.
    """
    _refuse_controls("attachment", file.name)
    fits = _TYPE.fullmatch(file.type) and not file.type.lower().startswith(("message", "multipart"))
    kind = file.type if fits else _OCTETS
    ascii_ = _NOT_PLAIN.sub("_", file.name)[:_PARAMETER]
    lines = [f'Content-Type: {kind};\r\n name="{ascii_}"', "Content-Transfer-Encoding: base64"]
    lines.append(f"Content-Disposition: attachment{''.join(_file_name(file.name))}")
    return ("\r\n".join(lines) + "\r\n").encode("ascii")


def _file_name(name: str) -> Iterator[str]:
    if len(name) <= _PARAMETER and _PLAIN_NAME.fullmatch(name) and "=?" not in name:
        yield f';\r\n filename="{name}"'
        return
    pieces = list(_percent(name))
    for number, piece in enumerate(pieces):
        charset = "" if number else "utf-8''"
        section = f"*{number}" if len(pieces) > 1 else ""
        yield f";\r\n filename{section}*={charset}{piece}"


def _percent(text: str) -> Iterator[str]:
    """Percent-encoded, in pieces that cut no character."""
    piece = ""
    for one in text:
        octets = quote(one, safe="")
        if len(piece) + len(octets) > _PARAMETER:
            yield piece
            piece = ""
        piece += octets
    yield piece


def _field(name: str) -> str:
    return name.lower().replace("-", "_")


def _refuse_controls(name: str, value: str) -> None:
    if _CONTROL.search(value):
        raise InvalidError(f"{name}: control characters", field=_field(name))


def _text(value: str, used: int) -> str:
    if not value:
        return ""
    if not _WORDS.fullmatch(value) or "=?" in value:
        return _encoded(value, used)
    if used + len(value) <= _LINE:
        return f" {value}"
    words = value.split(" ")
    return _encoded(value, used) if max(map(len, words)) > _LONGEST else _folded(words, used)


def _folded(words: list[str], used: int) -> str:
    lines, room = [""], _LINE + 1 - used
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines.append("")
            room = _LINE
        lines[-1] += f" {word}"
    return "\r\n".join(lines)


def _phrase(name: str, used: int) -> str:
    if not name:
        return ""
    if len(name) > _LONGEST_NAME or not _WORDS.fullmatch(name) or "=?" in name:
        return _encoded(name, used)
    if _ATOMS.fullmatch(name):
        return f" {name}"
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f' "{escaped}"'


def _encoded(value: str, used: int) -> str:
    octets = value.encode()
    as_q = "".join([_Q[octet] for octet in octets])
    shorter = len(as_q) <= len(octets) * _BASE64_SIZE
    room = min(_LINE - used, _WORD) - _FRAME
    if shorter and len(as_q) <= room:
        return f" =?utf-8?q?{as_q}?="
    if len(octets) <= room // 4 * 3:
        return f" {_word(value, as_q=False)}"
    cut = _cut(value, as_q=shorter, room=_LINE - used)
    words = [_word(part, as_q=shorter) for part in cut if part]
    begin = " " if cut[0] else "\r\n "
    return begin + "\r\n ".join(words)


def _word(text: str, *, as_q: bool) -> str:
    octets = text.encode()
    if as_q:
        return f"=?utf-8?q?{''.join([_Q[octet] for octet in octets])}?="
    return f"=?utf-8?b?{b2a_base64(octets, newline=False).decode()}?="


def _cut(value: str, *, as_q: bool, room: int) -> list[str]:
    """What goes into each word; the first is empty where nothing fits behind the name."""
    parts, size = [""], 0
    for cluster in _clusters(value):
        octets = cluster.encode()
        more = sum(len(_Q[octet]) for octet in octets) if as_q else len(octets)
        filled = size + more if as_q else -(-(size + more) // 3) * 4
        if _FRAME + filled > min(room, _WORD):
            parts.append("")
            size, room = 0, _WORD
        parts[-1] += cluster
        size += more
    return parts


def _clusters(value: str) -> list[str]:
    """Characters, each with the marks that belong to it."""
    if value.isascii():
        return list(value)
    clusters = [""]
    for one in value:
        before = clusters[-1]
        joined = before.endswith(_ZERO_WIDTH_JOINER) or one == _ZERO_WIDTH_JOINER
        if (joined or unicodedata.category(one)[0] == "M") and 0 < len(before) < _CLUSTER:
            clusters[-1] += one
        else:
            clusters.append(one)
    return clusters[1:]
