"""What became of every message: intents, answers, receipts, and what is done about silence.

In memory are only segments whose answer is to come; everything else is rows of the journal, so a
million messages waiting for receipts cost none. The engine gets each result at least once: a
message stays *decided* in the journal until the engine has taken its report.
"""

from __future__ import annotations

import functools
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeVar

import structlog
import trio

from engine.clock import Clock
from engine.errors import UnavailableError
from engine.gateway import Inbox, Report
from engine.results import Fate
from gateways.agenda import Agenda
from gateways.smpp import aggregate, bookings, ids, matching, results, timers
from gateways.smpp.aggregate import Part, Progress, key_of
from gateways.smpp.journal import Journal
from gateways.smpp.matching import Matched
from gateways.smpp.pdu import Address
from gateways.smpp.pending import SPENT, Batch, Booking, Pending, address
from gateways.smpp.records import Answer, Receipt, ReceiptState, Segment
from gateways.smpp.settings import SmppSettings

log = structlog.get_logger("smpp")

T = TypeVar("T")

_due_at = itemgetter(Part.__struct_fields__.index("due_at"))

Query = Callable[[int, str, Address], Awaitable[ReceiptState | None]]
"""Asks a provider for the state of a message id (query_sm, §4.8) sent from that address."""

Patience = Callable[[], Mapping[int, float]]
"""For how many seconds yet the silence of each provider (by id) says nothing: it is not bound."""

_QUERY_DEADLINE_S = 60.0
_QUERIES_AT_ONCE = 50


