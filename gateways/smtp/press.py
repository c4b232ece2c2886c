"""Threads that fill in and sign mails: RSA lets go of the GIL, so that two do twice as much.

Trio's side hands in batches and is woken once a batch. What waits is bounded by who calls: a lane
asks for no more mails than it has credits.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue

import msgspec
import trio

from engine.addresses import domain_ascii, domain_of
from engine.mail import MailMessage
from gateways.smtp.compose import Blueprint, Envelope
from gateways.smtp.dkim import Signer
from gateways.smtp.records import Parcel

BATCH = 16
"""Mails that a thread does between two wake-ups: some 15 ms with RSA-2048."""


class PressJob(msgspec.Struct, gc=False):
    """One mail to be made; ``parcel_id``, ``spool_id`` and ``not_after`` as in ``Parcel``."""

    message: MailMessage
    envelope: Envelope
    blueprint: Blueprint
    signers: tuple[Signer, ...]
    parcel_id: int
    spool_id: int
    not_after: float


Filled = Parcel | Exception


class _Order:
    """What one ``fill`` waits for; its batches come back on Trio's thread."""

    __slots__ = ("abandoned", "done", "missing", "results", "token")

    def __init__(self, jobs: int) -> None:
        self.token = trio.lowlevel.current_trio_token()
        self.done = trio.Event()
        self.results: list[Filled | None] = [None] * jobs
        self.missing = jobs
        self.abandoned = False

    def keep(self, at: int, results: Sequence[Filled]) -> None:
        self.results[at : at + len(results)] = results
        self.missing -= len(results)
        if not self.missing:
            self.done.set()


class _Batch(msgspec.Struct, gc=False):
    order: _Order
    at: int
    jobs: Sequence[PressJob]


class Press:
    """``threads`` of them, started with the first mail; ``close`` ends them.

    ``fill`` and ``close`` are for Trio's thread.
    """

    def __init__(self, threads: int) -> None:
        self._count = max(1, threads)
        self._threads: list[threading.Thread] = []
        self._queue: SimpleQueue[_Batch | None] = SimpleQueue()
        self._closed = False
        self._waiting = 0
        self._filled = 0
        self._failed = 0

    async def fill(self, jobs: Sequence[PressJob]) -> list[Filled]:
        """A parcel for each job, or what is wrong with it. Cancelled: what is begun is waited for.

        ``trio.ClosedResourceError`` after ``close``.
        """
        if self._closed:
            raise trio.ClosedResourceError("the press is closed")
        if not jobs:
            await trio.lowlevel.checkpoint()
            return []
        order = _Order(len(jobs))
        self._waiting += len(jobs)
        try:
            self._hand_in(order, jobs)
            await _finished(order)
        finally:
            self._waiting -= len(jobs)
        results = [each for each in order.results if each is not None]
        failed = sum(isinstance(each, Exception) for each in results)
        self._filled += len(results) - failed
        self._failed += failed
        return results

    def close(self) -> None:
        """End the threads once what was handed in is done, and wait for them."""
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def statistics(self) -> dict[str, int]:
        """Threads, mails waited for, mails made and mails that could not be made."""
        return {
            "threads": len(self._threads),
            "waiting": self._waiting,
            "filled": self._filled,
            "failed": self._failed,
        }

    def _hand_in(self, order: _Order, jobs: Sequence[PressJob]) -> None:
        while len(self._threads) < self._count:
            thread = threading.Thread(
                target=self._run, name=f"press-{len(self._threads)}", daemon=True
            )
            thread.start()
            self._threads.append(thread)
        # A few mails are shared out, too: their signatures take as long as everything else.
        size = min(BATCH, -(-len(jobs) // self._count))
        for at in range(0, len(jobs), size):
            self._queue.put(_Batch(order, at, jobs[at : at + size]))

    def _run(self) -> None:
        """A thread: batch after batch until there is none."""
        while (batch := self._queue.get()) is not None:
            order = batch.order
            results = [_made(job, order) for job in batch.jobs]
            order.token.run_sync_soon(order.keep, batch.at, results)


async def _finished(order: _Order) -> None:
    try:
        await order.done.wait()
    except trio.Cancelled:
        order.abandoned = True
        with trio.CancelScope(shield=True):
            await order.done.wait()
        raise


def _made(job: PressJob, order: _Order) -> Filled:
    if order.abandoned:
        return trio.ClosedResourceError("nobody waits for it")
    try:
        return parcel_of(job)
    except Exception as error:  # noqa: BLE001 - it belongs to its job, whose owner tells
        return error


def parcel_of(job: PressJob) -> Parcel:
    """The mail of a job, ready for the wire; ``InvalidError`` where there can be none."""
    envelope = job.envelope
    recipient, domain = _on_the_wire(envelope.to.address)
    sender = _on_the_wire(envelope.mail_from)[0] if envelope.mail_from else ""
    chunks = job.blueprint.fill(job.message, envelope, job.signers)
    return Parcel(
        id=job.parcel_id,
        spool_id=job.spool_id,
        sender=sender,
        recipient=recipient,
        domain=domain,
        size=sum(map(len, chunks)),
        chunks=chunks,
        not_after=job.not_after,
        smtputf8=envelope.smtputf8,
        envid=envelope.envid,
    )


def _on_the_wire(address: str) -> tuple[str, str]:
    """The address with its domain in A-labels, which every server takes, and that domain."""
    domain = domain_ascii(domain_of(address))
    return f"{address.rpartition('@')[0]}@{domain}", domain
