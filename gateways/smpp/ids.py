"""How the message ids of answers and of receipts compare, learned per provider. Pure.

The SMSC names a message in its submit_sm_resp and again in the receipt, and the two spellings
differ: hexadecimal in one and decimal in the other, zeros in front, another case. Answers are kept
under ``key`` whatever the spelling; only a receipt's id is translated, so that learning another
mode leaves what is stored as it is. Trying every mode blindly finds wrong messages: who calls this
compares the destination too.
"""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

UNANIMOUS = 20
"""Receipts in a row that must speak for one mode before only that one is tried."""
FORGET = 200
"""Receipts in a row that match nothing, before a learned mode is given up."""

_DECIMAL = re.compile(r"[0-9]+")
_HEXADECIMAL = re.compile(r"[0-9a-f]+")


class IdMode(StrEnum):
    """Spelling in the answer → spelling in the receipt."""

    EXACT = "exact"
    HEX_TO_DECIMAL = "hex_to_decimal"
    DECIMAL_TO_HEX = "decimal_to_hex"


def key(message_id: str) -> str:
    """The id without what is only spelling: lower case, no zeros in front ("" stays "")."""
    return message_id.lower().lstrip("0") or message_id[:1]


def answer_key(receipt_id: str, mode: IdMode) -> str | None:
    """The ``key`` of the answer a receipt with this id belongs to; None where there is no such."""
    if mode is IdMode.EXACT:
        return key(receipt_id)
    translate = _decimal_to_hex if mode is IdMode.HEX_TO_DECIMAL else _hex_to_decimal
    return translate(receipt_id)


def receipt_key(message_id: str, mode: IdMode) -> str | None:
    """The other way round: the ``key`` of the id that a receipt for this answer will have."""
    if mode is IdMode.EXACT:
        return key(message_id)
    translate = _hex_to_decimal if mode is IdMode.HEX_TO_DECIMAL else _decimal_to_hex
    return translate(message_id)


def _decimal_to_hex(text: str) -> str | None:
    return f"{int(text):x}" if _DECIMAL.fullmatch(text) else None


def _hex_to_decimal(text: str) -> str | None:
    lower = text.lower()
    return str(int(lower, 16)) if _HEXADECIMAL.fullmatch(lower) else None


class Learned(msgspec.Struct, frozen=True):
    """What is known of a provider's ids so far.

    ``mode`` leads with ``votes`` receipts in a row; ``misses`` receipts in a row matched nothing.
    """

    mode: IdMode = IdMode.EXACT
    votes: int = 0
    misses: int = 0

    @property
    def certain(self) -> bool:
        """Whether only ``mode`` is to be tried."""
        return self.votes >= UNANIMOUS

    def modes(self) -> tuple[IdMode, ...]:
        """What to try, the likeliest first."""
        if self.certain:
            return (self.mode,)
        return (self.mode, *(mode for mode in IdMode if mode is not self.mode))

    def voted(self, mode: IdMode) -> Learned:
        """After a receipt that only ``mode`` could match."""
        if mode is not self.mode:
            return Learned(mode, 1)
        if self.certain and not self.misses:
            return self
        return Learned(mode, min(self.votes + 1, UNANIMOUS))

    def missed(self) -> Learned:
        """After a receipt that matched nothing; the SMSC may have changed its spelling."""
        if self.misses + 1 >= FORGET:
            return Learned(self.mode)
        return Learned(self.mode, self.votes, self.misses + 1)


def fixed(mode: str) -> Learned:
    """Where the operator has said which mode it is."""
    return Learned(IdMode(mode), UNANIMOUS)


def same_number(one: str, other: str) -> bool:
    """Whether two spellings are one number: with or without +, 00, or the country before it.

    An address that is missing on one side says nothing against it.
    """
    if one == other or not one or not other:
        return True
    shorter, longer = sorted((_bare(one), _bare(other)), key=len)
    return shorter == longer or (
        len(shorter) >= _NATIONAL and shorter.isdecimal() and longer.endswith(shorter)
    )


_NATIONAL = 7  # digits that tell a number without its country code
_NUMBER = re.compile(r"[0-9+() .-]*[0-9][0-9+() .-]*")


def _bare(address: str) -> str:
    """Digits without zeros in front; a name stays as it is."""
    if address.isdecimal():
        return address.lstrip("0")
    if not _NUMBER.fullmatch(address):
        return address
    return "".join(filter(str.isdigit, address)).lstrip("0")
