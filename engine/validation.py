"""What a field may hold, for every noun a person can write: pure, one place for all dialects.

Lengths are ICTCore's columns (specs/ictcore.md §7). No field takes control characters, so nothing
typed here can break a header, a log line or a CSV export; texts may hold line ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from engine import segments
from engine.addresses import MAX_ADDRESS, plain
from engine.calendar_rules import zone
from engine.errors import InvalidError
from engine.gateway import TextKind
from engine.model import (
    Account,
    Campaign,
    Contact,
    Document,
    DoNotContact,
    Entity,
    Group,
    Permission,
    Program,
    Provider,
    Recording,
    Role,
    Service,
    Template,
    Text,
    Transmission,
    User,
)
from engine.programs import PROGRAMS
from engine.screening import normalise_number
from engine.senders import check_sender

E = TypeVar("E", bound=Entity)

_CONTACT = {
    "first_name": 64, "last_name": 64, "phone": 32, "email": MAX_ADDRESS, "address": 128,
    "custom1": 128, "custom2": 128, "custom3": 128, "description": 255,
}  # fmt: skip

MAX_TEXT = 4000
"""Characters of an SMS or of speech: 26 parts in the GSM alphabet, five minutes when read aloud."""

MAX_VALIDITY_S = 5_443_200
"""How long a network may try to deliver an SMS: 63 days, as in the settings of providers."""

LENGTHS: dict[type[Entity], dict[str, int]] = {
    Contact: _CONTACT,
    Group: {"name": 128, "description": 255},
    Recording: {"name": 128, "description": 255, "type": 8},
    Document: {"name": 128, "description": 255, "type": 8},
    Template: {
        "name": 128, "description": 255, "type": 8, "subject": 255, "body": 1_000_000,
        "body_alt": 1_000_000,
    },
    Text: {"name": 128, "description": 255, "type": 16, "data": MAX_TEXT},
    Program: {"name": 64, "type": 64},
    Campaign: {"source": 128},
    Transmission: {"title": 255, "origin": 128},
    Account: {
        "type": 32, "username": 64, "passwd": 128, "passwd_pin": 32, "first_name": 128,
        "last_name": 128, "phone": 16, "email": 128, "address": 128, "timezone": 64,
    },
    User: {
        "username": 64, "first_name": 128, "last_name": 128, "phone": 16, "email": 128,
        "address": 128, "company": 128, "language_id": 8,
    },
    Role: {"name": 64, "description": 255},
    Permission: {"name": 64, "description": 255},
    DoNotContact: {"address": MAX_ADDRESS, "reason": 255},
    Provider: {
        "name": 128, "type": 32, "host": 255, "transport": 8, "username": 128, "password": 128,
        "dialstring": 255, "prefix": 255, "description": 255,
    },
}  # fmt: skip

RANGES: dict[type[Entity], dict[str, tuple[float, float]]] = {
    Campaign: {"calls_per_minute": (0.01, 6_000_000), "try_allowed": (1, 100)},
    Transmission: {"try_allowed": (1, 100)},
    DoNotContact: {"service": (1, 15)},
    Provider: {
        "port": (1, 65_535), "weight": (1, 1_000_000), "node_id": (1, 2**31),
        "calls_per_second": (0, 100_000), "channels": (0, 1_000_000), "service": (1, 15),
    },
}  # fmt: skip

REQUIRED: dict[type[Entity], tuple[str, ...]] = {
    Group: ("name",),
    Recording: ("name",),
    Document: ("name",),
    Template: ("name",),
    Text: ("name", "data"),
    Program: ("name",),
    Provider: ("name",),
    User: ("username",),
    Role: ("name",),
    Permission: ("name",),
}

ACCOUNT_TYPES = frozenset({"account", "extension", "did", "eaddress"})


class ProviderType(msgspec.Struct, frozen=True):
    """What a provider of a type is where nobody says otherwise (specs/ictcore.md §2.10).

    ``channels`` keep what is slow and not urgent from using up those of the node.
    """

    service: Service
    port: int
    transport: str = "tcp"
    needs_host: bool = True
    channels: int = 0


PROVIDER_TYPES = {
    "sip": ProviderType(Service.VOICE | Service.FAX, 5060, "udp"),
    "smpp": ProviderType(Service.SMS, 2775),
    "smtp": ProviderType(Service.EMAIL, 25, needs_host=False, channels=200),  # no host: direct MX
    "http": ProviderType(Service.SMS, 80, needs_host=False),
    "emailcmd": ProviderType(Service.EMAIL, 25, needs_host=False),
    "loopback": ProviderType(Service.VOICE | Service.FAX, 5060, "udp", needs_host=False),
}
"""Every type that can be stored; one whose gateway does not run here carries nothing."""

TRANSPORTS = frozenset({"udp", "tcp", "tls"})
MAX_COUNTRY_ID = 999
MAX_OFFSET_S = 50_400  # UTC+14, the farthest there is
MAX_SETTINGS_BYTES = 16_384  # as JSON

RESOLUTIONS: dict[str, tuple[int, int]] = {
    "basic": (100, 98),
    "standard": (204, 98),
    "fine": (204, 196),
    "super": (204, 391),
    "superior": (300, 300),
    "ultra": (408, 391),
}
"""Dots per inch, across and down, of a document's quality (specs/ictcore.md §5.8)."""

