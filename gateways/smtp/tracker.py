"""What became of every mail: intents, answers, bounces, and what silence means.

Everything is rows of the journal: a million mails that may still bounce cost no memory. The engine
gets each result at least once: a mail stays *reporting* until the engine has taken its report.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from sqlite3 import Connection
from typing import Any

import msgspec
import structlog

from engine.clock import Clock
from engine.errors import UnavailableError
from engine.gateway import Inbox, Report
from engine.results import Awaiting, Fate, Result, ResultRow
from gateways.agenda import Agenda
from gateways.instants import milliseconds
from gateways.smtp import books, results
from gateways.smtp.books import Flag, Mail, State
from gateways.smtp.journal import Journal

log = structlog.get_logger("smtp")

GRACE_S = 3600.0
"""Beyond the wait for bounces: silence is reported by us, never by who looks for stuck spools."""

REFUSED_KEEP_S = 86_400.0
"""How long what was not taken stays: it cannot bounce, and sending it again is no double."""

RECALL_S = 3600.0
"""How long after its start the engine may still ask what became of what the last run decided."""

_DIAGNOSTIC_LENGTH = 255


class Intent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A mail that is about to leave."""

    spool_id: int
    transmission_id: int
    provider_id: int
    recipient: str
    flags: Flag


class Booked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What became of it. ``left``: a bounce may come; ``unsure``: nobody knows if it was taken."""

    spool_id: int
    fate: Fate
    left: bool = False
    unsure: bool = False


class Bounce(msgspec.Struct, frozen=True, kw_only=True):
    """What a delivery status notification says of a mail of ours (RFC 3464 §2.3).

    ``recipient`` "" = it names none. ``final``: there will be no other. Not ``proven``: whoever has
    seen an answer to the mail could have made it up.
    """

    spool_id: int
    action: str
    status: str
    diagnostic: str
    recipient: str
    final: bool
    proven: bool = True


class Tracker:
    """The books of all providers. ``keep_s``: how long a closed mail stays for late bounces.

    Every method that writes returns once it is durable, or raises ``UnavailableError`` with nothing
    kept.
    """

    def __init__(self, journal: Journal, clock: Clock, *, keep_s: float = 691_200.0) -> None:
        self._journal = journal
        self._keep_ms = int(keep_s * 1000)
        self._inbox: Inbox | None = None
        self._clock = clock
        self._agenda = Agenda(clock, _complain)
        self._counts: Counter[str] = Counter()

    async def open(self) -> None:
        """Read what the last run left: what nobody saw an answer of is unknown now."""
        now = self._agenda.now()
        purge_at = now + self._keep_ms

        def work(tx: Connection) -> int:
            lost = books.intended(tx)
            left = Flag.LEFT | Flag.UNSURE
            books.settle(
                tx,
                [
                    (State.DECIDED, left, 0, purge_at, _encoded(_unknown(mail)), mail.spool_id)
                    for mail in lost
                ],
            )
            books.keep_decided(tx, now + int(RECALL_S * 1000))
            return len(lost)

        lost = await self._journal.write(work)
        if lost:
            log.warning("smtp.unknown_after_restart", mails=lost)

    # --- on the way out --------------------------------------------------------------------------
    async def intend(self, intents: Sequence[Intent]) -> frozenset[int]:
        """They may leave once this returned, and not before.

        Returns the spools whose mail may be there already, by an earlier spool that nobody saw
        taken: possible duplicates.
        """
        mails = [_intended(intent) for intent in intents]

        def work(tx: Connection) -> set[int]:
            twice = books.doubtful(tx, {it.transmission_id for it in intents})
            books.add(tx, mails)
            return twice

        twice = await self._journal.write(work)
        return frozenset(it.spool_id for it in intents if it.transmission_id in twice)

    async def unsent(self, spool_ids: Sequence[int]) -> None:
        """They certainly never left: as if they had not been intended."""
        await self._journal.write(lambda tx: books.remove(tx, spool_ids))

    async def answered(self, booked: Sequence[Booked]) -> None:
        """What became of them."""
        now = self._agenda.now()
        briefly = min(self._keep_ms, int(REFUSED_KEEP_S * 1000))
        rows = [_settled(one, now + (self._keep_ms if one.left else briefly)) for one in booked]
        await self._journal.write(lambda tx: books.settle(tx, rows))
        self._agenda.plan(min(row[3] for row in rows))

    # --- what comes back -------------------------------------------------------------------------
    async def bounce(self, found: Bounce) -> bool:
        """Book a bounce and report it; whether it is of a mail of ours.

        One that is not proven adds rows to the result the mail has, and changes nothing of it;
        while it has none, such a bounce is not taken.

        Idempotent. ``UnavailableError`` also where the answer to the mail itself is still awaited:
        whoever brings the bounce shall come again.
        """
        again = self._agenda.again()

        def work(tx: Connection) -> Mail | None:
            mail = next(iter(books.find(tx, [found.spool_id])), None)
            if mail is None or mail.state == State.INTENDED or not _news(mail, found):
                return mail
            result = _encoded(self._bounced(mail, found))
            books.bounced(tx, mail, _flag(found), result, again)
            return msgspec.structs.replace(mail, state=State.REPORTING, result=result)

        mail = await self._journal.write(work)
        ours = mail is not None and _matches(mail, found)
        self._counts["bounces" if ours else "bounces_unmatched"] += 1
        if mail is None or not ours:
            return False
        if mail.state == State.INTENDED:
            raise UnavailableError("mail: its answer is still awaited")
        if _news(mail, found):
            self._agenda.plan(again)
            await self._hand_in([mail])
        return True

    def _bounced(self, mail: Mail, found: Bounce) -> Result:
        diagnostic = found.diagnostic[:_DIAGNOSTIC_LENGTH]
        rows = (
            ResultRow("email", "bounce_action", found.action),
            ResultRow("email", "bounce_status", found.status),
            ResultRow("email", "bounce_diagnostic", diagnostic),
        )
        if not found.proven:
            kept = books.fate_of(mail)
            assert isinstance(kept, Result)  # noqa: S101 - ``_matches``
            unproven = ResultRow("email", "bounce_unproven", "yes")
            return msgspec.structs.replace(kept, rows=(*kept.rows, *rows, unproven))
        result = results.bounced(
            found.status, diagnostic, suppress=bool(mail.flags & Flag.SUPPRESS)
        )
        return msgspec.structs.replace(result, rows=rows, ended_at=self._clock())

    async def spool_of(self, transmission_id: int) -> int | None:
        """The last spool of it that left; for bounces that name only a Message-ID."""
        return await self._journal.read(lambda tx: books.latest(tx, transmission_id))

    async def recall(self, spool_ids: Sequence[int]) -> Mapping[int, Fate]:
        """What is known of each of these after a restart; not in the journal: not sent."""
        mails = await self._journal.read(lambda tx: books.find(tx, spool_ids))
        known = {mail.spool_id: books.fate_of(mail) for mail in mails}
        return {id_: known.get(id_) or results.not_sent() for id_ in spool_ids}

    # --- the clock -------------------------------------------------------------------------------
    async def run(self, inbox: Inbox) -> None:
        """Until cancelled: silence that is success, reports not taken, rows that are too old."""
        self._inbox = inbox
        await self._agenda.run(self._round)

    async def _round(self) -> int | None:
        """Everything that is due; returns when the next is."""
        now, again = self._agenda.now(), self._agenda.again()
        accepted = _encoded(results.accepted(()))

        def work(tx: Connection) -> tuple[list[Mail], int | None]:
            books.purge(tx, now)
            return books.hush(tx, now, accepted, again), books.next_due(tx)

        mails, next_at = await self._journal.write(work)
        await self._hand_in(mails)
        return next_at

    async def _hand_in(self, mails: Sequence[Mail]) -> None:
        """Report; what the engine does not take stays *reporting* and is due again by itself."""
        if not mails or self._inbox is None:
            return
        reports = [_report(mail) for mail in mails]
        try:
            await self._inbox.report(reports)
        except UnavailableError as error:
            log.warning("smtp.reports_not_taken", reports=len(reports), error=str(error))
            return
        told = [(mail.spool_id, mail.result) for mail in mails]
        purge_at = self._agenda.now() + self._keep_ms
        self._journal.post(functools.partial(books.close, reported=told, purge_at=purge_at))
        self._counts["reports"] += len(reports)

    def statistics(self) -> dict[str, Any]:
        """Counts since the start, the journal's queue, what it complains of."""
        return {**self._counts, "fault": self._agenda.fault, "journal": self._journal.statistics()}


