"""The asyncio thread beside Trio: ways across, cancellation, and either side's end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from gateways.smtp.loop import Loop, LoopEndedError


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "smtp-asyncio"]


@asynccontextmanager
async def served() -> AsyncIterator[Loop]:
    loop = Loop()
    async with trio.open_nursery() as nursery:
        await nursery.start(loop.serve)
        yield loop
        nursery.cancel_scope.cancel()
    assert threads() == []


async def test_a_loop_that_nobody_uses_starts_no_thread() -> None:
    async with served() as loop:
        assert threads() == []
        assert loop.statistics()["running"] is False


async def test_run_returns_the_value_from_the_other_thread() -> None:
    async def job() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    async with served() as loop:
        assert await loop.run(job) == "smtp-asyncio"
        assert loop.statistics() == {"running": True, "errands": 0, "asked": 0, "errors": 0}


async def test_run_raises_what_the_job_raised() -> None:
    async def job() -> None:
        raise KeyError("there")

    async with served() as loop:
        with pytest.raises(KeyError, match="there"):
            await loop.run(job)


async def test_a_job_that_is_no_coroutine_is_told() -> None:
    def job() -> Any:
        raise OSError("not even made")

    async with served() as loop:
        with pytest.raises(OSError, match="not even made"):
            await loop.run(job)


async def test_cancelling_run_cancels_the_task_and_waits_for_its_end() -> None:
    started, ends = trio.Event(), []

    async with served() as loop:
        token = trio.lowlevel.current_trio_token()

        async def job() -> None:
            token.run_sync_soon(started.set)
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                ends.append("cleaned up")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.run, job)
            await started.wait()
            nursery.cancel_scope.cancel()
        assert ends == ["cleaned up"]
        assert loop.statistics()["errands"] == 0


async def test_the_end_of_the_loop_ends_what_runs_there() -> None:
    loop, started = Loop(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    raised: list[str] = []

    async def job() -> None:
        token.run_sync_soon(started.set)
        await asyncio.Event().wait()

    async def errand() -> None:
        try:
            await loop.run(job)
        except LoopEndedError as error:
            raised.append(str(error))

    async with trio.open_nursery() as outer:
        scope = await outer.start(_serve_in_scope, loop)
        outer.start_soon(errand)
        await started.wait()
        scope.cancel()
    assert raised == ["cancelled with its loop"]
    assert threads() == []


async def _serve_in_scope(
    loop: Loop, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(loop.serve)
            task_status.started(scope)


async def test_after_the_end_nothing_hangs() -> None:
    async with served() as loop:
        await loop.run(lambda: asyncio.sleep(0))
    with pytest.raises(LoopEndedError):
        loop.call(print)
    with pytest.raises(LoopEndedError):
        await loop.run(lambda: asyncio.sleep(0))


async def test_an_error_nobody_caught_is_counted_and_the_loop_goes_on() -> None:
    def bad() -> None:
        raise ZeroDivisionError

    async with served() as loop:
        loop.call(bad)
        await loop.run(lambda: asyncio.sleep(0))
        assert loop.statistics()["errors"] == 1


async def test_ask_runs_in_trio_and_gives_the_value() -> None:
    async def answer() -> str:
        await trio.lowlevel.checkpoint()
        return threading.current_thread().name

    async with served() as loop:

        async def job() -> str:
            return await loop.ask(answer, 5)

        assert await loop.run(job) == threading.current_thread().name
        assert loop.statistics()["asked"] == 0


async def test_ask_raises_what_trio_raised_and_its_deadline() -> None:
    async def bad() -> None:
        raise KeyError("here")

    async with served() as loop:

        async def first() -> None:
            await loop.ask(bad, 5)

        async def second() -> None:
            await loop.ask(trio.sleep_forever, 0.01)

        with pytest.raises(KeyError, match="here"):
            await loop.run(first)
        with pytest.raises(TimeoutError, match=r"0\.01 s"):
            await loop.run(second)


async def test_abandoning_the_future_cancels_the_trio_task() -> None:
    started, cancelled = trio.Event(), trio.Event()

    async def answer() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with served() as loop:

        async def job() -> None:
            await loop.ask(answer, 60)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.run, job)
            await started.wait()
            nursery.cancel_scope.cancel()
        await cancelled.wait()


async def test_the_end_of_serve_answers_what_is_asked() -> None:
    loop, asked = Loop(), trio.Event()
    seen: list[BaseException] = []

    async def answer() -> None:
        asked.set()
        await trio.sleep_forever()

    async def job() -> None:
        try:
            await loop.ask(answer, 60)
        except LoopEndedError as error:
            seen.append(error)

    async def errand() -> None:
        await loop.run(job)

    async with trio.open_nursery() as outer:
        scope = await outer.start(_serve_in_scope, loop)
        outer.start_soon(errand)
        await asked.wait()
        scope.cancel()
    assert len(seen) == 1


def test_trio_being_over_hangs_nothing() -> None:
    """A run that ends around the loop (a crash) leaves a daemon thread that still answers."""
    loop = Loop()
    futures: list[BaseException] = []
    told = threading.Event()

    async def main() -> None:
        loop._token = trio.lowlevel.current_trio_token()  # as ``serve`` does, without its end
        await loop.run(lambda: asyncio.sleep(0))

    async def late() -> None:
        try:
            await loop.ask(trio.sleep_forever, 60)
        except LoopEndedError as error:
            futures.append(error)
        told.set()

    tasks = []
    trio.run(main)
    loop.call(lambda: tasks.append(asyncio.ensure_future(late())))
    assert told.wait(10)
    assert [str(one) for one in futures] == ["Trio's run is over"]
    assert loop._loop is not None
    assert loop._thread is not None
    loop.call(loop._loop.stop)
    loop._thread.join(10)
    assert threads() == []
