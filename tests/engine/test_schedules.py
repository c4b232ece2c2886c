"""Schedules that fire: at their time, once, across restarts, changes of the clock and crashes."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import msgspec
import pytest
import trio
from sqlalchemy import create_engine
from trio.testing import MockClock

from engine import calendar_rules
from engine.app import Engine
from engine.auth import ROLES, Principal
from engine.bus import Subscription
from engine.config import Config, ScheduleConfig
from engine.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError, NotReadyError
from engine.events import CampaignChanged, DomainEvent, TaskFired
from engine.firing import UNDERWAY, Action
from engine.model import (
    EPOCH,
    Account,
    Campaign,
    CampaignStatus,
    Contact,
    Spool,
    Task,
    TaskStatus,
    Transmission,
    TransmissionStatus,
    User,
)
from engine.schedules import MAX_PENDING, Given, Plan, planned
from engine.store import open_store, queries, schema
from engine.store.base import Condition, Op, Query
from gateways.loopback.gateway import LoopbackGateway
from gateways.loopback.script import Script
from tests.support import wait_until
from tests.support.engine import (
    DEADLINE_S,
    add_campaign,
    add_program,
    add_provider,
    config_in,
    running_engine,
)

START = datetime(2026, 3, 10, 8, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
SYSTEM = Principal(user_id=1, username="admin", permissions=ROLES["user"] | ROLES["admin"])
# Real threads and virtual time: jump only when nothing has happened for a while. Hours pass by
# setting the wall clock, because a node has something to do twice a second.
QUIET_S = 0.03


class Wall:
    """The calendar of a test: runs with the virtual clock, and may be set."""

    def __init__(self, clock: MockClock, start: datetime = START) -> None:
        clock.autojump_threshold = QUIET_S
        self._clock = clock
        self._zero = start - timedelta(seconds=clock.current_time())

    def __call__(self) -> datetime:
        return self._zero + timedelta(seconds=self._clock.current_time())

    def set(self, to: datetime) -> None:
        """Put the hands to ``to``; durations know nothing of it."""
        self._zero += to - self()


@asynccontextmanager
async def running(
    config: Config,
    wall: Wall,
    script: Script | None = None,
    engine_type: Callable[..., Engine] = Engine,
) -> AsyncIterator[Engine]:
    """A node by ``wall``'s calendar; at the end of the block it is stopped, its store closed."""
    async with open_store(config, clock=wall) as store:
        gateways = {"loopback": LoopbackGateway(script)}
        engine = engine_type(config=config, store=store, gateways=gateways, clock=wall)
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            try:
                yield engine
            finally:
                engine.stop()


async def slow_campaign(engine: Engine, **fields: Any) -> Campaign:
    """A campaign that goes on for hours once it runs. It is nobody's but the administrator's."""
    return await add_campaign(engine, 1000, calls_per_minute=1.0, owner_id=SYSTEM.user_id, **fields)


async def transmission(engine: Engine, **fields: Any) -> Transmission:
    contact = await engine.store.insert(Contact(phone="4930"))
    program = await add_program(engine.store)
    return await engine.store.insert(
        Transmission(
            program_id=program.id, contact_id=contact.id, owner_id=SYSTEM.user_id, **fields
        )
    )


async def administrator(engine: Engine) -> None:
    """The user that ``SYSTEM`` speaks for."""
    user = await engine.store.insert(User(username="admin", roles=tuple(ROLES)))
    assert user.id == SYSTEM.user_id


async def fired(events: Subscription, task: Task | None = None) -> TaskFired:
    """The next news of ``task`` (or any) having fired."""
    while True:
        event: DomainEvent = await events.get()
        if isinstance(event, TaskFired) and (task is None or event.task_id == task.id):
            return event


async def changed(events: Subscription) -> CampaignChanged:
    while True:
        event = await events.get()
        if isinstance(event, CampaignChanged):
            return event


async def stored(engine: Engine, row: Any) -> Any:
    found = await engine.store.get(type(row), row.id)
    assert found is not None
    return found


def daily(hour: int, minute: int = 0) -> Plan:
    fields = {"hour": str(hour), "minute": str(minute)}
    return Plan(fields=fields, recurring=True, timezone="Europe/Berlin")


def after(seconds: float) -> Plan:
    return Plan(moments={Given.DELAY: seconds})


def moment(text: str, **fields: Any) -> Plan:
    return Plan(moments={Given.DATETIME: datetime.fromisoformat(text)}, **fields)


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


async def settled(engine: Engine, task: Task) -> Any:
    """``task`` once everything that was due at the start of the node is done."""
    for _ in range(2):  # the first may be of the same round, the second is of one after it
        later = await transmission(engine)
        with engine.bus.subscribe(10_000) as events:
            await engine.schedules.send_at(SYSTEM, later.id, after(0))
            while (await fired(events)).target_id != later.id:
                pass
    return await stored(engine, task)


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


# --- who may -------------------------------------------------------------------------------------
async def test_only_who_may_and_sees_schedules(tmp_path: Path, autojump_clock: MockClock) -> None:
    wall = Wall(autojump_clock)
    async with running(config_in(tmp_path), wall) as engine:
        campaign, message = await slow_campaign(engine), await transmission(engine)
        schedules = engine.schedules
        stranger = Principal(user_id=7, username="user", permissions=ROLES["user"])
        for who, error in (
            (stranger, NotFoundError),
            (Principal(user_id=1, username="a"), ForbiddenError),
        ):
            with pytest.raises(error):
                await schedules.run_at(who, campaign.id, Action.START, after(5))
            with pytest.raises(error):
                await schedules.send_at(who, message.id, after(5))
            with pytest.raises(error):
                await schedules.cancel_runs(who, campaign.id, Action.START, Action.STOP)
            with pytest.raises(error):
                await schedules.cancel_send(who, message.id)
            with pytest.raises(error):
                await schedules.of_campaign(who, campaign.id, Query())
            with pytest.raises(error):
                await schedules.of_transmission(who, message.id, Query())


