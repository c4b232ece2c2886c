"""The asyncio thread: one event loop beside Trio, and the ways across.

``run`` and ``call`` go from Trio to it, ``ask`` comes back. The thread starts with the first use
(a node without mail has none) and ends with ``serve``. Neither side hangs on the other's end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

import structlog
import trio

T = TypeVar("T")

CANCEL_S = 2.0
"""How long a cancelled coroutine may take to end before its Trio side stops waiting for it."""

JOIN_S = 5.0
"""How long the thread may take to end."""

log = structlog.get_logger("smtp")


class LoopEndedError(Exception):
    """The asyncio thread or the Trio run ended before this could be done."""


class _Errand(Generic[T]):
    """A coroutine that Trio waits for; exactly one end is told."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self.over = trio.Event()
        self.task: asyncio.Task[T] | None = None
        self._token = token
        self._value: T | None = None
        self._error: BaseException | None = None
        self._told = False

    def finish(self, task: asyncio.Task[T]) -> None:
        """Take what the task came to."""
        if task.cancelled():
            self.fail(LoopEndedError("cancelled with its loop"))
        elif (error := task.exception()) is not None:
            self.fail(error)
        else:
            self._tell(task.result(), None)

    def fail(self, error: BaseException) -> None:
        """It came to nothing, unless it has its end already."""
        self._tell(None, error)

    def _tell(self, value: T | None, error: BaseException | None) -> None:
        if not self._told:
            self._told, self._value, self._error = True, value, error
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self.over.set)

    def outcome(self) -> T:
        """What ``over`` was set for."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class Loop:
    """One daemon thread with an event loop; ``serve`` owns it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._ended = False
        self._over = trio.Event()
        self._errands: set[_Errand[Any]] = set()
        self._asked = 0
        self._errors = 0

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the thread and the Trio tasks of ``ask``; cancel it to end both."""
        self._token = trio.lowlevel.current_trio_token()
        self._loop = self._thread = None
        self._ended, self._over = False, trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            with trio.CancelScope(shield=True):
                await self._end()

    async def _end(self) -> None:
        with self._lock:
            self._ended = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.stop)
        with trio.move_on_after(JOIN_S):
            await self._over.wait()
        if self._over.is_set():
            thread.join(JOIN_S)  # it told its end with its last step
        else:
            log.error("smtp.loop_stuck", seconds=JOIN_S)

    def statistics(self) -> dict[str, Any]:
        """Whether the thread runs, what Trio waits for, what it is asked, errors nobody caught."""
        thread = self._thread
        return {
            "running": thread is not None and thread.is_alive(),
            "errands": len(self._errands),
            "asked": self._asked,
            "errors": self._errors,
        }

    # --- to the loop

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Have ``function`` called there soon, from any thread; ``LoopEndedError``."""
        try:
            self._started().call_soon_threadsafe(function, *args)
        except RuntimeError as error:
            raise LoopEndedError("the loop is closed") from error

    async def run(self, job: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await a coroutine there and return its value or raise what it raised.

        Cancelled: its task is cancelled, and its end awaited (``CANCEL_S`` at most).
        ``LoopEndedError``: it was not done, or was cancelled with the loop.
        """
        errand: _Errand[T] = _Errand(trio.lowlevel.current_trio_token())
        self._errands.add(errand)
        try:
            self.call(self._begin, errand, job)
            await self._wait(errand)
        finally:
            self._errands.discard(errand)
        return errand.outcome()

    def _begin(self, errand: _Errand[T], job: Callable[[], Coroutine[Any, Any, T]]) -> None:
        try:
            errand.task = asyncio.get_running_loop().create_task(job())
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            errand.fail(error)
        else:
            errand.task.add_done_callback(errand.finish)

    async def _wait(self, errand: _Errand[Any]) -> None:
        try:
            await errand.over.wait()
        except trio.Cancelled:
            with suppress(LoopEndedError):
                self.call(_cancel, errand)
                with trio.move_on_after(CANCEL_S, shield=True):
                    await errand.over.wait()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._ended or self._token is None:
                raise LoopEndedError("the loop is not served")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop.set_debug(False)
                self._loop.set_exception_handler(self._on_error)
                self._thread = threading.Thread(
                    target=self._main,
                    args=(self._loop, self._token),
                    name="smtp-asyncio",
                    daemon=True,
                )
                self._thread.start()
            return self._loop

    def _main(self, loop: asyncio.AbstractEventLoop, token: trio.lowlevel.TrioToken) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(_wind_up())
        finally:
            loop.close()
            self._tell_end(token)

    def _tell_end(self, token: trio.lowlevel.TrioToken) -> None:
        for errand in list(self._errands):
            errand.fail(LoopEndedError("the loop ended"))
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(self._over.set)

    def _on_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._errors += 1
        log.error(
            "smtp.loop_error", message=context.get("message"), exc_info=context.get("exception")
        )

    # --- from the loop

    def ask(self, job: Callable[[], Awaitable[T]], deadline_s: float) -> asyncio.Future[T]:
        """``await job()`` as a Trio task; abandoning the future cancels it. asyncio side.

        The future raises what ``job`` raised, ``TimeoutError`` after ``deadline_s``, or
        ``LoopEndedError`` where Trio's run or its ``serve`` is over.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        question = _Question(loop, future, job, deadline_s)
        self._asked += 1
        future.add_done_callback(self._answered)
        token = self._token
        try:
            if token is None:
                raise trio.RunFinishedError  # noqa: TRY301 - the same to whoever asks
            token.run_sync_soon(self._spawn, question)
        except trio.RunFinishedError:
            future.set_exception(LoopEndedError("Trio's run is over"))
        else:
            future.add_done_callback(lambda _: _abandon(token, question))
        return future

    def _answered(self, _future: asyncio.Future[Any]) -> None:
        self._asked -= 1

    def _spawn(self, question: _Question[Any]) -> None:
        nursery = self._nursery
        if nursery is None or nursery.cancel_scope.cancel_called:
            question.tell(error=LoopEndedError("the loop is not served"))
        else:
            nursery.start_soon(question.run)


class _Question(Generic[T]):
    """A Trio task that a future of the loop waits for."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[T],
        job: Callable[[], Awaitable[T]],
        deadline_s: float,
    ) -> None:
        self.scope: trio.CancelScope | None = None
        self.abandoned = False
        self._loop, self._future, self._job, self._deadline_s = loop, future, job, deadline_s

    async def run(self) -> None:
        """The Trio task; whatever becomes of the job, the future is told."""
        error: BaseException = LoopEndedError("cancelled with its Trio side")
        value: Any = None
        done = False
        try:
            with trio.move_on_after(self._deadline_s) as self.scope:
                if self.abandoned:
                    self.scope.cancel()
                value, done = await self._job(), True
            error = TimeoutError(f"no answer in {self._deadline_s:g} s")
        except Exception as raised:  # noqa: BLE001 - told to whoever waits
            error = raised
        finally:
            self.tell(value, None if done else error)

    def tell(self, value: Any = None, error: BaseException | None = None) -> None:
        """Give the future its end, from Trio's thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._settle, value, error)

    def _settle(self, value: Any, error: BaseException | None) -> None:
        if self._future.done():
            return
        if error is None:
            self._future.set_result(value)
        else:
            self._future.set_exception(error)

    def abandon(self) -> None:
        """Nobody waits any more."""
        self.abandoned = True
        if self.scope is not None:
            self.scope.cancel()


def _abandon(token: trio.lowlevel.TrioToken, question: _Question[Any]) -> None:
    with suppress(trio.RunFinishedError):
        token.run_sync_soon(question.abandon)


def _cancel(errand: _Errand[Any]) -> None:
    if errand.task is not None:
        errand.task.cancel()


async def _wind_up() -> None:
    """Cancel what still runs and let it end; what does not is left to the thread's end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CANCEL_S)
    await asyncio.get_running_loop().shutdown_asyncgens()