_MAX_DELAY_MS = 600_000
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]*", re.ASCII)

# What may hold line ends.
_TEXTS = frozenset({"description", "address", "body", "body_alt", "data"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ANY_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# More than can be sent to: what ICTCore took is kept, and screened out when it is to be sent.
_EMAIL = re.compile(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+")
_PERMISSION = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?|\[?[0-9A-Fa-f:.]+\]?", re.ASCII)


def check(entity: Entity) -> None:
    """Raise ``InvalidError`` naming the first field that cannot be accepted."""
    kind = type(entity)
    for field in REQUIRED.get(kind, ()):
        if not getattr(entity, field).strip():
            raise InvalidError(f"{field} is missing", field=field)
    check_texts(kind, {name: getattr(entity, name) for name in LENGTHS.get(kind, ())})
    for field, (low, high) in RANGES.get(kind, {}).items():
        if not low <= getattr(entity, field) <= high:
            raise InvalidError(f"{field}: must be from {low} to {high}", field=field)
    special = _SPECIAL.get(kind)
    if special is not None:
        special(entity)


def check_texts(kind: type[Entity], values: Mapping[str, str]) -> None:
    """Lengths and characters of the given text fields of ``kind``, phone and e-mail included."""
    limits = LENGTHS[kind]
    for field, value in values.items():
        if len(value) > limits[field]:
            raise InvalidError(f"{field}: longer than {limits[field]} characters", field=field)
        if (_CONTROL_IN_TEXT if field in _TEXTS else _CONTROL).search(value):
            raise InvalidError(f"{field}: control characters are not allowed", field=field)
    phone, email = values.get("phone"), values.get("email")
    if phone and normalise_number(phone) is None:
        raise InvalidError("phone: not a telephone number", field="phone")
    if email and not _is_email(email):
        raise InvalidError("email: not an e-mail address", field="email")


def _is_email(text: str) -> bool:
    tolerable = _EMAIL.fullmatch(text) and not _ANY_CONTROL.search(text)
    return bool(tolerable) or plain(text) == text


def _contact(contact: Contact) -> None:
    if not contact.phone and not contact.email:
        raise InvalidError("phone is missing", field="phone")


def _do_not_contact(entry: DoNotContact) -> None:
    number = normalise_number(entry.address) is not None
    if not number and not _is_email(entry.address):
        raise InvalidError(
            "address: neither a telephone number nor an e-mail address", field="address"
        )


def _program(program: Program) -> None:
    kind = PROGRAMS.get(program.type)
    if kind is None:
        raise InvalidError(f"type: no program type {program.type!r}", field="type")
    for key in kind.requires:
        if not program.data.get(key):
            raise InvalidError(f"{key} is missing", field=key)
    _speech(program.data.get("text", ""), program.data.get("delay", 0))


def _speech(text: str, delay_ms: int) -> None:
    if len(text) > MAX_TEXT:
        raise InvalidError(f"text: longer than {MAX_TEXT} characters", field="text")
    if _CONTROL_IN_TEXT.search(text):
        raise InvalidError("text: control characters are not allowed", field="text")
    if not 0 <= delay_ms <= _MAX_DELAY_MS:
        raise InvalidError(f"delay: must be from 0 to {_MAX_DELAY_MS}", field="delay")


def _document(document: Document) -> None:
    if document.quality not in RESOLUTIONS:
        raise InvalidError(f"quality: one of {', '.join(RESOLUTIONS)}", field="quality")
    _type_word(document)


def _type_word(message: Document | Recording | Template | Text) -> None:
    if not _TYPE.fullmatch(message.type):
        raise InvalidError("type: letters, digits and . _ : + - only", field="type")


def _text(text: Text) -> None:
    _type_word(text)
    if not 0 <= text.validity_s <= MAX_VALIDITY_S:
        raise InvalidError(f"validity: must be from 0 to {MAX_VALIDITY_S}", field="validity")
    if segments.kind_of(text.type) is TextKind.BINARY:
        segments.octets_of(text.data)


def _account(account: Account) -> None:
    if account.type not in ACCOUNT_TYPES:
        raise InvalidError(f"type: one of {', '.join(sorted(ACCOUNT_TYPES))}", field="type")
    if account.timezone:
        zone(account.timezone)
    check_sender(account.settings.get("sender_id") or "", "sender_id")
    _settings(account.settings)


def _provider(provider: Provider) -> None:
    kind = PROVIDER_TYPES.get(provider.type)
    if kind is None:
        raise InvalidError(f"type: one of {', '.join(sorted(PROVIDER_TYPES))}", field="type")
    if provider.transport not in TRANSPORTS:
        raise InvalidError(f"transport: one of {', '.join(sorted(TRANSPORTS))}", field="transport")
    if provider.host and not _HOST.fullmatch(provider.host):
        raise InvalidError("host: not a host name or address", field="host")
    if kind.needs_host and not provider.host:
        raise InvalidError("host is missing", field="host")
    _settings(provider.settings)


def _user(user: User) -> None:
    # A colon would end the name in Basic credentials (RFC 7617 §2).
    if ":" in user.username or not user.username.isprintable():
        raise InvalidError("username: must be printable, without a colon", field="username")
    if user.country_id is not None and not 0 <= user.country_id <= MAX_COUNTRY_ID:
        raise InvalidError(f"country_id: must be from 0 to {MAX_COUNTRY_ID}", field="country_id")
    if user.timezone_id is not None and abs(user.timezone_id) > MAX_OFFSET_S:
        raise InvalidError(
            f"timezone_id: must be from -{MAX_OFFSET_S} to {MAX_OFFSET_S}", field="timezone_id"
        )


def _role(role: Role) -> None:
    if role.name.isdigit():
        raise InvalidError("name: must not be a number, which would be an id", field="name")


def _permission(permission: Permission) -> None:
    if not _PERMISSION.fullmatch(permission.name):
        raise InvalidError("name: small letters and digits, joined by _", field="name")


def _settings(settings: Mapping[str, Any]) -> None:
    if len(msgspec.json.encode(settings)) > MAX_SETTINGS_BYTES:
        raise InvalidError(f"settings: more than {MAX_SETTINGS_BYTES} bytes", field="settings")


_SPECIAL: dict[type[Entity], Callable[[Any], None]] = {
    Contact: _contact,
    DoNotContact: _do_not_contact,
    Program: _program,
    Document: _document,
    Recording: _type_word,
    Template: _type_word,
    Text: _text,
    Account: _account,
    Provider: _provider,
    User: _user,
    Role: _role,
    Permission: _permission,
}
