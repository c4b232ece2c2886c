"""What a message is, out of what became of its parts: the worst part decides. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import IntEnum, IntFlag

import msgspec

from engine.results import Awaiting, Reached, Result, ResultRow, no_receipt
from gateways.instants import moment
from gateways.smpp import results
from gateways.smpp.records import ReceiptState
from gateways.smpp.settings import SmppSettings


class State(IntEnum):
    """``SegmentState`` as the journal stores it; INTENDED has no row there."""

    ACCEPTED = 1
    REFUSED = 2
    UNKNOWN = 3
    DELIVERED = 4
    FAILED = 5


class Progress(IntEnum):
    """How far the whole message is; the same in all of its parts."""

    OPEN = 0
    DECIDED = 1  # its result is certain, the engine has not taken it yet
    CLOSED = 2


class Flag(IntFlag):
    """What the provider's settings said when the message left."""

    AT_LEAST_ONCE = 1
    QUIET = 2  # receipts of failures only: silence is good news
    UNRECEIPTED = 4  # no receipts asked for
    QUERY = 8


class Slip(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a final receipt. ``at``: milliseconds since 1970."""

    state: ReceiptState
    error: str
    submitted: str
    done: str
    at: int


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One part as the journal has it (table ``segment``); times are milliseconds since 1970.

    ``id_key`` is the message id as it is compared, ``message_id`` as it came where that differs.
    """

    key: int
    provider_id: int
    state: int
    progress: int
    flags: int
    total: int
    destination: str
    reference: int
    source: str
    id_key: str
    message_id: str
    status: int
    answered_at: int
    closes_at: int
    due_at: int
    receipt: str | None = None

    @property
    def spool_id(self) -> int:
        """The spool it belongs to."""
        return self.key >> KEY_BITS

    @property
    def wire_id(self) -> str:
        """The message id as the SMSC wrote it."""
        return self.message_id or self.id_key


KEY_BITS = 8
"""A segment's key is spool_id * 256 + number: a message has at most 255 parts (§5.3.2.23)."""


def key_of(spool_id: int, number: int) -> int:
    """The key of a part."""
    return spool_id << KEY_BITS | number


def flags_of(settings: SmppSettings) -> Flag:
    """The settings that decide about a message later, as they are now."""
    flags = Flag(0)
    if settings.unknown == "at_least_once":
        flags |= Flag.AT_LEAST_ONCE
    if settings.receipts != "all":
        flags |= Flag.QUIET if settings.receipts == "failure" else Flag.UNRECEIPTED
    return flags | Flag.QUERY if settings.query else flags


def lifetime_s(validity_s: float, settings: SmppSettings) -> float:
    """How long to wait for a receipt from when a message was accepted, grace included."""
    return (validity_s or settings.receipt_wait_s) + settings.receipt_grace_s


def closes_at(accepted_at: datetime, validity_s: float, settings: SmppSettings) -> datetime:
    """When a message accepted then is given up without a receipt; for ``Awaiting``."""
    return accepted_at + timedelta(seconds=lifetime_s(validity_s, settings))


ASK_AHEAD_S = 1800.0
"""How long before a message is given up the SMSC is asked about it, at most."""


def ask_at(part: Part, now: int) -> int:
    """When to look at a part that turned out to be at the SMSC: in time for a question.

    Its row has no grace period: it is asked half an hour before the end, or half way to it.
    """
    left = max(part.closes_at - now, 0)
    ahead = min(int(ASK_AHEAD_S * 1000), left // 2) if part.flags & Flag.QUERY else 0
    return part.closes_at - ahead


# --- what became of it ---------------------------------------------------------------------------

_SEVERITY = (
    ReceiptState.DELIVERED,
    ReceiptState.UNKNOWN,
    ReceiptState.EXPIRED,
    ReceiptState.UNDELIVERABLE,
    ReceiptState.REJECTED,
    ReceiptState.DELETED,
)
_PERHAPS_THERE = (State.ACCEPTED, State.UNKNOWN, State.DELIVERED)


def verdict(parts: Sequence[Part]) -> Result | None:
    """The result where every part of the message has come to its end; None while one has not."""
    if any(part.state == State.REFUSED for part in parts):
        return _refused(parts)
    if incomplete(parts) or any(part.state == State.UNKNOWN for part in parts):
        return None
    if any(part.state == State.ACCEPTED for part in parts):
        return _accepted(parts) if parts[0].flags & Flag.UNRECEIPTED else None
    return _received(parts)


def final(parts: Sequence[Part]) -> Result:
    """The result when nothing more is waited for: the verdict, else what silence means.

    A part that nobody saw the answer of, or that never left, makes the message unknown.
    """
    return verdict(parts) or (_unknown(parts) if doubtful(parts) else _silent(parts))


def progress(parts: Sequence[Part]) -> Progress:
    """How far the message is; a part whose answer came after its end does not open it again."""
    return Progress(max(part.progress for part in parts))


def incomplete(parts: Sequence[Part]) -> bool:
    """Whether some parts have no row: they did not leave, or their answer is yet to come."""
    return len(parts) < parts[0].total


def nameless(part: Part) -> bool:
    """Whether only its reference can tell that a receipt is its own.

    Nobody saw its answer, or that had no id that could be read.
    """
    return part.state in (State.ACCEPTED, State.UNKNOWN) and not part.id_key


def doubtful(parts: Sequence[Part]) -> bool:
    """Whether nobody knows if the network has all of it."""
    return incomplete(parts) or any(part.state == State.UNKNOWN for part in parts)


def awaiting(parts: Sequence[Part]) -> Awaiting:
    """What the engine is told of a message that waits for its receipts."""
    accepted_at = None if doubtful(parts) else moment(max(part.answered_at for part in parts))
    last = max(part.closes_at for part in parts)
    return Awaiting(accepted_at=accepted_at, closes_at=moment(last), rows=id_rows(parts))


def id_rows(parts: Sequence[Part]) -> tuple[ResultRow, ...]:
    """The message id of each part that has one, in order, and how many parts there are."""
    ids = tuple(ResultRow("sms", "message_id", part.wire_id) for part in parts if part.id_key)
    return (*ids, ResultRow("sms", "parts", str(parts[0].total)))


def slip_of(part: Part) -> Slip | None:
    """What its receipt said."""
    return msgspec.json.decode(part.receipt, type=Slip) if part.receipt else None


def _perhaps_there(parts: Sequence[Part]) -> bool:
    """Whether a person may have some of it."""
    return any(
        part.state in _PERHAPS_THERE
        or ((slip := slip_of(part)) is not None and slip.state is ReceiptState.UNKNOWN)
        for part in parts
    )


def _refused(parts: Sequence[Part]) -> Result:
    refused = next(part for part in parts if part.state == State.REFUSED)
    left = any(part.state == State.FAILED for part in parts)
    reached = Reached.NETWORK if left else Reached.NOTHING
    reached = Reached.PERSON if _perhaps_there(parts) else reached
    return _told(results.refused(refused.status, reached=reached), parts)


def _accepted(parts: Sequence[Part]) -> Result:
    return _told(results.accepted(), parts)


def _received(parts: Sequence[Part]) -> Result:
    """Only called with a receipt for each part, or for those that failed before the end."""
    slips = [slip for part in parts if (slip := slip_of(part))]
    worst = max(slips, key=lambda slip: _SEVERITY.index(slip.state))
    partly = _perhaps_there(parts)
    result = results.of_receipt(worst.state, worst.error, partly_delivered=partly)
    ended = moment(max(slip.at for slip in slips))
    return msgspec.structs.replace(_told(result, parts, worst), ended_at=ended)


def _unknown(parts: Sequence[Part]) -> Result:
    again = parts[0].flags & Flag.AT_LEAST_ONCE
    return _told(results.resent() if again else results.unanswered(), parts)


def _silent(parts: Sequence[Part]) -> Result:
    if any(part.state == State.FAILED for part in parts):
        return _received(parts)
    return _accepted(parts) if parts[0].flags & Flag.QUIET else _told(no_receipt(), parts)


def _told(result: Result, parts: Sequence[Part], worst: Slip | None = None) -> Result:
    """With its rows and the time the network took it."""
    rows = (*result.rows, *id_rows(parts), *(_receipt_rows(worst) if worst else ()))
    taken = [part.answered_at for part in parts if part.id_key and part.answered_at]
    connected = moment(max(taken)) if taken else None
    return msgspec.structs.replace(result, rows=rows, connected_at=connected)


def _receipt_rows(slip: Slip) -> list[ResultRow]:
    named = {
        "stat": str(slip.state),
        "err": slip.error,
        "submit_date": slip.submitted,
        "done_date": slip.done,
    }
    return [ResultRow("sms", name, data) for name, data in named.items() if data]
