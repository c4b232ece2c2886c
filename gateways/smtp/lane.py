"""The mails of one provider: queued, filled in and signed, journalled, given to the bridge.

Nothing is given to it before its intent is on the disk, and never more than its connections take:
what is journalled and not answered would count as unknown after a crash. Mails are filled in a
little ahead of that, so that no connection waits for a signature.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import structlog
import trio

from engine.clock import Clock
from engine.errors import InvalidError, UnavailableError
from engine.model import Provider
from engine.results import Result
from gateways.smtp import results
from gateways.smtp.brake import Brake
from gateways.smtp.dkim import Signer
from gateways.smtp.jobs import Job, Place, press_job
from gateways.smtp.press import PressJob
from gateways.smtp.records import Parcel
from gateways.smtp.settings import SmtpSettings
from gateways.smtp.tracker import Intent

log = structlog.get_logger("smtp")

JOURNAL_RETRY_S = 1.0
PRESS_BATCH = 16
AHEAD_OF_RELAY = 64
"""How many mails may be filled in before a relay takes them; and of one domain at MX:"""
AHEAD_OF_DOMAIN = 4
_TOP = 10


class Wire(Protocol):
    """The bridge as a lane sees it (``gateways.smtp.bridge.Bridge``)."""

    def credits(self, provider_id: int, domain: str | None = None) -> int:
        """How many more of this domain, or of all together, it takes now."""
        ...

    def send(self, provider_id: int, parcels: Sequence[Parcel]) -> None:
        """Take them; each is answered exactly once."""
        ...

    def drop(self, provider_id: int, parcel_ids: Sequence[int]) -> None:
        """Give them up where they have not left."""
        ...


class Books(Protocol):
    """The journal as a lane sees it (``gateways.smtp.tracker.Tracker``)."""

    async def intend(self, intents: Sequence[Intent]) -> frozenset[int]:
        """They may leave once this returned; returns possible duplicates."""
        ...


class Filler(Protocol):
    """``gateways.smtp.press.Press``."""

    async def fill(self, jobs: Sequence[PressJob]) -> list[Parcel | Exception]:
        """One for each, in their order."""
        ...


class Desk(Protocol):
    """Where what leaves a lane is looked after (``gateways.smtp.ledger.Ledger``)."""

    def sent(self, jobs: Sequence[Job]) -> None:
        """Their answers are to come."""
        ...

    def unsent(self, jobs: Sequence[Job]) -> None:
        """Their intents have to be taken back."""
        ...


class Lane:
    """The queue of one provider. All calls are on Trio's thread.

    ``direct``: to the recipients' own servers, so that domains are queued apart.
    """

    def __init__(
        self,
        provider: Provider,
        settings: SmtpSettings,
        *,
        wire: Wire,
        books: Books,
        press: Filler,
        desk: Desk,
        clock: Clock,
        max_queue: int,
        pressers: int,
    ) -> None:
        self.provider = provider
        self.settings = settings
        self.emptied = trio.Event()  # closed, and everything in it has gone on
        self.signers: dict[str, tuple[Signer, ...]] = {}  # by domain of the sender
        self.brake = Brake()
        self._wire, self._books, self._press, self._desk = wire, books, press, desk
        self._clock = clock
        self._max_queue = max_queue
        self._pressers = pressers
        self._queues: dict[str, deque[Job]] = {}  # in the order of their next turn
        self._ready: dict[str, deque[Job]] = {}
        self._pressing: set[Job] = set()
        self._ahead: Counter[str] = Counter()  # pressing or ready, by domain
        self._unbooked: Counter[str] = Counter()  # answered, but not in the journal yet
        self._live = 0  # not withdrawn and not journalled
        self._committing = 0
        self._in_flight = 0
        self._closing: Result | None = None
        self._full = trio.lowlevel.ParkingLot()
        self._to_press = trio.Event()
        self._to_send = trio.Event()
        self._counts: Counter[str] = Counter()
        self.fault = ""

    @property
    def closed(self) -> bool:
        """Whether it takes nothing any more."""
        return self._closing is not None

    @property
    def direct(self) -> bool:
        """Whether it goes to the recipients' own servers."""
        return not self.provider.host

    def key(self, job: Job) -> str:
        """Its queue: a relay is one domain."""
        return job.domain if job.direct else ""

    def replace(self, provider: Provider, settings: SmtpSettings) -> None:
        """What comes from now on goes by these."""
        self.provider, self.settings, self.signers = provider, settings, {}

    # --- in ---------------------------------------------------------------------------------------
    async def put(self, job: Job) -> None:
        """Queue it as soon as there is room; also returns when it is withdrawn meanwhile."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._live >= self._max_queue and not self.closed:
            await self._full.park()
        if self.closed:
            job.withdraw(self._closing or results.trunk_failure("trunk_unavailable"))
            return
        job.lane = self
        self._queues.setdefault(self.key(job), deque()).append(job)
        self._live += 1
        self._to_press.set()

    def withdraw(self, job: Job, result: Result) -> bool:
        """Give it up where it was not given to the bridge; else False."""
        if not job.withdrawable:
            return False
        key = self.key(job)
        if job.place is Place.QUEUED and job.lane is self:
            _take_out(self._queues, key, job)
        elif job.place is Place.READY:
            _take_out(self._ready, key, job)
            self._step_back(key)
        if job.place is not Place.COMMITTING and job.lane is self:
            self._gone(1)
        job.withdraw(result)
        return True

    def drop(self, job: Job) -> None:
        """Nobody waits for it any more: what has not left need not."""
        self._wire.drop(self.provider.id, [job.id])

    def _gone(self, count: int) -> None:
        self._live -= count
        if self._full:
            self._full.unpark(count=count)

    # --- filling in -------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until cancelled, or until it is closed and everything in it has gone on."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._pressers):
                nursery.start_soon(self._fill)
            nursery.start_soon(self._send)
            await self.emptied.wait()
            nursery.cancel_scope.cancel()

    async def _fill(self) -> None:
        while True:
            jobs = self._take_queued()
            if not jobs:
                if self._to_press.is_set():
                    self._to_press = trio.Event()
                await self._to_press.wait()
                continue
            self._pressing.update(jobs)
            parcels = await self._press.fill([press_job(job) for job in jobs])
            for job, parcel in zip(jobs, parcels, strict=True):
                self._filled(job, parcel)
            self._to_send.set()

    def _take_queued(self) -> list[Job]:
        """The next of each domain in turn, not farther ahead than they may be."""
        limit = AHEAD_OF_DOMAIN if self.direct else AHEAD_OF_RELAY
        taken: list[Job] = []
        for key in list(self._queues):
            queue = self._queues.pop(key)
            while queue and len(taken) < PRESS_BATCH and self._ahead[key] < limit:
                job = queue.popleft()
                if job.place is Place.QUEUED:
                    job.place = Place.PRESSING
                    self._ahead[key] += 1
                    taken.append(job)
            if queue:
                self._queues[key] = queue  # behind the others now
            if len(taken) == PRESS_BATCH:
                break
        return taken

    def _filled(self, job: Job, parcel: Parcel | Exception) -> None:
        key = self.key(job)
        self._pressing.discard(job)
        if job.place is not Place.PRESSING:
            self._step_back(key)
        elif isinstance(parcel, Exception):
            self._step_back(key)
            log.warning("smtp.invalid_message", spool_id=job.spool_id, error=str(parcel))
            self.withdraw(job, _invalid(parcel))
        else:
            job.parcel = parcel
            job.place = Place.READY
            self._ready.setdefault(key, deque()).append(job)

    def _step_back(self, key: str, count: int = 1) -> None:
        """So many are not ahead any more: others may be filled in."""
        if not count:
            return
        self._ahead[key] -= count
        if self._ahead[key] <= 0:
            del self._ahead[key]
        self._to_press.set()

    # --- out --------------------------------------------------------------------------------------
    async def _send(self) -> None:
        while True:
            jobs = self._take_ready()
            if jobs:
                await self._commit(jobs)
            elif self.closed:
                self.emptied.set()
                return
            else:
                self._to_send = trio.Event()
                await self._to_send.wait()

    def _take_ready(self) -> list[Job]:
        taken: list[Job] = []
        credit = partial(self._wire.credits, self.provider.id)
        in_all = credit() - sum(self._unbooked.values())
        for key in list(self._ready):
            if len(taken) >= in_all:
                break  # those not looked at are the first next time
            queue = self._ready.pop(key)
            room = min(credit(key) - self._unbooked[key], in_all - len(taken))
            before = len(queue)
            while queue and room > 0:
                job = queue.popleft()
                if job.place is Place.READY:
                    job.place = Place.COMMITTING
                    taken.append(job)
                    room -= 1
            self._step_back(key, before - len(queue))
            if queue:
                self._ready[key] = queue
        self._gone(len(taken))
        return taken

    async def _commit(self, jobs: list[Job]) -> None:
        """Journal them, then let them go; where the disk refuses all wait and nothing leaves."""
        intents = [_intent(job, self.provider.id) for job in jobs]
        self._committing = len(jobs)
        while True:
            try:
                twice = await self._books.intend(intents)
            except UnavailableError as error:
                self._refused(error)
                if self._given_up(jobs):
                    break
                await trio.sleep(JOURNAL_RETRY_S)
            else:
                self.fault = ""
                self._let_go(jobs, twice)
                break
        self._committing = 0

    def _given_up(self, jobs: Sequence[Job]) -> bool:
        """Whether nobody waits for any of them; nothing of a closed lane waits for a disk."""
        if self._closing is not None:
            for job in jobs:
                self.withdraw(job, self._closing)
        return all(job.place is Place.WITHDRAWN for job in jobs)

    def _refused(self, error: UnavailableError) -> None:
        if not self.fault:
            log.error("smtp.journal_refuses", provider=self.provider.name, cause=str(error))
        self.fault = str(error)

    def _let_go(self, jobs: Sequence[Job], twice: frozenset[int]) -> None:
        unsent = [job for job in jobs if job.place is Place.WITHDRAWN]
        going = [job for job in jobs if job.place is Place.COMMITTING]
        if unsent:
            self._desk.unsent(unsent)
        for job in going:
            job.twice = job.spool_id in twice
            job.place = Place.SENT
            job.on_leaving()
        self._in_flight += len(going)
        self._counts["sent"] += len(going)
        self._desk.sent(going)
        self._wire.send(self.provider.id, [job.parcel for job in going if job.parcel is not None])

    # --- what came back ---------------------------------------------------------------------------
    def answered(self, job: Job) -> None:
        """The bridge has answered it; its place is taken until that is in the journal."""
        self._in_flight -= 1
        self._unbooked[self.key(job)] += 1

    def booked(self, job: Job) -> None:
        """Its answer is in the journal."""
        key = self.key(job)
        self._unbooked[key] -= 1
        if self._unbooked[key] <= 0:
            del self._unbooked[key]
        self._to_send.set()

    # --- the end ----------------------------------------------------------------------------------
    def close(self, result: Result) -> None:
        """Take nothing more; what has not been given to the bridge is told ``result``."""
        if self.closed:
            return
        self._closing = result
        waiting = [*self._queues.values(), *self._ready.values(), self._pressing]
        for job in [job for jobs in waiting for job in jobs]:
            self.withdraw(job, result)
        self._full.unpark_all()
        self._to_send.set()

    def statistics(self) -> dict[str, Any]:
        """Mails queued, being filled in, in flight; the ten domains with most to do."""
        waiting = Counter({key: len(queue) for key, queue in self._queues.items()})
        return {
            "queued": sum(waiting.values()),
            "max_queue": self._max_queue,
            "pressing": len(self._pressing),
            "ready": sum(map(len, self._ready.values())),
            "committing": self._committing,
            "in_flight": self._in_flight,
            "unbooked": sum(self._unbooked.values()),
            "fault": self.fault,
            "suppressions_withheld": self.brake.withheld,
            **self._counts,
            "domains": dict(waiting.most_common(_TOP)),
        }


def _take_out(queues: dict[str, deque[Job]], key: str, job: Job) -> None:
    queues[key].remove(job)
    if not queues[key]:
        del queues[key]


def _invalid(error: Exception) -> Result:
    """A header that cannot be written, an attachment that is gone."""
    field = error.field if isinstance(error, InvalidError) else None
    return results.invalid({"from": "source", "to": "destination"}.get(field or "", ""))


def _intent(job: Job, provider_id: int) -> Intent:
    return Intent(
        spool_id=job.spool_id,
        transmission_id=job.transmission_id,
        provider_id=provider_id,
        recipient=job.recipient,
        flags=job.flags,
    )
