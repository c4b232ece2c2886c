"""What a group of operations does within its transaction.

Hot operations of one kind run together, each kind once; the plain ones follow one by one, each in
a savepoint. Operations of one group belong to different callers, none of whom has an answer yet,
so their order among each other is free. Where a hot operation fails (a row it names is gone), the
transaction starts over with every operation by itself: one caller's error is never another's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import outcome

from engine.clock import Clock
from engine.results import Result
from engine.store import hotpath
from engine.store.awaiting import Await, await_reports
from engine.store.base import Intent, Outcome
from engine.store.transaction import Transaction, domain_error, storage_failure
from engine.store.writer import Job

Plain = Callable[[Transaction], Any]


class Begin(msgspec.Struct, frozen=True):
    """Commit these intents."""

    intents: Sequence[Intent]


class Screen(msgspec.Struct, frozen=True):
    """Record these as not tried."""

    intents: Sequence[Intent]
    results: Sequence[Result]


class Finish(msgspec.Struct, frozen=True):
    """Close spools."""

    outcomes: Sequence[Outcome]


class Connected(msgspec.Struct, frozen=True):
    """Note that a spool was answered."""

    spool_id: int
    at: datetime


class Batch:
    """Runs groups; the writer commits them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def run(self, connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
        """Open a transaction and run the jobs in it; raises only what sinks all of them."""
        connection.execute("BEGIN IMMEDIATE")
        tx = Transaction(connection, self._clock)
        try:
            _together(tx, jobs)
        except Exception as error:
            if storage_failure(error):
                raise
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            tx = Transaction(connection, self._clock)
            _one_by_one(tx, jobs)
            return
        _each(tx, (job for job in jobs if callable(job.work)), _plain)


def _together(tx: Transaction, jobs: Sequence[Job]) -> None:
    kinds: dict[type[Any], list[Job]] = {
        kind: [] for kind in (Begin, Screen, Connected, Await, Finish)
    }
    for job in jobs:
        if type(job.work) in kinds:
            kinds[type(job.work)].append(job)
    if kinds[Connected]:
        hotpath.connect(tx, [(job.work.spool_id, job.work.at) for job in kinds[Connected]])
    if kinds[Await]:
        await_reports(tx, [job.work for job in kinds[Await]])
    if kinds[Finish]:
        hotpath.finish(tx, [outcome for job in kinds[Finish] for outcome in job.work.outcomes])
    if kinds[Begin]:
        _begin(tx, kinds[Begin])
    if kinds[Screen]:
        intents = [intent for job in kinds[Screen] for intent in job.work.intents]
        results = [result for job in kinds[Screen] for result in job.work.results]
        hotpath.screen_out(tx, intents, results)
    tx.tally.flush(tx.connection)


def _begin(tx: Transaction, jobs: Sequence[Job]) -> None:
    answers = iter(hotpath.begin(tx, [intent for job in jobs for intent in job.work.intents]))
    for job in jobs:
        job.answer = outcome.Value([next(answers) for _ in job.work.intents])


def _one_by_one(tx: Transaction, jobs: Sequence[Job]) -> None:
    _each(tx, jobs, _alone)


def _each(tx: Transaction, jobs: Iterable[Job], run: Callable[[Transaction, Any], Any]) -> None:
    for job in jobs:
        try:
            with tx.savepoint():
                job.answer = outcome.Value(run(tx, job.work))
        except Exception as error:
            if storage_failure(error):
                raise
            job.answer = outcome.Error(domain_error(error))


def _plain(tx: Transaction, work: Plain) -> Any:
    return work(tx)


def _alone(tx: Transaction, work: Any) -> Any:
    if isinstance(work, Begin):
        return hotpath.begin_carefully(tx, work.intents)
    if isinstance(work, Screen):
        return hotpath.screen_out_carefully(tx, work.intents, work.results)
    if isinstance(work, Connected):
        return hotpath.connect(tx, [(work.spool_id, work.at)])
    if isinstance(work, Finish):
        return hotpath.finish(tx, work.outcomes)
    if isinstance(work, Await):
        return await_reports(tx, [work])
    return work(tx)
