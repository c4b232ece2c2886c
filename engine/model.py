"""The nouns of the engine, as frozen structs.

Every noun has ``id`` (small integer, given by the store; 0 = not stored yet) and ``uid``
(stable across nodes and systems). Times are aware UTC datetimes; a dialect's spelling of them
(epoch, ISO, sentinel) exists only in that dialect's ``translate.py``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntFlag, StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec

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


class TransmissionStatus(StrEnum):
    """Life of a transmission; the only legal moves are in ``engine.states``."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    INVALID = "invalid"


class SpoolStatus(StrEnum):
    """Life of one delivery attempt; the only legal moves are in ``engine.states``."""

    INITIATED = "initiated"
    CONNECTED = "connected"
    COMPLETED = "completed"
    FAILED = "failed"


class CampaignStatus(StrEnum):
    """Life of a campaign; the only legal moves are in ``engine.states``."""

    NEW = "new"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """What every stored noun carries. ``owner_id`` is the user whose row it is."""

    id: int = 0
    uid: UUID = msgspec.field(default_factory=uuid4)
    owner_id: int | None = None
    created_at: datetime = EPOCH
    updated_at: datetime = EPOCH


class User(Entity, frozen=True, kw_only=True):
    """A person or program that may log in. ``roles`` are names of ``engine.auth.ROLES``."""

    username: str
    password_hash: str = ""
    first_name: str = ""
    last_name: str = ""
    phone: str = ""
    email: str = ""
    address: str = ""
    company: str = ""
    active: bool = True
    roles: tuple[str, ...] = ()


class Account(Entity, frozen=True, kw_only=True):
    """Our own address: the caller id of a call (``phone``, names) and, later, the inbound DID."""

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
    active: bool = False


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


class Program(Entity, frozen=True, kw_only=True):
    """The logic of a delivery: ``type`` names an entry of ``engine.programs``, fed by ``data``."""

    name: str
    type: str
    data: dict[str, Any] = {}
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


class Campaign(Entity, frozen=True, kw_only=True):
    """A program run over a group at a pace. ``cursor`` is the last contact link taken."""

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


class Transmission(Entity, frozen=True, kw_only=True):
    """One message to one contact, however many spools (attempts) it takes.

    ``due_at`` is when a pending one may be tried (again). ``response`` is the cause of the last
    result, e.g. ``busy``.
    """

    title: str = ""
    service: Service = Service.VOICE
    program_id: int
    account_id: int | None = None
    contact_id: int
    campaign_id: int | None = None
    origin: str = ""
    direction: Direction = Direction.OUTBOUND
    status: TransmissionStatus = TransmissionStatus.PENDING
    response: str = ""
    try_allowed: int = 1
    try_done: int = 0
    due_at: datetime | None = None
    last_run: datetime | None = None


class Spool(Entity, frozen=True, kw_only=True):
    """One delivery attempt: committed before anything leaves, closed by exactly one result.

    ``str(uid)`` is the SIP Call-ID, so an INVITE on the wire can be matched to its spool.
    ``amount_s`` is the billable talk time in seconds.
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
    amount_s: float = 0.0


class ResultRow(msgspec.Struct, frozen=True):
    """A datum collected during one spool: ``("dtmf", "key", "5")``, ``("info", "played", …)``."""

    type: str
    name: str
    data: str


class SpoolResult(Entity, frozen=True, kw_only=True):
    """A stored ``ResultRow``."""

    spool_id: int
    type: str
    name: str
    data: str


class Media(msgspec.Struct, frozen=True):
    """A recording as a gateway plays it: absolute path of an 8 kHz mono 16-bit WAV, length."""

    path: Path
    length_s: float
