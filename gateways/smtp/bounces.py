"""Which of our mails a bounce is about (RFC 3464), and whether it may be believed.

A bounce can be made up by anybody. It counts by what only those can know who had the mail in
hand: the token in the address it is sent to, or the ENVID, with a MAC of ours; and only with the
null sender, which every bounce has (RFC 5321 §4.5.5). Our Message-ID tells which mail it is about
too, but stands in replies and archives: that is noted and proves nothing. Nothing here makes us
send.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from gateways.smtp.parsed import Parsed, ParsedBounce
from gateways.smtp.tracker import Bounce
from gateways.smtp.verp import Verp

MAX_PATTERNS = 10_000
"""Bounce addresses of all providers since the node started."""

_MAX_RECIPIENTS = 100  # of one report that are looked at: ours have one
_ACTIONS = frozenset({"failed", "delayed", "delivered", "relayed", "expanded"})  # RFC 3464 §2.3.3
_NO_STATUS = "5.0.0"  # RFC 3463 §2: nothing else is known


class Books(Protocol):
    """What is needed of ``Tracker``."""

    async def bounce(self, found: Bounce) -> bool:
        """Book a bounce; whether it is of a mail of ours to that recipient."""
        ...

    async def spool_of(self, transmission_id: int) -> int | None:
        """The last spool of it that left."""
        ...


class Matcher:
    """Finds the spools that reports are about.

    ``serve`` tells it the bounce addresses of the providers; those of a provider that is gone stay
    known, as its bounces go on to come.
    """

    def __init__(self, verp: Verp, books: Books) -> None:
        self._verp = verp
        self._books = books
        self._patterns: dict[str, None] = {}
        self.counts: Counter[str] = Counter()

    def serve(self, patterns: Iterable[str]) -> None:
        """These are bounce addresses from now on (``SmtpSettings.bounce_address``)."""
        self._patterns |= dict.fromkeys(filter(None, patterns))
        for pattern in list(self._patterns)[:-MAX_PATTERNS]:
            del self._patterns[pattern]

    def token_of(self, recipient: str) -> int | None:
        """The spool whose bounces go to this address; None where it is no such address of ours."""
        return self._verp.find(tuple(self._patterns), recipient)

    async def match(
        self, parsed: Parsed, mail_from: str, recipients: Sequence[str]
    ) -> list[Bounce]:
        """What a report says of a mail of ours, per recipient it names; [] where it says nothing.

        Reports of several recipients are made by lists and aliases behind the address we wrote to:
        ``Tracker.bounce`` knows which of them is ours. ``UnavailableError``: nobody knows now.
        """
        report = parsed.bounce
        if report is None:
            return []
        if mail_from:
            self.counts["not_null_sender"] += 1
            return []
        spool_id, proven = self._proven(report, recipients), True
        if spool_id is None and not report.heuristic:
            spool_id, proven = await self._claimed(report), False
        if spool_id is None:
            self.counts["unmatched"] += 1
            return []
        found = list(self._found(spool_id, report, proven=proven))
        if not found:
            self.counts["not_final"] += 1
        return found

    def _proven(self, report: ParsedBounce, recipients: Sequence[str]) -> int | None:
        for recipient in recipients:
            if (spool_id := self.token_of(recipient)) is not None:
                return spool_id
        if report.heuristic:  # a guess about any text: only where it came to an address of ours
            return None
        return self._verp.spool_id(report.envid)

    async def _claimed(self, report: ParsedBounce) -> int | None:
        number = self._verp.transmission_id(report.original_message_id)
        return None if number is None else await self._books.spool_of(number)

    def _found(self, spool_id: int, report: ParsedBounce, *, proven: bool) -> Iterable[Bounce]:
        for one in report.recipients[:_MAX_RECIPIENTS]:
            self.counts[one.action if one.action in _ACTIONS else "other_action"] += 1
            if one.final:
                yield Bounce(
                    spool_id=spool_id,
                    action=one.action,
                    status=one.status or _NO_STATUS,
                    diagnostic=one.diagnostic,
                    recipient=one.address,
                    final=True,
                    proven=proven,
                )
