"""The nouns of the engine, as frozen structs.

Every noun has ``id`` (small integer, given by the store; 0 = not stored yet) and ``uid``
(stable across nodes and systems). Times are aware UTC datetimes; a dialect's spelling of them
(epoch, ISO, sentinel) exists only in that dialect's ``translate.py``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntFlag, StrEnum
from typing import Any
from uuid import UUID, uuid4

import msgspec

from engine.statuses import CampaignStatus as CampaignStatus  # noqa: PLC0414 - for our readers
from engine.statuses import SpoolStatus as SpoolStatus  # noqa: PLC0414
from engine.statuses import TaskStatus as TaskStatus  # noqa: PLC0414
from engine.statuses import TransmissionStatus as TransmissionStatus  # noqa: PLC0414

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Service(IntFlag):
    """What a provider can carry and a program needs (ICTCore's bits, specs/ictcore.md §4.1)."""

    NONE = 0
    VOICE = 1
    FAX = 2
    SMS = 4
    EMAIL = 8


class Direction(StrEnum):
    """Who started a transmission."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """What every stored noun carries. ``owner_id`` is the user whose row it is."""

    id: int = 0
    uid: UUID = msgspec.field(default_factory=uuid4)
    owner_id: int | None = None
    created_at: datetime = EPOCH
    updated_at: datetime = EPOCH


class User(Entity, frozen=True, kw_only=True):
    """A person or program that may log in.

    ``roles`` are names of ``Role`` rows, ``permissions`` what was granted beside them.
    ``timezone_id`` is ICTCore's: the offset from UTC in seconds. Tokens issued before
    ``tokens_from`` are void.
    """

    username: str
    password_hash: str = ""
    first_name: str = ""
    last_name: str = ""
    phone: str = ""
    email: str = ""
    address: str = ""
    company: str = ""
    country_id: int | None = None
    language_id: str = ""
    timezone_id: int | None = None
    active: bool = True
    roles: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    tokens_from: datetime | None = None


class Role(Entity, frozen=True, kw_only=True):
    """A named set of permissions."""

    name: str
    description: str = ""
    permissions: tuple[str, ...] = ()


class Permission(Entity, frozen=True, kw_only=True):
    """The right to something: ``<family>_<verb>``, or a bare family (specs/ictcore.md §4.5)."""

    name: str
    description: str = ""


class RevokedToken(Entity, frozen=True, kw_only=True):
    """A token that was given back before its time; kept until it would have ended anyway."""

    jti: str
    expires_at: datetime


class Account(Entity, frozen=True, kw_only=True):
    """Our own address: the caller id of a call (``phone``, names) and, later, the inbound DID.

    ``timezone`` is an IANA name; "" means the owner's, else the node's.
    """

    type: str = "account"
    username: str = ""
    passwd: str = ""
    passwd_pin: str = ""
    first_name: str = ""
    last_name: str = ""
    phone: str = ""
    email: str = ""
    address: str = ""
    settings: dict[str, Any] = {}
    timezone: str = ""
    active: bool = False

    def __repr__(self) -> str:
        """Without passwords: a row may end up in a log or a traceback."""
        return f"Account(id={self.id}, type={self.type!r}, username={self.username!r})"


class Subscription(Entity, frozen=True, kw_only=True):
    """An account that a program serves."""

    account_id: int
    program_id: int


class Contact(Entity, frozen=True, kw_only=True):
    """A person or number to reach."""

    first_name: str = ""
    last_name: str = ""
    phone: str = ""
    email: str = ""
    address: str = ""
    custom1: str = ""
    custom2: str = ""
    custom3: str = ""
    description: str = ""


class Group(Entity, frozen=True, kw_only=True):
    """A set of contacts. ``contact_total`` is kept by the store."""

    name: str
    description: str = ""
    contact_total: int = 0


class Recording(Entity, frozen=True, kw_only=True):
    """A voice message. Media is 8 kHz mono 16-bit WAV at ``media_path`` ("" = not uploaded yet).

    Paths are relative to the node's data directory; ``original_path`` is the upload as it came.
    """

    name: str
    description: str = ""
    type: str = "wav"
    media_path: str = ""
    original_path: str = ""
    original_type: str = ""
    length_s: float = 0.0


class Document(Entity, frozen=True, kw_only=True):
    """A fax message: a PDF at ``media_path`` ("" = not uploaded yet).

    ``quality`` is ICTCore's word for the resolution it is faxed at, in dots per inch; ``size_x``
    and ``size_y`` are the first page's, in points (1/72 inch).
    """

    name: str
    description: str = ""
    type: str = "pdf"
    quality: str = "standard"
    media_path: str = ""
    original_path: str = ""
    original_type: str = ""
    pages: int = 0
    size_x: float = 0.0
    size_y: float = 0.0
    resolution_x: int = 204
    resolution_y: int = 98


class Template(Entity, frozen=True, kw_only=True):
    """An e-mail: ``body`` is HTML, ``body_alt`` plain text.

    ``attachments`` are maps with ``path``, ``name``, ``type`` (media type) and ``size`` (bytes).
    """

    name: str
    description: str = ""
    type: str = "html"
    subject: str = ""
    body: str = ""
    body_alt: str = ""
    attachments: tuple[dict[str, Any], ...] = ()


class Text(Entity, frozen=True, kw_only=True):
    """An SMS. ``type`` is plain, unicode, binary or a charset name, as clients gave it.

    ``flash``: shown at once and not kept (class 0). ``validity_s`` 0 = the provider's own.
    """

    name: str
    description: str = ""
    type: str = "plain"
    data: str = ""
    flash: bool = False
    validity_s: float = 0.0


class Program(Entity, frozen=True, kw_only=True):
    """The logic of a delivery: ``type`` names an entry of ``engine.programs``, fed by ``data``.

    ``message_id`` repeats the recording, document, template or text of ``data``, whichever the type
    has: so that the programs of a message are found.
    """

    name: str
    type: str
    data: dict[str, Any] = {}
    message_id: int | None = None
    parent_id: int | None = None


class Provider(Entity, frozen=True, kw_only=True):
    """A trunk. ``type`` names a gateway (sip, loopback); limits of 0 mean "no limit of its own".

    ``prefix`` is either a plain prefix put before the number or a comma list of ``remove|add``
    rewrites, first match wins. ``dialstring`` may hold ``{number}``; it replaces the user part.
    Lighter ``weight`` is used more often: share ∝ 1/weight.
    """

    name: str
    type: str = "sip"
    service: Service = Service.VOICE | Service.FAX
    host: str = ""
    port: int = 5060
    transport: str = "udp"
    username: str = ""
    password: str = ""
    dialstring: str = ""
    prefix: str = ""
    settings: dict[str, Any] = {}
    description: str = ""
    register: bool = False
    weight: int = 10
    active: bool = True
    node_id: int = 1
    calls_per_second: float = 0.0
    channels: int = 0

    def __repr__(self) -> str:
        """Without passwords: a row may end up in a log or a traceback."""
        return f"Provider(id={self.id}, type={self.type!r}, name={self.name!r})"


class Campaign(Entity, frozen=True, kw_only=True):
    """A program run over a group at a pace. ``cursor`` is the last contact link taken.

    ``retry_delays`` are seconds by outcome (``busy``, ``no_answer``, ``failed``) where they differ
    from the node's.
    """

    program_id: int
    group_id: int
    account_id: int | None = None
    calls_per_minute: float = 2.0
    try_allowed: int = 1
    status: CampaignStatus = CampaignStatus.NEW
    source: str = ""
    contact_total: int = 0
    contact_done: int = 0
    cursor: int = 0
    last_run: datetime | None = None
    retry_delays: dict[str, float] = {}


class Transmission(Entity, frozen=True, kw_only=True):
    """One message to one contact, however many spools (attempts) it takes.

    ``due_at`` is when a pending one may be tried (again). ``response`` is the cause of the last
    result, e.g. ``busy``. ``contact_id`` is None once the contact was deleted. ``retry_delays`` as
    in ``Campaign``, whose own they override.
    """

    title: str = ""
    service: Service = Service.VOICE
    program_id: int
    account_id: int | None = None
    contact_id: int | None
    campaign_id: int | None = None
    origin: str = ""
    direction: Direction = Direction.OUTBOUND
    status: TransmissionStatus = TransmissionStatus.PENDING
    response: str = ""
    try_allowed: int = 1
    try_done: int = 0
    due_at: datetime | None = None
    last_run: datetime | None = None
    retry_delays: dict[str, float] = {}


class Spool(Entity, frozen=True, kw_only=True):
    """One delivery attempt: committed before anything leaves, closed by exactly one result.

    ``str(uid)`` is the SIP Call-ID, so an INVITE on the wire can be matched to its spool.
    ``amount_s`` is the billable talk time in seconds. ``closes_at``: it was handed over and waits
    for a report until then.
    """

    transmission_id: int
    campaign_id: int | None = None
    service: Service = Service.VOICE
    account_id: int | None = None
    provider_id: int | None = None
    node_id: int = 1
    destination: str = ""
    status: SpoolStatus = SpoolStatus.INITIATED
    response: str = ""
    disposition: str = ""
    code: str = ""
    spooled_at: datetime = EPOCH
    started_at: datetime | None = None
    connected_at: datetime | None = None
    ended_at: datetime | None = None
    closes_at: datetime | None = None
    amount_s: float = 0.0


class Task(Entity, frozen=True, kw_only=True):
    """Something to be done to a transmission or campaign at a time of day, once or again and again.

    ``type`` is transmission or campaign, ``action`` send, start or stop. The six fields are
    ICTCore's cron-like ones (specs/ictcore.md §4.4; weekday 1 = Sunday), read in ``timezone``. A
    task for one moment has ``due_at`` and stars. ``due_at`` is when it runs next; from
    ``expires_at`` on it runs no more. ``note`` says what became of the last run.
    """

    type: str
    action: str
    target_id: int
    account_id: int | None = None
    status: TaskStatus = TaskStatus.PENDING
    year: str = "*"
    month: str = "*"
    day: str = "*"
    weekday: str = "*"
    hour: str = "*"
    minute: str = "*"
    timezone: str = "UTC"
    recurring: bool = False
    weight: int = 0
    due_at: datetime | None = None
    expires_at: datetime | None = None
    last_run: datetime | None = None
    note: str = ""


class SpoolResult(Entity, frozen=True, kw_only=True):
    """A stored ``ResultRow``."""

    spool_id: int
    type: str
    name: str
    data: str


class DoNotContact(Entity, frozen=True, kw_only=True):
    """An address that must not be contacted. ``owner_id`` None = by nobody of this node.

    ``address`` is a bare number (``engine.screening.bare_number``) or an e-mail address in small
    letters; ``service`` are the services it is closed for; ``reason`` says who wanted it so.
    """

    address: str
    service: Service = Service.VOICE | Service.FAX | Service.SMS | Service.EMAIL
    reason: str = ""
