"""One mail on its way through a lane, and where it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec
import trio

from engine.mail import MailMessage
from engine.results import Fate, Result, ResultRow
from gateways.smtp.books import Flag
from gateways.smtp.compose import Blueprint, Envelope
from gateways.smtp.dkim import Signer
from gateways.smtp.press import PressJob
from gateways.smtp.records import Answer, Parcel
from gateways.smtp.settings import SmtpSettings

if TYPE_CHECKING:
    from gateways.smtp.lane import Lane


class Place(IntEnum):
    """Where a mail is; from ``SENT`` on its answer is booked whoever waits."""

    QUEUED = 0
    PRESSING = 1  # it is being filled in and signed
    READY = 2
    COMMITTING = 3  # its intent is on its way to the disk
    SENT = 4  # given to the bridge: it may leave
    SETTLED = 5  # ``fate`` says what became of it
    WITHDRAWN = 6  # given up; it never left


_WITHDRAWABLE = frozenset({Place.QUEUED, Place.PRESSING, Place.READY, Place.COMMITTING})


class Job(msgspec.Struct, eq=False, kw_only=True):
    """One mail.

    ``settings`` are its provider's of when it was ordered, whatever comes meanwhile. ``rows`` are
    the program's notes. ``on_leaving`` is called once, before the wire can have it.
    """

    id: int
    spool_id: int
    transmission_id: int
    domain: str
    recipient: str
    message: MailMessage
    envelope: Envelope
    blueprint: Blueprint
    signers: tuple[Signer, ...]
    settings: SmtpSettings
    direct: bool
    flags: Flag
    bounces: bool  # a bounce of it can reach us
    not_after: float
    rows: list[ResultRow]
    on_leaving: Callable[[], None]
    lane: Lane | None = None
    place: Place = Place.QUEUED
    twice: bool = False  # an earlier spool of its message may be there already
    parcel: Parcel | None = None
    answer: Answer | None = None
    started_at: datetime | None = None
    fate: Fate | None = None
    done: trio.Event = msgspec.field(default_factory=trio.Event)

    @property
    def withdrawable(self) -> bool:
        """Whether it has certainly not been given to the bridge."""
        return self.place in _WITHDRAWABLE

    def settle(self, fate: Fate) -> None:
        """It has come to rest; wakes who waits."""
        self.place, self.fate = Place.SETTLED, fate
        self.done.set()

    def withdraw(self, result: Result) -> None:
        """It is given up before it left; who waits is told ``result``."""
        self.place, self.fate = Place.WITHDRAWN, result
        self.done.set()


def press_job(job: Job) -> PressJob:
    """What is needed to fill it in."""
    return PressJob(
        message=job.message,
        envelope=job.envelope,
        blueprint=job.blueprint,
        signers=job.signers,
        parcel_id=job.id,
        spool_id=job.spool_id,
        not_after=job.not_after,
    )
