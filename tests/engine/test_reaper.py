"""Nothing stays in process for ever, and nothing that somebody works on is touched."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trio
import trio.testing

from engine import recovery
from engine.app import Engine
from engine.bus import Subscription
from engine.config import Config, DialConfig, ReaperConfig, RetryConfig
from engine.events import SpoolChanged, TransmissionEnded
from engine.gateway import Order, Progress
from engine.model import (
    Campaign,
    Contact,
    Spool,
    SpoolStatus,
    Transmission,
    TransmissionStatus,
)
from engine.results import Fate
from engine.store import open_store
from engine.store.base import Store
from gateways.loopback.gateway import LoopbackGateway
from tests.support import wait_until
from tests.support.engine import DEADLINE_S, add_campaign, add_program, add_provider, config_in

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DIAL = DialConfig(ring_timeout_s=5, call_limit_s=10)
REAPER = ReaperConfig(interval_s=5, grace_s=1)
AGE = timedelta(seconds=16)
PROCESSING = TransmissionStatus.PROCESSING


def calendar(clock: trio.testing.MockClock) -> Callable[[], datetime]:
    """The calendar, running with the virtual clock."""
    # The store works in real threads: jump only when nothing has happened for a while.
    clock.autojump_threshold = 0.02
    return lambda: START + timedelta(seconds=clock.current_time())


class HeldGateway(LoopbackGateway):
    """Every call lasts until it is released, whatever limit it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.released = trio.Event()

    async def deliver(self, order: Order, progress: Progress) -> Fate:
        await self.released.wait()
        return await super().deliver(order, progress)


@asynccontextmanager
async def running(
    config: Config, wall: Callable[[], datetime], gateway: LoopbackGateway | None = None
) -> AsyncIterator[Engine]:
    """An engine whose calendar is virtual."""
    async with open_store(config, clock=wall) as store, trio.open_nursery() as nursery:
        gateways = {"loopback": gateway or LoopbackGateway()}
        engine = Engine(config=config, store=store, gateways=gateways, clock=wall)
        await nursery.start(engine.run)
        try:
            yield engine
        finally:
            engine.stop()


def _config(tmp_path: Path, **sections: Any) -> Config:
    return config_in(tmp_path, **({"dial": DIAL, "reaper": REAPER} | sections))


async def _stuck(
    store: Store, since: datetime, *, spool: bool, **fields: Any
) -> tuple[Transmission, Spool | None]:
    """A transmission in process that no job knows of."""
    contact = await store.insert(Contact(phone="4930"))
    if "program_id" not in fields:
        fields["program_id"] = (await add_program(store)).id
    row = await store.insert(
        Transmission(
            contact_id=contact.id, status=PROCESSING, try_done=1, try_allowed=3, last_run=since,
            **fields,
        )
    )  # fmt: skip
    if not spool:
        return row, None
    campaign_id = row.campaign_id
    return row, await store.insert(
        Spool(transmission_id=row.id, campaign_id=campaign_id, spooled_at=since)
    )


async def _ended(events: Subscription, *rows: Transmission) -> list[TransmissionEnded]:
    missing, found = {row.id for row in rows}, []
    with trio.fail_after(10 * DEADLINE_S):
        while missing:
            event = await events.get()
            if isinstance(event, TransmissionEnded) and event.transmission_id in missing:
                missing.discard(event.transmission_id)
                found.append(event)
    return found


async def _now(store: Store, row: Transmission) -> Transmission:
    found = await store.get(Transmission, row.id)
    assert found is not None
    return found


