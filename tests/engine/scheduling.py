"""What the tests of schedules share: a calendar that can be set, a node by it, plans."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import trio
from trio.testing import MockClock

from engine.app import Engine
from engine.auth import ROLES, Principal
from engine.bus import Subscription
from engine.config import Config
from engine.events import CampaignChanged, DomainEvent, TaskFired
from engine.model import (
    Campaign,
    Contact,
    Task,
    Transmission,
    User,
)
from engine.schedules import Given, Plan
from engine.store import open_store
from gateways.loopback.gateway import LoopbackGateway
from gateways.loopback.script import Script
from tests.support.engine import (
    add_campaign,
    add_program,
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


async def settled(engine: Engine, task: Task) -> Any:
    """``task`` once everything that was due at the start of the node is done."""
    for _ in range(2):  # the first may be of the same round, the second is of one after it
        later = await transmission(engine)
        with engine.bus.subscribe(10_000) as events:
            await engine.schedules.send_at(SYSTEM, later.id, after(0))
            while (await fired(events)).target_id != later.id:
                pass
    return await stored(engine, task)


def daily(hour: int, minute: int = 0) -> Plan:
    fields = {"hour": str(hour), "minute": str(minute)}
    return Plan(fields=fields, recurring=True, timezone="Europe/Berlin")


def after(seconds: float) -> Plan:
    return Plan(moments={Given.DELAY: seconds})


def moment(text: str, **fields: Any) -> Plan:
    return Plan(moments={Given.DATETIME: datetime.fromisoformat(text)}, **fields)
