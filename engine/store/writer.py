"""The one writer: a thread that commits in groups.

Callers queue operations; the thread takes what has gathered, runs it as one transaction, commits
with one fsync and wakes all callers with one call into the event loop. While it commits the next
group gathers: under load the groups grow by themselves.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any

import outcome
import trio

from engine.errors import UnavailableError
from engine.store.transaction import storage_failure

Run = Callable[[sqlite3.Connection, "Sequence[Job]"], None]

_PROBE_S = 1.0


class Job:
    """One operation under way: ``work`` is what the batch runs, ``answer`` what its caller gets."""

    __slots__ = ("answer", "task", "weight", "work")

    def __init__(self, work: Any, weight: int, task: trio.lowlevel.Task | None) -> None:
        self.work = work
        self.weight = weight
        self.task = task
        self.answer: outcome.Outcome[Any] = outcome.Value(None)


class Writer:
    """The queue before the writer thread, and the thread."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        run: Run,
        *,
        max_batch: int,
        max_queue: int,
    ) -> None:
        self._connect = connect
        self._run = run
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._queued = 0
        self._held_back = trio.lowlevel.ParkingLot()
        self._token = trio.lowlevel.current_trio_token()
        self._closed = False
        self._cause = ""
        self._batches = self._commits = self._rollbacks = self._operations = 0
        self._last_batch = self._largest_batch = self._dropped_notes = 0
        self._connection = connect()
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    async def submit(self, work: Any, weight: int = 1) -> Any:
        """Have ``work`` committed; returns or raises what came of it.

        Cancellation is heard before it is queued, never after: who gets ``Cancelled`` knows that
        nothing was written.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._queued >= self._max_queue and not self._closed:
            await self._held_back.park()
        if self._closed:
            raise _closed()
        self._put(Job(work, weight, trio.lowlevel.current_task()))
        return await trio.lowlevel.wait_task_rescheduled(_never_abort)

    def post(self, work: Any) -> None:
        """Have ``work`` done with the next commit; dropped where the queue is full."""
        if self._closed or self._queued >= self._max_queue:
            self._dropped_notes += 1
            return
        self._put(Job(work, 1, None))

    async def aclose(self) -> None:
        """Commit what is queued and end the thread."""
        if not self._closed:
            self._closed = True
            self._held_back.unpark_all()
            self._queue.put(None)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)

    def statistics(self) -> dict[str, Any]:
        """Queue, batches, commits, and whether the store takes writes."""
        return {
            "queue": self._queued,
            "max_queue": self._max_queue,
            "held_back": len(self._held_back),
            "operations": self._operations,
            "batches": self._batches,
            "commits": self._commits,
            "rollbacks": self._rollbacks,
            "last_batch": self._last_batch,
            "largest_batch": self._largest_batch,
            "dropped_notes": self._dropped_notes,
            "writable": not self._cause,
            "cause": self._cause,
        }

    # --- on Trio's thread ------------------------------------------------------------------------

    def _put(self, job: Job) -> None:
        self._queued += job.weight
        self._queue.put(job)

    def _wake(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._queued -= job.weight
            if job.task is not None:
                trio.lowlevel.reschedule(job.task, job.answer)
        if self._held_back and self._queued < self._max_queue:
            self._held_back.unpark(count=self._max_queue - self._queued)

    # --- on the writer's thread ------------------------------------------------------------------

    def _work(self) -> None:
        while (jobs := self._take()) is not None:
            if jobs:
                self._group(jobs)
            else:
                self._probe()
        self._connection.close()

    def _take(self) -> list[Job] | None:
        """The next group; empty = nothing came while the disk is to be probed; None = the end."""
        try:
            job = self._queue.get(timeout=_PROBE_S if self._cause else None)
        except queue.Empty:
            return []
        if job is None:
            return None
        jobs, weight = [job], job.weight
        while weight < self._max_batch:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._queue.put(None)
                break
            jobs.append(job)
            weight += job.weight
        return jobs

    def _group(self, jobs: Sequence[Job]) -> None:
        try:
            self._run(self._connection, jobs)
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - every caller of the group is told
            self._failed(jobs, error)
        else:
            self._succeeded(jobs)
        try:
            self._token.run_sync_soon(self._wake, jobs)
        except trio.RunFinishedError:
            # Only notes can be left: a caller waiting would have kept the loop alive.
            return

    def _succeeded(self, jobs: Sequence[Job]) -> None:
        self._cause = ""
        self._batches += 1
        self._commits += 1
        self._operations += len(jobs)
        self._last_batch = len(jobs)
        self._largest_batch = max(self._largest_batch, len(jobs))

    def _failed(self, jobs: Sequence[Job], error: Exception) -> None:
        self._batches += 1
        self._rollbacks += 1
        # What one operation can do wrong was dealt with in the batch: this is the store, or a bug.
        store = isinstance(error, sqlite3.Error | MemoryError)
        if store:
            self._cause = str(storage_failure(error) or f"store: {error}")
        for job in jobs:
            job.answer = outcome.Error(UnavailableError(self._cause) if store else error)
        self._roll_back()

    def _roll_back(self) -> None:
        """Leave no open transaction to the next group; a connection that cannot is replaced."""
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._cause = f"store: {error}"
            self._reconnect()

    def _reconnect(self) -> None:
        try:
            self._connection.close()
            self._connection = self._connect()
        except UnavailableError as error:
            self._cause = str(error)

    def _probe(self) -> None:
        """See whether the disk takes writes again: nobody has to risk a call to find out."""
        try:
            self._connection.executescript(_PROBE)
        except sqlite3.Error as error:
            self._cause = f"store: {error}"
            self._roll_back()
        else:
            self._cause = ""


# Takes 16 pages, gives them back, and commits: finds a file that may not grow and a full disk.
_PROBE = """
    BEGIN IMMEDIATE;
    CREATE TABLE writer_probe (data BLOB);
    INSERT INTO writer_probe VALUES (zeroblob(65536));
    DROP TABLE writer_probe;
    COMMIT;
"""


def _never_abort(_: Callable[[], Any]) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


def _closed() -> UnavailableError:
    return UnavailableError("store: closed")
