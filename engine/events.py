"""Domain events: frozen facts the bus carries to dashboards, webhooks and the CLI."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from engine.model import CampaignStatus, SpoolStatus, TransmissionStatus
from engine.store.arrival import Kept
from engine.store.base import Outcome


class DomainEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Base: every event says when it happened (aware UTC)."""

    at: datetime


class SpoolChanged(DomainEvent, frozen=True, kw_only=True):
    """A spool was committed, left, rang, connected or ended. ``stage`` is "" except in between."""

    spool_id: int
    transmission_id: int
    campaign_id: int | None
    status: SpoolStatus
    stage: str = ""
    response: str = ""


class TransmissionEnded(DomainEvent, frozen=True, kw_only=True):
    """A transmission got its final status."""

    transmission_id: int
    campaign_id: int | None
    status: TransmissionStatus
    response: str


class CampaignChanged(DomainEvent, frozen=True, kw_only=True):
    """A campaign was started, stopped or completed."""

    campaign_id: int
    status: CampaignStatus


class TaskFired(DomainEvent, frozen=True, kw_only=True):
    """A scheduled run was done, or refused (``done`` False); ``note`` says what became of it."""

    task_id: int
    type: str
    action: str
    target_id: int
    done: bool
    note: str


class ProviderHealth(DomainEvent, frozen=True, kw_only=True):
    """A trunk was taken out of use after repeated failures, or came back."""

    provider_id: int
    healthy: bool
    cause: str = ""


class StoreHealth(DomainEvent, frozen=True, kw_only=True):
    """The store stopped taking writes (full, read-only) or takes them again."""

    writable: bool
    cause: str = ""


def of_outcome(outcome: Outcome) -> Iterator[DomainEvent]:
    """What a stored outcome is told as: the end of its spool, and of its transmission if final."""
    if outcome.spool_id:
        yield SpoolChanged(
            at=outcome.at,
            spool_id=outcome.spool_id,
            transmission_id=outcome.transmission_id,
            campaign_id=outcome.campaign_id,
            status=SpoolStatus.COMPLETED if outcome.result.succeeded else SpoolStatus.FAILED,
            response=outcome.result.cause,
        )
    if outcome.transmission_status is not TransmissionStatus.PENDING:
        yield TransmissionEnded(
            at=outcome.at,
            transmission_id=outcome.transmission_id,
            campaign_id=outcome.campaign_id,
            status=outcome.transmission_status,
            response=outcome.result.cause,
        )


def of_arrival(kept: Kept, at: datetime) -> Iterator[DomainEvent]:
    """What to tell when something came in and was kept."""
    yield SpoolChanged(
        at=at, spool_id=kept.spool_id, transmission_id=kept.transmission_id, campaign_id=None,
        status=SpoolStatus.COMPLETED, response="received",
    )  # fmt: skip
    yield TransmissionEnded(
        at=at, transmission_id=kept.transmission_id, campaign_id=None,
        status=TransmissionStatus.COMPLETED, response="received",
    )  # fmt: skip
