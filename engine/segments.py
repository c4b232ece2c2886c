"""How a text becomes the parts of an SMS: alphabets, limits and cuts (3GPP TS 23.038, 23.040).

Pure. A part carries 140 octets: 160 septets or 70 UTF-16 units. Of a longer text each part gives
some of them to the header that joins them.
"""

from __future__ import annotations

import codecs
from enum import StrEnum

import msgspec

from engine import gsm
from engine.errors import InvalidError
from engine.gateway import TextKind


class Alphabet(StrEnum):
    """What the characters of a message are written in."""

    GSM = "gsm"  # septets, see engine.gsm
    LATIN1 = "latin1"
    UCS2 = "ucs2"  # UTF-16, big-endian: emoji take two units
    BINARY = "binary"


class Concatenation(StrEnum):
    """How the parts of a long message say that they belong together."""

    UDH8 = "udh8"  # a header in each, with a reference of 8 bits
    UDH16 = "udh16"  # of 16 bits
    SAR = "sar"  # beside each; the network makes the header, as long as it likes
    PAYLOAD = "payload"  # the network cuts


class TextSize(msgspec.Struct, frozen=True):
    """``units`` (septets, octets or UTF-16 units) in ``parts`` of at most ``per_part`` each."""

    alphabet: Alphabet
    units: int
    parts: int
    per_part: int


MAX_PARTS = 30
"""Of a text that a provider of type smpp takes, where its ``max_parts`` says nothing else."""

_SINGLE = {Alphabet.GSM: 160, Alphabet.LATIN1: 140, Alphabet.UCS2: 70, Alphabet.BINARY: 140}
# 23.040 §9.2.3.24.1: the header takes 6 octets, or 7 septets and the bits to the next one.
_JOINED_8 = {Alphabet.GSM: 153, Alphabet.LATIN1: 134, Alphabet.UCS2: 67, Alphabet.BINARY: 134}
# §9.2.3.24.8: 7 octets, or 8 septets. UTF-16 loses a whole unit by the odd octet.
_JOINED_16 = {Alphabet.GSM: 152, Alphabet.LATIN1: 133, Alphabet.UCS2: 66, Alphabet.BINARY: 133}
_JOINED = {
    Concatenation.UDH8: _JOINED_8,
    Concatenation.UDH16: _JOINED_16,
    Concatenation.SAR: _JOINED_16,
    # What the network does by itself is its own affair; most use 8 bits.
    Concatenation.PAYLOAD: _JOINED_8,
}

_UNIT = {Alphabet.GSM: 1, Alphabet.LATIN1: 1, Alphabet.UCS2: 2, Alphabet.BINARY: 1}
_HIGH_SURROGATES = range(0xD8, 0xDC)  # their first octets

_KINDS = {
    "unicode": TextKind.UNICODE, "ucs2": TextKind.UNICODE, "ucs-2": TextKind.UNICODE,
    "utf-16": TextKind.UNICODE, "utf16": TextKind.UNICODE, "utf-16be": TextKind.UNICODE,
    "binary": TextKind.BINARY, "8bit": TextKind.BINARY, "8-bit": TextKind.BINARY,
}  # fmt: skip
_LATIN1 = codecs.lookup("latin-1").name


def kind_of(type_: str) -> TextKind:
    """What a ``Text.type`` asks for; UTF-8 and charsets nobody knows are plain."""
    word = type_.strip().lower()
    kind = _KINDS.get(word)
    if kind is not None:
        return kind
    try:
        return TextKind.LATIN1 if codecs.lookup(word).name == _LATIN1 else TextKind.PLAIN
    except (LookupError, ValueError):  # ValueError: a NUL in it
        return TextKind.PLAIN


def kind_sent(text: str, kind: TextKind, *, flash: bool, through_latin1: bool) -> TextKind:
    """``kind``, or the one that keeps class and characters where it cannot.

    ``through_latin1``: the network makes the GSM alphabet of the Latin-1 it is given.
    """
    if kind is TextKind.LATIN1 and flash:
        kind = TextKind.PLAIN  # 23.038 §4 has no class for Latin-1
    if kind is TextKind.PLAIN and through_latin1 and not is_latin1(text):
        return TextKind.UNICODE  # what is not in both would be lost
    return kind


