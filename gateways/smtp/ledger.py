"""What the servers answered goes into the journal, and only then back to who waits for it.

One task writes for all providers: while it commits, the next answers gather. It books whoever
waits: an order that was given up has a fate all the same, which the next start recalls.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec
import structlog
import trio

from engine.clock import Clock
from engine.errors import UnavailableError
from engine.results import Fate, Result, ResultRow
from gateways.smtp import results
from gateways.smtp.jobs import Job
from gateways.smtp.lane import JOURNAL_RETRY_S
from gateways.smtp.records import Answer, How
from gateways.smtp.replies import Action, Verdict, code_of, verdict_of
from gateways.smtp.tracker import Booked, awaiting

log = structlog.get_logger("smtp")

MAX_BATCH = 512
_FINAL = frozenset({Action.DONE, Action.NEVER})
_TWICE = ResultRow("info", "possible_duplicate", "1")


class Books(Protocol):
    """The journal as the ledger sees it (``gateways.smtp.tracker.Tracker``)."""

    async def answered(self, booked: Sequence[Booked]) -> None:
        """What became of them."""
        ...

    async def unsent(self, spool_ids: Sequence[int]) -> None:
        """They certainly never left."""
        ...


class Ledger:
    """The mails under way, by the id of their parcel. All calls are on Trio's thread."""

    def __init__(self, books: Books, clock: Clock, dice: random.Random) -> None:
        self._books = books
        self._clock = clock
        self._dice = dice
        self._under_way: dict[int, Job] = {}
        self._answered: list[Job] = []
        self._unsent: list[Job] = []
        self._wake = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._counts: Counter[str] = Counter()
        self.fault = ""

    # --- told -------------------------------------------------------------------------------------
    def sent(self, jobs: Sequence[Job]) -> None:
        """Their answers are to come."""
        for job in jobs:
            self._under_way[job.id] = job

    def unsent(self, jobs: Sequence[Job]) -> None:
        """They were given up after their intent: it has to be taken back."""
        self._unsent += jobs
        self._stir()

    def take(self, answers: Sequence[Answer]) -> None:
        """What the bridge came back with."""
        for answer in answers:
            job = self._under_way.pop(answer.id, None)
            if job is None:
                log.error("smtp.answer_of_nothing", spool_id=answer.spool_id)
                continue
            job.answer = answer
            if job.lane is not None:
                job.lane.answered(job)
            self._answered.append(job)
        self._stir()

    def _stir(self) -> None:
        if self._idle.is_set():
            self._idle = trio.Event()
        self._wake.set()

    # --- written down -----------------------------------------------------------------------------
    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await self._write_answers()
            await self._write_unsent()
            if not self._wake.is_set():
                self._idle.set()

    async def flushed(self) -> None:
        """Wait until everything told so far is durable."""
        await self._idle.wait()

    async def _write_answers(self) -> None:
        while self._answered:
            jobs, self._answered = self._answered[:MAX_BATCH], self._answered[MAX_BATCH:]
            booked = [self._booked(job) for job in jobs]
            never = [one.spool_id for job, one in zip(jobs, booked, strict=True) if _unsent(job)]
            kept = [one for job, one in zip(jobs, booked, strict=True) if not _unsent(job)]
            if never:
                await self._persist(lambda ids=never: self._books.unsent(ids))  # type: ignore[misc]
            if kept:
                await self._persist(lambda them=kept: self._books.answered(them))  # type: ignore[misc]
            for job, one in zip(jobs, booked, strict=True):
                self._tell(job, one.fate)

    def _tell(self, job: Job, fate: Fate) -> None:
        if job.lane is not None:
            job.lane.booked(job)
        job.settle(fate)

    async def _write_unsent(self) -> None:
        if self._unsent:
            jobs, self._unsent = self._unsent, []
            await self._persist(lambda: self._books.unsent([job.spool_id for job in jobs]))

    async def _persist(self, write: Callable[[], Awaitable[None]]) -> None:
        """However long the journal refuses: what a server said is not said twice."""
        while True:
            try:
                await write()
            except UnavailableError as error:
                if not self.fault:
                    log.error("smtp.journal_refuses", cause=str(error))  # noqa: TRY400
                self.fault = str(error)
                await trio.sleep(JOURNAL_RETRY_S)
            else:
                self.fault = ""
                return

    # --- what it means ----------------------------------------------------------------------------
    def _booked(self, job: Job) -> Booked:
        answer = job.answer
        assert answer is not None  # noqa: S101 - ``take`` set it
        verdict = verdict_of(answer, direct=job.direct)
        unsure = verdict.action is Action.UNSURE
        left = unsure or verdict.action is Action.DONE
        self._counts[verdict.cause] += 1
        if unsure:
            log.warning("smtp.unknown", spool_id=job.spool_id, how=str(answer.how))
        elif verdict.cause == "policy" and (refused := self._counts["policy"]).bit_count() == 1:
            # Ours, or our address's: whoever runs the node has to know, but not 10,000 times.
            log.error("smtp.reputation", spool_id=job.spool_id, code=code_of(answer), count=refused)
        fate = _braked(job, verdict, self._fate(job, answer, verdict.action))
        rows = (*fate.rows, *_own_rows(job, left=left), *job.rows)
        fate = msgspec.structs.replace(fate, rows=rows)
        return Booked(spool_id=job.spool_id, fate=fate, left=left, unsure=unsure)

    def _fate(self, job: Job, answer: Answer, action: Action) -> Fate:
        if action is Action.DONE and job.bounces:
            return awaiting(
                answer.seen_at,
                job.settings.bounce_wait_s,
                code=code_of(answer),
                rows=results.rows_of(answer),
            )
        result = results.result_of(answer, job.settings, direct=job.direct, dice=self._dice)
        return _timed(result, job.started_at, answer.seen_at)

    def statistics(self) -> dict[str, Any]:
        """Mails under way, answers not in the journal yet, what became of the others."""
        return {
            "under_way": len(self._under_way),
            "unbooked": len(self._answered) + len(self._unsent),
            "fault": self.fault,
            **self._counts,
        }


def _unsent(job: Job) -> bool:
    """Whether it was dropped by us before its dot: the next start may send it."""
    answer = job.answer
    return answer is not None and answer.how is How.DROPPED and not answer.left


def _braked(job: Job, verdict: Verdict, fate: Fate) -> Fate:
    """What closes its address, unless its provider calls too many of them dead."""
    lane = job.lane
    if lane is None or verdict.action not in _FINAL:
        return fate
    brake, most = lane.brake, job.settings.suppress_most_percent
    if brake.count(dead=verdict.suppress and job.settings.suppress, most_percent=most):
        provider, percent = lane.provider.name, round(brake.percent, 1)
        if brake.on:
            log.error("smtp.suppression_braked", provider=provider, percent=percent, most=most)
        else:
            log.info("smtp.suppression_goes_on", provider=provider, withheld=brake.withheld)
    if not (brake.on and isinstance(fate, Result) and fate.suppress):
        return fate
    brake.withheld += 1
    return results.withheld(fate)


def _own_rows(job: Job, *, left: bool) -> tuple[ResultRow, ...]:
    message_id = (ResultRow(results.ROW, "message_id", job.envelope.message_id),)
    return (*message_id, _TWICE) if left and job.twice else message_id


def _timed(result: Result, started_at: datetime | None, ended_at: datetime) -> Result:
    connected_at = ended_at if result.succeeded else None
    return msgspec.structs.replace(
        result, started_at=started_at, connected_at=connected_at, ended_at=ended_at
    )
