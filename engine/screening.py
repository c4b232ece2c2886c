"""Whom we do not dial, and why: checked before every attempt, pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from engine.addresses import domain_ascii, plain
from engine.errors import InvalidError
from engine.model import Contact, Service

# What people write into numbers and what a dialled digit string may hold (E.164: 15 digits; trunks
# add prefixes, so 32). Letters are refused: "sip:…" or a header in a phone field must never dial.
_DECORATION = re.compile(r"[\s().\-/]")
_BY_NUMBER = Service.VOICE | Service.FAX | Service.SMS
_NUMBER = re.compile(r"\+?[0-9*#]{1,32}", re.ASCII)


def normalise_number(phone: str) -> str | None:
    """``phone`` without blanks, dots, dashes and brackets, or None if it is not a number."""
    number = _DECORATION.sub("", phone)
    return number if _NUMBER.fullmatch(number) else None


def bare_number(number: str) -> str:
    """``number`` as lists compare it: without decoration, ``+`` or ``00``; names stay as they are.

    A number in a country's own spelling (``030 …``) is another one than its international form:
    which country it is of, nobody knows here.
    """
    return _bare(number if number.isalnum() else _DECORATION.sub("", number))


def masked(number: str) -> str:
    """``number`` for a log: whose it is, nobody reads there."""
    return number[:-4] + "*" * len(number[-4:])


def bare_spelling(service: Service) -> Callable[[str], str]:
    """How lists spell where a contact is reached by a service."""
    return bare_number if service & _BY_NUMBER else _bare_email


def _bare_email(address: str) -> str:
    """Small letters; the domain in A-labels, so that both forms of it are one line."""
    low = address.strip().lower()
    if low.isascii():
        return low
    local, at, domain = low.rpartition("@")
    try:
        return f"{local}{at}{domain_ascii(domain)}"
    except InvalidError:  # no address: spelled as it came
        return low


def screen(contact: Contact, service: Service, allowed_prefixes: Sequence[str]) -> tuple[str, str]:
    """``(destination, "")`` where the contact may be dialled, else ``("", cause)``.

    Causes: ``missing_number``, ``invalid_number``, ``destination_not_allowed``, ``missing_email``,
    ``invalid_email`` (``engine.addresses.plain``). Prefixes are compared without a leading ``+`` or
    ``00``.
    """
    return screen_address(contact.phone, contact.email, service, allowed_prefixes)


def screen_address(
    phone: str, email: str, service: Service, allowed_prefixes: Sequence[str]
) -> tuple[str, str]:
    """``screen`` for who has the two only."""
    if service not in _BY_NUMBER:
        return _screened_email(email)
    if not phone:
        return "", "missing_number"
    number = normalise_number(phone)
    if number is None:
        return "", "invalid_number"
    if allowed_prefixes and not _allowed(number, allowed_prefixes):
        return "", "destination_not_allowed"
    return number, ""


def _screened_email(email: str) -> tuple[str, str]:
    address = plain(email)
    if address is None:
        return "", "invalid_email" if email.strip() else "missing_email"
    return address, ""


def _allowed(number: str, prefixes: Sequence[str]) -> bool:
    return _bare(number).startswith(tuple(_bare(prefix) for prefix in prefixes))


def _bare(number: str) -> str:
    return number.removeprefix("+").removeprefix("00")
