"""A scripted e-mail as a program sees it: ``engine.gateway.Mailer`` without a network."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import trio

from engine.clock import Clock
from engine.gateway import CallEnded, Order, Progress, Stage
from engine.mail import MailMessage
from engine.results import Awaiting, Blame, Disposition, Fate, Reached, Result, ResultRow
from gateways.loopback.script import Ending, Plan, Stat


class _Verdict(NamedTuple):
    disposition: Disposition
    cause: str
    blame: Blame
    reached: Reached
    code: str = ""
    suppress: str = ""


_NO_SUCH_ADDRESS = "550 5.1.1: no such address"

_REFUSED = {
    Ending.BUSY: _Verdict(
        Disposition.FAILED, "busy", Blame.PROVIDER, Reached.NOTHING, "421 4.3.2"
    ),
    Ending.REJECT: _Verdict(
        Disposition.REJECTED, "refused", Blame.NETWORK, Reached.NETWORK, "554 5.0.0"
    ),
    Ending.INVALID: _Verdict(
        Disposition.INVALID, "no_such_address", Blame.REQUEST, Reached.NETWORK, "550 5.1.1",
        _NO_SUCH_ADDRESS,
    ),
    Ending.FAIL: _Verdict(
        Disposition.FAILED, "trunk_unavailable", Blame.PROVIDER, Reached.NOTHING
    ),
    Ending.DEFER: _Verdict(
        Disposition.DEFERRED, "greylisted", Blame.NETWORK, Reached.NOTHING, "451 4.7.1"
    ),
}  # fmt: skip
# The last dot left and nobody said that it arrived.
_UNKNOWN = _Verdict(Disposition.INTERRUPTED, "unknown", Blame.NETWORK, Reached.PERSON)
_UNSAYABLE = _Verdict(Disposition.FAILED, "invalid_message", Blame.REQUEST, Reached.NOTHING)
_ACCEPTED = _Verdict(Disposition.ANSWERED, "accepted", Blame.NOBODY, Reached.PERSON, "250 2.0.0")
_BOUNCED = _Verdict(
    Disposition.FAILED, "bounced", Blame.NETWORK, Reached.NETWORK, "5.1.1",
    f"bounce {_NO_SUCH_ADDRESS}",
)  # fmt: skip
_NOT_SENT = _Verdict(Disposition.CANCELLED, "cancelled", Blame.NOBODY, Reached.NOTHING)


class LoopbackMailer:
    """Plays one ``Plan`` against one ``Order``; ``awaited``: bounces can reach us."""

    def __init__(
        self, order: Order, plan: Plan, progress: Progress, clock: Clock, *, awaited: bool
    ) -> None:
        self._order = order
        self._plan = plan
        self._progress = progress
        self._clock = clock
        self._awaited = awaited
        self._rows: list[ResultRow] = []
        self._fate: Fate | None = None

    async def send_mail(self, message: MailMessage) -> None:
        """Hand it to the script's network; a program sends one mail."""
        if self._fate is not None:
            raise CallEnded
        if not (message.form.body or message.form.body_alt):
            self._fate = self._result(_UNSAYABLE, None)
            raise CallEnded
        started_at = self._clock()
        self._progress(Stage.LEFT, started_at)
        if not await self._answer() or self._plan.ending is Ending.NO_ANSWER:
            self._fate = self._result(_UNKNOWN, started_at)
            raise CallEnded
        if self._plan.ending is not Ending.ANSWER:
            self._fate = self._result(_REFUSED[self._plan.ending], started_at)
            raise CallEnded
        self._accept(started_at)

    def note(self, row: ResultRow) -> None:
        """Keep a datum with the spool."""
        self._rows.append(row)

    def fate(self) -> Fate:
        """What became of it; a program that sent nothing gave it up."""
        return self._fate or self._result(_NOT_SENT, None)

    async def _answer(self) -> bool:
        """Wait for the network's answer as long as the order allows; whether there was one."""
        answer_s = self._plan.ring_s
        with trio.move_on_after(self._order.ring_timeout_s):
            if answer_s is None:
                await trio.sleep_forever()
            await trio.sleep(answer_s or 0.0)
            return True
        return False

    def _accept(self, started_at: datetime) -> None:
        at = self._clock()
        self._progress(Stage.CONNECTED, at)
        message_id = f"<o{self._order.transmission_id:x}@loopback>"
        self._rows.append(ResultRow("email", "message_id", message_id))
        if not self._awaited:
            self._fate = self._result(_ACCEPTED, started_at, connected_at=at)
            return
        self._fate = Awaiting(
            accepted_at=at,
            closes_at=at + timedelta(seconds=2 * self._plan.receipt_wait_s),
            code=_ACCEPTED.code,
            rows=tuple(self._rows),
        )

    def _result(
        self,
        verdict: _Verdict,
        started_at: datetime | None,
        connected_at: datetime | None = None,
    ) -> Result:
        put_off = verdict.disposition is Disposition.DEFERRED
        return Result(
            disposition=verdict.disposition,
            cause=verdict.cause,
            blame=verdict.blame,
            reached=verdict.reached,
            code=verdict.code,
            suppress=verdict.suppress,
            later_s=self._plan.defer_s if put_off else (),
            rows=tuple(self._rows),
            started_at=started_at,
            connected_at=connected_at,
            ended_at=self._clock(),
        )


def told(stat: Stat, at: datetime) -> Result:
    """What became of an accepted mail: it bounced, or nobody said so for as long as one may."""
    bounced = stat is Stat.UNDELIVERED
    verdict = _BOUNCED if bounced else _ACCEPTED
    rows = (
        ResultRow("email", "bounce_action", "failed"),
        ResultRow("email", "bounce_status", verdict.code),
    )
    return Result(
        disposition=verdict.disposition,
        cause=verdict.cause,
        blame=verdict.blame,
        reached=verdict.reached,
        code=verdict.code,
        suppress=verdict.suppress,
        rows=rows if bounced else (),
        ended_at=at,
    )
