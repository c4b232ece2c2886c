"""Now: what the pacer grants is committed, delivered and recorded. Read this file first.

Life of a spool (design.md §3): grant → intent committed in one group commit →
``Gateway.deliver`` in a child task under a deadline → result, transmission, counters committed in
one transaction → the bus says so. Nothing leaves before its intent is durable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import structlog
import trio

from engine import recovery
from engine.bus import Bus
from engine.clock import Clock
from engine.config import Config
from engine.delivery import JOURNALLED, STORE_RETRY_S, TAKEN, Courier, Started, cancelled
from engine.do_not_contact import REFUSED, DoNotContacts
from engine.errors import UnavailableError
from engine.events import ProviderHealth, StoreHealth
from engine.gateway import Gateway
from engine.model import Provider, Service, Transmission
from engine.pacing import Flow, Grant, Limit, Pacer
from engine.results import Awaiting, Disposition, Fate, Result
from engine.routing import Route
from engine.stats import NodeStatistics
from engine.store.base import Begun, Candidate, Intent, Outcome, Store
from engine.trunks import Trunk, Trunks
from engine.work import Job

log = structlog.get_logger("dispatcher")

MAX_COMMITS = 4
"""Batches of intents on their way to the disk at once: the pacer goes on while one is fsynced."""

TICK_S = 0.001
"""Wake-ups closer than this are one: lag against CPU (engine.md §3)."""

FAILOVER_FLOW = -1
"""Key of the flow of jobs that go on through the next trunk."""

Choice = tuple[Trunk, Route]
JobFlow = Flow[Job]
JobGrant = Grant[Job, Choice]


class Dispatcher:
    """Owns every spool that is up. ``run`` serves until cancelled; ``drain`` lets them end."""

    def __init__(
        self,
        *,
        config: Config,
        store: Store,
        gateways: Mapping[str, Gateway],
        bus: Bus,
        clock: Clock,
        unwanted: DoNotContacts,
    ) -> None:
        self.unwanted = unwanted  # who asks us for nothing: looked up before every attempt
        self._config = config
        self._store = store
        self._gateways = gateways
        self._bus = bus
        self._clock = clock
        self._courier = Courier(
            config=config, store=store, gateways=gateways, bus=bus, clock=clock, unwanted=unwanted,
        )  # fmt: skip
        self._pacer: Pacer[Job, Choice] = Pacer()
        self._trunks = Trunks(config.dial)
        self._node = Limit(config.node.calls_per_second, config.node.channels, now=0.0)
        self._commits = trio.Semaphore(MAX_COMMITS)
        self._wake = trio.Event()
        self._idle = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._failovers = self._pacer.add(FAILOVER_FLOW, 0.0, 0.0)
        self._store_retry_at = 0.0
        self._busy = 0  # granted and not ended
        self.store_fault = ""  # why the store takes no writes; "" while it does
        self.draining = False
        self.counters = NodeStatistics()

    # --- what campaigns and single sends use ----------------------------------------------------
    def open_flow(self, key: int, per_s: float) -> JobFlow:
        """A flow of jobs at a pace (starts per second, 0 = unpaced)."""
        return self._pacer.add(key, per_s, trio.current_time())

    def close_flow(self, flow: JobFlow) -> None:
        """Forget a flow and the jobs of it that were not started."""
        for job in self._pacer.remove(flow):
            job.ended(job, None)

    def set_pace(self, flow: JobFlow, per_s: float) -> None:
        """Another pace from now on."""
        self._pacer.set_rate(flow, per_s, trio.current_time())
        self._wake.set()

    def feed(self, flow: JobFlow, jobs: Iterable[Job], *, first: bool = False) -> None:
        """Queue jobs (``first``: before those queued); each is ended through its ``ended``."""
        self._pacer.feed(flow, jobs, trio.current_time(), first=first)
        self._wake.set()

    def withdraw(self, flow: JobFlow, job: Job) -> bool:
        """Take back a job that was not granted yet; False where it was."""
        if job not in flow.items:
            return False
        flow.items.remove(job)
        job.ended(job, None)
        return True

    def carries(self, service: Service) -> bool:
        """Whether any active provider carries the service."""
        return self._trunks.carries(service)

    def holds(self, spool_id: int) -> bool:
        """Whether a job has the spool in its hands: its result will come."""
        return self._courier.holds(spool_id)

    def replace_providers(self, providers: Iterable[Provider]) -> None:
        """The active providers from now on."""
        self._trunks.replace(
            (p for p in providers if p.type in self._gateways), trio.current_time()
        )
        self._wake.set()

    # --- the loop -------------------------------------------------------------------------------
    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dispatch until cancelled; cancelling hangs up what is up and records it."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._courier.watch)
                task_status.started()
                while True:
                    await self._commits.acquire()
                    self._start(nursery, self._grants())
                    await self._park()
        finally:
            self._courier.closing = True

    def _start(self, nursery: trio.Nursery, grants: list[JobGrant]) -> None:
        if grants:
            self._busy += len(grants)
            nursery.start_soon(self._commit, grants)
        else:
            self._commits.release()

    async def drain(self) -> None:
        """Start nothing more and wait until every spool that is up has ended."""
        self.draining = True
        while self._busy:
            self._idle = trio.Event()
            await self._idle.wait()

    async def _park(self) -> None:
        """Sleep until the pacer has something, or something was given back or fed."""
        now = trio.current_time()
        with trio.move_on_at(max(self._next_at(now), now + TICK_S)):
            await self._wake.wait()
        self._wake = trio.Event()

    def _next_at(self, now: float) -> float:
        if self.draining:
            return float("inf")
        if self.store_fault and now < self._store_retry_at:
            return self._store_retry_at  # nothing was looked at: what the pacer held may be free
        node_at = self._node.ready_at()
        resources_at = min(self._trunks.ready_at(now), node_at if node_at > now else float("inf"))
        return self._pacer.next_at(resources_at)

    def _grants(self) -> list[JobGrant]:
        now = trio.current_time()
        if self.draining or (self.store_fault and now < self._store_retry_at):
            return []
        return self._pacer.grants(
            now,
            lambda: self._node.free(now) and self._trunks.any_free(now),
            lambda job: self._choose(job, now),
            limit=1 if self.store_fault else 500,  # one intent probes a store that refused
        )

    def _choose(self, job: Job, now: float) -> Choice | None:
        choice = self._trunks.choose(job.work.service, job.destination, now, job.exclude)
        if choice is not None:
            self._node.take(now)
        return choice

    def _give_back(self, trunk: Trunk) -> None:
        trunk.give_back()
        self._node.give_back()
        if self._pacer.held:
            self._wake.set()

    def _done(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._idle.set()

    # --- intents --------------------------------------------------------------------------------
    async def _commit(self, grants: list[JobGrant]) -> None:
        """Make the intents durable, then start the deliveries."""
        at = self._clock()
        intents = [self._intent(grant, at) for grant in grants]
        try:
            begun = await self._store.begin_spools(intents)
        except UnavailableError as error:
            self._put_back(grants, error)
            return
        finally:
            self._commits.release()
            self._wake.set()
        self._store_works()
        now = trio.current_time()
        for grant, intent, ids in zip(grants, intents, begun, strict=True):
            self._launch(grant, intent, ids, now)

    def _launch(self, grant: JobGrant, intent: Intent, ids: Begun | None, now: float) -> None:
        job, (trunk, route) = grant.item, grant.choice
        if job.begun is not None:
            job.begun(ids.spool_id if ids else None)
        if ids is None:  # the contact was taken, or the transmission moved, meanwhile
            self._give_back(trunk)
            self._done()
            job.ended(job, None)
            return
        self.counters.start(now - grant.due_at, now)
        spool = Started(job, trunk, route, ids, intent.uid)
        self._courier.begun(spool, intent.at)
        assert self._nursery is not None  # noqa: S101 - run() set it
        self._nursery.start_soon(self._carry, spool)

    def _put_back(self, grants: list[JobGrant], error: UnavailableError) -> None:
        """The store refused: nothing of these left, they stay the first of their flows."""
        now = trio.current_time()
        if not self.store_fault:
            log.error("store_refuses", cause=str(error))
            self._bus.publish(StoreHealth(at=self._clock(), writable=False, cause=str(error)))
        self.store_fault = str(error)
        self._store_retry_at = now + STORE_RETRY_S
        for grant in reversed(grants):
            self._give_back(grant.choice[0])
            self._done()
            if grant.flow.removed:
                grant.item.ended(grant.item, None)
            else:
                self._pacer.put_back(grant.flow, grant.item, now)

    def _store_works(self) -> None:
        if self.store_fault:
            log.info("store_works")
            self.store_fault = ""
            self._bus.publish(StoreHealth(at=self._clock(), writable=True))

    @staticmethod
    def _intent(grant: JobGrant, at: datetime) -> Intent:
        job, (trunk, route) = grant.item, grant.choice
        return job.work.intent(
            job.candidate,
            at,
            destination=route.number,
            provider_id=trunk.provider.id,
            counts_try=job.counts_try,
        )

    # --- deliveries -----------------------------------------------------------------------------
    async def _carry(self, spool: Started) -> None:
        """Deliver and record; the record is written even when we are cancelled."""
        try:
            await self._departure(spool.trunk)
            if self._closed(spool.job):
                fate: Fate = REFUSED
            else:
                fate = await self._courier.deliver(spool)
        except trio.Cancelled:
            await self._cut(spool)
            raise
        if isinstance(fate, Awaiting):
            await self._leave(spool, fate)
        else:
            await self._end(spool, fate)

    def _closed(self, job: Job) -> bool:
        """Whether who shall be reached asked for nothing more after the job was queued."""
        work = job.work
        return self.unwanted.closed_lately(work.owner_id, work.service, job.destination)

    async def _cut(self, spool: Started) -> None:
        """The node stops under a spool: a call is over; a message is known to its gateway."""
        if not spool.job.work.service & JOURNALLED:
            await self._end(spool, cancelled())
            return
        self._give_back(spool.trunk)
        self.counters.up -= 1
        self._courier.let_go(spool)
        self._done()
        spool.job.ended(spool.job, None)

    async def _leave(self, spool: Started, fate: Awaiting) -> None:
        """The message was handed over: nothing of it is kept here until its report comes."""
        self._give_back(spool.trunk)
        self._learn(spool.trunk, TAKEN)
        try:
            await self._courier.leave(spool, fate)
        finally:
            self.counters.hand_over()
            self._courier.left(spool, fate)
            self._done()
            spool.job.ended(spool.job, None)

    @staticmethod
    async def _departure(trunk: Trunk) -> None:
        now = trio.current_time()
        at = trunk.departs_at(now)
        if at > now:
            await trio.sleep_until(at)

    async def _end(self, spool: Started, result: Result) -> None:
        self._give_back(spool.trunk)
        self._learn(spool.trunk, result)
        delay_s: float | None = None
        if result.again:
            result, delay_s = await self._courier.sober(spool, result)
        next_trunk = delay_s is None and self._next_trunk(spool, result)
        if next_trunk:
            # Nothing was put off: it goes on at once.
            result, delay_s = recovery.given_up(result), 0.0
        elif result.later_s or result.disposition is Disposition.DEFERRED:
            result, delay_s = await self._courier.sober(spool, result)
        outcome = self._courier.plan(spool, result, delay_s=delay_s)
        try:
            await self._courier.record(outcome)
        finally:
            self._close(spool, outcome, next_trunk=next_trunk)

    def _next_trunk(self, spool: Started, result: Result) -> bool:
        work = spool.job.work
        return result.trunk_failed and self._trunks.another(
            work.service, spool.job.destination, self._tried(spool)
        )

    def _close(self, spool: Started, outcome: Outcome, *, next_trunk: bool) -> None:
        self.counters.end(outcome.result)
        self._courier.announce(spool, outcome)
        self._done()
        if next_trunk and not self.draining:
            self._fail_over(spool)
        else:
            spool.job.ended(spool.job, outcome.due_at)

    def _learn(self, trunk: Trunk, result: Result) -> None:
        if trunk.report(result, trio.current_time()):
            provider_id, healthy = trunk.provider.id, trunk.healthy
            log.warning("trunk_health", provider_id=provider_id, healthy=healthy, cause=trunk.cause)
            self._bus.publish(
                ProviderHealth(
                    at=self._clock(), provider_id=provider_id, healthy=healthy, cause=trunk.cause
                )
            )
            self._wake.set()

    @staticmethod
    def _tried(spool: Started) -> frozenset[int]:
        return spool.job.exclude | {spool.trunk.provider.id}

    def _fail_over(self, spool: Started) -> None:
        """The same try goes on through the next trunk, as a spool of its own."""
        job = spool.job
        self.counters.failovers += 1
        transmission = job.candidate.transmission or Transmission(
            id=spool.begun.transmission_id,
            program_id=job.work.program_id,
            contact_id=job.candidate.contact.id,
        )
        again = Job(
            job.work,
            Candidate(contact=job.candidate.contact, transmission=transmission),
            job.destination,
            ended=job.ended,
            exclude=self._tried(spool),
            counts_try=False,
        )
        self.feed(self._failovers, [again])

    def statistics(self) -> dict[str, Any]:
        """Counters, queue lengths, trunks."""
        return {
            **self.counters.snapshot(trio.current_time()),
            "busy": self._busy,
            "draining": self.draining,
            "store_fault": self.store_fault,
            "pacer": self._pacer.statistics(),
            "trunks": self._trunks.statistics(),
        }
