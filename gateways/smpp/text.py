"""From a text to the short messages that carry it, and back (SMPP 3.4 §4.4.1, §5.2.19). Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from engine.errors import InvalidError
from engine.gateway import TextKind, TextMessage
from engine.gsm import decode as decode_gsm
from engine.segments import (
    Alphabet,
    Concatenation,
    alphabet_of,
    decoded,
    encoded,
    kind_sent,
    split,
)
from gateways.smpp import times
from gateways.smpp.pdu import Address, ShortMessage, Tag
from gateways.smpp.settings import SmppSettings

UDHI = 0x40
"""esm_class (§5.2.12): the octets begin with a user data header."""

Part = tuple[int, int, int]
"""Reference, number of parts, number of this one from 1."""

_REGISTERED = {"all": 1, "failure": 2, "none": 0}  # §5.2.17
_IEI_8, _IEI_16 = 0x00, 0x08  # 23.040 §9.2.3.24
_DEFAULT = 0  # data_coding: the SMSC's own alphabet
_LAST_STANDARD = 0x0F


class Decoded(msgspec.Struct, frozen=True):
    """What came in. ``part`` where it is one of several.

    A pair of octets may have been cut between two parts: join ``octets`` (without their header) in
    order and read the whole by ``text_of(octets, coding, settings)``.
    """

    text: str
    kind: TextKind
    part: Part | None
    octets: bytes
    coding: int


# --- out ------------------------------------------------------------------------------------------
def compose(
    message: TextMessage,
    *,
    source: Address,
    destination: Address,
    settings: SmppSettings,
    reference: int,
    part_reference: int,
) -> list[ShortMessage]:
    """The parts of ``message`` in order.

    Part n has the user_message_reference (§5.3.2.17) ``reference`` + n - 1, so that a receipt tells
    the parts apart; ``reference_of`` reads it. ``part_reference`` joins the parts. Both count in
    as many bits as there are. ``InvalidError`` names the field ``data`` or ``validity``.
    """
    alphabet = _alphabet(message, settings)
    octets = encoded(message.text, alphabet)
    concatenation = Concatenation(settings.concatenation)
    cuts = split(octets, alphabet, concatenation)
    if len(cuts) > settings.max_parts:
        limit = f"{len(cuts)} parts, the provider takes {settings.max_parts}"
        raise InvalidError(f"data: {limit}", field="data")
    common = _common(message, alphabet, settings)
    common = msgspec.structs.replace(common, source=source, destination=destination)
    if concatenation is Concatenation.PAYLOAD and len(cuts) > 1:
        whole = (Tag.MESSAGE_PAYLOAD.value, _wire(octets, alphabet, settings))
        return [msgspec.structs.replace(common, tlvs=(_referring(reference), whole))]
    return [
        _part(
            common,
            _wire(cut, alphabet, settings),
            reference + number - 1,
            (part_reference, len(cuts), number),
            concatenation,
        )
        for number, cut in enumerate(cuts, 1)
    ]


def reference_of(message: ShortMessage) -> int | None:
    """The user_message_reference of a message, ours or one that a receipt carries back."""
    value = message.tlv(Tag.USER_MESSAGE_REFERENCE)
    return None if value is None else int.from_bytes(value)


def _alphabet(message: TextMessage, settings: SmppSettings) -> Alphabet:
    kind = kind_sent(
        message.text, message.kind, flash=message.flash, through_latin1=_speaks_latin1(settings)
    )
    return alphabet_of(message.text, kind)


def _common(message: TextMessage, alphabet: Alphabet, settings: SmppSettings) -> ShortMessage:
    """What all parts share."""
    return ShortMessage(
        service_type=settings.service_type,
        validity_period=times.relative(message.validity_s or settings.validity_s),
        registered_delivery=_REGISTERED[settings.receipts],
        data_coding=_coding(alphabet, settings, flash=message.flash),
    )


def _speaks_latin1(settings: SmppSettings) -> bool:
    return settings.default_alphabet == "latin1" and settings.gsm_coding == _DEFAULT


def _wire(octets: bytes, alphabet: Alphabet, settings: SmppSettings) -> bytes:
    """A part as the SMSC wants it; its size on the air is that of the alphabet all the same."""
    if alphabet is Alphabet.GSM and _speaks_latin1(settings):
        return decode_gsm(octets).encode("latin-1")
    return octets


def _coding(alphabet: Alphabet, settings: SmppSettings, *, flash: bool) -> int:
    own = {
        Alphabet.GSM: settings.gsm_coding,
        Alphabet.LATIN1: settings.latin1_coding,
        Alphabet.UCS2: settings.ucs2_coding,
        Alphabet.BINARY: settings.binary_coding,
    }[alphabet]
    if not flash:
        return own
    if own >= _CLASS_GROUP:  # 23.038 §4: its last two bits are the class
        return own & ~_CLASS_BITS
    if alphabet is Alphabet.GSM and own != _DEFAULT and settings.default_alphabet == "latin1":
        return _CLASS_GROUP  # GSM by name: 0x10 is the SMSC's default, which is another one
    return _FLASH[alphabet]


_CLASS_GROUP, _CLASS_BITS = 0xF0, 0x03
# 23.038 §4: class meant (0x10), class 0, alphabet in bits 2 and 3.
_FLASH = {
    Alphabet.GSM: 0x10,
    Alphabet.LATIN1: 0x10,  # never: see kind_sent
    Alphabet.BINARY: 0x14,
    Alphabet.UCS2: 0x18,
}


def _part(
    common: ShortMessage, body: bytes, reference: int, part: Part, concatenation: Concatenation
) -> ShortMessage:
    tlvs, esm_class = [_referring(reference)], 0
    if part[1] > 1 and concatenation is Concatenation.SAR:
        tlvs += _sar(part)
    elif part[1] > 1:
        body, esm_class = _header(part, concatenation) + body, UDHI
    return msgspec.structs.replace(common, octets=body, esm_class=esm_class, tlvs=tuple(tlvs))


def _referring(reference: int) -> tuple[int, bytes]:
    return Tag.USER_MESSAGE_REFERENCE.value, (reference & 0xFFFF).to_bytes(2)


def _header(part: Part, concatenation: Concatenation) -> bytes:
    """23.040 §9.2.3.24.1 and .8: length of all, element, length of it, reference, total, number."""
    reference, total, number = part
    if concatenation is Concatenation.UDH16:
        return bytes((6, _IEI_16, 4, reference >> 8 & 0xFF, reference & 0xFF, total, number))
    return bytes((5, _IEI_8, 3, reference & 0xFF, total, number))


def _sar(part: Part) -> list[tuple[int, bytes]]:
    """§5.3.2.22 to .24."""
    reference, total, number = part
    return [
        (Tag.SAR_MSG_REF_NUM.value, (reference & 0xFFFF).to_bytes(2)),
        (Tag.SAR_TOTAL_SEGMENTS.value, bytes((total,))),
        (Tag.SAR_SEGMENT_SEQNUM.value, bytes((number,))),
    ]


# --- in -------------------------------------------------------------------------------------------
def decode(message: ShortMessage, settings: SmppSettings) -> Decoded:
    """What a deliver_sm or data_sm says; never fails, whatever is in it."""
    octets = message.octets or message.tlv(Tag.MESSAGE_PAYLOAD) or b""
    part = _sar_part(message)
    if message.esm_class & UDHI:
        header, octets = _parted(octets)
        part = _header_part(header) or part
    text, kind = text_of(octets, message.data_coding, settings)
    return Decoded(text, kind, part, octets, message.data_coding)


def text_of(octets: bytes, coding: int, settings: SmppSettings) -> tuple[str, TextKind]:
    """``octets`` without header as text; hexadecimal digits where no text is meant."""
    charset = _CHARSETS.get(coding)
    if charset is not None and coding not in _own(settings):
        return _clean(octets.decode(charset, "replace")), TextKind.UNICODE
    alphabet = _alphabet_in(coding, settings)
    if alphabet is Alphabet.UCS2:
        return _clean(_utf16(octets)), TextKind.UNICODE
    return _clean(decoded(octets, alphabet)), _KINDS[alphabet]


# §5.2.19: the codings that only text from a handset has.
_CHARSETS = {6: "iso8859_5", 7: "iso8859_8", 10: "iso2022_jp", 14: "euc_kr"}
_STANDARD = {
    1: Alphabet.LATIN1, 2: Alphabet.BINARY, 3: Alphabet.LATIN1, 4: Alphabet.BINARY,
    8: Alphabet.UCS2,
}  # fmt: skip
_KINDS = {
    Alphabet.GSM: TextKind.PLAIN,
    Alphabet.LATIN1: TextKind.LATIN1,
    Alphabet.BINARY: TextKind.BINARY,
}


def _own(settings: SmppSettings) -> dict[int, Alphabet]:
    return {
        settings.binary_coding: Alphabet.BINARY,
        settings.latin1_coding: Alphabet.LATIN1,
        settings.ucs2_coding: Alphabet.UCS2,
        settings.gsm_coding: Alphabet.GSM,
    }


def _alphabet_in(coding: int, settings: SmppSettings) -> Alphabet:
    default = Alphabet.LATIN1 if settings.default_alphabet == "latin1" else Alphabet.GSM
    if coding == _DEFAULT:
        return default
    found = _own(settings).get(coding) or _STANDARD.get(coding)
    if found is not None:
        return found
    # What §5.2.19 leaves open is no text we could read: its octets are kept.
    return Alphabet.BINARY if coding <= _LAST_STANDARD else _alphabet_by_class(coding, default)


def _alphabet_by_class(coding: int, default: Alphabet) -> Alphabet:
    """23.038 §4, group by group."""
    if coding < 0x80:  # noqa: PLR2004 - with a class, to be deleted, or compressed
        if coding & 0x20:
            return Alphabet.BINARY
        return (default, Alphabet.BINARY, Alphabet.UCS2, default)[coding >> 2 & 3]
    if coding >= _CLASS_GROUP:
        return Alphabet.BINARY if coding & 0x04 else Alphabet.GSM
    return Alphabet.UCS2 if coding >= 0xE0 else default  # noqa: PLR2004 - messages wait


def _utf16(octets: bytes) -> str:
    """UCS-2 is big-endian; some handsets say it, or the contrary."""
    if octets.startswith(b"\xff\xfe"):
        return octets[2:].decode("utf-16-le", "replace")
    return decoded(octets.removeprefix(b"\xfe\xff"), Alphabet.UCS2)


def _clean(text: str) -> str:
    """No database but SQLite keeps a NUL."""
    return text.replace("\x00", "\ufffd")


def _parted(octets: bytes) -> tuple[bytes, bytes]:
    """User data header and user data; a header longer than all there is is none."""
    size = octets[0] + 1 if octets else 1
    return (b"", octets) if size > len(octets) else (octets[1:size], octets[size:])


def _header_part(header: bytes) -> Part | None:
    for element, value in _elements(header):
        if element == _IEI_8 and len(value) == 3:  # noqa: PLR2004
            return _checked(value[0], value[1], value[2])
        if element == _IEI_16 and len(value) == 4:  # noqa: PLR2004
            return _checked(int.from_bytes(value[:2]), value[2], value[3])
    return None


def _elements(header: bytes) -> Iterator[tuple[int, bytes]]:
    """Identifier and content of each information element, up to one that lies of its length."""
    at = 0
    while at + 2 <= len(header) and at + 2 + header[at + 1] <= len(header):
        end = at + 2 + header[at + 1]
        yield header[at], header[at + 2 : end]
        at = end


def _sar_part(message: ShortMessage) -> Part | None:
    values = [
        message.tlv(tag)
        for tag in (Tag.SAR_MSG_REF_NUM, Tag.SAR_TOTAL_SEGMENTS, Tag.SAR_SEGMENT_SEQNUM)
    ]
    if not all(values):
        return None
    reference, total, number = (int.from_bytes(value or b"") for value in values)
    return _checked(reference, total, number)


def _checked(reference: int, total: int, number: int) -> Part | None:
    """23.040 §9.2.3.24.1: what makes no sense is to be ignored; one part alone is no part."""
    return (reference, total, number) if 1 <= number <= total <= 255 and total > 1 else None  # noqa: PLR2004
