"""Crashes between claim and deed, cancelling, refusals, a full disk, a draining node."""

from __future__ import annotations

import resource
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
import trio
from trio.testing import MockClock

from engine.app import Engine
from engine.auth import ROLES, Principal
from engine.errors import NotReadyError
from engine.firing import UNDERWAY, Action
from engine.model import (
    Campaign,
    CampaignStatus,
    Spool,
    Task,
    TaskStatus,
    Transmission,
    User,
)
from engine.schedules import Plan
from engine.store.base import Condition, Op, Query
from gateways.loopback.script import Script
from tests.engine.scheduling import (
    START,
    SYSTEM,
    Wall,
    administrator,
    after,
    daily,
    fired,
    running,
    settled,
    slow_campaign,
    stored,
    transmission,
)
from tests.support import wait_until
from tests.support.engine import (
    DEADLINE_S,
    add_campaign,
    add_provider,
    config_in,
    running_engine,
)


# --- a crash between claim and deed --------------------------------------------------------------
class DiesBefore(Engine):
    """Claims, and never comes to the deed."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.reached = trio.Event()

    async def send(self, _transmission_id: int) -> int:
        await self._die()

    async def start_campaign(self, _campaign_id: int) -> Campaign:
        await self._die()

    async def _die(self) -> NoReturn:
        self.reached.set()
        await trio.sleep_forever()
        raise AssertionError


class DiesAfter(DiesBefore):
    """Does the deed, and never comes to note it."""

    async def send(self, transmission_id: int) -> int:
        await Engine.send(self, transmission_id)
        await self._die()

    async def start_campaign(self, campaign_id: int) -> Campaign:
        await Engine.start_campaign(self, campaign_id)
        await self._die()


@pytest.mark.parametrize("dies", [DiesBefore, DiesAfter])
async def test_a_send_cut_off_after_its_claim_reaches_nobody_twice(
    tmp_path: Path, autojump_clock: MockClock, dies: type[DiesBefore]
) -> None:
    wall = Wall(autojump_clock)
    config = config_in(tmp_path)
    async with running(config, wall, Script(ring_s=3000.0), dies) as engine:
        assert isinstance(engine, DiesBefore)
        await administrator(engine)
        await add_provider(engine)
        message = await transmission(engine)
        task = await engine.schedules.send_at(SYSTEM, message.id, after(5))
        await engine.reached.wait()
        row = await stored(engine, task)
        assert (row.status, row.note) == (TaskStatus.PROCESSED, UNDERWAY)
    async with running(config, wall) as engine:
        row = await settled(engine, task)
        spools = await engine.store.find(
            Spool, Query(conditions=(Condition("transmission_id", Op.EQ, message.id),))
        )
        assert len(spools) == 1
        if dies is DiesAfter:
            assert row.note == "sent; the node stopped before it was noted"
        else:
            assert row.note == f"sent as spool {spools[0].id}"


@pytest.mark.parametrize("dies", [DiesBefore, DiesAfter])
async def test_a_start_cut_off_after_its_claim_is_made_up_for(
    tmp_path: Path, autojump_clock: MockClock, dies: type[DiesBefore]
) -> None:
    wall = Wall(autojump_clock)
    config = config_in(tmp_path)
    async with running(config, wall, engine_type=dies) as engine:
        assert isinstance(engine, DiesBefore)
        await administrator(engine)
        await add_provider(engine)
        campaign = await slow_campaign(engine)
        task = await engine.schedules.run_at(SYSTEM, campaign.id, Action.START, after(5))
        await engine.reached.wait()
    async with running(config, wall) as engine:
        row = await settled(engine, task)
        notes = {DiesBefore: "started", DiesAfter: "not done: Campaign is running"}
        assert (row.status, row.note) == (TaskStatus.PROCESSED, notes[dies])
        assert (await stored(engine, campaign)).status is CampaignStatus.RUNNING


# --- cancelled, deleted, refused -----------------------------------------------------------------
async def test_what_is_cancelled_does_not_happen(tmp_path: Path, autojump_clock: MockClock) -> None:
    wall = Wall(autojump_clock)
    async with running(config_in(tmp_path), wall) as engine:
        await administrator(engine)
        await add_provider(engine)
        schedules = engine.schedules
        message, campaign = await transmission(engine), await slow_campaign(engine)
        await schedules.send_at(SYSTEM, message.id, after(5))
        await schedules.run_at(SYSTEM, campaign.id, Action.START, after(5))
        stop = await schedules.run_at(SYSTEM, campaign.id, Action.STOP, after(10))
        await schedules.cancel_send(SYSTEM, message.id)
        await schedules.cancel_runs(SYSTEM, campaign.id, Action.START)
        assert await schedules.of_transmission(SYSTEM, message.id, Query()) == []
        assert await schedules.of_campaign(SYSTEM, campaign.id, Query()) == [stop]
        with engine.bus.subscribe(1000) as events:
            assert (await fired(events)).task_id == stop.id
        assert (await stored(engine, campaign)).status is CampaignStatus.NEW
        assert await engine.store.find(Spool, Query()) == []


async def test_a_cancel_waits_for_what_is_being_done(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    released = trio.Event()

    class Slow(Engine):
        reached = trio.Event()

        async def start_campaign(self, campaign_id: int) -> Campaign:
            self.reached.set()
            await released.wait()
            return await super().start_campaign(campaign_id)

    async with running(config_in(tmp_path), wall, engine_type=Slow) as engine:
        await administrator(engine)
        await add_provider(engine)
        campaign = await slow_campaign(engine)
        await engine.schedules.run_at(SYSTEM, campaign.id, Action.START, after(0))
        await Slow.reached.wait()
        order: list[str] = []

        async def cancel() -> None:
            await engine.schedules.cancel_runs(SYSTEM, campaign.id, Action.START)
            order.append((await stored(engine, campaign)).status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            await trio.testing.wait_all_tasks_blocked()
            assert order == []
            released.set()
        assert order == [CampaignStatus.RUNNING]


async def test_schedules_go_with_what_they_are_about(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    async with running(config_in(tmp_path), wall) as engine:
        await administrator(engine)
        message, campaign = await transmission(engine), await slow_campaign(engine)
        await engine.schedules.send_at(SYSTEM, message.id, after(5))
        await engine.schedules.run_at(SYSTEM, campaign.id, Action.START, daily(9))
        await engine.catalog.delete(SYSTEM, Transmission, message.id)
        await engine.catalog.delete(SYSTEM, Campaign, campaign.id)
        assert await engine.store.find(Task, Query()) == []


async def test_an_orphan_is_swept_when_its_time_comes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    async with running(config_in(tmp_path), wall) as engine:
        await administrator(engine)
        message = await transmission(engine)
        await engine.schedules.send_at(SYSTEM, message.id, after(1))
        await engine.store.delete(Transmission, message.id)  # as a crash in between leaves it
        other = await slow_campaign(engine)
        await engine.schedules.run_at(SYSTEM, other.id, Action.STOP, after(5))
        with engine.bus.subscribe(1000) as events:
            assert (await fired(events)).target_id == other.id
        assert [task.target_id for task in await engine.store.find(Task, Query())] == [other.id]


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"active": False}, "not done: the user who scheduled it is not active"),
        ({"roles": ()}, "not done: the user who scheduled it has not the permission any more"),
        ({}, "started"),
    ],
)
async def test_a_task_may_what_its_owner_may_when_it_fires(
    tmp_path: Path, autojump_clock: MockClock, change: dict[str, Any], note: str
) -> None:
    wall = Wall(autojump_clock)
    async with running(config_in(tmp_path), wall) as engine:
        await administrator(engine)
        await add_provider(engine)
        user = await engine.store.insert(User(username="user", roles=("user",)))
        who = Principal(user_id=user.id, username="user", permissions=ROLES["user"])
        campaign = await add_campaign(engine, 5, owner_id=user.id)
        task = await engine.schedules.run_at(who, campaign.id, Action.START, after(5))
        await engine.store.update(msgspec.structs.replace(user, **change))
        with engine.bus.subscribe(1000) as events:
            news = await fired(events, task)
        assert (news.note, news.done) == (note, not change)


async def test_a_refusal_is_noted_and_the_next_task_fires(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    async with running(config_in(tmp_path), wall) as engine:
        await administrator(engine)
        campaign, message = await slow_campaign(engine), await transmission(engine)
        await engine.schedules.run_at(SYSTEM, campaign.id, Action.START, after(10))
        await engine.schedules.send_at(SYSTEM, message.id, after(20))
        with engine.bus.subscribe(1000) as events:
            notes = [(await fired(events)).note for _ in range(2)]
        assert notes == ["not done: No provider available"] * 2
        assert engine.statistics()["schedules"]["refused"] == 2


async def test_a_transmission_that_is_over_ends_its_recurring_task(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    async with running(config_in(tmp_path), wall) as engine:
        await administrator(engine)
        await add_provider(engine)
        message = await transmission(engine)
        plan = Plan(fields={"minute": "*"}, recurring=True)
        task = await engine.schedules.send_at(SYSTEM, message.id, plan)
        with engine.bus.subscribe(1000) as events:
            wall.set(START + timedelta(seconds=55))
            assert (await fired(events, task)).done
            wall.set(START + timedelta(seconds=115))
            assert not (await fired(events, task)).done
        assert (await stored(engine, task)).status is TaskStatus.PROCESSED
        with pytest.raises(NotReadyError, match="completed"):
            await engine.schedules.send_at(SYSTEM, message.id, plan)


async def test_a_task_that_falls_due_on_a_full_disk_fires_once_when_there_is_room(
    tmp_path: Path,
) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await administrator(engine)
        await add_provider(engine)
        message = await transmission(engine)
        task = await engine.schedules.send_at(SYSTEM, message.id, after(0.5))
        with engine.bus.subscribe(1000) as events:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            async with engine.catalog.edits[Task]:  # its claim waits for us, on a disk with room
                resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
            try:
                await wait_until(partial(_refused, engine), "the store refuses the claim")
                assert (await stored(engine, task)).status is TaskStatus.PENDING
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            with trio.fail_after(DEADLINE_S):
                assert (await fired(events)).done
        assert len(await engine.store.find(Spool, Query())) == 1


async def _refused(engine: Engine) -> bool:
    return not engine.store.statistics()["writable"]


async def test_tasks_of_a_draining_node_wait_for_the_next_one(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    config = config_in(tmp_path)
    async with running(config, wall) as engine:
        await administrator(engine)
        await add_provider(engine)
        campaign = await slow_campaign(engine)
        await engine.drain()
        task = await engine.schedules.run_at(SYSTEM, campaign.id, Action.START, after(0))
        await trio.testing.wait_all_tasks_blocked()
    async with running(config, wall) as engine:
        assert (await settled(engine, task)).note == "started"
