"""Every state change of the engine, as tables. Nothing else changes a status.

``advance(status, event)`` returns the new status or raises ``IllegalTransitionError``; the README's
picture and ``outspool states`` are printed from ``TABLES``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar, cast

from engine.errors import IllegalTransitionError
from engine.model import CampaignStatus as C
from engine.model import SpoolStatus as S
from engine.model import TaskStatus as K
from engine.model import TransmissionStatus as T

Status = TypeVar("Status", T, S, C, K)


class Event(StrEnum):
    """What happens to a campaign, transmission, spool or task."""

    START = "start"  # an operator starts or resumes a campaign
    STOP = "stop"  # an operator stops it
    EXHAUST = "exhaust"  # every contact has its final result
    CLAIM = "claim"  # a spool is committed for the transmission
    CONNECT = "connect"  # answered, accepted
    SUCCEED = "succeed"
    FAIL = "fail"
    RETRY = "retry"  # failed, and policy grants another try
    REFUSE = "refuse"  # can never be sent as it stands
    FIRE = "fire"  # a task's time has come, for the last time
    EXPIRE = "expire"  # a task's time passed while nobody could act on it


CAMPAIGN: dict[tuple[C, Event], C] = {
    (C.NEW, Event.START): C.RUNNING,
    (C.PAUSED, Event.START): C.RUNNING,
    # A finished campaign may run again: it dials the contacts added since.
    (C.COMPLETED, Event.START): C.RUNNING,
    (C.RUNNING, Event.STOP): C.PAUSED,
    (C.RUNNING, Event.EXHAUST): C.COMPLETED,
}

TRANSMISSION: dict[tuple[T, Event], T] = {
    (T.PENDING, Event.CLAIM): T.PROCESSING,
    # /retry of a failed one: the operator asks for another try.
    (T.FAILED, Event.CLAIM): T.PROCESSING,
    (T.PROCESSING, Event.SUCCEED): T.COMPLETED,
    (T.PROCESSING, Event.FAIL): T.FAILED,
    (T.PROCESSING, Event.RETRY): T.PENDING,
    (T.PENDING, Event.FAIL): T.FAILED,
    (T.PENDING, Event.REFUSE): T.INVALID,
    (T.PROCESSING, Event.REFUSE): T.INVALID,
}

SPOOL: dict[tuple[S, Event], S] = {
    (S.INITIATED, Event.CONNECT): S.CONNECTED,
    # Short calls skip the visible "connected".
    (S.INITIATED, Event.SUCCEED): S.COMPLETED,
    (S.INITIATED, Event.FAIL): S.FAILED,
    (S.CONNECTED, Event.SUCCEED): S.COMPLETED,
    (S.CONNECTED, Event.FAIL): S.FAILED,
}

TASK: dict[tuple[K, Event], K] = {
    (K.PENDING, Event.FIRE): K.PROCESSED,
    (K.PENDING, Event.EXPIRE): K.EXPIRED,
}

TABLES: dict[str, dict[tuple[StrEnum, Event], StrEnum]] = {
    "campaign": dict(CAMPAIGN.items()),
    "transmission": dict(TRANSMISSION.items()),
    "spool": dict(SPOOL.items()),
    "task": dict(TASK.items()),
}


_BY_TYPE: dict[type[StrEnum], dict[tuple[StrEnum, Event], StrEnum]] = {
    T: TABLES["transmission"],
    S: TABLES["spool"],
    C: TABLES["campaign"],
    K: TABLES["task"],
}


def advance(status: Status, event: Event) -> Status:
    """The status after ``event``; ``IllegalTransitionError`` where the table has no such move."""
    try:
        return cast("Status", _BY_TYPE[type(status)][status, event])
    except KeyError:
        raise IllegalTransitionError(
            f"{type(status).__name__} {status.value} does not take {event.value}"
        ) from None


def may(status: Status, event: Event) -> bool:
    """Whether the table has the move; for questions before the deed."""
    return (status, event) in _BY_TYPE[type(status)]
