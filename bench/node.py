"""A dialer without web and network, for the benches: engine, SQLite, loopback gateway.

``python -m bench.node prepare DIR CONTACTS`` fills a data directory, ``python -m bench.node run DIR
CPM SECONDS`` dials its group at a pace and prints one JSON line. Both are processes of their own,
so that the memory measured is the node's.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from bench.child import say
from engine import clock, memory
from engine.app import Engine
from engine.config import Config, NodeConfig
from engine.gateway import Gateway
from engine.model import Campaign, CampaignStatus, Group, Program, Provider, Recording
from engine.store import open_store
from engine.store.base import ContactRow, Query, Store
from gateways.loopback.gateway import LoopbackGateway

CHUNK = 5000
WARM_UP_S = 1.0
UNPACED_CPM = 6_000_000

MakeCampaign = Callable[[Engine], Awaitable[Campaign]]
"""Stores a campaign and all that it needs; does not start it."""


def config_for(data_dir: Path, *, channels: int = 0) -> Config:
    """A configuration for a bench: everything in ``data_dir``."""
    return Config(node=NodeConfig(data_dir=str(data_dir), channels=channels))


async def fill(store: Store, contacts: int, provider: Provider) -> Campaign:
    """A provider, a voice message and a group; returns the campaign over it, not started."""
    await store.insert(provider)
    recording = await store.insert(Recording(name="bench", media_path="media/none.wav"))
    program = await store.insert(
        Program(name="bench", type="voicemessage", data={"recording_id": recording.id})
    )
    group = await store.insert(Group(name="bench"))
    await add_contacts(store, group.id, contacts)
    return await store.insert(Campaign(program_id=program.id, group_id=group.id))


def numbered(number: int) -> ContactRow:
    """A contact with a number of its own."""
    return ContactRow(phone=f"49{number:010d}", first_name="Bench")


async def add_contacts(
    store: Store, group_id: int, contacts: int, row: Callable[[int], ContactRow] = numbered
) -> None:
    """New contacts into a group: ``row`` of every number below ``contacts``."""
    for first in range(0, contacts, CHUNK):
        rows = [row(number) for number in range(first, min(first + CHUNK, contacts))]
        await store.import_contacts(group_id, None, rows, clock.now())


@asynccontextmanager
async def running(config: Config, gateways: dict[str, Gateway]) -> AsyncIterator[Engine]:
    """An engine at work on the data directory of ``config``."""
    async with open_store(config, clock=clock.now) as store:
        engine = Engine(config=config, store=store, gateways=gateways)
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            memory.settle()
            yield engine
            engine.stop()


async def prepare(data_dir: Path, contacts: int) -> None:
    """A group of ``contacts`` that a loopback provider answers at once."""
    async with open_store(config_for(data_dir), clock=clock.now) as store:
        await fill(store, contacts, Provider(name="loopback", type="loopback"))


def _ended(engine: Engine) -> int:
    dispositions: dict[str, int] = engine.statistics()["dispatcher"]["dispositions"]
    return sum(dispositions.values())


async def dial(data_dir: Path, calls_per_minute: float, seconds: float) -> dict[str, Any]:
    """Dial at a pace for a while, or until the group is done; rates are taken after the warm-up."""
    async with running(config_for(data_dir), {"loopback": LoopbackGateway()}) as engine:
        store = engine.store
        (campaign,) = await store.find(Campaign, Query())
        changed = {"calls_per_minute": calls_per_minute}
        fields = {f: getattr(campaign, f) for f in campaign.__struct_fields__} | changed
        await store.update(Campaign(**fields))
        await engine.start_campaign(campaign.id)
        await trio.sleep(WARM_UP_S)
        begun, at, cpu = _ended(engine), time.perf_counter(), time.process_time()
        with trio.move_on_after(seconds):
            await _over(store, campaign.id, look_s=0.25)
        spent = time.perf_counter() - at
        statistics = engine.statistics()
        return {
            "spools": _ended(engine) - begun,
            "seconds": spent,
            "spools_per_s": (_ended(engine) - begun) / spent,
            "cpu": (time.process_time() - cpu) / spent,
            "pacing_lag_ms": statistics["dispatcher"]["pacing_lag_ms"],
            "store": {k: v for k, v in statistics["store"].items() if isinstance(v, int | float)},
            "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


async def send_all(
    type_: str, make_gateway: Callable[[Config], Gateway], make_campaign: MakeCampaign
) -> dict[str, Any]:
    """Run a campaign with one gateway until its last spool is closed: how many, how long."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_for(Path(folder))
        async with running(config, {type_: make_gateway(config)}) as engine:
            campaign = await make_campaign(engine)
            begun = time.perf_counter()
            await engine.start_campaign(campaign.id)
            await _over(engine.store, campaign.id, look_s=0.02)
            spent = time.perf_counter() - begun
            tally = await engine.store.campaign_tally(campaign.id)
    return {"sent": tally["completed"], "seconds": spent}


async def _over(store: Store, campaign_id: int, look_s: float) -> None:
    """Wait until a campaign that was started is not running any more."""
    while True:
        await trio.sleep(look_s)
        campaign = await store.get(Campaign, campaign_id)
        if campaign is None or campaign.status is not CampaignStatus.RUNNING:
            return


def main() -> None:
    """Command line of the child processes."""
    verb, data_dir, *numbers = sys.argv[1:]
    if verb == "prepare":
        trio.run(prepare, Path(data_dir), int(numbers[0]))
    else:
        say(trio.run(partial(dial, Path(data_dir), float(numbers[0]), float(numbers[1]))))


if __name__ == "__main__":
    main()
