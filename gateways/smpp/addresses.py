"""Addresses as SMPP has them: type of number and plan by the look (§5.2.5, §5.2.6). Pure."""

from __future__ import annotations

from enum import IntEnum

from engine import senders
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


_MAX_SHORT_CODE = 8


def source(sender: str, settings: SmppSettings) -> Address:
    """The sender: a number, up to 11 letters and digits, a short code, or "" for the SMSC's own.

    ``InvalidError`` names the field ``source`` where SMPP cannot hold it.
    """
    sender = sender.strip()
    if not sender:
        return _typed("", Ton.UNKNOWN, Npi.UNKNOWN, settings.source_ton, settings.source_npi)
    number = _number(sender, settings)
    senders.check_sender(sender, "source")
    digits, ton, npi = number or (sender, Ton.ALPHANUMERIC, Npi.UNKNOWN)
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
    found = senders.number_of(text)
    if found is None:
        return None
    if found.prefix:
        return _international(found, settings)
    if len(found.digits) <= _MAX_SHORT_CODE:
        return found.digits, Ton.NETWORK_SPECIFIC, Npi.UNKNOWN
    if found.digits.startswith("0"):
        return found.digits, Ton.NATIONAL, Npi.ISDN
    known = len(found.digits) <= senders.MAX_E164
    return found.digits, Ton.INTERNATIONAL if known else Ton.UNKNOWN, Npi.ISDN


def _international(found: senders.Number, settings: SmppSettings) -> tuple[str, Ton, Npi]:
    if settings.international:
        return found.digits, Ton.INTERNATIONAL, Npi.ISDN
    return found.written, Ton.INTERNATIONAL if found.prefix == "+" else Ton.UNKNOWN, Npi.ISDN


def _typed(digits: str, ton: int, npi: int, own_ton: int | None, own_npi: int | None) -> Address:
    return Address(
        digits, int(ton) if own_ton is None else own_ton, int(npi) if own_npi is None else own_npi
    )
