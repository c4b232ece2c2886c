"""All worker processes of a node: started through the zygote, read by one task, seen dying."""

from __future__ import annotations

import contextlib
import select
import socket

import structlog
import trio

from gateways.sip.session import Why
from gateways.sip.worker import Owner, Worker, WorkerGoneError
from gateways.sip.zygote import Zygote, ZygoteGoneError, open_zygote
from native.pjsua.wire import WorkerConfig

log = structlog.get_logger(__name__)

BACKOFF_S, BACKOFF_MAX_S = 0.1, 5.0
GOODBYE_MARGIN_S = 1.0


class Workers:
    """The streams of all workers behind one epoll: what came meanwhile is read in one go."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._streams: dict[int, Worker] = {}
        self._indexes: set[int] = set()
        self._zygote: Zygote | None = None
        self._zygote_ready = trio.Event()
        self._poll = select.epoll()
        self._stopping = False
        self.starts = 0
        self.deaths = 0
        self.zygotes = 0

    def __len__(self) -> int:
        return len(self._streams)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then have all workers say goodbye to the far ends."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_zygote)
                nursery.start_soon(self._read)
                task_status.started()
        finally:
            await self._goodbye()
            self._poll.close()

    async def start(self, owner: Owner) -> Worker:
        """A new worker; it says ``ready`` to ``owner`` when it can be used.

        Waits while there is no zygote; raises ``ZygoteGoneError`` where it dies meanwhile.
        """
        while self._zygote is None:
            await self._zygote_ready.wait()
        index = next(
            number for number in range(len(self._indexes) + 1) if number not in self._indexes
        )
        self._indexes.add(index)
        try:
            stream, pid = await self._zygote.fork(
                self._config.port + index if self._config.port else 0
            )
        except BaseException:
            self._indexes.discard(index)
            raise
        worker = Worker(stream, pid, index, owner, self._want_write)
        worker.started_at = trio.current_time()
        self.starts += 1
        self._streams[stream.fileno()] = worker
        self._poll.register(stream.fileno(), select.EPOLLIN)
        if self._stopping:
            self.dismiss(worker)
        return worker

    def dismiss(self, worker: Worker) -> None:
        """Have ``worker`` end its calls, if any, and exit; its end is seen later."""
        worker.retiring = True
        if not worker.gone:
            try:
                worker.stream.shutdown(socket.SHUT_WR)
            except OSError:
                return  # it has just died: end-of-file is on its way

    def _want_write(self, worker: Worker) -> None:
        if not worker.gone:
            self._poll.modify(worker.stream.fileno(), select.EPOLLIN | select.EPOLLOUT)

    async def _keep_zygote(self) -> None:
        """Run zygotes, one after another; workers outlive theirs."""
        backoff_s = BACKOFF_S
        while True:
            began = trio.current_time()
            async with open_zygote(self._config) as zygote:
                self.zygotes += 1
                self._zygote = zygote
                self._zygote_ready.set()
                try:
                    await zygote.wait_gone()
                finally:
                    self._zygote, self._zygote_ready = None, trio.Event()
                    await self._goodbye_if_stopped()
            log.error("sip.zygote_died", retry_s=backoff_s)
            if trio.current_time() - began > BACKOFF_MAX_S:
                backoff_s = BACKOFF_S
            await trio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    async def _goodbye_if_stopped(self) -> None:
        """The zygote waits for its workers, so they are dismissed before it is left."""
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            await self._goodbye()
            raise

    async def _goodbye(self) -> None:
        self._stopping = True
        for worker in tuple(self._streams.values()):
            worker.lose(Why.SHUTDOWN)
            self.dismiss(worker)
        with trio.CancelScope(shield=True):
            with trio.move_on_after(self._config.goodbye_s + GOODBYE_MARGIN_S):
                while self._streams:
                    await trio.lowlevel.wait_readable(self._poll.fileno())
                    self._read_ready()
        for worker in tuple(self._streams.values()):
            log.error("sip.worker_stays", pid=worker.pid)
            self._bury(worker)

    async def _read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._poll.fileno())
            self._read_ready()

    def _read_ready(self) -> None:
        for descriptor, events in self._poll.poll(0):
            worker = self._streams.get(descriptor)
            if worker is None:
                continue
            if events & select.EPOLLOUT:
                self._write(worker)
            if events & ~select.EPOLLOUT and not worker.receive():
                self._bury(worker)

    def _write(self, worker: Worker) -> None:
        self._poll.modify(worker.stream.fileno(), select.EPOLLIN)
        with contextlib.suppress(WorkerGoneError):  # end-of-file follows
            worker.flush()

    def _bury(self, worker: Worker) -> None:
        """Its stream has ended: its calls will never be heard of again."""
        descriptor = worker.stream.fileno()
        self._poll.unregister(descriptor)
        del self._streams[descriptor]
        self._indexes.discard(worker.index)
        worker.gone = True
        worker.stream.close()
        if not worker.retiring:
            self.deaths += 1
            log.error("sip.worker_died", pid=worker.pid, calls=len(worker.calls))
        worker.lose(Why.WORKER_DIED)
        worker.owner.on_gone(worker)


__all__ = ["Workers", "ZygoteGoneError"]
