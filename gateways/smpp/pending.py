"""Segments that were journalled and have no answer yet, and the rows they become. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from gateways.instants import milliseconds
from gateways.smpp import aggregate, ids
from gateways.smpp.aggregate import KEY_BITS, Flag, Part, Progress, State, key_of
from gateways.smpp.pdu import Address
from gateways.smpp.records import Answer, Segment
from gateways.smpp.settings import SmppSettings

Row = tuple[int, int, int, int, int, int, str, int, str, str, str, int, int, int, int]
"""A segment without receipt, in the order of ``Part``."""


SPENT = 16
"""Forgetting an intent costs a statement however many there are."""


class Intents(msgspec.Struct, frozen=True, array_like=True):
    """What is written before a batch leaves: enough to know what may have left, and no text.

    One row for all of them, column by column. ``wait_ms``: for receipts, where nobody saw the
    answer; ``lifetimes_ms``: until a message is given up.
    """

    provider_id: int
    flags: int
    wait_ms: int
    keys: list[int]
    totals: list[int]
    destinations: list[str]
    references: list[int]
    lifetimes_ms: list[int]


class Taken(msgspec.Struct, frozen=True, array_like=True):
    """Messages of one part that were accepted and will bring no receipt, column by column.

    ``answered_at``: milliseconds since 1970, as in ``Part``.
    """

    provider_id: int
    keys: list[int]
    message_ids: list[str]
    answered_at: list[int]


class Booking(msgspec.Struct):
    """What is to be written. ``late``: answers that nobody waits for any more."""

    rows: list[Row]
    taken: Taken | None = None
    late: list[Answer] = []

    def keys(self) -> list[int]:
        """All that are not late."""
        return [row[0] for row in self.rows] + (self.taken.keys if self.taken else [])


class Batch:
    """Segments that were journalled together; ``left`` are those without an answer."""

    __slots__ = (
        "_sender",
        "_source",
        "flags",
        "grace_ms",
        "intent_id",
        "left",
        "life_ms",
        "provider_id",
        "unknown_ms",
    )

    def __init__(
        self, provider_id: int, segments: Sequence[Segment], settings: SmppSettings
    ) -> None:
        self.intent_id = 0
        self.provider_id = provider_id
        keys = [it.spool_id << KEY_BITS | it.number for it in segments]
        self.left = dict(zip(keys, segments, strict=True))
        self.flags = int(aggregate.flags_of(settings))
        self.grace_ms = int(settings.receipt_grace_s * 1000)
        self.life_ms = int(settings.receipt_wait_s * 1000) + self.grace_ms
        self.unknown_ms = int(settings.unknown_wait_s * 1000)
        self._sender, self._source = b"\xff", ""  # the octets that begin a body, and what they say

    def lifetime_ms(self, segment: Segment) -> int:
        """As ``aggregate.lifetime_s``."""
        validity_s = segment.validity_s
        return int(validity_s * 1000) + self.grace_ms if validity_s else self.life_ms

    def intents(self) -> Intents:
        """What the journal keeps of what is left."""
        segments = self.left.values()
        return Intents(
            provider_id=self.provider_id,
            flags=self.flags,
            wait_ms=self.unknown_ms,
            keys=list(self.left),
            totals=[it.total for it in segments],
            destinations=[it.destination for it in segments],
            references=[it.reference for it in segments],
            lifetimes_ms=[
                self.lifetime_ms(it) if it.validity_s else self.life_ms for it in segments
            ],
        )

    def answered(self, key: int, answer: Answer, now: int, keep_ms: int) -> Row:
        """The row of a segment that was accepted, or refused for good."""
        segment, status, state, progress = self.left[key], answer.status, 1, 0
        life_ms = self.lifetime_ms(segment) if segment.validity_s else self.life_ms
        closes = due = now + life_ms
        if status:
            state = 2
        if status and segment.total == 1:  # of several parts the others have a say
            due, progress = now + keep_ms, 2
        elif self.flags & 8:
            due = closes - self.grace_ms // 2
        message_id, body = answer.message_id, segment.body
        id_key = ids.key(message_id)
        if not body.startswith(self._sender):
            self._sender, self._source = sender_of(body)
        return (
            key,
            self.provider_id,
            state,
            progress,
            self.flags,
            segment.total,
            segment.destination,
            segment.reference,
            self._source,
            id_key,
            "" if id_key == message_id else message_id,
            status,
            now,
            closes,
            due,
        )

    def unanswered(self, key: int, now: int) -> Row:
        """The row of a segment nobody saw the answer of."""
        segment = self.left[key]
        return unknown_row(
            key,
            provider_id=self.provider_id,
            flags=self.flags,
            total=segment.total,
            destination=segment.destination,
            reference=segment.reference,
            source=sender_of(segment.body)[1],
            closes_at=now + self.lifetime_ms(segment),
            due_at=now + self.unknown_ms,
        )


# ``answered`` runs for every segment there is and compares plain numbers; these are they.
_NUMBERS = (State.ACCEPTED, State.REFUSED, Progress.CLOSED, Flag.UNRECEIPTED, Flag.QUERY)
assert _NUMBERS == (1, 2, 2, 4, 8)  # noqa: S101 - checked once, when it is imported


class Pending:
    """All batches; ``spent`` are the ids of those of which every segment has a row."""

    def __init__(self) -> None:
        self._batches: dict[int, Batch] = {}
        self._spent: list[int] = []

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, batch: Batch) -> None:
        """A batch that is on the disk; a segment of an earlier one that is in it moves."""
        if not self._batches.keys().isdisjoint(batch.left):
            self.leave([key for key in batch.left if key in self._batches])
        self._batches.update(dict.fromkeys(batch.left, batch))

    def booked(self, provider_id: int, answers: Sequence[Answer], keep_ms: int) -> Booking:
        """What to write of these answers; the segments stay pending until ``leave``."""
        rows, late = list[Row](), list[Answer]()
        keys, message_ids, times = list[int](), list[str](), list[int]()
        at, now = None, 0
        for answer in answers:
            if answer.at is not at:
                at, now = answer.at, milliseconds(answer.at)
            segment = answer.segment
            key = segment.spool_id << KEY_BITS | segment.number
            if (batch := self._batches.get(key)) is None:
                late.append(answer)
            elif batch.flags & 4 and segment.total == 1 and not answer.status:
                keys.append(key)
                message_ids.append(answer.message_id)
                times.append(now)
            else:
                rows.append(batch.answered(key, answer, now, keep_ms))
        taken = Taken(provider_id, keys, message_ids, times) if keys else None
        return Booking(rows, taken, late)

    def unknown_rows(self, segments: Sequence[Segment], now: int) -> list[Row]:
        """Rows of those that nobody answered."""
        keys = (key_of(it.spool_id, it.number) for it in segments)
        return [batch.unanswered(key, now) for key in keys if (batch := self._batches.get(key))]

    def leave(self, keys: Iterable[int]) -> None:
        """They have rows of their own; a batch with none left needs no intent any more."""
        for key in keys:
            batch = self._batches.pop(key, None)
            if batch is not None:
                del batch.left[key]
                if not batch.left:
                    self._spent.append(batch.intent_id)

    def withdraw(self, segments: Sequence[Segment]) -> dict[Batch, dict[int, Segment]]:
        """Take them out, as if they had never been; ``put_back`` undoes it."""
        taken: dict[Batch, dict[int, Segment]] = {}
        for segment in segments:
            key = key_of(segment.spool_id, segment.number)
            if batch := self._batches.pop(key, None):
                taken.setdefault(batch, {})[key] = batch.left.pop(key)
        return taken

    def put_back(self, taken: dict[Batch, dict[int, Segment]]) -> None:
        """They are pending after all."""
        for batch, segments in taken.items():
            batch.left.update(segments)
            self._batches.update(dict.fromkeys(segments, batch))

    def take_spent(self, least: int = SPENT) -> list[int]:
        """Batches to be forgotten with the next commit; none while they are fewer than that.

        A start that finds them finds every segment's row beside.
        """
        if len(self._spent) < least:
            return []
        spent, self._spent = self._spent, []
        return spent

    def spend(self, intent_ids: Iterable[int]) -> None:
        """They are still there: that commit failed."""
        self._spent.extend(intent_ids)


def unknown_row(
    key: int,
    *,
    provider_id: int,
    flags: int,
    total: int,
    destination: str,
    reference: int,
    closes_at: int,
    due_at: int,
    source: str = "",
) -> Row:
    """A segment nobody saw the answer of."""
    state, progress = int(State.UNKNOWN), int(Progress.OPEN)
    head = (key, provider_id, state, progress, flags, total, destination, reference, source)
    return (*head, "", "", 0, 0, closes_at, due_at)


def taken_part(provider_id: int, key: int, message_id: str, at: int) -> Part:
    """An accepted message of one part, as far as its result needs it."""
    id_key = ids.key(message_id)
    return Part(
        key=key,
        provider_id=provider_id,
        state=int(State.ACCEPTED),
        progress=int(Progress.CLOSED),
        flags=int(Flag.UNRECEIPTED),
        total=1,
        destination="",
        reference=0,
        source="",
        id_key=id_key,
        message_id="" if id_key == message_id else message_id,
        status=0,
        answered_at=at,
        closes_at=at,
        due_at=at,
    )


def sender_of(body: bytes) -> tuple[bytes, str]:
    """A submit_sm up to its sender, and that in words: type, plan, address (§4.4.1).

    Campaigns have one sender: another body that begins with the same octets has the same.
    """
    start = body.index(0) + 1
    end = body.index(0, start + 2)
    ton, npi = body[start], body[start + 1]
    return body[: end + 1], f"{ton} {npi} {body[start + 2 : end].decode('latin-1')}"


def address(source: str) -> Address:
    """Such words as an address again; "" is no address."""
    if not source:
        return Address()
    ton, npi, digits = source.split(" ", 2)
    return Address(digits, int(ton), int(npi))
