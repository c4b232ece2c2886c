"""One order on its way: what a program sees of it, and the fate it comes to."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import msgspec
import structlog
import trio

from engine.clock import Clock
from engine.errors import InvalidError
from engine.gateway import CallEnded, Order, Progress, Stage
from engine.mail import MailMessage
from engine.results import Awaiting, Fate, Reached, Result, ResultRow, node_failure
from gateways.smtp import results
from gateways.smtp.jobs import Job, Place
from gateways.smtp.lane import Lane
from gateways.smtp.office import Office

log = structlog.get_logger("smtp")

Busy = Callable[[Job], Result]
"""What a mail comes to that got no connection in time."""


class MailMailer:
    """``engine.gateway.Mailer`` for one spool: one mail."""

    def __init__(
        self, order: Order, lane: Lane, office: Office, progress: Progress, clock: Clock
    ) -> None:
        self._order = order
        self._lane = lane
        self._settings = lane.settings  # of now, whatever comes meanwhile
        self._office = office
        self._progress = progress
        self._clock = clock
        self._rows: list[ResultRow] = []
        self._called = False
        self._job: Job | None = None
        self._refusal: Result | None = None
        self._started_at: datetime | None = None

    # --- what a program sees ----------------------------------------------------------------------
    async def send_mail(self, message: MailMessage) -> None:
        """Hand the mail over; returns once a server took it, ``CallEnded`` where none did.

        ``CallEnded`` also for a second one: a spool is one mail.
        """
        if self._called:
            log.error("smtp.second_mail", spool_id=self._order.spool_id)
            raise CallEnded
        self._called = True
        limit_s = self._limit_s()
        try:
            job = await self._office.job(
                self._order,
                message,
                lane=self._lane,
                not_after=time.monotonic() + limit_s,
                rows=self._rows,
                on_leaving=self._left,
            )
        except InvalidError as error:
            log.warning("smtp.invalid_order", field=error.field, spool_id=self._order.spool_id)
            self._refusal = results.invalid(error.field or "")
            raise CallEnded from error
        self._job = job
        await self._carry(job, limit_s)
        if job.place is not Place.SETTLED or not _taken(job.fate):
            raise CallEnded
        assert job.answer is not None  # noqa: S101 - only an answer settles it
        self._progress(Stage.CONNECTED, job.answer.seen_at)

    def note(self, row: ResultRow) -> None:
        """Keep a datum with the spool."""
        self._rows.append(row)

    # --- inside -----------------------------------------------------------------------------------
    def _limit_s(self) -> float:
        """How long it may wait for a connection: the slowest answer still comes within the call."""
        settings = self._settings
        slowest_s = settings.dot_timeout_s + settings.reply_timeout_s
        return max(min(settings.queue_s, self._order.call_limit_s - slowest_s), 0.0)

    async def _carry(self, job: Job, limit_s: float) -> None:
        """Until it has come to rest; cancelled, what has not left is given up."""
        try:
            with trio.move_on_after(limit_s):
                await self._lane.put(job)
                await job.done.wait()
            if not job.done.is_set() and not self._lane.withdraw(job, self._office.busy(job)):
                await job.done.wait()  # the bridge has it, and answers it within its own limits
        except trio.Cancelled:
            if not self._lane.withdraw(job, results.not_sent()) and job.place is Place.SENT:
                self._lane.drop(job)
            raise

    def _left(self) -> None:
        self._started_at = self._clock()
        if self._job is not None:
            self._job.started_at = self._started_at
        self._progress(Stage.LEFT, self._started_at)

    # --- what became of it ------------------------------------------------------------------------
    @property
    def reached(self) -> Reached:
        """How far it may have got."""
        return Reached.NOTHING if self._started_at is None else Reached.PERSON

    def fate(self) -> Fate:
        """What it came to."""
        if self._refusal is not None:
            return _noted(self._refusal, self._rows)
        if self._job is None or self._job.fate is None:
            return _noted(node_failure("nothing_sent"), self._rows)
        fate = self._job.fate
        if self._job.place is Place.SETTLED:
            return fate  # has the rows
        return _noted(fate, self._rows)


def _taken(fate: Fate | None) -> bool:
    return isinstance(fate, Awaiting) or (fate is not None and fate.succeeded)


def _noted(fate: Fate, rows: list[ResultRow]) -> Fate:
    return msgspec.structs.replace(fate, rows=(*fate.rows, *rows))
