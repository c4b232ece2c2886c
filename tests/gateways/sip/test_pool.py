"""The pool of signalling slots with real worker processes, in virtual time.

Virtual time jumps only when nothing has happened for a moment of real time, so the processes keep
up.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from engine.config import SipConfig
from engine.errors import UnavailableError
from gateways.sip.pool import IDLE_TIMEOUT_S, SHRINK_EVERY_S, Pool
from gateways.sip.worker import Worker
from gateways.sip.workers import Workers
from native.pjsua.wire import SLOTS, WorkerConfig
from tests.support import LOCALHOST

REAL_QUIET_S = 0.5


async def _nowhere(_name: str) -> list[str]:
    return []


@asynccontextmanager
async def _pool(clock: MockClock, least: int, most: int) -> AsyncIterator[Pool]:
    clock.autojump_threshold = REAL_QUIET_S
    workers = Workers(
        WorkerConfig(
            host=LOCALHOST,
            port=0,
            public_host="",
            user_agent="test",
            transaction_timeout_s=4.0,
            ca_file="",
        )
    )
    pool = Pool(SipConfig(workers_min=least, workers_max=most), workers, _nowhere)
    async with trio.open_nursery() as nursery:
        await nursery.start(workers.run)
        await nursery.start(pool.run)
        yield pool
        nursery.cancel_scope.cancel()


async def _take(pool: Pool, count: int) -> list[Worker]:
    return [await pool.take() for _ in range(count)]


async def test_it_grows_with_the_slots_in_use_and_shrinks_when_they_are_idle(
    autojump_clock: MockClock,
) -> None:
    async with _pool(autojump_clock, 1, 6) as pool:
        taken = await _take(pool, 3 * SLOTS)
        assert len({worker.pid for worker in taken}) == 3
        assert pool.statistics()["workers"] >= 3
        for worker in taken:
            pool.give_back(worker)
        await trio.sleep(IDLE_TIMEOUT_S + 2 * SHRINK_EVERY_S)
        # One headroom's worth of slots stays beside the least that was asked for.
        assert pool.statistics()["workers"] <= 2
        assert pool.statistics()["workers_retired"] >= 1
        assert pool.statistics()["worker_deaths"] == 0
        again = await _take(pool, SLOTS)
        assert all(not worker.gone for worker in again)


async def test_all_slots_out_makes_the_next_one_wait_and_then_say_so(
    autojump_clock: MockClock,
) -> None:
    async with _pool(autojump_clock, 1, 2) as pool:
        taken = await _take(pool, 2 * SLOTS)
        with pytest.raises(UnavailableError):
            await pool.take()
        assert pool.statistics()["slot_timeouts"] == 1
        assert pool.statistics()["slots_waited_for"] == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_take, pool, 1)
            await trio.testing.wait_all_tasks_blocked()
            assert pool.statistics()["slots_waited_for"] == 1
            pool.give_back(taken.pop())
        assert pool.statistics()["slot_timeouts"] == 1


async def test_a_cancelled_wait_leaves_no_place_in_the_queue(autojump_clock: MockClock) -> None:
    async with _pool(autojump_clock, 1, 1) as pool:
        await _take(pool, SLOTS)
        with trio.move_on_after(1):
            await pool.take()
        assert pool.statistics()["slots_waited_for"] == 0
        assert pool.statistics()["slot_timeouts"] == 0


async def test_a_worker_that_dies_is_replaced_and_its_slots_are_not_handed_out(
    autojump_clock: MockClock,
) -> None:
    async with _pool(autojump_clock, 1, 2) as pool:
        (worker,) = await _take(pool, 1)
        os.kill(worker.pid, signal.SIGKILL)
        await trio.sleep(5)  # virtual: until nothing happens any more
        assert pool.statistics()["worker_deaths"] == 1
        taken = await _take(pool, SLOTS)
        assert worker.pid not in {other.pid for other in taken}
