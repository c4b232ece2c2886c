"""The pool of slots for calls: hands them out, grows and shrinks the number of workers.

A slot is a credit: given out by us, given back only by the worker's own word that it is free, since
a call that ended may hold its slot for seconds (a far end that never confirms our BYE).
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

from engine.config import SipConfig
from engine.errors import UnavailableError
from gateways.sip.worker import Worker, WorkerGoneError
from gateways.sip.workers import Workers, ZygoteGoneError
from native.pjsua.wire import SLOTS

log = structlog.get_logger(__name__)

HEADROOM_SHARE = 8  # keep one eighth of the used slots free beside the last worker's
SLOT_TIMEOUT_S = 10.0
MAX_WAITING = 20_000
MAX_STARTING = 8  # workers starting up at once: they compete with calls for the cores
MAX_LOOKUPS = 100  # host names workers may have asked for at once
IDLE_TIMEOUT_S = 30.0  # a worker idle this long, above workers_min, is let go
SHRINK_EVERY_S = 5.0
YOUNG_S = 2.0  # dying within this of its start means that starting fails
BACKOFF_S, BACKOFF_MAX_S = 0.1, 5.0


class _Waiting:
    __slots__ = ("event", "worker")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.worker: Worker | None = None


class Pool:
    """Slots of many workers; ``look_up`` answers a worker that asks for a host name."""

    def __init__(
        self,
        config: SipConfig,
        workers: Workers,
        look_up: Callable[[str], Awaitable[list[str]]],
    ) -> None:
        self._config = config
        self._workers = workers
        self._look_up = look_up
        self._members: set[Worker] = set()
        self._starting: set[Worker] = set()
        self._free: list[Worker] = []  # one entry a credit; the warmest worker is used first
        self._slots = 0
        self._waiting: deque[_Waiting] = deque()
        self._grow = trio.Event()
        self._ready = trio.Event()
        self._backoff_s = 0.0
        self._questions, self._asked = trio.open_memory_channel[tuple[Worker, str]](MAX_LOOKUPS)
        self._retired = 0
        self._timeouts = 0

    # slots

    def take_nowait(self) -> Worker | None:
        """A worker with one of its credits taken, None where all are out."""
        free = self._free
        while free:
            worker = free.pop()
            if not worker.retiring and not worker.gone:
                worker.free -= 1
                if len(free) < self._headroom():
                    self._grow.set()
                return worker
        self._grow.set()
        return None

    async def take(self) -> Worker:
        """As ``take_nowait``, waiting for a slot; raises ``UnavailableError`` when none comes."""
        worker = None if self._waiting else self.take_nowait()
        if worker is not None:
            return worker
        if len(self._waiting) >= MAX_WAITING:
            raise UnavailableError("no signalling slot")
        waiting = _Waiting()
        self._waiting.append(waiting)
        self._grow.set()
        try:
            with trio.move_on_after(SLOT_TIMEOUT_S):
                await waiting.event.wait()
        except BaseException:
            if waiting.worker is not None:
                self.give_back(waiting.worker)
            raise
        finally:
            if waiting.worker is None:
                self._waiting.remove(waiting)
        if waiting.worker is None:
            self._timeouts += 1
            raise UnavailableError("no signalling slot")
        return waiting.worker

    def give_back(self, worker: Worker, count: int = 1) -> None:
        """``count`` slots of ``worker`` are free: for those who wait, else on the pile."""
        worker.free += count
        if worker.free == SLOTS:
            worker.idle_since = trio.current_time()
        if worker.gone or worker.retiring:
            return
        for _ in range(count):
            if self._waiting:
                waiting = self._waiting.popleft()
                worker.free -= 1
                waiting.worker = worker
                waiting.event.set()
            else:
                self._free.append(worker)

    def _headroom(self) -> int:
        return max(SLOTS, (self._slots - len(self._free)) // HEADROOM_SHARE)

    # what workers say (gateways.sip.worker.Owner)

    def on_spoken(self, worker: Worker, words: list[Any]) -> None:
        """Credits, readiness, questions."""
        verb = words[0]
        if verb == "free":
            self.give_back(worker, words[1])
        elif verb == "ready":
            worker.ready = True
            self._starting.discard(worker)
            self._backoff_s = 0.0
            self._slots += SLOTS
            self.give_back(worker, SLOTS)
            self._ready.set()
            self._grow.set()
        elif verb == "ask":
            with contextlib.suppress(trio.WouldBlock):  # the transaction times out by itself
                self._questions.send_nowait((worker, words[1]))

    def on_gone(self, worker: Worker) -> None:
        """Forget it, with its credits; one that died young slows further starts down."""
        self._members.discard(worker)
        self._starting.discard(worker)
        if worker.ready:
            self._slots -= SLOTS
        if worker.free:
            self._free = [other for other in self._free if other is not worker]
        if not worker.retiring and trio.current_time() - worker.started_at < YOUNG_S:
            self._backoff_s = min(self._backoff_s * 2 or BACKOFF_S, BACKOFF_MAX_S)
        self._grow.set()

    # life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the pool alive until cancelled; ``started`` once the first worker is ready."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_growing)
            nursery.start_soon(self._keep_shrinking)
            nursery.start_soon(self._answer)
            await self._ready.wait()
            task_status.started()

    async def _keep_growing(self) -> None:
        while True:
            self._grow = trio.Event()
            while self._too_few():
                await trio.sleep(self._backoff_s)
                try:
                    worker = await self._workers.start(self)
                except ZygoteGoneError as error:
                    log.warning("sip.worker_start_failed", error=str(error))
                    self._backoff_s = min(self._backoff_s * 2 or BACKOFF_S, BACKOFF_MAX_S)
                    continue
                self._members.add(worker)
                self._starting.add(worker)
            await self._grow.wait()

    def _too_few(self) -> bool:
        if len(self._members) >= self._config.workers_max or len(self._starting) >= MAX_STARTING:
            return False
        coming = len(self._free) + len(self._starting) * SLOTS
        wanted = len(self._waiting) + self._headroom()
        return len(self._members) < self._config.workers_min or coming < wanted

    async def _keep_shrinking(self) -> None:
        while True:
            await trio.sleep(SHRINK_EVERY_S)
            before = trio.current_time() - IDLE_TIMEOUT_S
            spare = len(self._members) - self._config.workers_min
            room = (len(self._free) - self._headroom()) // SLOTS
            idle = [w for w in self._members if w.ready and w.idle and w.idle_since < before]
            for worker in idle[: max(0, min(spare, room))]:
                self._retired += 1
                self._workers.dismiss(worker)
                self._free = [other for other in self._free if other is not worker]

    async def _answer(self) -> None:
        async with self._asked:
            async for worker, name in self._asked:
                addresses = await self._look_up(name)
                if not worker.gone:
                    with contextlib.suppress(WorkerGoneError):
                        worker.say("name", name, addresses)

    def statistics(self) -> dict[str, Any]:
        """Workers, slots, starts and deaths."""
        return {
            "workers": len(self._members),
            "workers_starting": len(self._starting),
            "slots_free": len(self._free),
            "slots_used": self._slots - len(self._free),
            "slots_waited_for": len(self._waiting),
            "slot_timeouts": self._timeouts,
            "worker_starts": self._workers.starts,
            "worker_deaths": self._workers.deaths,
            "workers_retired": self._retired,
        }
