"""A scripted short message as a program sees it: ``engine.gateway.Messenger`` without a network."""

from __future__ import annotations

from datetime import datetime, timedelta

import trio

from engine import segments
from engine.clock import Clock
from engine.errors import InvalidError
from engine.gateway import CallEnded, Order, Progress, Stage, TextMessage
from engine.results import Awaiting, Blame, Disposition, Fate, Reached, Result, ResultRow
from gateways.loopback.script import Ending, Plan, Stat

_REFUSED = {
    Ending.BUSY: (Disposition.FAILED, "throttled", Blame.PROVIDER, Reached.NOTHING),
    Ending.REJECT: (Disposition.REJECTED, "refused", Blame.NETWORK, Reached.NETWORK),
    Ending.INVALID: (Disposition.INVALID, "invalid_number", Blame.REQUEST, Reached.NETWORK),
    Ending.FAIL: (Disposition.FAILED, "trunk_unavailable", Blame.PROVIDER, Reached.NOTHING),
    Ending.DEFER: (Disposition.FAILED, "deferred", Blame.NETWORK, Reached.NOTHING),
}
_UNSAYABLE = (Disposition.FAILED, "invalid_message", Blame.REQUEST, Reached.NOTHING)
_ACCEPTED = (Disposition.ANSWERED, "accepted", Blame.NOBODY, Reached.PERSON)
_NOT_SENT = (Disposition.CANCELLED, "cancelled", Blame.NOBODY, Reached.NOTHING)
_ENDS = {
    Stat.DELIVERED: (Disposition.ANSWERED, "delivered", Blame.NOBODY, Reached.PERSON),
    Stat.UNDELIVERED: (Disposition.FAILED, "undelivered", Blame.NETWORK, Reached.NETWORK),
}


class LoopbackMessenger:
    """Plays one ``Plan`` against one ``Order``; ``awaited`` whether a receipt is to follow."""

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

    async def send_text(self, message: TextMessage) -> None:
        """Hand it to the script's network; a program sends one text."""
        if self._fate is not None:
            raise CallEnded
        try:
            parts = segments.measure(message.text, message.kind).parts
        except InvalidError:
            self._fate = self._result(_UNSAYABLE, None)
            raise CallEnded from None
        await self._send(parts, message.validity_s or self._plan.receipt_wait_s)

    async def _send(self, parts: int, wait_s: float) -> None:
        started_at = self._clock()
        self._progress(Stage.LEFT, started_at)
        if not await self._answer() or self._plan.ending is Ending.NO_ANSWER:
            self._fate = self._waiting(parts, wait_s, accepted_at=None)
        elif self._plan.ending is not Ending.ANSWER:
            self._fate = self._result(_REFUSED[self._plan.ending], started_at)
            raise CallEnded
        else:
            self._accept(self._waiting(parts, wait_s, self._clock()), started_at)

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

    def _accept(self, fate: Awaiting, started_at: datetime) -> None:
        at = fate.accepted_at
        assert at is not None  # noqa: S101 - it was made so
        self._progress(Stage.CONNECTED, at)
        if self._awaited:
            self._fate = fate
        else:
            self._rows = list(fate.rows)
            self._fate = self._result(_ACCEPTED, started_at, connected_at=at)

    def _waiting(self, parts: int, wait_s: float, accepted_at: datetime | None) -> Awaiting:
        ids = (f"{self._order.uid.hex}{number}" for number in range(parts))
        rows = [ResultRow("sms", "message_id", key) for key in ids if accepted_at is not None]
        rows.append(ResultRow("sms", "parts", str(parts)))
        return Awaiting(
            accepted_at=accepted_at,
            closes_at=self._clock() + timedelta(seconds=wait_s),
            rows=(*self._rows, *rows),
        )

    def _result(
        self,
        verdict: tuple[Disposition, str, Blame, Reached],
        started_at: datetime | None,
        connected_at: datetime | None = None,
    ) -> Result:
        disposition, cause, blame, reached = verdict
        return Result(
            disposition=disposition,
            cause=cause,
            blame=blame,
            reached=reached,
            rows=tuple(self._rows),
            started_at=started_at,
            connected_at=connected_at,
            ended_at=self._clock(),
        )


def receipt(stat: Stat, at: datetime) -> Result:
    """What a receipt says became of a message."""
    disposition, cause, blame, reached = _ENDS[stat]
    rows = (
        ResultRow("sms", "stat", stat.value),
        ResultRow("sms", "err", "000" if stat is Stat.DELIVERED else "001"),
        ResultRow("sms", "done_date", at.strftime("%y%m%d%H%M")),
    )
    return Result(
        disposition=disposition, cause=cause, blame=blame, reached=reached, rows=rows, ended_at=at
    )
