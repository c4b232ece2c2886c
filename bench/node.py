"""A dialer without web and network, for the benches: engine, SQLite, loopback gateway.

``python -m bench.node prepare DIR CONTACTS`` fills a data directory, ``python -m bench.node run DIR
CPM SECONDS`` dials its group at a pace and prints one JSON line. Both are processes of their own,
so that the memory measured is the node's.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import trio

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


async def add_contacts(store: Store, group_id: int, contacts: int) -> None:
    """New contacts with numbers of their own into a group."""
    for first in range(0, contacts, CHUNK):
        last = min(first + CHUNK, contacts)
        rows = [ContactRow(phone=f"49{n:010d}", first_name="Bench") for n in range(first, last)]
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
        await _while_running(store, campaign.id, seconds)
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


async def _while_running(store: Store, campaign_id: int, seconds: float) -> None:
    with trio.move_on_after(seconds):
        while True:
            await trio.sleep(0.25)
            campaign = await store.get(Campaign, campaign_id)
            if campaign is None or campaign.status is not CampaignStatus.RUNNING:
                return


def main() -> None:
    """Command line of the child processes."""
    verb, data_dir, *numbers = sys.argv[1:]
    if verb == "prepare":
        trio.run(prepare, Path(data_dir), int(numbers[0]))
    else:
        result = trio.run(partial(dial, Path(data_dir), float(numbers[0]), float(numbers[1])))
        sys.stdout.write(orjson.dumps(result).decode() + "\n")


if __name__ == "__main__":
    main()