async def test_a_campaign_has_a_limited_number_of_schedules(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    async with running(config_in(tmp_path), wall) as engine:
        campaign = await slow_campaign(engine)
        for _ in range(MAX_PENDING):
            await engine.schedules.run_at(SYSTEM, campaign.id, Action.STOP, daily(9))
        with pytest.raises(ConflictError, match="already"):
            await engine.schedules.run_at(SYSTEM, campaign.id, Action.STOP, daily(9))


# --- plans ---------------------------------------------------------------------------------------
async def test_the_time_zone_is_the_bodys_the_accounts_the_owners_the_nodes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    async with running(config_in(tmp_path), wall) as engine:
        await administrator(engine)
        account = await engine.store.insert(Account(timezone="Asia/Kolkata"))
        plain = await engine.store.insert(Account())
        east = await engine.store.insert(User(username="east", timezone_id=-12_600))

        async def due(timezone: str = "", **fields: Any) -> tuple[str, datetime | None]:
            message = await transmission(engine, account_id=fields.pop("account", plain).id)
            await engine.store.update(msgspec.structs.replace(message, **fields))
            plan = moment("2026-03-11 09:00", timezone=timezone)
            task = await engine.schedules.send_at(SYSTEM, message.id, plan)
            return task.timezone, task.due_at

        def utc(hour: int, minute: int = 0) -> datetime:
            return datetime(2026, 3, 11, hour, minute, tzinfo=UTC)

        berlin = await due("Europe/Berlin", account=account, owner_id=east.id)
        assert berlin == ("Europe/Berlin", utc(8))
        assert await due(account=account, owner_id=east.id) == ("Asia/Kolkata", utc(3, 30))
        assert await due(owner_id=east.id) == ("-03:30", utc(12, 30))
        assert await due() == ("UTC", utc(9))


@pytest.mark.parametrize(
    ("plan", "due"),
    [
        (after(90), "2026-03-10 08:01:30"),
        (moment("2026-03-10 09:00"), "2026-03-10 08:00:00"),
        (moment("2026-03-10 09:00+03:00", timezone=""), None),
        (moment("2026-03-10T09:00:00+00:00"), "2026-03-10 09:00:00"),
        (Plan(fields={"hour": "9"}), "2026-03-11 08:00:00"),
        (Plan(fields={"hour": "10"}), "2026-03-10 09:00:00"),
        (Plan(fields={"hour": "10", "minute": "*"}), "2026-03-10 09:00:00"),
        (Plan(fields={"minute": "*"}), "2026-03-10 08:01:00"),
        (Plan(fields={"weekday": "4"}), "2026-03-10 23:00:00"),
        (Plan(fields={"month": "4"}), "2026-03-31 22:00:00"),
    ],
)
def test_what_a_plan_means(plan: Plan, due: str | None) -> None:
    if due is None:
        with pytest.raises(InvalidError, match="datetime: is in the past"):
            planned(plan, BERLIN, START, 300.0)
        return
    task = planned(plan, BERLIN, START, 300.0)
    assert task["due_at"] == datetime.fromisoformat(due).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        (Plan(), "delay"),
        (Plan(recurring=True), "delay"),
        (Plan(fields={"hour": "25"}), "hour"),
        (Plan(fields={"month": "2", "day": "31"}), "day"),
        (Plan(fields={"year": "2025"}), "year"),
        (after(-1), "delay"),
        (after(float("nan")), "delay"),
        (after(float("inf")), "delay"),
        (after(1e12), "delay"),
        (moment("2025-01-01"), "datetime"),
        (moment("2500-01-01"), "datetime"),
        (moment("9999-12-31 23:59"), "datetime"),
        (moment("0001-01-01 00:00"), "datetime"),
        (Plan(moments={Given.DELAY: 5.0, Given.DUE_AT: START}), "due_at"),
        (Plan(moments={Given.DELAY: 5.0}, fields={"hour": "9"}), "hour"),
        (Plan(moments={Given.DELAY: 5.0}, recurring=True), "is_recurring"),
        (Plan(moments={Given.DELAY: 5.0}, weight=-1), "weight"),
        (Plan(moments={Given.DELAY: 5.0}, expires_at=START), "expiry"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_by_its_field(plan: Plan, field: str) -> None:
    with pytest.raises(InvalidError) as refused:
        planned(plan, BERLIN, START, 300.0)
    assert refused.value.field == field


def test_fields_that_say_nothing_may_stand_beside_a_moment() -> None:
    plan = Plan(moments={Given.DELAY: 5.0}, fields=dict.fromkeys(calendar_rules.RANGES, "*"))
    assert planned(plan, UTC, START, 300.0)["due_at"] == START + timedelta(seconds=5)


def test_the_next_task_is_found_by_the_index() -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        schema.METADATA.create_all(connection)
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        seen: list[str] = []
        raw.set_trace_callback(seen.append)
        pending = Condition("status", Op.EQ, TaskStatus.PENDING)
        since = Condition("due_at", Op.GE, EPOCH)
        queries.find(raw, Task, Query(conditions=(pending, since), order="due_at", limit=1))
        raw.set_trace_callback(None)
        (plan,) = raw.execute(f"EXPLAIN QUERY PLAN {seen[0]}").fetchall()
    assert "USING INDEX ix_task_due_at" in plan[3]