async def test_what_nobody_works_on_is_closed_with_its_reason(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wall = calendar(autojump_clock)
    async with running(_config(tmp_path), wall) as engine:
        with engine.bus.subscribe() as events:
            carried, spool = await _stuck(engine.store, wall() - HOUR, spool=True)
            bare, _ = await _stuck(engine.store, wall() - HOUR, spool=False)
            ends = await _ended(events, carried, bare)
        assert {(end.status, end.response) for end in ends} == {
            (TransmissionStatus.FAILED, "stuck")
        }
        for row in (carried, bare):
            after = await _now(engine.store, row)
            # It may have reached a person: not redialled although tries are left.
            assert (after.status, after.response) == (TransmissionStatus.FAILED, "stuck")
            assert (after.due_at, after.try_done) == (None, 1)
        assert spool is not None
        closed = await engine.store.get(Spool, spool.id)
        assert closed is not None
        assert (closed.status, closed.response) == (SpoolStatus.FAILED, "stuck")
        assert closed.disposition == "failed"
        assert closed.ended_at is not None
        reaper = engine.statistics()["reaper"]
        assert (reaper["spools"], reaper["transmissions"]) == (1, 1)
        assert (await engine.store.counts(None))["transmission_active"] == 0


async def test_it_is_closed_when_it_is_older_than_any_call_may_be(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wall = calendar(autojump_clock)
    async with running(_config(tmp_path), wall) as engine:
        with engine.bus.subscribe() as events:
            since = wall()
            rows = [(await _stuck(engine.store, since, spool=spool))[0] for spool in (True, False)]
            ends = await _ended(events, *rows)
        for end in ends:
            assert AGE <= end.at - since <= AGE + timedelta(seconds=2 * REAPER.interval_s)


async def test_a_call_that_its_job_holds_is_not_touched_however_long_it_lasts(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wall = calendar(autojump_clock)
    gateway = HeldGateway()
    async with running(_config(tmp_path), wall, gateway) as engine:
        await add_provider(engine)
        contact = await engine.store.insert(Contact(phone="4930"))
        program = await add_program(engine.store)
        call = await engine.store.insert(Transmission(program_id=program.id, contact_id=contact.id))
        with engine.bus.subscribe() as events:
            spool_id = await engine.send(call.id)
            # Younger than the call: when this one is old enough to be closed, the call is too.
            later, _ = await _stuck(engine.store, wall(), spool=True)
            await _ended(events, later)
            spool = await engine.store.get(Spool, spool_id)
            assert spool is not None
            assert (spool.status, spool.response) == (SpoolStatus.INITIATED, "")
            assert wall() - spool.spooled_at > AGE
            assert (await _now(engine.store, call)).status is PROCESSING
            gateway.released.set()
            [end] = await _ended(events, call)
        assert (end.status, end.response) == (TransmissionStatus.COMPLETED, "answered")
        assert engine.statistics()["reaper"]["spools"] == 1


async def test_where_the_policy_says_so_it_is_tried_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wall = calendar(autojump_clock)
    config = _config(tmp_path, retry=RetryConfig(interrupted=True, interrupted_delay_s=7))
    async with running(config, wall) as engine:
        await add_provider(engine)
        with engine.bus.subscribe() as events:
            rows = [
                (await _stuck(engine.store, wall() - HOUR, spool=spool))[0]
                for spool in (True, False)
            ]
            ends = await _ended(events, *rows)
        assert {end.status for end in ends} == {TransmissionStatus.COMPLETED}
        for row in rows:
            assert (await _now(engine.store, row)).try_done == 2


async def test_a_campaign_takes_up_what_was_reaped_of_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wall = calendar(autojump_clock)
    gateway = HeldGateway()
    config = _config(tmp_path, retry=RetryConfig(interrupted=True, interrupted_delay_s=9000))
    async with running(config, wall, gateway) as engine:
        await add_provider(engine)
        campaign = await add_campaign(engine, 1, try_allowed=3, retry_delays={"failed": 3})
        with engine.bus.subscribe() as events:
            await engine.start_campaign(campaign.id)
            row, _ = await _stuck(
                engine.store, wall() - HOUR, spool=True, campaign_id=campaign.id,
                program_id=campaign.program_id,
            )  # fmt: skip
            with trio.fail_after(DEADLINE_S):
                while getattr(await events.get(), "response", "") != "stuck":
                    pass
            gateway.released.set()
            [end] = await _ended(events, row)
        assert end.status is TransmissionStatus.COMPLETED


async def test_a_store_that_refuses_is_asked_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wall = calendar(autojump_clock)
    async with running(_config(tmp_path), wall) as engine:

        async def refused() -> bool:
            return not engine.store.statistics()["writable"]

        with engine.bus.subscribe() as events:
            row, _ = await _stuck(engine.store, wall() - HOUR, spool=True)
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
            try:
                await wait_until(refused, "the store refuses the reaper")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            [end] = await _ended(events, row)
        assert end.response == "stuck"


async def test_after_a_crash_a_campaigns_own_delay_holds(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wall = calendar(autojump_clock)
    config = _config(tmp_path)
    async with running(config, wall) as engine:
        campaign = await add_campaign(engine, 0, retry_delays={"failed": 900})
        assert isinstance(campaign, Campaign)
        row, _ = await _stuck(
            engine.store, wall(), spool=True, campaign_id=campaign.id,
            program_id=campaign.program_id,
        )  # fmt: skip
        own, _ = await _stuck(engine.store, wall(), spool=True, retry_delays={"failed": 60})
        assert await recovery.recover(engine.store, RetryConfig(interrupted=True), wall) == 2
        for one, delay_s in ((row, 900), (own, 60)):
            after = await _now(engine.store, one)
            assert (after.status, after.response) == (TransmissionStatus.PENDING, "interrupted")
            assert after.due_at is not None
            assert after.due_at - after.updated_at == timedelta(seconds=delay_s)


async def test_who_listens_hears_of_the_spool_too(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wall = calendar(autojump_clock)
    async with running(_config(tmp_path), wall) as engine:
        with engine.bus.subscribe() as events:
            row, spool = await _stuck(engine.store, wall() - HOUR, spool=True)
            assert spool is not None
            with trio.fail_after(DEADLINE_S):
                event = await events.get()
        assert isinstance(event, SpoolChanged)
        assert (event.spool_id, event.transmission_id) == (spool.id, row.id)
        assert (event.status, event.response) == (SpoolStatus.FAILED, "stuck")