def _complain(error: str) -> None:
    log.warning("smtp.journal_unavailable", error=error)


def awaiting(accepted_at: datetime, bounce_wait_s: float, **fields: Any) -> Awaiting:
    """Handed over, and for so long a bounce may come."""
    closes_at = accepted_at + timedelta(seconds=bounce_wait_s + GRACE_S)
    return Awaiting(accepted_at=accepted_at, closes_at=closes_at, **fields)


def _intended(intent: Intent) -> Mail:
    return Mail(
        spool_id=intent.spool_id,
        transmission_id=intent.transmission_id,
        provider_id=intent.provider_id,
        state=State.INTENDED,
        flags=intent.flags,
        recipient=intent.recipient,
        accepted_at=0,
        due_at=0,
        result=None,
    )


def _settled(one: Booked, purge_at: int) -> tuple[int, int, int, int, bytes, int]:
    flags = (Flag.LEFT if one.left else 0) | (Flag.UNSURE if one.unsure else 0)
    if isinstance(one.fate, Result):
        return State.DECIDED, flags, 0, purge_at, _encoded(one.fate), one.spool_id
    assert one.fate.accepted_at is not None  # noqa: S101 - what nobody saw taken is a result here
    due_at = milliseconds(one.fate.closes_at) - int(GRACE_S * 1000)
    accepted_at = milliseconds(one.fate.accepted_at)
    return State.ACCEPTED, flags, accepted_at, due_at, _encoded(one.fate), one.spool_id


def _unknown(mail: Mail) -> Result:
    """Nobody saw an answer: the policy of when it left."""
    at_least_once = mail.flags & Flag.AT_LEAST_ONCE
    return results.unknown("at_least_once" if at_least_once else "at_most_once")


def _matches(mail: Mail, found: Bounce) -> bool:
    """Whether it can be of that mail: one that may be there, to that recipient."""
    if mail.state != State.INTENDED and not mail.flags & Flag.LEFT:
        return False
    # Who can bounce it to us while it waits has the token: an address of ours was its sender.
    if not found.proven and mail.state in {State.INTENDED, State.ACCEPTED}:
        return False
    return not found.recipient or found.recipient.casefold() == mail.recipient.casefold()


def _news(mail: Mail, found: Bounce) -> bool:
    """Whether it changes what is known; the flag is of the row as it was read."""
    known = Flag.BOUNCED if found.proven else Flag.BOUNCED | Flag.DOUBTED
    return _matches(mail, found) and found.final and not mail.flags & known


def _flag(found: Bounce) -> Flag:
    return Flag.BOUNCED if found.proven else Flag.DOUBTED


def _report(mail: Mail) -> Report:
    result = books.fate_of(mail)
    assert isinstance(result, Result)  # noqa: S101 - only such are reported
    return Report(spool_id=mail.spool_id, result=result)


_encoded = msgspec.json.encode
