"""A scripted message on its way: what short messages and mails have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import trio

from engine.clock import Clock
from engine.gateway import CallEnded, Order, Progress, Stage
from engine.results import Awaiting, Blame, Disposition, Fate, Reached, Result, ResultRow
from gateways.loopback.script import Ending, Plan
from gateways.loopback.verdict import Verdict

UNSAYABLE = Verdict(Disposition.FAILED, "invalid_message", Blame.REQUEST, Reached.NOTHING)
_NOT_SENT = Verdict(Disposition.CANCELLED, "cancelled", Blame.NOBODY, Reached.NOTHING)


class Sending:
    """Plays one ``Plan`` against one ``Order``; ``awaited``: what became of it is told later."""

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

    def note(self, row: ResultRow) -> None:
        """Keep a datum with the spool."""
        self._rows.append(row)

    def fate(self) -> Fate:
        """What became of it; a program that sent nothing gave it up."""
        return self._fate or self._result(_NOT_SENT)

    # --- what a message and a mail are made of ----------------------------------------------------
    def _leave(self) -> datetime:
        """It is about to leave; when."""
        at = self._clock()
        self._progress(Stage.LEFT, at)
        return at

    async def _answered(self) -> bool:
        """Wait for the network's answer as long as the order allows; whether there was one."""
        answer_s = self._plan.ring_s
        with trio.move_on_after(self._order.ring_timeout_s):
            if answer_s is None:
                await trio.sleep_forever()
            await trio.sleep(answer_s or 0.0)
            return self._plan.ending is not Ending.NO_ANSWER
        return False

    def _check_taken(self, refusals: Mapping[Ending, Verdict], started_at: datetime) -> None:
        """``CallEnded`` where the network's answer is a refusal."""
        if self._plan.ending is not Ending.ANSWER:
            raise self._over(refusals[self._plan.ending], started_at)

    def _over(self, verdict: Verdict, started_at: datetime | None = None) -> CallEnded:
        """This became of it; for the caller to raise."""
        self._fate = self._result(verdict, started_at)
        return CallEnded()

    def _accept(
        self, verdict: Verdict, started_at: datetime, wait_s: float, rows: Sequence[ResultRow]
    ) -> None:
        """The network took it: that is the end, or for so long there may come more."""
        at = self._clock()
        self._progress(Stage.CONNECTED, at)
        self._rows += rows
        if self._awaited:
            self._fate = self._waiting(at, wait_s, verdict.code)
        else:
            self._fate = self._result(verdict, started_at, connected_at=at)

    def _waiting(self, accepted_at: datetime | None, wait_s: float, code: str = "") -> Awaiting:
        return Awaiting(
            accepted_at=accepted_at,
            closes_at=(accepted_at or self._clock()) + timedelta(seconds=wait_s),
            code=code,
            rows=tuple(self._rows),
        )

    def _result(
        self,
        verdict: Verdict,
        started_at: datetime | None = None,
        connected_at: datetime | None = None,
    ) -> Result:
        put_off = verdict.disposition is Disposition.DEFERRED
        return verdict.result(
            later_s=self._plan.defer_s if put_off else (),
            rows=tuple(self._rows),
            started_at=started_at,
            connected_at=connected_at,
            ended_at=self._clock(),
        )
