"""A scripted call as a program sees it: ``engine.gateway.Call`` without a network."""

from __future__ import annotations

import math
from datetime import datetime

import trio

from engine.clock import Clock
from engine.gateway import CallEnded, Media, Order, Progress, Stage
from engine.results import Blame, Disposition, Reached, Result, ResultRow
from gateways.loopback.script import Ending, Plan
from gateways.loopback.verdict import Verdict

# Only a refusal is a person's act: a busy or ringing telephone reached nobody.
_UNANSWERED = {
    Ending.BUSY: Verdict(Disposition.BUSY, "busy", Blame.CALLEE, Reached.NETWORK),
    Ending.NO_ANSWER: Verdict(Disposition.NO_ANSWER, "no_answer", Blame.CALLEE, Reached.NETWORK),
    Ending.REJECT: Verdict(Disposition.REJECTED, "rejected", Blame.CALLEE, Reached.PERSON),
    Ending.INVALID: Verdict(Disposition.INVALID, "invalid_number", Blame.REQUEST, Reached.NETWORK),
    Ending.FAIL: Verdict(Disposition.FAILED, "trunk_unavailable", Blame.PROVIDER, Reached.NOTHING),
    Ending.DEFER: Verdict(Disposition.FAILED, "deferred", Blame.NETWORK, Reached.NOTHING),
}
_ANSWERED = Verdict(Disposition.ANSWERED, "answered", Blame.NOBODY, Reached.PERSON)
_CALL_LIMIT = _ANSWERED._replace(cause="call_limit")
_ABANDONED = Verdict(Disposition.CANCELLED, "cancelled", Blame.NOBODY, Reached.NETWORK)
_NOT_PLACED = Verdict(Disposition.CANCELLED, "cancelled", Blame.NOBODY, Reached.NOTHING)


class LoopbackCall:
    """Plays one ``Plan`` against one ``Order``.

    ``scope`` encloses the program: its deadline is the moment the call ends whatever the program
    waits for (ring timeout, call limit, the callee's own hang-up).
    """

    __slots__ = (
        "_answered_s", "_clock", "_connected_at", "_order", "_plan", "_progress", "_result",
        "_rows", "_speed", "_started_at", "_verdict", "scope",
    )  # fmt: skip

    def __init__(
        self, order: Order, plan: Plan, progress: Progress, clock: Clock, speed: float
    ) -> None:
        self.scope = trio.CancelScope()
        self._order = order
        self._plan = plan
        self._progress = progress
        self._clock = clock
        self._speed = speed
        self._rows: list[ResultRow] = []
        self._result: Result | None = None
        self._started_at: datetime | None = None
        self._connected_at: datetime | None = None
        self._answered_s = math.nan
        # What the call comes to when the scope's deadline ends it.
        self._verdict = _NOT_PLACED

    # --- what a program may do -----------------------------------------------------------------
    async def answered(self) -> None:
        """Place the call and wait until it is answered."""
        if self._connected_at is None:
            self._check_up()
            await self._ring()
        else:
            await self._wait(0.0)

    async def play(self, media: Media) -> None:
        """Take as long as the recording is, divided by the script's speed."""
        if self._connected_at is None:
            await self.answered()
        length_s = media.length_s / self._speed if self._speed else 0.0
        if length_s:
            await self._wait(length_s)
        else:
            # answered() was a schedule point just now; half of an instant call's price is in them.
            self._check_up()
            await trio.lowlevel.checkpoint_if_cancelled()

    async def hang_up(self) -> None:
        """End the call from our side."""
        self._check_up()
        await trio.lowlevel.checkpoint_if_cancelled()
        self.end()

    def note(self, row: ResultRow) -> None:
        """Keep a datum with the spool."""
        self._rows.append(row)

    # --- what the gateway does -----------------------------------------------------------------
    def end(self) -> Result:
        """Hang up, unless it is over, and say what became of it."""
        if self._result is not None:
            return self._result
        if self._connected_at is not None:
            return self._close(_ANSWERED)
        return self._close(_NOT_PLACED if self._started_at is None else _ABANDONED)

    def ran_out(self) -> Result:
        """The scope's deadline ended the call."""
        return self._result or self._close(self._verdict)

    def shut(self) -> None:
        """The gateway closes: end the call and its program now."""
        up = self._connected_at is not None
        verdict = _ANSWERED if up else _ABANDONED if self._started_at else _NOT_PLACED
        self._close(verdict._replace(disposition=Disposition.CANCELLED, cause="shutdown"))
        self.scope.cancel()

    # --- the script ----------------------------------------------------------------------------
    async def _ring(self) -> None:
        plan = self._plan
        self._started_at = at = self._clock()
        self._progress(Stage.LEFT, at)
        if plan.ring_s != 0.0:
            self._progress(Stage.RINGING, at)
            self._verdict = _UNANSWERED[Ending.NO_ANSWER]
            self.scope.deadline = trio.current_time() + self._order.ring_timeout_s
        await self._wait(plan.ring_s)
        if plan.ending is not Ending.ANSWER:
            self._close(_UNANSWERED[plan.ending])
            raise CallEnded
        self._connect()

    def _connect(self) -> None:
        self._answered_s = trio.current_time()
        self._connected_at = self._clock()
        up_s, self._verdict = self._order.call_limit_s, _CALL_LIMIT
        if self._plan.talk_s is not None and self._plan.talk_s <= up_s:
            up_s, self._verdict = self._plan.talk_s, _ANSWERED
        self.scope.deadline = self._answered_s + up_s
        self._progress(Stage.CONNECTED, self._connected_at)

    async def _wait(self, seconds: float | None) -> None:
        self._check_up()
        if seconds:
            await trio.sleep(seconds)
        elif seconds is None:
            await trio.sleep_forever()
        else:
            await trio.lowlevel.checkpoint()

    def _check_up(self) -> None:
        if self._result is not None:
            raise CallEnded

    def _close(self, verdict: Verdict) -> Result:
        connected = self._connected_at is not None
        if connected:
            self._rows += [ResultRow("dtmf", "key", key) for key in self._plan.digits]
        self._result = verdict.result(
            rows=tuple(self._rows),
            started_at=self._started_at,
            connected_at=self._connected_at,
            ended_at=self._clock(),
            talk_s=trio.current_time() - self._answered_s if connected else 0.0,
        )
        return self._result
