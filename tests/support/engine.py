"""An engine on a real SQLite store with the loopback gateway, and campaigns to run on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from engine import clock
from engine.app import Engine
from engine.bus import Subscription
from engine.config import Config, DialConfig, NodeConfig, RetryConfig
from engine.events import CampaignChanged
from engine.model import (
    Campaign,
    CampaignStatus,
    Group,
    Program,
    Provider,
    Recording,
    Spool,
    Transmission,
)
from engine.store import open_store
from engine.store.base import Condition, ContactRow, Op, Query, Store
from gateways.loopback.gateway import LoopbackGateway
from gateways.loopback.script import Script

DEADLINE_S = 30.0


def config_in(folder: Path, **sections: msgspec.Struct) -> Config:
    """A configuration with quick retries, everything below ``folder``."""
    defaults: dict[str, Any] = {
        "node": NodeConfig(data_dir=str(folder)),
        "retry": RetryConfig(busy_delay_s=0.02, no_answer_delay_s=0.02, failed_delay_s=0.02),
        "dial": DialConfig(ring_timeout_s=5, trunk_cooldown_s=0.2),
    }
    return Config(**(defaults | sections))


@asynccontextmanager
async def running_engine(
    config: Config, script: Script | None = None, *, seed: int = 1
) -> AsyncIterator[Engine]:
    """An engine at work; stopped (calls hung up, results recorded) at the end of the block."""
    async with open_store(config, clock=clock.now) as store:
        gateways = {"loopback": LoopbackGateway(script, seed=seed)}
        engine = Engine(config=config, store=store, gateways=gateways)
        async with trio.open_nursery() as nursery:
            with trio.fail_after(DEADLINE_S):
                await nursery.start(engine.run)
            try:
                yield engine
            finally:
                engine.stop()


async def add_provider(engine: Engine, **fields: Any) -> Provider:
    """A loopback trunk, known to the engine."""
    provider = await engine.store.insert(
        Provider(**({"name": "loopback", "type": "loopback"} | fields))
    )
    await engine.providers_changed()
    return provider


async def add_program(store: Store, *, length_s: float = 0.0) -> Program:
    """A voice message of the given length."""
    recording = await store.insert(
        Recording(name="message", media_path="media/none.wav", length_s=length_s)
    )
    return await store.insert(
        Program(name="message", type="voicemessage", data={"recording_id": recording.id})
    )


async def add_contacts(store: Store, group_id: int, numbers: list[str]) -> None:
    """Contacts with these numbers, in the group."""
    rows = [ContactRow(phone=number) for number in numbers]
    await store.import_contacts(group_id, None, rows, clock.now())


async def add_campaign(
    engine: Engine, contacts: int, *, length_s: float = 0.0, first: int = 1000, **fields: Any
) -> Campaign:
    """A campaign over a new group; not started."""
    store = engine.store
    program = await add_program(store, length_s=length_s)
    group = await store.insert(Group(name="people"))
    await add_contacts(store, group.id, [str(first + n) for n in range(contacts)])
    given = {"program_id": program.id, "group_id": group.id, "calls_per_minute": 600_000.0}
    return await store.insert(Campaign(**(given | fields)))


async def run_to_end(engine: Engine, *campaigns: Campaign) -> None:
    """Start campaigns and wait until all of them are completed."""
    with engine.bus.subscribe(100_000) as events:
        for campaign in campaigns:
            await engine.start_campaign(campaign.id)
        await completed(events, *campaigns)


async def completed(events: Subscription, *campaigns: Campaign) -> None:
    """Wait for the news that each of the campaigns is completed."""
    missing = {campaign.id for campaign in campaigns}
    with trio.fail_after(DEADLINE_S):
        while missing:
            event = await events.get()
            if isinstance(event, CampaignChanged) and event.status is CampaignStatus.COMPLETED:
                missing.discard(event.campaign_id)
    assert events.missed == 0


async def transmissions_of(store: Store, campaign: Campaign) -> list[Transmission]:
    """Every transmission of a campaign."""
    condition = Condition("campaign_id", Op.EQ, campaign.id)
    return await store.find(Transmission, Query(conditions=(condition,)))


async def spools_of(store: Store, campaign: Campaign) -> list[Spool]:
    """Every spool of a campaign."""
    condition = Condition("campaign_id", Op.EQ, campaign.id)
    return await store.find(Spool, Query(conditions=(condition,)))
