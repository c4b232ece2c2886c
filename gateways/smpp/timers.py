"""What has to be done because time passed. Runs in the journal's thread, within its transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence

import msgspec

from gateways.instants import milliseconds
from gateways.smpp import aggregate, bookings, ids, matching
from gateways.smpp.aggregate import Flag, Part, Progress, State, key_of
from gateways.smpp.matching import Matched
from gateways.smpp.pending import Row
from gateways.smpp.records import Answer, ReceiptState

ORPHAN_S = 3600.0
"""How long a receipt that matches nothing is kept."""

IN_HAND_S = 5.0
"""How often a message is looked at that is not all on its way yet."""

InHand = Callable[[int], bool]
"""Whether the parts of a spool are still leaving. Asked in the journal's thread."""

_AT_ONCE = 500
_PURGED_AT_ONCE = 2000
_REPLACE = msgspec.structs.replace


class Due(msgspec.Struct):
    """What one look at the clock found.

    ``decided``: messages to report, again or for the first time. ``questions``: parts to ask the
    SMSC about. ``next_at``: when to look again, milliseconds since 1970.
    """

    decided: list[list[Part]] = []
    questions: list[Part] = []
    next_at: int | None = None
    orphans: int = 0


def collect(
    connection: sqlite3.Connection,
    now: int,
    retry_at: int,
    patience: Mapping[int, int],
    in_hand: InHand,
) -> Due:
    """Everything that is due, up to a limit: then ``next_at`` is not later than ``now``.

    ``patience``: until when the silence of a provider says nothing, milliseconds since 1970.
    """
    due = Due()
    bookings.purge(connection, now, _PURGED_AT_ONCE)
    bookings.forget_taken(connection, now)
    found = bookings.messages(connection, bookings.due_spools(connection, now, _AT_ONCE))
    for spool_id, parts in found.items():
        _look(
            connection,
            parts,
            now,
            due,
            patience=patience.get(parts[0].provider_id, 0),
            in_hand=now + int(IN_HAND_S * 1000) if in_hand(spool_id) else 0,
        )
    keys = [part.key for parts in due.decided for part in parts]
    bookings.advance(connection, keys, Progress.DECIDED, retry_at)
    due.orphans = bookings.forget_orphans(connection, now - int(ORPHAN_S * 1000))
    due.next_at = bookings.next_due(connection)
    return due


def _look(
    connection: sqlite3.Connection,
    parts: list[Part],
    now: int,
    due: Due,
    *,
    patience: int,
    in_hand: int,
) -> None:
    """One message of which a part is due: it is over, or a question, or looked at again later.

    ``in_hand``: when to look again at one whose other parts have still to leave, else 0.
    """
    progress = aggregate.progress(parts)
    if progress is Progress.CLOSED:
        purge_at = max(part.due_at for part in parts if part.progress == Progress.CLOSED)
        bookings.advance(connection, [part.key for part in parts], progress, purge_at)
        return
    if progress is Progress.DECIDED:
        due.decided.append(parts)
        return
    late = [part for part in parts if part.due_at <= now]
    end = max(part.closes_at for part in parts)
    over = now >= end or aggregate.verdict(parts) is not None
    if over or _nobody_knows(parts, late):
        # Without a bind no receipt can come that tells.
        until = in_hand or (0 if over else min(patience, end))
    else:
        due.questions.extend(part for part in late if _may_ask(part))
        until = end
    if until > now:
        bookings.postpone(connection, [part.key for part in late], until)
    else:
        due.decided.append(parts)


def _may_ask(part: Part) -> bool:
    return part.state == State.ACCEPTED and bool(part.flags & Flag.QUERY and part.id_key)


def _nobody_knows(parts: Sequence[Part], late: Sequence[Part]) -> bool:
    """Whether the time for a receipt to tell is over."""
    return any(part.state == State.UNKNOWN for part in late) or aggregate.incomplete(parts)


def half_sent(parts: Sequence[Part]) -> bool:
    """Whether some parts of an open message never left."""
    waiting = aggregate.progress(parts) is Progress.OPEN
    return waiting and aggregate.incomplete(parts) and aggregate.verdict(parts) is None


def book_late(connection: sqlite3.Connection, answers: Sequence[Answer]) -> list[Row]:
    """Book answers to what was given up as unknown; returns the rows that changed."""
    by_key = {key_of(it.segment.spool_id, it.segment.number): it for it in answers}
    changed = [
        _answered(part, by_key[part.key])
        for part in bookings.by_keys(connection, by_key)
        if part.state == State.UNKNOWN
    ]
    bookings.rewrite(connection, changed)
    return [msgspec.structs.astuple(part)[:-1] for part in changed]


def _answered(part: Part, answer: Answer) -> Part:
    id_key, at = ids.key(answer.message_id), milliseconds(answer.at)
    waiting = part.progress == Progress.OPEN
    return _REPLACE(
        part,
        state=int(State.REFUSED if answer.status else State.ACCEPTED),
        id_key=id_key,
        message_id="" if id_key == answer.message_id else answer.message_id,
        status=answer.status,
        answered_at=at,
        due_at=aggregate.ask_at(part, at) if waiting else part.due_at,
    )


def book_queried(
    connection: sqlite3.Connection,
    answers: Sequence[tuple[int, ReceiptState]],
    now: int,
    retry_at: int,
) -> Matched:
    """Book what query_sm told of parts, by their keys: final states only."""
    outcome = Matched()
    for key, state in answers:
        outcome.decided.extend(
            matching.settle_queried(connection, key, state, now, retry_at).decided
        )
    return outcome
