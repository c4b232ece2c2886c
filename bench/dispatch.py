"""Durable dispatch: decide → fsynced intent → loopback gateway → durable result, on SQLite.

Three things: the highest rate, the pacing lag at half of the target rate, and the memory with few
and with many contacts queued.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import trio
from rich.table import Table

from bench.report import Report, Target

TARGET_PER_S = 10_000
TARGET_LAG_MS = 15.0
UNPACED = 60_000_000.0
FLAT = 1.5
"""RSS with a million queued may be this many times that with ten thousand: O(1), not O(n)."""


async def run(smoke: bool) -> Report:  # noqa: FBT001 - the benches' common signature
    """Measure; ``smoke`` runs the same code on a tenth."""
    seconds, many = (1.0, 20_000) if smoke else (6.0, 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        top = await _measure(Path(folder) / "top", 20_000 if smoke else 150_000, UNPACED, seconds)
        pace = TARGET_PER_S / 2
        half = await _measure(
            Path(folder) / "half", 20_000 if smoke else 60_000, pace * 60, seconds
        )
        slow = 1000 * 60
        few = await _measure(Path(folder) / "few", 10_000, slow, seconds)
        queued = await _measure(Path(folder) / "many", many, slow, seconds)
    return _report({"top": top, "half": half, "queued_10k": few, f"queued_{many}": queued})


async def _measure(data: Path, contacts: int, calls_per_minute: float, s: float) -> dict[str, Any]:
    await _child("prepare", data, contacts)
    line = await _child("run", data, calls_per_minute, s)
    result: dict[str, Any] = orjson.loads(line)
    return result


async def _child(verb: str, data: Path, *numbers: float) -> bytes:
    command = [sys.executable, "-m", "bench.node", verb, str(data), *map(str, numbers)]
    start = partial(trio.run_process, command, capture_stdout=True, stderr=None)
    with trio.fail_after(300):
        done: subprocess.CompletedProcess[bytes] = await start()
    return done.stdout


def _report(results: dict[str, dict[str, Any]]) -> Report:
    top, half, few, queued = results.values()
    table = Table("run", "spools/s", "CPU", "lag p50 ms", "lag p99 ms", "RSS MB", title="dispatch")
    for name, row in results.items():
        lag = row["pacing_lag_ms"]
        table.add_row(
            name,
            f"{row['spools_per_s']:,.0f}",
            f"{row['cpu']:.2f}",
            f"{lag['p50']:.2f}",
            f"{lag['p99']:.2f}",
            f"{row['rss_mb']:.0f}",
        )
    rate, lag_ms = top["spools_per_s"], half["pacing_lag_ms"]["p99"]
    growth = queued["rss_mb"] / few["rss_mb"]
    targets = [
        Target("durable spools/s", f">= {TARGET_PER_S}", rate, rate >= TARGET_PER_S),
        Target("lag p99 at half, ms", f"<= {TARGET_LAG_MS}", lag_ms, lag_ms <= TARGET_LAG_MS),
        Target("RSS many / few queued", f"<= {FLAT}", growth, growth <= FLAT),
    ]
    return Report(name="dispatch", results=results, targets=targets, tables=[table])
