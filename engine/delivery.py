"""One spool from its durable intent to its durable result; the dispatcher owns the tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import msgspec
import structlog
import trio

from engine import recovery, retry, states
from engine.bus import Bus
from engine.clock import Clock
from engine.config import Config
from engine.errors import UnavailableError
from engine.events import SpoolChanged, of_outcome
from engine.gateway import Gateway, Order, Stage
from engine.model import Service, SpoolStatus, TransmissionStatus
from engine.results import Awaiting, Blame, Disposition, Fate, Reached, Result, node_failure
from engine.routing import Route
from engine.store.base import Begun, Outcome, Store
from engine.trunks import Trunk
from engine.work import Job

log = structlog.get_logger("delivery")

STORE_RETRY_S = 1.0
"""How often a store that refused a write is tried again."""

GATEWAY_GRACE_S = 60.0
"""Beyond ring time-out and call limit a gateway that has not answered is broken."""

MESSAGE_LIMIT_S = 3600.0
"""What a message has at least: ``dial.call_limit_s`` is how long people may talk."""

WATCH_S = 0.5
"""How often the spools that are up are looked through."""

JOURNALLED = Service.SMS | Service.EMAIL
"""Their gateways keep a journal and are asked for what was cut short (``Gateway.recall``)."""

TAKEN = Result(
    disposition=Disposition.ANSWERED, cause="accepted", blame=Blame.NOBODY, reached=Reached.NETWORK
)
"""What a trunk is credited with that took a message."""


Write = Callable[[], Awaitable[None]]


class Started(msgspec.Struct, frozen=True):
    """A spool whose intent is durable."""

    job: Job
    trunk: Trunk
    route: Route
    begun: Begun
    uid: UUID


def cancelled() -> Result:
    """The result of a spool that we gave up ourselves; how far it had got is not known."""
    return Result(
        disposition=Disposition.CANCELLED,
        cause="cancelled",
        blame=Blame.NODE,
        reached=Reached.PERSON,
    )


class Courier:
    """Hands orders to gateways and records what became of them."""

    def __init__(
        self,
        *,
        config: Config,
        store: Store,
        gateways: Mapping[str, Gateway],
        bus: Bus,
        clock: Clock,
        unwanted: recovery.Unwanted,
    ) -> None:
        self._config = config
        self._store = store
        self._unwanted = unwanted
        self._gateways = gateways
        self._bus = bus
        self._clock = clock
        self._scopes: dict[int, tuple[float, trio.CancelScope]] = {}
        self._connected: dict[int, datetime] = {}  # not written down yet
        self._held: set[int] = set()  # spools from their intent to their result
        self.closing = False  # shutting down: a store that refuses is not waited for

    async def deliver(self, spool: Started) -> Fate:
        """What the gateway says; what goes wrong there, or in the order, counts against us."""
        try:
            order = self._order(spool)
        except Exception:
            log.exception("order_error", spool_id=spool.begun.spool_id)
            return node_failure("order_error")
        progress = partial(self._progress, spool)
        with self._watched(order) as scope:
            try:
                return await self._gateways[order.provider.type].deliver(order, progress)
            except Exception:
                log.exception("gateway_error", spool_id=order.spool_id)
                return node_failure("gateway_error", Reached.PERSON)
            finally:
                del self._scopes[order.spool_id]
                self._connected.pop(order.spool_id, None)
        assert scope.cancelled_caught  # noqa: S101 - the only other way out of the block
        log.error("gateway_stuck", spool_id=order.spool_id)
        return node_failure("gateway_stuck", Reached.PERSON)

    def _watched(self, order: Order) -> trio.CancelScope:
        """A scope that ``watch`` cancels when the gateway is overdue.

        A deadline of its own in every scope costs a quarter of a short spool; gateways keep the
        exact times, this one is only for broken gateways.
        """
        scope = trio.CancelScope()
        overdue_at = trio.current_time() + order.ring_timeout_s + order.call_limit_s
        self._scopes[order.spool_id] = (overdue_at + GATEWAY_GRACE_S, scope)
        return scope

    async def watch(self) -> None:
        """Until cancelled: show what is connected, cancel what its gateway answers no more.

        Only spools connected for a while are written down as such; for a call that is over within a
        moment it would be a third write that nobody sees.
        """
        while True:
            await trio.sleep(WATCH_S)
            for spool_id, at in self._connected.items():
                self._store.connected(spool_id, at)
            self._connected.clear()
            now = trio.current_time()
            for overdue_at, scope in self._scopes.values():
                if overdue_at <= now:
                    scope.cancel()

    def _order(self, spool: Started) -> Order:
        work, dial = spool.job.work, self._config.dial
        limit_s = dial.call_limit_s
        if work.service & JOURNALLED:
            limit_s = max(limit_s, MESSAGE_LIMIT_S)
        return Order(
            spool_id=spool.begun.spool_id,
            uid=spool.uid,
            service=work.service,
            provider=spool.route.provider,
            destination=spool.route.number,
            program=work.program_for(spool.job.candidate, spool.begun),
            caller_id=work.caller_id,
            caller_name=work.caller_name,
            ring_timeout_s=dial.ring_timeout_s,
            call_limit_s=limit_s,
            media_timeout_s=dial.media_timeout_s,
            transmission_id=spool.begun.transmission_id,
            owner_id=work.owner_id,
        )

    def _progress(self, spool: Started, stage: Stage, at: datetime) -> None:
        if stage is Stage.CONNECTED:
            self._connected[spool.begun.spool_id] = at
        if self._bus.listening:
            status = SpoolStatus.CONNECTED if stage is Stage.CONNECTED else SpoolStatus.INITIATED
            self._bus.publish(self._changed(spool, status, at, stage.value))

    def _changed(
        self, spool: Started, status: SpoolStatus, at: datetime, stage: str = ""
    ) -> SpoolChanged:
        return SpoolChanged(
            at=at,
            spool_id=spool.begun.spool_id,
            transmission_id=spool.begun.transmission_id,
            campaign_id=spool.job.work.campaign_id,
            status=status,
            stage=stage,
        )

    def holds(self, spool_id: int) -> bool:
        """Whether a job has the spool in its hands: its result will come."""
        return spool_id in self._held

    def begun(self, spool: Started, at: datetime) -> None:
        """A spool exists: hold it, tell who listens."""
        self._held.add(spool.begun.spool_id)
        if self._bus.listening:
            self._bus.publish(self._changed(spool, SpoolStatus.INITIATED, at))

    async def sober(self, spool: Started, result: Result) -> tuple[Result, float | None]:
        """The result as it holds, and in how many seconds the same try goes on (None: it does not).

        It does not where nobody would bring it, or where that led nowhere too often.
        """
        try:
            if spool.job.work.try_allowed:
                with trio.CancelScope(shield=True):  # its result is still to be recorded
                    key = spool.begun.transmission_id
                    return await recovery.bounded(self._store, key, result)
        except UnavailableError as error:
            log.warning("goes_on_no_more", spool_id=spool.begun.spool_id, cause=str(error))
        return recovery.given_up(msgspec.structs.replace(result, again=False)), None

    def plan(self, spool: Started, result: Result, *, delay_s: float | None = None) -> Outcome:
        """What follows from a result: done, another try, or failed for good.

        ``delay_s``: the same try goes on then, through the next trunk, once more or put off.
        """
        now = self._clock()
        if delay_s is None:
            due_at = self._retry_at(spool, result, now)
        else:
            due_at = now + timedelta(seconds=delay_s)
        if result.succeeded:
            event = states.Event.SUCCEED
        else:
            event = states.Event.RETRY if due_at else states.Event.FAIL
        return Outcome(
            spool_id=spool.begun.spool_id,
            transmission_id=spool.begun.transmission_id,
            campaign_id=spool.job.work.campaign_id,
            result=result,
            transmission_status=states.advance(TransmissionStatus.PROCESSING, event),
            due_at=due_at,
            at=now,
        )

    def _retry_at(self, spool: Started, result: Result, now: datetime) -> datetime | None:
        return retry.decide(
            spool.job.retry_policy,
            try_done=spool.begun.try_done,
            try_allowed=spool.job.work.try_allowed,
            result=result,
            now=now,
        )

    def record(self, outcome: Outcome) -> Awaitable[None]:
        """Make the outcome durable, even when cancelled and however long the store refuses.

        What could not be recorded before the node closed is found as interrupted at its next start.
        """
        write = partial(self._store.finish_spool, outcome)
        if outcome.result.suppress:
            write = partial(recovery.finish, self._store, self._unwanted, [outcome])
        return self._written(outcome.spool_id, write)

    def leave(self, spool: Started, fate: Awaiting) -> Awaitable[None]:
        """The same for a spool that is left to wait for its report."""
        key = spool.begun.spool_id
        return self._written(key, partial(self._store.await_report, key, fate, self._clock()))

    async def _written(self, spool_id: int, write: Write) -> None:
        try:
            await self._insist(spool_id, write)
        except trio.Cancelled:
            # Who gets Cancelled from the store knows that nothing was written. The shield is only
            # put up here: in every spool it would cost more than the rest of its end.
            with trio.CancelScope(shield=True):
                await self._insist(spool_id, write)
            raise

    async def _insist(self, spool_id: int, write: Write) -> None:
        while True:
            try:
                await write()
            except UnavailableError as error:
                log.warning("result_waits", spool_id=spool_id, cause=str(error))
                if self.closing:
                    return
                await trio.sleep(STORE_RETRY_S)
            else:
                return

    def left(self, spool: Started, fate: Awaiting) -> None:
        """Let go of it and tell who listens that it was handed over."""
        self._held.discard(spool.begun.spool_id)
        if self._bus.listening and fate.accepted_at is not None:
            at, status = fate.accepted_at, SpoolStatus.CONNECTED
            self._bus.publish(self._changed(spool, status, at, status.value))

    def let_go(self, spool: Started) -> None:
        """Leave it as it is: its gateway tells at the next start what became of it."""
        self._held.discard(spool.begun.spool_id)

    def announce(self, spool: Started, outcome: Outcome) -> None:
        """Let go of it and tell who listens how it ended."""
        self._held.discard(spool.begun.spool_id)
        if self._bus.listening:
            for event in of_outcome(outcome):
                self._bus.publish(event)
