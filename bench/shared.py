"""Two campaigns of different pace share a provider of limited CPS and channels: who gets what.

The fair share is the same part of what each asked for; the limits are the provider's, and nobody
may exceed them, whatever the campaigns ask.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import trio
from rich.table import Table

from bench.node import add_contacts, config_for, fill, running
from bench.report import Target
from engine.bus import Subscription
from engine.events import SpoolChanged
from engine.model import Campaign, Group, Provider
from gateways.loopback.gateway import LoopbackGateway

CALLS_PER_SECOND, CHANNELS, RING_S = 100.0, 15, 0.2
PACES_CPM = (3000.0, 12_000.0)
FAIR = 0.05


async def measure(seconds: float) -> dict[str, Any]:
    """Run both campaigns for a while and count what left, and when."""
    provider = Provider(
        name="shared",
        type="loopback",
        calls_per_second=CALLS_PER_SECOND,
        channels=CHANNELS,
        settings={"ring_s": RING_S},
    )
    with tempfile.TemporaryDirectory() as folder:
        async with running(config_for(Path(folder)), {"loopback": LoopbackGateway()}) as engine:
            first = await fill(engine.store, 0, provider)
            await engine.providers_changed()
            campaigns = []
            for cpm in PACES_CPM:
                group = await engine.store.insert(Group(name=f"{cpm:.0f}"))
                await add_contacts(engine.store, group.id, int(cpm / 60 * seconds) + 100)
                campaigns.append(
                    await engine.store.insert(
                        Campaign(
                            program_id=first.program_id, group_id=group.id, calls_per_minute=cpm
                        )
                    )
                )
            with engine.bus.subscribe(1_000_000) as events:
                for campaign in campaigns:
                    await engine.start_campaign(campaign.id)
                starts = await _starts(events, seconds)
            (trunk,) = engine.statistics()["dispatcher"]["trunks"].values()
            return _row([c.id for c in campaigns], starts, trunk["channels_peak"], seconds)


async def _starts(events: Subscription, seconds: float) -> list[tuple[float, int | None]]:
    starts: list[tuple[float, int | None]] = []
    with trio.move_on_after(seconds):
        while True:
            event = await events.get()
            if isinstance(event, SpoolChanged) and event.stage == "left":
                starts.append((event.at.timestamp(), event.campaign_id))
    return starts


def _row(
    ids: list[int], starts: list[tuple[float, int | None]], channels_peak: int, seconds: float
) -> dict[str, Any]:
    served = Counter(campaign_id for _, campaign_id in starts)
    parts = [served[i] / (cpm / 60 * seconds) for i, cpm in zip(ids, PACES_CPM, strict=True)]
    return {
        "asked_per_s": [cpm / 60 for cpm in PACES_CPM],
        "served_per_s": [served[i] / seconds for i in ids],
        "served_part": parts,
        "unfairness": max(parts) / min(parts) - 1,
        "most_in_a_second": _most_in_a_second([at for at, _ in starts]),
        "calls_per_second": CALLS_PER_SECOND,
        "channels_peak": channels_peak,
        "channels": CHANNELS,
    }


def _most_in_a_second(times: list[float]) -> int:
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def table(row: dict[str, Any]) -> Table:
    """For people."""
    shown = Table("campaign", "asked/s", "served/s", "part", title="one provider shared by two")
    for cpm, asked, served, part in zip(
        PACES_CPM, row["asked_per_s"], row["served_per_s"], row["served_part"], strict=True
    ):
        shown.add_row(f"{cpm:,.0f} CPM", f"{asked:.0f}", f"{served:.1f}", f"{part:.3f}")
    shown.caption = (
        f"most starts in any second {row['most_in_a_second']} (limit {CALLS_PER_SECOND:.0f}), "
        f"channels at most {row['channels_peak']} (limit {CHANNELS})"
    )
    return shown


def targets(row: dict[str, Any]) -> list[Target]:
    """Fair within ``FAIR``; no limit exceeded."""
    most, peak, unfair = row["most_in_a_second"], row["channels_peak"], row["unfairness"]
    return [
        Target("shared: unfairness", f"<= {FAIR}", unfair, unfair <= FAIR),
        Target(
            "shared: starts in any second",
            f"<= {CALLS_PER_SECOND:.0f}",
            float(most),
            most <= CALLS_PER_SECOND,
        ),
        Target("shared: channels", f"<= {CHANNELS}", float(peak), peak <= CHANNELS),
    ]
