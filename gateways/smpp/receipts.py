"""Reads receipts out of deliver_sm and data_sm: what the specification says, what SMSCs do. Pure.

Clauses: SMPP 3.4 §5.2.12 (esm_class), §5.2.28 (message_state), Appendix B (the text). The text is
only typical, its fields are the SMSC's choice; optional parameters come first where there are any.
Everything from ``text:`` on is the user's own words and could pretend to be a field.
"""

from __future__ import annotations

import re
from datetime import datetime
from itertools import zip_longest

from gateways.smpp.pdu import ShortMessage, Tag
from gateways.smpp.records import Receipt, ReceiptState
from gateways.smpp.settings import SmppSettings

_TYPE_BITS = 0x3C
_NO_TYPE = 0x00
_RECEIPT = 0x04
_INTERMEDIATE = 0x20
_HEADER_BIT = 0x40
_UCS2 = 8

_MAX_ID = 64  # §4.4.2: 65 octets with the NUL
_MAX_WORD = 20

_STATES = {
    1: ReceiptState.ENROUTE,
    2: ReceiptState.DELIVERED,
    3: ReceiptState.EXPIRED,
    4: ReceiptState.DELETED,
    5: ReceiptState.UNDELIVERABLE,
    6: ReceiptState.ACCEPTED,
    7: ReceiptState.UNKNOWN,
    8: ReceiptState.REJECTED,
}
_WORDS = {
    **{str(state): state for state in ReceiptState},
    "DELIVERED": ReceiptState.DELIVERED,
    "UNDELIVERABLE": ReceiptState.UNDELIVERABLE,
    "UNDELIVERED": ReceiptState.UNDELIVERABLE,
    "FAILED": ReceiptState.UNDELIVERABLE,
    "ACCEPTED": ReceiptState.ACCEPTED,
    "REJECTED": ReceiptState.REJECTED,
    "BUFFERED": ReceiptState.ENROUTE,
}
_FIELD = re.compile(
    r"(?:^|(?<=[\s,;]))(id|sub|dlvrd|submit[ _]?date|done[ _]?date|stat|err|text)\s?:",
    re.IGNORECASE,
)


def parse(message: ShortMessage, settings: SmppSettings, *, at: datetime) -> Receipt | None:
    """The receipt in what the SMSC delivers; None where that is no receipt but a message.

    What says by its esm_class that it is a receipt is one, whatever else it holds: its id may then
    be "". Never raises, whatever the octets are.
    """
    kind = message.esm_class & _TYPE_BITS
    if kind not in (_RECEIPT, _INTERMEDIATE) and not (
        kind == _NO_TYPE and settings.receipts_without_class
    ):
        return None
    fields = _fields(_text(message))
    message_id = _id_of(message, fields)
    state = _state_of(message, fields)
    if kind == _NO_TYPE and (not message_id or state is None):
        return None
    if state is None:
        state = ReceiptState.ENROUTE if kind == _INTERMEDIATE else ReceiptState.UNKNOWN
    return Receipt(
        message_id=message_id,
        state=state,
        handset=message.source.digits,
        error=_error_of(message, fields),
        submitted=_word(fields.get("submitdate", "")),
        done=_word(fields.get("donedate", "")),
        reference=_reference_of(message),
        received_at=at,
    )


def state_of(number: int) -> ReceiptState | None:
    """A message_state (§5.2.28), of a TLV or of a query_sm_resp; None where it is none."""
    return _STATES.get(number)


def _text(message: ShortMessage) -> str:
    octets = message.octets or message.tlv(Tag.MESSAGE_PAYLOAD) or b""
    if message.esm_class & _HEADER_BIT and octets:
        octets = octets[1 + octets[0] :]
    if message.data_coding == _UCS2:
        return octets.decode("utf-16-be", "replace")
    return octets.decode("latin-1")


def _fields(text: str) -> dict[str, str]:
    """Each field's words, by its name without blanks; the first of each name counts."""
    fields: dict[str, str] = {}
    found = list(_FIELD.finditer(text))
    for match, following in zip_longest(found, found[1:]):
        name = match[1].lower().replace(" ", "").replace("_", "")
        if name == "text":
            break
        end = following.start() if following else len(text)
        fields.setdefault(name, text[match.end() : end].strip(" \t\r\n,;"))
    return fields


def _id_of(message: ShortMessage, fields: dict[str, str]) -> str:
    value = message.tlv(Tag.RECEIPTED_MESSAGE_ID)
    named = _printable(value.split(b"\0", 1)[0].decode("latin-1").strip()) if value else ""
    return (named or _first(fields.get("id", "")))[:_MAX_ID]


def _state_of(message: ShortMessage, fields: dict[str, str]) -> ReceiptState | None:
    value = message.tlv(Tag.MESSAGE_STATE)
    if value and (state := _STATES.get(value[-1])):
        return state
    word = _first(fields.get("stat", "")).upper()
    if word:
        return _WORDS.get(word, ReceiptState.UNKNOWN)
    # Appendix B: how many of the message's parts were delivered.
    delivered = fields.get("dlvrd", "").strip("0")
    return ReceiptState.DELIVERED if delivered.isdigit() else None


def _error_of(message: ShortMessage, fields: dict[str, str]) -> str:
    """§5.3.2.31: the kind of network in the first octet, its code in the other two."""
    value = message.tlv(Tag.NETWORK_ERROR_CODE)
    if value and len(value) == 3:  # noqa: PLR2004 - see above
        return f"{int.from_bytes(value[1:]):03d}"
    return _word(fields.get("err", ""))


def _reference_of(message: ShortMessage) -> int | None:
    value = message.tlv(Tag.USER_MESSAGE_REFERENCE)
    return int.from_bytes(value) if value and len(value) <= 2 else None  # noqa: PLR2004 - §5.3.2.17


def _word(text: str) -> str:
    return _first(text)[:_MAX_WORD]


def _first(text: str) -> str:
    return _printable(text.split(maxsplit=1)[0]) if text.split() else ""


def _printable(text: str) -> str:
    return "".join(character for character in text if "!" <= character <= "~")
