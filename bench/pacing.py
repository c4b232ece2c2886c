"""How late and how exact the pacer is: CPM 1 to 60,000, many campaigns at once.

Two rows: the pacer by itself (grants counted, nothing done with them), and the whole dispatcher
with SQLite and the loopback gateway.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import trio
from rich.table import Table

from bench import shared
from bench.node import add_contacts, config_for, fill, running
from bench.report import Report, Target
from engine.model import Campaign, Group, Provider
from engine.pacing import Pacer
from engine.stats import Histogram
from engine.store.base import Store
from gateways.loopback.gateway import LoopbackGateway

TARGET_LAG_MS = 15.0
TARGET_ERROR = 0.01
CPM_LEAST, CPM_MOST = 1.0, 60_000.0
TICK_S = 0.001
SPARE_S = 8.0
"""Of contacts beyond the time measured: on a busy machine the last campaign is stopped late."""


async def run(smoke: bool) -> Report:  # noqa: FBT001 - the benches' common signature
    """Measure; ``smoke`` runs the same code for a moment."""
    seconds = 1.0 if smoke else 10.0
    many, few = log_spaced(200), log_spaced(20)
    alone, node = await _alone(many, seconds), await _node(few, seconds)
    rows = {f"pacer alone, {len(many)} campaigns": alone, f"node, {len(few)} campaigns": node}
    return _report(rows, await shared.measure(seconds))


def log_spaced(campaigns: int) -> list[float]:
    """Paces from CPM_LEAST to CPM_MOST, evenly spread over the logarithm."""
    ratio = CPM_MOST / CPM_LEAST
    return [CPM_LEAST * ratio ** (i / (campaigns - 1)) for i in range(campaigns)]


async def _alone(paces: list[float], seconds: float) -> dict[str, Any]:
    pacer: Pacer[int, int] = Pacer()
    begin = trio.current_time()
    flows = [pacer.add(key, cpm / 60, begin) for key, cpm in enumerate(paces)]
    for flow, cpm in zip(flows, paces, strict=True):
        pacer.feed(flow, range(int(cpm / 60 * seconds * 1.2) + 10), begin)
    lag, cpu = Histogram(), time.process_time()
    end = begin + seconds
    while (now := trio.current_time()) < end:
        for grant in pacer.grants(now, lambda: True, lambda item: item):
            lag.add(max(now - grant.due_at, 0.0))
        at = pacer.next_at(float("inf"))
        await trio.sleep_until(min(max(at, now + TICK_S), end))
    counts = [(f.granted, cpm / 60 * seconds) for f, cpm in zip(flows, paces, strict=True)]
    return _row(lag.milliseconds(), counts, (time.process_time() - cpu) / seconds)


async def _node(paces: list[float], seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        config = config_for(Path(folder))
        async with running(config, {"loopback": LoopbackGateway()}) as engine:
            first = await fill(engine.store, 0, Provider(name="loopback", type="loopback"))
            await engine.providers_changed()
            campaigns = [await _campaign(engine.store, first, cpm, seconds) for cpm in paces]
            cpu = time.process_time()
            started = {}
            for campaign in campaigns:
                started[campaign.id] = trio.current_time()
                await engine.start_campaign(campaign.id)
            await trio.sleep(seconds)
            lag = engine.statistics()["dispatcher"]["pacing_lag_ms"]
            counts = []
            for campaign in campaigns:
                await engine.stop_campaign(campaign.id)
                ran_s = trio.current_time() - started[campaign.id]
                tally = await engine.store.campaign_tally(campaign.id)
                counts.append((tally["dialled"], campaign.calls_per_minute / 60 * ran_s))
            return _row(lag, counts, (time.process_time() - cpu) / seconds)


async def _campaign(store: Store, first: Campaign, cpm: float, seconds: float) -> Campaign:
    group = await store.insert(Group(name=f"{cpm:.0f}"))
    await add_contacts(store, group.id, int(cpm / 60 * (seconds * 1.5 + SPARE_S)) + 10)
    return await store.insert(
        Campaign(program_id=first.program_id, group_id=group.id, calls_per_minute=cpm)
    )


def _row(lag_ms: dict[str, float], counts: list[tuple[int, float]], cpu: float) -> dict[str, Any]:
    """``counts`` holds (starts, starts the pace asked for) of every campaign.

    A campaign's first start comes at once, so one more than pace x time is right too.
    """
    off = [max(0.0, abs(made - asked) - 1) for made, asked in counts]
    return {
        "lag_ms": lag_ms,
        "starts": sum(made for made, _ in counts),
        "count_error": sum(off) / sum(asked for _, asked in counts),
        "count_error_max": max(off),
        "cpu": cpu,
    }


def _report(results: dict[str, dict[str, Any]], together: dict[str, Any]) -> Report:
    table = Table("run", "starts", "lag p50 ms", "lag p99 ms", "count error", "CPU", title="pacing")
    for name, row in results.items():
        table.add_row(
            name,
            f"{row['starts']:,}",
            f"{row['lag_ms']['p50']:.2f}",
            f"{row['lag_ms']['p99']:.2f}",
            f"{row['count_error']:.3%}",
            f"{row['cpu']:.2f}",
        )
    targets = []
    for name, row in results.items():
        lag_ms, error = row["lag_ms"]["p99"], row["count_error"]
        lag_met = lag_ms <= TARGET_LAG_MS
        targets.append(Target(f"{name}: lag p99, ms", f"<= {TARGET_LAG_MS}", lag_ms, lag_met))
        error_met = error <= TARGET_ERROR
        targets.append(Target(f"{name}: count error", f"<= {TARGET_ERROR}", error, error_met))
    return Report(
        name="pacing",
        results=results | {"shared provider": together},
        targets=targets + shared.targets(together),
        tables=[table, shared.table(together)],
    )
