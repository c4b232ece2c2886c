"""Addresses as SMPP has them: type of number and plan by the look (§5.2.5, §5.2.6). Pure."""

from __future__ import annotations

import re
from enum import IntEnum

from engine import gsm
from engine.errors import InvalidError
from gateways.smpp.pdu import Address
from gateways.smpp.settings import SmppSettings


class Ton(IntEnum):
    """Type of number (§5.2.5)."""

    UNKNOWN = 0
    INTERNATIONAL = 1
    NATIONAL = 2
    NETWORK_SPECIFIC = 3
    ALPHANUMERIC = 5


class Npi(IntEnum):
    """Numbering plan (§5.2.6)."""

    UNKNOWN = 0
    ISDN = 1  # E.164


# What people write into numbers.
_DECORATION = re.compile(r"[\s().\-/]")
_DIGITS = re.compile(r"(\+|00)?([0-9]{1,20})", re.ASCII)
_PRINTABLE = re.compile(r"[ -~]+", re.ASCII)
_MAX_SHORT_CODE = 8
_MAX_E164 = 15
_MAX_LETTERS = 11  # septets; 23.040 §9.1.2.5: ten octets, packed


def source(sender: str, settings: SmppSettings) -> Address:
    """The sender: a number, up to 11 letters and digits, a short code, or "" for the SMSC's own.

    ``InvalidError`` names the field ``source`` where SMPP cannot hold it.
    """
    sender = sender.strip()
    if not sender:
        return _typed("", Ton.UNKNOWN, Npi.UNKNOWN, settings.source_ton, settings.source_npi)
    number = _number(sender, settings)
    digits, ton, npi = number or (_letters(sender), Ton.ALPHANUMERIC, Npi.UNKNOWN)
    return _typed(digits, ton, npi, settings.source_ton, settings.source_npi)


def destination(number: str, settings: SmppSettings) -> Address:
    """Who shall get it; ``InvalidError`` names ``destination`` where it is no telephone number."""
    found = _number(number, settings)
    if found is None:
        raise InvalidError("destination: not a telephone number", field="destination")
    digits, ton, npi = found
    return _typed(digits, ton, npi, settings.destination_ton, settings.destination_npi)


def _number(text: str, settings: SmppSettings) -> tuple[str, Ton, Npi] | None:
    """Digits with their type, or None where it is no number.

    ``+`` and ``00`` mean an international one. So do more than eight digits without a ``0`` in
    front: that is how databases hold them. Up to eight are a short code, which no plan knows.
    """
    written = _DECORATION.sub("", text)
    found = _DIGITS.fullmatch(written)
    if found is None:
        return None
    prefix, digits = found.groups()
    if prefix:
        return _international(written, digits, settings)
    if len(digits) <= _MAX_SHORT_CODE:
        return digits, Ton.NETWORK_SPECIFIC, Npi.UNKNOWN
    if digits.startswith("0"):
        return digits, Ton.NATIONAL, Npi.ISDN
    return digits, Ton.INTERNATIONAL if len(digits) <= _MAX_E164 else Ton.UNKNOWN, Npi.ISDN


def _international(
    written: str, digits: str, settings: SmppSettings
) -> tuple[str, Ton, Npi] | None:
    if len(digits) > _MAX_E164:
        return None
    if settings.international:
        return digits, Ton.INTERNATIONAL, Npi.ISDN
    return written, Ton.INTERNATIONAL if written.startswith("+") else Ton.UNKNOWN, Npi.ISDN


def _letters(sender: str) -> str:
    """A name as sender: what both the GSM alphabet and the ASCII of the PDU have."""
    both = _PRINTABLE.fullmatch(sender) and gsm.is_gsm(sender)
    if not both or len(gsm.encode(sender)) > _MAX_LETTERS:
        raise InvalidError(
            f"source: neither a number nor at most {_MAX_LETTERS} letters and digits",
            field="source",
        )
    return sender


def _typed(digits: str, ton: int, npi: int, own_ton: int | None, own_npi: int | None) -> Address:
    return Address(
        digits, int(ton) if own_ton is None else own_ton, int(npi) if own_npi is None else own_npi
    )
