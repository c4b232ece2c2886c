"""The whole node as one side of ``bench dial``: campaign, pacer, SQLite, sip gateway, results.

A trial is a campaign of its own: its contacts are imported, it is started at the pace of the trial,
and it is over when every one of its transmissions has its durable result.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from bench.node import add_contacts, running
from bench.sip_load import HOST, Side, Trial, family_cpu_s
from engine.app import Engine
from engine.bus import Subscription
from engine.config import Config, NodeConfig, SipConfig
from engine.events import CampaignChanged, SpoolChanged
from engine.gateway import Media, Stage
from engine.model import Campaign, CampaignStatus, Group, Program, Provider, Recording
from gateways.sip.gateway import SipGateway

EVENTS = 1_000_000
OVERTIME_S = 20.0
"""A trial whose last result does not come within this time after its last start has failed."""


@asynccontextmanager
async def whole_node(port: int, sip: SipConfig, media: Media) -> AsyncIterator[Side]:
    """A node in a folder of its own with one trunk to ``port``."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        config = Config(node=NodeConfig(data_dir=folder, channels=0), sip=sip)
        shutil.copy(media.path, data / "message.wav")
        async with running(config, {"sip": SipGateway(sip)}) as engine:
            await engine.store.insert(Provider(name="uas", host=HOST, port=port))
            await engine.providers_changed()
            program = await _program(engine, media.length_s)
            await _all_ready(engine, sip.workers_min)

            async def trial(rate: float, seconds: float) -> Trial:
                return await _trial(engine, program, rate, int(rate * seconds))

            yield trial


async def _program(engine: Engine, length_s: float) -> int:
    store = engine.store
    recording = await store.insert(
        Recording(name="message", media_path="message.wav", length_s=length_s)
    )
    data = {"recording_id": recording.id}
    program = await store.insert(Program(name="message", type="voicemessage", data=data))
    return program.id


async def _all_ready(engine: Engine, workers: int) -> None:
    with trio.fail_after(60):
        while engine.statistics()["gateways"]["sip"]["slots_free"] < workers * 4:  # noqa: ASYNC110
            await trio.sleep(0.05)


async def _trial(engine: Engine, program_id: int, rate: float, calls: int) -> Trial:
    group = await engine.store.insert(Group(name="trial"))
    await add_contacts(engine.store, group.id, calls)
    campaign = await engine.store.insert(
        Campaign(program_id=program_id, group_id=group.id, calls_per_minute=rate * 60)
    )
    before_s = family_cpu_s()
    with engine.bus.subscribe(EVENTS) as events:
        await engine.start_campaign(campaign.id)
        watch = _Watch()
        with trio.move_on_after(calls / rate + OVERTIME_S):
            await watch.until_completed(events)
        cpu_s = family_cpu_s() - before_s
    tally = await engine.store.campaign_tally(campaign.id)
    return watch.trial(rate, calls, calls - tally["completed"], cpu_s)


class _Watch:
    """Reads the bus: when spools left, and how long until they were answered."""

    def __init__(self) -> None:
        self._left: dict[int, float] = {}
        self._waits: list[float] = []

    async def until_completed(self, events: Subscription) -> None:
        while True:
            event = await events.get()
            if isinstance(event, SpoolChanged):
                self._spool(event)
            elif isinstance(event, CampaignChanged) and event.status is CampaignStatus.COMPLETED:
                return

    def _spool(self, event: SpoolChanged) -> None:
        at = event.at.timestamp()
        if event.stage == Stage.LEFT:
            self._left[event.spool_id] = at
        elif event.stage == Stage.CONNECTED:
            self._waits.append(at - self._left[event.spool_id])

    def trial(self, rate: float, calls: int, failed: int, cpu_s: float) -> Trial:
        times = sorted(self._left.values()) or [0.0]
        waits = sorted(self._waits) or [0.0]
        spread_s = times[-1] - times[0]
        return Trial(
            rate=rate,
            achieved=(len(times) - 1) / spread_s if spread_s else 0.0,
            calls=calls,
            failed=failed,
            cpu_us=cpu_s / max(calls, 1) * 1e6,
            pdd_p50_ms=waits[len(waits) // 2] * 1e3,
            pdd_p99_ms=waits[int(len(waits) * 0.99)] * 1e3,
        )
