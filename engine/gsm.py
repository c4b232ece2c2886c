"""The GSM 7-bit default alphabet (3GPP TS 23.038 §6.2.1): what an SMS can say without Unicode.

Septets are unpacked here, one to an octet, as SMPP carries them.
"""

from __future__ import annotations

import codecs
import re

ESCAPE = 0x1B
"""The septet before one of the extension table."""

# In the order of their numbers; the place of ESC is kept by itself.
_BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
# §6.2.1.1: what follows ESC.
_EXTENSION = {
    0x0A: "\f", 0x14: "^", 0x28: "{", 0x29: "}", 0x2F: "\\", 0x3C: "[", 0x3D: "~", 0x3E: "]",
    0x40: "|", 0x65: "€",
}  # fmt: skip

EXTENDED = frozenset(_EXTENSION.values())
"""Characters that take two septets."""

_ALPHABET = frozenset(_BASIC.replace("\x1b", "")) | EXTENDED
# What is above 0x7F is no septet.
_DECODE = _BASIC + "\ufffd" * 128
_ENCODE: dict[int, int | bytes] = {
    **{ord(char): number for number, char in enumerate(_BASIC) if number != ESCAPE},
    **{ord(char): bytes((ESCAPE, number)) for number, char in _EXTENSION.items()},
}
# Most texts are in Latin-1 and escape nothing: for them a table of octets is ten times as fast. ESC
# stands for "not so simple".
_QUICK = bytes(
    number if isinstance(number := _ENCODE.get(octet, ESCAPE), int) else ESCAPE
    for octet in range(256)
)
_ESCAPED = re.compile("\x1b(.?)", re.DOTALL)
# §6.2.1.1: an unknown one is shown as its basic character; ESC ESC and ESC at the end as a space.
_AFTER_ESCAPE = {"": " ", "\x1b": " "} | {
    _BASIC[number]: char for number, char in _EXTENSION.items()
}


def is_gsm(text: str) -> bool:
    """Whether every character of ``text`` is in the default alphabet or its extension table."""
    return _ALPHABET.issuperset(text)


def foreign(text: str) -> tuple[str, ...]:
    """The characters of ``text`` that the alphabet does not have, each once, as they come."""
    return tuple(dict.fromkeys(char for char in text if char not in _ALPHABET))


def encode(text: str) -> bytes:
    """``text`` as septets; ``UnicodeEncodeError`` where ``is_gsm`` says no."""
    try:
        quick = text.encode("latin-1").translate(_QUICK)
    except UnicodeEncodeError:  # Greek, the euro sign
        return _encode_any(text)
    return _encode_any(text) if ESCAPE in quick else quick


def _encode_any(text: str) -> bytes:
    return codecs.charmap_encode(text, "strict", _ENCODE)[0]


def decode(septets: bytes) -> str:
    """What a phone shows for ``septets``; octets that are none become U+FFFD."""
    text = codecs.charmap_decode(septets, "strict", _DECODE)[0]
    return _ESCAPED.sub(_unescape, text) if ESCAPE in septets else text


def _unescape(found: re.Match[str]) -> str:
    return _AFTER_ESCAPE.get(found[1], found[1])
