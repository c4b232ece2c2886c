"""Schedules fire at their time, once: over restarts, changes of the clock, nodes that were down."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from engine.config import ScheduleConfig
from engine.firing import Action
from engine.model import (
    CampaignStatus,
    Spool,
    TaskStatus,
    TransmissionStatus,
)
from engine.schedules import Plan
from engine.store.base import Query
from tests.engine.scheduling import (
    BERLIN,
    START,
    SYSTEM,
    Wall,
    administrator,
    after,
    changed,
    daily,
    fired,
    moment,
    running,
    settled,
    slow_campaign,
    stored,
    transmission,
)
from tests.support.engine import (
    add_provider,
    config_in,
)


# --- on time, across restarts --------------------------------------------------------------------
async def test_a_campaign_starts_in_90_minutes_and_stops_at_its_time_across_restarts(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    config = config_in(tmp_path)
    async with running(config, wall) as engine:
        await administrator(engine)
        await add_provider(engine)
        campaign = await slow_campaign(engine)
        start = await engine.schedules.run_at(SYSTEM, campaign.id, Action.START, after(90 * 60))
        stop = await engine.schedules.run_at(
            SYSTEM, campaign.id, Action.STOP, moment("2026-03-10 09:35")
        )
    wall.set(START + timedelta(minutes=89, seconds=30))
    async with running(config, wall) as engine:
        assert (await stored(engine, campaign)).status is CampaignStatus.NEW
        with engine.bus.subscribe(10_000) as events:
            news = await changed(events)
            assert (await fired(events)).task_id == start.id
        assert (news.status, news.campaign_id) == (CampaignStatus.RUNNING, campaign.id)
        assert news.at >= START + timedelta(minutes=90)
    wall.set(START + timedelta(minutes=94, seconds=30))
    async with running(config, wall) as engine:
        assert (await stored(engine, campaign)).status is CampaignStatus.RUNNING
        with engine.bus.subscribe(10_000) as events:
            news = await changed(events)
            assert (await fired(events)).task_id == stop.id
        assert news.status is CampaignStatus.PAUSED
        assert news.at >= START + timedelta(minutes=95)
        for task, note in ((start, "started"), (stop, "stopped")):
            row = await stored(engine, task)
            assert (row.status, row.note) == (TaskStatus.PROCESSED, note)
        assert await engine.store.find(Spool, Query(limit=1))


async def test_a_transmission_is_sent_at_its_time_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    config = config_in(tmp_path)
    async with running(config, wall) as engine:
        await administrator(engine)
        await add_provider(engine)
        message = await transmission(engine)
        first = await engine.schedules.send_at(SYSTEM, message.id, after(5))
        again = await engine.schedules.send_at(SYSTEM, message.id, after(20))
        assert again.id == first.id
        with engine.bus.subscribe(1000) as events:
            assert (await stored(engine, message)).status is TransmissionStatus.PENDING
            news = await fired(events)
        assert news.done
        assert news.at >= START + timedelta(seconds=20)
        (spool,) = await engine.store.find(Spool, Query())
        assert (spool.transmission_id, news.note) == (message.id, f"sent as spool {spool.id}")
        statistics = engine.statistics()["schedules"]
        assert (statistics["fired"], statistics["missed"], statistics["refused"]) == (1, 0, 0)
        assert statistics["next_due_at"] is None


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("2026-03-28", ["28 02:30", "29 03:00", "30 02:30"]),
        ("2026-10-24", ["24 02:30", "25 02:30", "26 02:30"]),
    ],
)
async def test_a_change_of_the_clock_neither_doubles_nor_loses_a_daily_run(
    tmp_path: Path, autojump_clock: MockClock, first: str, expected: list[str]
) -> None:
    wall = Wall(autojump_clock)
    wall.set(datetime.fromisoformat(first).replace(tzinfo=BERLIN))
    times: list[str] = []
    async with running(config_in(tmp_path), wall) as engine:
        await administrator(engine)
        await add_provider(engine)
        campaign = await slow_campaign(engine)
        task = await engine.schedules.run_at(SYSTEM, campaign.id, Action.START, daily(2, 30))
        with engine.bus.subscribe(10_000) as events:
            for _ in expected:
                # Set while it waits: it looks at the wall clock again within half a minute.
                wall.set((await stored(engine, task)).due_at - timedelta(seconds=5))
                news = await fired(events)
                times.append(f"{news.at.astimezone(BERLIN):%d %H:%M}")
        row = await stored(engine, task)
        assert (row.status, row.note) == (TaskStatus.PENDING, "not done: Campaign is running")
    assert times == expected


async def test_a_wall_clock_set_ahead_is_noticed(tmp_path: Path, autojump_clock: MockClock) -> None:
    wall = Wall(autojump_clock)
    async with running(config_in(tmp_path), wall) as engine:
        await administrator(engine)
        await add_provider(engine)
        message = await transmission(engine)
        began = trio.current_time()
        await engine.schedules.send_at(SYSTEM, message.id, after(24 * 3600))
        with engine.bus.subscribe(1000) as events:
            wall.set(START + timedelta(days=1))
            assert (await fired(events)).done
        assert trio.current_time() - began < 3600  # virtual seconds, of a day


# --- missed --------------------------------------------------------------------------------------
@pytest.mark.parametrize("missed", ["fire", "expire"])
async def test_a_run_missed_while_the_node_was_down(
    tmp_path: Path, autojump_clock: MockClock, missed: Any
) -> None:
    wall = Wall(autojump_clock)
    config = config_in(tmp_path, schedule=ScheduleConfig(missed=missed))
    async with running(config, wall) as engine:
        await administrator(engine)
        await add_provider(engine)
        campaign = await slow_campaign(engine)
        task = await engine.schedules.run_at(SYSTEM, campaign.id, Action.START, after(600))
    wall.set(START + timedelta(hours=2))
    async with running(config, wall) as engine:
        row = await settled(engine, task)
        expected = {
            "fire": (TaskStatus.PROCESSED, "late, was due at 2026-03-10 08:10 UTC: started", True),
            "expire": (TaskStatus.EXPIRED, "missed at 2026-03-10 08:10 UTC", False),
        }
        runs = (await stored(engine, campaign)).status is CampaignStatus.RUNNING
        assert (row.status, row.note, runs) == expected[missed]
        assert engine.statistics()["schedules"]["missed"] == 1


async def test_of_a_missed_start_and_stop_only_the_later_counts(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    config = config_in(tmp_path)
    async with running(config, wall) as engine:
        await administrator(engine)
        await add_provider(engine)
        campaign = await slow_campaign(engine)
        start = await engine.schedules.run_at(SYSTEM, campaign.id, Action.START, after(600))
        stop = await engine.schedules.run_at(SYSTEM, campaign.id, Action.STOP, after(1200))
    wall.set(START + timedelta(hours=2))
    async with running(config, wall) as engine:
        assert (await settled(engine, start)).note == "missed, and a later one counts"
        assert (await stored(engine, stop)).note.endswith("not done: Campaign is new")
        assert (await stored(engine, campaign)).last_run is None


async def test_after_days_down_a_campaign_is_as_its_business_hours_say(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    config = config_in(tmp_path)
    async with running(config, wall) as engine:
        await administrator(engine)
        await add_provider(engine)
        campaign = await slow_campaign(engine)
        start = await engine.schedules.run_at(SYSTEM, campaign.id, Action.START, daily(9))
        stop = await engine.schedules.run_at(SYSTEM, campaign.id, Action.STOP, daily(17))
        # It is 09:00 in Berlin: the stop of that day comes first.
        assert stop.due_at is not None
        assert start.due_at is not None
        assert stop.due_at < start.due_at
    wall.set(datetime(2026, 3, 12, 12, 0, tzinfo=BERLIN))
    async with running(config, wall) as engine:
        row = await settled(engine, start)
        assert row.note == "late, was due at 2026-03-12 08:00 UTC: started"
        assert row.due_at == datetime(2026, 3, 13, 9, 0, tzinfo=BERLIN)
        assert (await stored(engine, stop)).note == "missed, and a later one counts"
        assert (await stored(engine, campaign)).status is CampaignStatus.RUNNING


async def test_a_task_of_its_own_expiry_does_not_fire_after_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    config = config_in(tmp_path)
    async with running(config, wall) as engine:
        await administrator(engine)
        campaign = await slow_campaign(engine)
        plan = msgspec.structs.replace(after(600), expires_at=START + timedelta(minutes=11))
        task = await engine.schedules.run_at(SYSTEM, campaign.id, Action.START, plan)
    wall.set(START + timedelta(minutes=12))
    async with running(config, wall) as engine:
        await add_provider(engine)
        row = await settled(engine, task)
        assert (row.status, row.note) == (TaskStatus.EXPIRED, "expired")
        assert (await stored(engine, campaign)).status is CampaignStatus.NEW


async def test_a_recurring_task_ends_with_its_expiry(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    async with running(config_in(tmp_path), wall) as engine:
        await administrator(engine)
        campaign = await slow_campaign(engine)
        plan = Plan(fields={"minute": "*"}, recurring=True, expires_at=START + timedelta(minutes=3))
        task = await engine.schedules.run_at(SYSTEM, campaign.id, Action.STOP, plan)
        with engine.bus.subscribe(1000) as events:
            for minute in (1, 2):
                wall.set(START + timedelta(minutes=minute, seconds=-5))
                assert (await fired(events, task)).at >= START + timedelta(minutes=minute)
        row = await stored(engine, task)
        assert (row.status, row.due_at) == (TaskStatus.PROCESSED, START + timedelta(minutes=2))
