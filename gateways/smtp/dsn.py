"""Delivery status notifications (RFC 3464, RFC 6533), as far as they tell of our mail. Pure."""

from __future__ import annotations

import re

from gateways.smtp.fields import Fields, head_of
from gateways.smtp.parsed import ParsedBounce, ParsedRecipient

MAX_RECIPIENTS = 1_000
"""Of one report; what is behind is not looked at."""

_MAX_OCTETS = 1_000_000
_MAX_DIAGNOSTIC = 1_000
_MAX_LINE = 255
_BLANK = re.compile(rb"\r?\n(?:[ \t]*\r?\n)+")
_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_TYPED = re.compile(r"[A-Za-z0-9-]{1,40}[ \t]*;[ \t]*")
_UNICODE = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_MAX_UNICODE = 0x110000


def report_of(status: bytes, returned: bytes) -> ParsedBounce | None:
    """``status``: the message/delivery-status part; ``returned``: the mail or its header, or b"".

    None where it names no recipient: then it reports nothing.
    """
    blocks = _BLANK.split(status[:_MAX_OCTETS].strip(), MAX_RECIPIENTS + 1)
    found = [_recipient(Fields(block)) for block in blocks[: MAX_RECIPIENTS + 1]]
    recipients = tuple(one for one in found if one is not None)
    if not recipients:
        return None
    return ParsedBounce(
        envid=Fields(blocks[0]).value("original-envelope-id")[:_MAX_LINE],
        original_message_id=head_of(returned).fields.value("message-id")[:_MAX_LINE],
        recipients=recipients,
    )


def _recipient(fields: Fields) -> ParsedRecipient | None:
    action = fields.value("action").lower().partition(" ")[0]
    final = fields.value("final-recipient")
    if not action or not final:
        return None
    status = _STATUS.search(fields.value("status"))
    return ParsedRecipient(
        address=_address(fields.value("original-recipient")) or _address(final),
        action=action[:_MAX_LINE],
        status=status[0] if status else "",
        diagnostic=_TYPED.sub("", fields.value("diagnostic-code"), count=1)[:_MAX_DIAGNOSTIC],
    )


def _address(value: str) -> str:
    """Without its type; characters that utf-8 addresses write in ASCII decoded (RFC 6533 §3)."""
    address = _TYPED.sub("", value, count=1).strip("<> ")
    if value.lower().startswith("utf-8"):
        address = _UNICODE.sub(_character, address)
    return address[:_MAX_LINE]


def _character(found: re.Match[str]) -> str:
    number = int(found[1], 16)
    printable = number < _MAX_UNICODE and chr(number).isprintable()
    return chr(number) if printable else found[0]