def alphabet_of(text: str, kind: TextKind) -> Alphabet:
    """The alphabet with the most room that says all of ``text`` and is of its kind."""
    match kind:
        case TextKind.BINARY:
            return Alphabet.BINARY
        case TextKind.UNICODE:
            return Alphabet.UCS2
        case TextKind.LATIN1:
            return Alphabet.LATIN1 if is_latin1(text) else Alphabet.UCS2
        case _:
            return Alphabet.GSM if gsm.is_gsm(text) else Alphabet.UCS2


def is_latin1(text: str) -> bool:
    """Whether every character of ``text`` is in ISO 8859-1."""
    return text.isascii() or max(text) <= "\xff"


def octets_of(digits: str) -> bytes:
    """The octets of a binary message, which are two hexadecimal digits each, blanks between or not.

    ``InvalidError`` for anything else.
    """
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise InvalidError(
            "data: of a binary text must be pairs of hexadecimal digits", field="data"
        ) from None


def encoded(text: str, alphabet: Alphabet) -> bytes:
    """``text`` as octets of its alphabet, which must have all of it (see ``alphabet_of``)."""
    match alphabet:
        case Alphabet.GSM:
            return gsm.encode(text)
        case Alphabet.LATIN1:
            return text.encode("latin-1")
        case Alphabet.BINARY:
            return octets_of(text)
        case _:
            # Half of a surrogate pair is no character; it becomes a question mark.
            return text.encode("utf-16-be", "replace")


def decoded(octets: bytes, alphabet: Alphabet) -> str:
    """What ``encoded`` was given; never fails, whatever came in from outside."""
    match alphabet:
        case Alphabet.GSM:
            return gsm.decode(octets)
        case Alphabet.LATIN1:
            return octets.decode("latin-1")
        case Alphabet.BINARY:
            return octets.hex().upper()
        case _:
            return octets.decode("utf-16-be", "replace")


def split(octets: bytes, alphabet: Alphabet, concatenation: Concatenation) -> tuple[bytes, ...]:
    """The octets of each part, as few parts as can be; none at all are one part.

    No cut goes through an escape pair of the GSM alphabet or a surrogate pair of UTF-16. With
    ``PAYLOAD`` they are those that networks make of it.
    """
    unit = _UNIT[alphabet]
    room = unit * _room(len(octets) // unit, alphabet, concatenation)
    parts = []
    start = 0
    while len(octets) - start > room:
        end = start + room
        if _breaks_pair(octets, end, alphabet):
            end -= unit
        parts.append(octets[start:end])
        start = end
    return (*parts, octets[start:])


def measure(
    text: str, kind: TextKind, concatenation: Concatenation = Concatenation.UDH8
) -> TextSize:
    """How much of an SMS ``text`` takes; with ``PAYLOAD`` in as many parts as networks make of it.

    ``InvalidError`` where it is binary and no hexadecimal digits.
    """
    alphabet = alphabet_of(text, kind)
    octets = encoded(text, alphabet)
    units = len(octets) // _UNIT[alphabet]
    parts = len(split(octets, alphabet, concatenation))
    return TextSize(alphabet, units, parts, _room(units, alphabet, concatenation))


def texts(text: str, kind: TextKind, concatenation: Concatenation) -> tuple[str, ...]:
    """The text of each part that ``measure`` counts; of a binary one its digits."""
    alphabet = alphabet_of(text, kind)
    parts = split(encoded(text, alphabet), alphabet, concatenation)
    return tuple(decoded(part, alphabet) for part in parts)


def _room(units: int, alphabet: Alphabet, concatenation: Concatenation) -> int:
    single = _SINGLE[alphabet]
    return single if units <= single else _JOINED[concatenation][alphabet]


def _breaks_pair(octets: bytes, end: int, alphabet: Alphabet) -> bool:
    """Whether what stands before ``end`` belongs together with what comes after."""
    if alphabet is Alphabet.GSM:
        return octets[end - 1] == gsm.ESCAPE
    return alphabet is Alphabet.UCS2 and octets[end - 2] in _HIGH_SURROGATES
