"""Receipts find their messages. Runs in the journal's thread, within its transaction.

By id and destination; where nobody saw the answer, or it told no id, by destination and
user_message_reference. What finds nothing is kept: on a receiver of its own a receipt can be
quicker than the answer that tells its id.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from gateways.instants import milliseconds
from gateways.smpp import aggregate, bookings, ids
from gateways.smpp.aggregate import Part, Progress, Slip, State
from gateways.smpp.pending import Row
from gateways.smpp.records import Receipt, ReceiptState

MAX_ORPHANS = 50_000

_REPLACE = msgspec.structs.replace
_ARRIVED = (State.DELIVERED, State.FAILED)


_Hits = dict[int, list[ids.IdMode]]  # the keys of parts that may be meant, by which spelling


class Matched(msgspec.Struct):
    """What a batch of receipts led to. ``decided``: messages whose result is certain now."""

    decided: list[list[Part]] = []
    matched: int = 0
    intermediate: int = 0
    duplicates: int = 0
    late: int = 0
    orphans: int = 0


def take(
    connection: sqlite3.Connection,
    provider_id: int,
    receipts: Sequence[Receipt],
    known: ids.Learned | None,
    retry_at: int,
) -> Matched:
    """Book them. ``known``: how ids compare, where the operator says so.

    ``retry_at``: when decided messages are due again, should the engine not take their results.
    """
    matching = _Matching(connection, provider_id, known)
    outcome = matching.run(receipts, retry_at)
    if matching.taught and (held := bookings.claim_all_orphans(connection, provider_id)):
        _add(outcome, _Matching(connection, provider_id, known).run(held, retry_at))
    return outcome


def _add(total: Matched, more: Matched) -> None:
    for name in Matched.__struct_fields__:
        setattr(total, name, getattr(total, name) + getattr(more, name))


def take_waiting(
    connection: sqlite3.Connection,
    provider_id: int,
    rows: Sequence[Row],
    known: ids.Learned | None,
    retry_at: int,
) -> Matched:
    """Book receipts that came before these rows (of answers, or of what nobody answered)."""
    if not rows or not bookings.has_orphans(connection, provider_id):
        return Matched()
    modes = (known or bookings.learned(connection, provider_id)).modes()
    message_ids = [row[10] or row[9] for row in rows if row[9]]
    keys = {key for mode in modes for it in message_ids if (key := ids.receipt_key(it, mode))}
    references = {row[7] for row in rows if not row[9] and row[2] != State.REFUSED}
    waiting = bookings.claim_orphans(connection, provider_id, id_keys=keys, references=references)
    return take(connection, provider_id, waiting, known, retry_at) if waiting else Matched()


def settle_queried(
    connection: sqlite3.Connection, key: int, state: ReceiptState, now: int, retry_at: int
) -> Matched:
    """Book the final state that query_sm told of a part (§4.8.2)."""
    outcome = Matched()
    found = [part for part in bookings.by_keys(connection, [key]) if part.state == State.ACCEPTED]
    for part in found:
        slip = Slip(state, "", "", "", now)
        bookings.update(connection, [_ended(part, slip)])
    decide(connection, {part.spool_id for part in found}, retry_at, outcome)
    return outcome


def decide(
    connection: sqlite3.Connection, spool_ids: Iterable[int], retry_at: int, outcome: Matched
) -> None:
    """Those messages of which every part has come to its end."""
    done = [
        parts
        for parts in bookings.messages(connection, spool_ids).values()
        if aggregate.progress(parts) is Progress.OPEN and aggregate.verdict(parts)
    ]
    keys = [part.key for parts in done for part in parts]
    if keys:
        bookings.advance(connection, keys, Progress.DECIDED, retry_at)
    outcome.decided.extend(done)


class _Matching:
    """One batch: what it read, and what it changed."""

    def __init__(
        self, connection: sqlite3.Connection, provider_id: int, known: ids.Learned | None
    ) -> None:
        self._connection = connection
        self._provider_id = provider_id
        self._fixed = known is not None
        self._before = known or bookings.learned(connection, provider_id)
        self._known = self._before
        self._parts: dict[int, Part] = {}
        self._by_id: dict[str, list[int]] = {}
        self._by_reference: dict[int, list[int]] = {}
        self._changed: set[int] = set()
        self._renamed: set[int] = set()
        self._outcome = Matched()

    def run(self, receipts: Sequence[Receipt], retry_at: int) -> Matched:
        self._read(receipts)
        orphans = [receipt for receipt in receipts if not self._book(receipt)]
        self._write(retry_at)
        self._keep(orphans)
        if self._known != self._before and not self._fixed:
            bookings.keep_learned(self._connection, self._provider_id, self._known)
        return self._outcome

    @property
    def taught(self) -> bool:
        """Whether this told how ids compare, or anew: what was held can be told apart."""
        before, known = self._before, self._known
        return bool(known.votes) and (not before.votes or known.mode is not before.mode)

    # --- reading

    def _read(self, receipts: Sequence[Receipt]) -> None:
        modes = self._known.modes()
        keys = {
            key
            for mode in modes
            for receipt in receipts
            if (key := ids.answer_key(receipt.message_id, mode))
        }
        references = {it.reference for it in receipts if it.reference is not None}
        for part in bookings.by_ids(self._connection, self._provider_id, keys):
            self._parts[part.key] = part
            self._by_id.setdefault(part.id_key, []).append(part.key)
        if not references:
            return
        for part in bookings.by_references(self._connection, self._provider_id, references):
            self._parts[part.key] = part
            self._by_reference.setdefault(part.reference, []).append(part.key)

    # --- matching

    def _book(self, receipt: Receipt) -> bool:
        """False where nothing matches, or where it cannot be told yet what does."""
        hits = self._hits(receipt)
        if self._undecided(hits, receipt):
            return False
        part = self._of_id(hits, receipt) or self._of_reference(receipt)
        if part is None:
            if receipt.state.final:
                self._known = self._known.missed()
            return False
        self._outcome.matched += 1
        if not receipt.state.final:
            self._outcome.intermediate += 1
            self._under_way(part, receipt)
        elif part.state in _ARRIVED:
            self._outcome.duplicates += 1
        else:
            self._outcome.late += part.progress == Progress.CLOSED
            self._end(part, receipt)
        return True

    def _hits(self, receipt: Receipt) -> _Hits:
        hits: _Hits = {}
        for mode in self._known.modes():
            for key in self._by_id.get(ids.answer_key(receipt.message_id, mode) or "", ()):
                if self._fits(self._parts[key], receipt) and self._likely(key, mode, receipt):
                    hits.setdefault(key, []).append(mode)
        return hits

    def _undecided(self, hits: _Hits, receipt: Receipt) -> bool:
        """Whether the mode has to be learned first: each spelling names another part.

        Messages to one number, or parts of one, with ids one after the other.
        """
        if self._known.votes:
            return False
        if receipt.reference is None and any(
            len(modes) < len(ids.IdMode) and not self._complete(self._parts[key])
            for key, modes in hits.items()
        ):
            return True  # the part that is meant may be one that is not answered yet
        if len(hits) < 2:  # noqa: PLR2004 - one is no choice
            return False
        doubts = {key: self._doubts(self._parts[key], receipt) for key in hits}
        least = min(doubts.values())
        best = {tuple(hits[key]) for key, doubt in doubts.items() if doubt == least}
        return len(best) > 1

    def _of_id(self, hits: _Hits, receipt: Receipt) -> Part | None:
        if not hits:
            return None
        key = min(hits, key=lambda key: self._doubts(self._parts[key], receipt))
        sure = len(hits) == 1 or self._parts[key].reference == receipt.reference
        if sure and len(hits[key]) == 1 and receipt.handset:
            self._known = self._known.voted(hits[key][0])
        return self._parts[key]

    @staticmethod
    def _doubts(part: Part, receipt: Receipt) -> tuple[bool, bool]:
        """What speaks against this part, of several that may be meant.

        Until a mode is learned, the id of one part may be another part's in another spelling; the
        reference, where it comes back, tells them apart. And an SMSC may use an id twice within our
        memory: what still waits for a receipt comes first.
        """
        other = receipt.reference is not None and part.reference != receipt.reference
        return other, part.state in _ARRIVED

    def _likely(self, key: int, mode: ids.IdMode, receipt: Receipt) -> bool:
        """While a mode is learned, an id in another spelling needs a reference that agrees.

        Where none comes back, the spelling that leads goes before the others as long as parts of
        the message are not answered: the answer with the very id may be on its way yet.
        """
        if self._known.certain:
            return True
        part = self._parts[key]
        if receipt.reference is not None:
            return mode is ids.IdMode.EXACT or part.reference == receipt.reference
        leads = not self._known.votes or mode is self._known.mode
        return leads or self._complete(part)

    def _complete(self, part: Part) -> bool:
        if part.total == 1:
            return True
        known = bookings.messages(self._connection, [part.spool_id])
        return len(known[part.spool_id]) == part.total

    def _fits(self, part: Part, receipt: Receipt) -> bool:
        if not receipt.handset:
            return self._known.certain
        return ids.same_number(part.destination, receipt.handset)

    def _of_reference(self, receipt: Receipt) -> Part | None:
        if receipt.reference is None or not receipt.handset:
            return None
        for key in self._by_reference.get(receipt.reference, ()):
            part = self._parts[key]
            if aggregate.nameless(part) and self._fits(part, receipt):
                return part
        return None

    # --- what it changes

    def _under_way(self, part: Part, receipt: Receipt) -> None:
        """It is there after all, and will be told of again."""
        if aggregate.nameless(part) and part.progress == Progress.OPEN:
            at = milliseconds(receipt.received_at)
            self._renamed.add(part.key)
            self._change(
                _REPLACE(
                    self._named(part, receipt),
                    state=int(State.ACCEPTED),
                    answered_at=part.answered_at or at,
                    due_at=aggregate.ask_at(part, at),
                )
            )

    def _end(self, part: Part, receipt: Receipt) -> None:
        at = milliseconds(receipt.received_at)
        slip = Slip(receipt.state, receipt.error, receipt.submitted, receipt.done, at)
        if aggregate.nameless(part):
            part = self._named(part, receipt)
        self._change(_ended(part, slip))

    def _named(self, part: Part, receipt: Receipt) -> Part:
        """With the id that its receipt tells, so that the next receipt of that id finds it."""
        if not receipt.message_id:
            return part
        key = ids.answer_key(receipt.message_id, self._known.mode)
        self._renamed.add(part.key)
        named = _REPLACE(part, id_key=key or "", message_id=receipt.message_id)
        self._by_id.setdefault(named.id_key, []).append(part.key)
        return named

    def _change(self, part: Part) -> None:
        self._parts[part.key] = part
        self._changed.add(part.key)

    # --- writing

    def _write(self, retry_at: int) -> None:
        """Messages of one part are decided here, of more parts after a look at the others."""
        rows, several = [], set()
        for key in sorted(self._changed):
            part = self._parts[key]
            if part.total > 1:
                several.add(part.spool_id)
            elif part.progress == Progress.OPEN and part.state in _ARRIVED:
                part = _REPLACE(part, progress=int(Progress.DECIDED), due_at=retry_at)
                self._outcome.decided.append([part])
            rows.append(part)
        bookings.update(self._connection, [it for it in rows if it.key not in self._renamed])
        bookings.rewrite(self._connection, [it for it in rows if it.key in self._renamed])
        if several:
            decide(self._connection, several, retry_at, self._outcome)

    def _keep(self, orphans: Sequence[Receipt]) -> None:
        self._outcome.orphans = len(orphans)
        rows = [
            (ids.key(receipt.message_id), milliseconds(receipt.received_at), receipt)
            for receipt in orphans
        ]
        if rows:
            bookings.add_orphans(self._connection, self._provider_id, rows, MAX_ORPHANS)


def _ended(part: Part, slip: Slip) -> Part:
    delivered = slip.state is ReceiptState.DELIVERED
    return _REPLACE(
        part,
        state=int(State.DELIVERED if delivered else State.FAILED),
        receipt=msgspec.json.encode(slip).decode(),
    )
