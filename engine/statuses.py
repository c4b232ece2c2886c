"""The lives of what has one; the legal moves are in ``engine.states`` and nowhere else."""

from __future__ import annotations

from enum import StrEnum


class TransmissionStatus(StrEnum):
    """Life of a transmission."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    INVALID = "invalid"


class SpoolStatus(StrEnum):
    """Life of one delivery attempt."""

    INITIATED = "initiated"
    CONNECTED = "connected"
    COMPLETED = "completed"
    FAILED = "failed"


class CampaignStatus(StrEnum):
    """Life of a campaign."""

    NEW = "new"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"


class TaskStatus(StrEnum):
    """Life of a scheduled task."""

    PENDING = "pending"
    PROCESSED = "processed"
    EXPIRED = "expired"
