"""What an e-mail address is: the one place that says so. Pure.

RFC 5321 §4.1.2 with RFC 6531 (addresses in any script), without source routes, address literals and
what only headers or quoting make of an address: comments, names, folding.
"""

from __future__ import annotations

import re
import unicodedata

import idna

from engine.errors import InvalidError

MAX_ADDRESS = 254
"""Octets: a path has 256 with its angle brackets (RFC 5321 §4.5.3.1.3)."""

_MAX_LOCAL = 64  # octets, §4.5.3.1.1
_MAX_DOMAIN = 253  # as DNS counts it: 255 with the lengths of first label and root
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]"
_DOTTED = re.compile(rf"{_ATEXT}++(?:\.{_ATEXT}++)*+")
# A quoted local part may hold blanks and <>,;: by the RFC; here it may not: too many take them for
# the end of an address.
_QUOTED = re.compile(
    r'"(?:[!#-+\--9=?-\[\]-~\u0080-\U0010ffff]|\\[!-+\--9=?-~])*+"',
)
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMERIC = re.compile(r"(?:.*\.)?[0-9]+")  # no top-level domain, but maybe an IP address


def plain(text: str) -> str | None:
    """One bare address without the blanks around it, or None where it is none.

    At most 64 octets before the last ``@``, 254 in all.
    """
    address = text.strip(" \t")
    local, _, domain = address.rpartition("@")
    if len(address) > MAX_ADDRESS or not (_DOTTED.fullmatch(local) or _QUOTED.fullmatch(local)):
        return None
    if not address.isascii() and not _sound(local, address):
        return None
    if len(local) > _MAX_LOCAL:
        return None
    try:
        domain_ascii(domain)
    except InvalidError:
        return None
    return address


def domain_of(address: str) -> str:
    """What is behind the last ``@``, as it is written."""
    return address.rpartition("@")[2]


def domain_ascii(domain: str) -> str:
    """The domain in A-labels (IDNA 2008, UTS 46), small letters; ``InvalidError`` if it is none."""
    ascii_ = domain.lower() if domain.isascii() else _a_labels(domain)
    if len(ascii_) > _MAX_DOMAIN or not _DOMAIN.fullmatch(ascii_) or _NUMERIC.fullmatch(ascii_):
        raise InvalidError("email: no domain")
    return ascii_


def needs_smtputf8(address: str) -> bool:
    """Whether only servers with SMTPUTF8 take it: its local part is not ASCII (RFC 6531)."""
    return not address.rpartition("@")[0].isascii()


def _a_labels(domain: str) -> str:
    if len(domain) > _MAX_DOMAIN:  # what takes long to encode is none anyway
        raise InvalidError("email: no domain")
    try:
        return idna.encode(domain, uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError:
        raise InvalidError("email: no domain") from None


def _sound(local: str, address: str) -> bool:
    """Whether it can be sent as UTF-8, is short enough as that, and shows every character."""
    try:
        octets = len(local.encode()), len(address.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    shown = all(unicodedata.category(one)[0] not in "CZ" for one in address if one > "\x7f")
    return shown and octets[0] <= _MAX_LOCAL and octets[1] <= MAX_ADDRESS
