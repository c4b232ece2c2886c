"""What a plan means, whose it may be, and how many."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import create_engine
from trio.testing import MockClock

from engine import calendar_rules
from engine.auth import ROLES, Principal
from engine.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError
from engine.firing import Action
from engine.model import (
    EPOCH,
    Account,
    Task,
    TaskStatus,
    User,
)
from engine.schedules import MAX_PENDING, Given, Plan, planned
from engine.store import queries, schema
from engine.store.base import Condition, Op, Query
from tests.engine.scheduling import (
    BERLIN,
    START,
    SYSTEM,
    Wall,
    administrator,
    after,
    daily,
    moment,
    running,
    slow_campaign,
    transmission,
)
from tests.support.engine import (
    config_in,
)


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