class Tracker:
    """The books of all providers. ``keep_s``: how long a closed message stays for late receipts.

    Every method that writes returns once it is durable, or raises ``UnavailableError`` with nothing
    kept; ``Cancelled`` out of one means that nothing was written (``receipts``: nothing reported).
    """

    def __init__(self, journal: Journal, clock: Clock, *, keep_s: float = 604_800.0) -> None:
        self._journal = journal
        self._keep_ms = int(keep_s * 1000)
        self._pending = Pending()
        self._known: dict[int, ids.Learned | None] = {}
        self._inbox: Inbox | None = None
        self._agenda = Agenda(clock, _complain)
        self._counts: dict[int, Counter[str]] = {}
        self._orphans = 0
        self._held = True  # whether receipts may wait for their answers; the journal's thread's own

    async def open(self) -> None:
        """Read what the last run left: what was under way then is unknown now."""
        now = self._agenda.now()

        def work(connection: sqlite3.Connection) -> int:
            bookings.keep_taken(connection, now + int(bookings.TAKEN_S * 1000))
            lost = bookings.recover(connection, now)
            for provider_id, rows in lost.items():
                # The receipt of a part may have come while its answer was still awaited.
                matching.take_waiting(connection, provider_id, rows, None, now)
            return sum(map(len, lost.values()))

        lost = await self._journal.write(work)
        if lost:
            log.warning("smpp_segments_unknown_after_restart", segments=lost)

    # --- on the way out --------------------------------------------------------------------------

    async def intend(
        self, provider_id: int, segments: Sequence[Segment], settings: SmppSettings
    ) -> None:
        """Journal segments; they may leave once this returned, and not before."""
        self._known[provider_id] = _fixed(settings)
        batch = Batch(provider_id, segments, settings)
        intents = batch.intents()
        batch.intent_id = await self._write(lambda tx: bookings.add_intent(tx, intents))
        self._pending.add(batch)

    async def answered(self, provider_id: int, answers: Sequence[Answer]) -> None:
        """Book what the SMSC said; also later than ``unknown``, which it then takes back."""
        booking = self._pending.booked(provider_id, answers, self._keep_ms)
        await self._book(provider_id, booking)
        refused = sum(answer.status != 0 for answer in answers)
        accepted, late = len(answers) - refused, len(booking.late)
        self._count(provider_id, accepted=accepted, refused=refused, late=late)

    async def unknown(
        self, provider_id: int, segments: Sequence[Segment], settings: SmppSettings
    ) -> None:
        """Nobody saw their answer. A receipt within ``unknown_wait_s`` tells, else the policy.

        Segments that were answered in the meantime are left as they are.
        """
        self._known[provider_id] = _fixed(settings)
        rows = self._pending.unknown_rows(segments, self._agenda.now())
        await self._book(provider_id, Booking(rows))
        self._count(provider_id, unknown=len(rows))

    async def unsent(self, segments: Sequence[Segment]) -> None:
        """Take their intent back: they certainly never left, or were refused for now."""
        taken = self._pending.withdraw(segments)
        changes = [(batch.intent_id, batch.intents()) for batch in taken]

        def work(connection: sqlite3.Connection) -> None:
            for intent_id, intents in changes:
                bookings.change_intent(connection, intent_id, intents)

        try:
            await self._write(work)
        except (UnavailableError, trio.Cancelled):
            self._pending.put_back(taken)
            raise

    async def settled(self, spool_ids: Sequence[int]) -> None:
        """The engine has their result already: later receipts are only counted."""
        purge_at = self._agenda.now() + self._keep_ms

        def work(connection: sqlite3.Connection) -> None:
            found = bookings.messages(connection, spool_ids)
            keys = [part.key for parts in found.values() for part in parts]
            bookings.advance(connection, keys, Progress.CLOSED, purge_at)

        if spool_ids:
            await self._journal.write(work)

    # --- what comes back -------------------------------------------------------------------------

    async def receipts(
        self, provider_id: int, settings: SmppSettings, receipts: Sequence[Receipt]
    ) -> None:
        """Book receipts and hand in what they decided; after that they may be acknowledged.

        Where the engine takes no reports just now they are handed in again: the journal has them.
        """
        known = self._known[provider_id] = _fixed(settings)
        again = self._agenda.again()

        def work(connection: sqlite3.Connection) -> Matched:
            outcome = matching.take(connection, provider_id, receipts, known, again)
            self._held = self._held or outcome.orphans > 0
            return outcome

        outcome = await self._journal.write(work)
        self._tally(provider_id, outcome)
        await self._hand_in(outcome.decided)
        if outcome.decided:
            self._agenda.plan(again)

    async def recall(self, spool_ids: Sequence[int]) -> Mapping[int, Fate]:
        """What is known of each of these spools after a restart; not in the journal: not sent."""
        due = self._agenda.now() + int(SmppSettings().unknown_wait_s * 1000)

        def work(connection: sqlite3.Connection) -> dict[int, list[Part]]:
            found = bookings.messages(connection, spool_ids)
            halves = [parts for parts in found.values() if timers.half_sent(parts)]
            # Their other parts went down with the node: nothing will come that completes them.
            bookings.postpone(connection, [part.key for it in halves for part in it], due)
            taken = bookings.taken_parts(connection, [key_of(it, 1) for it in spool_ids])
            return found | {part.spool_id: [part] for part in taken}

        found = await self._journal.write(work)
        self._agenda.plan(due)
        return {spool_id: _fate(found.get(spool_id)) for spool_id in spool_ids}

    async def run(
        self,
        inbox: Inbox,
        query: Query,
        patience: Patience = dict,
        in_hand: timers.InHand = lambda _: False,
    ) -> None:
        """Watch the clock until cancelled: unknown ones, silence, reports not taken, old rows.

        Of what is ``in_hand`` nothing is given up: its sender will say what became of it.
        """
        self._inbox = inbox
        await self._agenda.run(functools.partial(self._round, query, patience, in_hand))

    def statistics(self, provider_id: int | None = None) -> dict[str, Any]:
        """Counts since the start, of one provider or of all; queue of the journal with the latter.

        ``pending``: journalled, without an answer so far. ``orphans``: receipts that match nothing.
        """
        if provider_id is not None:
            return dict(self._counts.get(provider_id, Counter()))
        total: Counter[str] = Counter()
        for counts in self._counts.values():
            total.update(counts)
        return {
            **total,
            "pending": len(self._pending),
            "orphans_kept": self._orphans,
            "fault": self._agenda.fault,
            "journal": self._journal.statistics(),
        }

    # --- the journal -----------------------------------------------------------------------------

    async def _book(self, provider_id: int, booking: Booking) -> None:
        """Rows in place of intents; receipts that came before them find them now."""
        known, now, rows = self._known.get(provider_id), self._agenda.now(), booking.rows

        def work(connection: sqlite3.Connection) -> Matched:
            bookings.insert(connection, rows)
            if booking.taken is not None:
                bookings.add_taken(connection, booking.taken)
            moved = timers.book_late(connection, booking.late) if booking.late else []
            if not self._held:
                outcome = Matched()
            else:
                outcome = matching.take_waiting(connection, provider_id, rows + moved, known, now)
            if moved:
                spools = {row[0] >> aggregate.KEY_BITS for row in moved}
                matching.decide(connection, spools, now, outcome)
            return outcome

        outcome = await self._write(work)
        self._pending.leave(booking.keys())
        if rows:
            self._agenda.plan(min(map(_due_at, rows)))
        if outcome.matched or outcome.decided:
            self._tally(provider_id, outcome)
            self._agenda.plan(now)

    async def _write(self, work: Callable[[sqlite3.Connection], T], least: int = SPENT) -> T:
        """``work`` in a transaction that also forgets the intents nobody needs any more.

        ``least``: how many of them are worth it.
        """
        spent = self._pending.take_spent(least)

        def both(connection: sqlite3.Connection) -> T:
            bookings.drop_intents(connection, spent)
            return work(connection)

        try:
            return await self._journal.write(both)
        except BaseException:
            self._pending.spend(spent)
            raise

    # --- results ---------------------------------------------------------------------------------

    async def _hand_in(self, messages: Sequence[Sequence[Part]]) -> None:
        """Report; what the engine does not take stays decided and is due again by itself."""
        if not messages or self._inbox is None:
            return
        reports = [
            Report(spool_id=parts[0].spool_id, result=aggregate.final(parts)) for parts in messages
        ]
        try:
            await self._inbox.report(reports)
        except UnavailableError as error:
            log.warning("smpp_reports_not_taken", reports=len(reports), error=str(error))
            return
        keys = [part.key for parts in messages for part in parts]
        close = functools.partial(
            bookings.advance,
            keys=keys,
            progress=Progress.CLOSED,
            due_at=self._agenda.now() + self._keep_ms,
        )
        self._journal.post(close)
        for parts in messages:
            self._count(parts[0].provider_id, reports=1)

    async def _round(self, query: Query, patience: Patience, in_hand: timers.InHand) -> int | None:
        """Everything that is due; returns when the next is."""
        now, again = self._agenda.now(), self._agenda.again()
        until = {
            provider_id: now + int(wait_s * 1000) for provider_id, wait_s in patience().items()
        }

        def work(connection: sqlite3.Connection) -> timers.Due:
            due = timers.collect(connection, now, again, until, in_hand)
            self._held = due.orphans > 0
            return due

        due = await self._write(work, least=1)
        self._orphans = due.orphans
        await self._hand_in(due.decided)
        if due.questions:
            await self._ask(due.questions, query)
        return due.next_at

    async def _ask(self, questions: Sequence[Part], query: Query) -> None:
        answers: list[tuple[int, ReceiptState]] = []
        limiter = trio.CapacityLimiter(_QUERIES_AT_ONCE)

        async def one(part: Part) -> None:
            state = None
            async with limiter:
                with trio.move_on_after(_QUERY_DEADLINE_S):
                    state = await query(part.provider_id, part.wire_id, address(part.source))
            if state is not None and state.final:
                answers.append((part.key, state))

        async with trio.open_nursery() as nursery:
            for part in questions:
                nursery.start_soon(one, part)
        now, again = self._agenda.now(), self._agenda.again()
        outcome = await self._journal.write(
            lambda connection: timers.book_queried(connection, answers, now, again)
        )
        await self._hand_in(outcome.decided)

    # --- small things ----------------------------------------------------------------------------

    def _count(self, provider_id: int, **numbers: int) -> None:
        self._counts.setdefault(provider_id, Counter()).update(numbers)

    def _tally(self, provider_id: int, outcome: Matched) -> None:
        self._count(
            provider_id,
            receipts=outcome.matched,
            intermediate=outcome.intermediate,
            duplicates=outcome.duplicates,
            late=outcome.late,
            orphans=outcome.orphans,
        )


def _complain(error: str) -> None:
    log.warning("smpp_journal_unavailable", error=error)


def _fixed(settings: SmppSettings) -> ids.Learned | None:
    return None if settings.receipt_ids == "learn" else ids.fixed(settings.receipt_ids)


def _fate(parts: list[Part] | None) -> Fate:
    if not parts:
        return results.not_sent()
    closed = aggregate.progress(parts) is not Progress.OPEN
    final = aggregate.final(parts) if closed else None
    return final or aggregate.verdict(parts) or aggregate.awaiting(parts)
