"""What the journal keeps, and what passes between link, tracker and gateway.

``gc=False``: no cycle can be made of numbers, octets and times, and there are many of them.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec


class SegmentState(StrEnum):
    """Life of one part of a message."""

    INTENDED = "intended"  # journalled; it may have left
    ACCEPTED = "accepted"  # the SMSC answered with a message id
    REFUSED = "refused"  # it answered with an error that is final
    UNKNOWN = "unknown"  # it left, and nobody saw an answer
    DELIVERED = "delivered"
    FAILED = "failed"  # a final receipt other than delivered


class Segment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One part of one message, ready to be written: ``body`` is a submit_sm without its header.

    ``number`` runs from 1 to ``total``. ``destination`` is as on the wire. ``reference`` is its
    user_message_reference (§5.3.2.17). ``validity_s``: how long the SMSC shall try (0 = its own).
    """

    spool_id: int
    number: int
    total: int
    destination: str
    reference: int
    body: bytes
    validity_s: float = 0.0


class Answer(Protocol):
    """What the SMSC said to one part: ``status`` 0 and its ``message_id``, or a final error."""

    @property
    def segment(self) -> Segment:
        """The part."""
        ...

    @property
    def status(self) -> int:
        """command_status (§5.1.3)."""
        ...

    @property
    def message_id(self) -> str:
        """As the SMSC wrote it."""
        ...

    @property
    def at(self) -> datetime:
        """When it came."""
        ...


class SegmentAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An ``Answer`` that stands for itself."""

    segment: Segment
    status: int
    message_id: str = ""
    at: datetime


class ReceiptState(StrEnum):
    """States of a message at the SMSC (§5.2.28 and Appendix B)."""

    DELIVERED = "DELIVRD"
    EXPIRED = "EXPIRED"
    DELETED = "DELETED"
    UNDELIVERABLE = "UNDELIV"
    ACCEPTED = "ACCEPTD"
    UNKNOWN = "UNKNOWN"
    REJECTED = "REJECTD"
    ENROUTE = "ENROUTE"

    @property
    def final(self) -> bool:
        """Whether nothing more will come."""
        return self not in (ReceiptState.ENROUTE, ReceiptState.ACCEPTED)


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery receipt, read out of a deliver_sm or data_sm; "" and None where it did not say.

    ``handset`` is the number the message went to (the receipt's source address). ``reference`` is
    the user_message_reference it carries back.
    """

    message_id: str
    state: ReceiptState
    handset: str
    error: str = ""
    submitted: str = ""
    done: str = ""
    reference: int | None = None
    received_at: datetime
