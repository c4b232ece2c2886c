"""What an SMS may come from: a number, a short code, or a name (3GPP TS 23.040 §9.1.2). Pure."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from engine import gsm
from engine.errors import InvalidError

MAX_E164 = 15
MAX_LETTERS = 11
"""Septets of a name: ten octets, packed (§9.1.2.5)."""

# What people write into numbers.
_DECORATION = re.compile(r"[\s().\-/]")
_DIGITS = re.compile(r"(\+|00)?([0-9]{1,20})", re.ASCII)
_PRINTABLE = re.compile(r"[ -~]+", re.ASCII)


class Number(NamedTuple):
    """A number without decoration: as ``written``, its ``+`` or ``00`` (or ""), its digits."""

    written: str
    prefix: str
    digits: str


def number_of(text: str) -> Number | None:
    """``text`` as a number; None where it is none, or longer than international ones can be."""
    written = _DECORATION.sub("", text)
    found = _DIGITS.fullmatch(written)
    if found is None or (found[1] and len(found[2]) > MAX_E164):
        return None
    return Number(written, found[1] or "", found[2])


def is_name(text: str) -> bool:
    """Whether it can stand where a number does: what the GSM alphabet and ASCII both have."""
    both = _PRINTABLE.fullmatch(text) and gsm.is_gsm(text)
    return bool(both) and len(gsm.encode(text)) <= MAX_LETTERS


def check_sender(sender: Any, field: str) -> None:
    """``InvalidError`` naming ``field`` where no SMS can come from ``sender``; "" is nobody's."""
    written = isinstance(sender, str | int) and not isinstance(sender, bool)
    text = str(sender).strip() if written else None
    if text is None or (text and number_of(text) is None and not is_name(text)):
        raise InvalidError(
            f"{field}: neither a number nor at most {MAX_LETTERS} letters and digits", field=field
        )
