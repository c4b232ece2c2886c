"""``python -m bench sms``: submit_sm a second by window, ours beside three libraries and Kannel.

Everybody sends the same text to the same SMSC in the same run, taking turns; a figure is the median
of its rounds. The first SMSC is our own in C, since one of another make (the second: npm's smpp) is
busy before the faster clients are. Ours: ``bulk`` (a link without journal), ``durable`` (intent and
answer on the disk, fsync, before anything counts), ``await`` (durable, one task waiting for each
message) and the whole node, where a campaign also waits for receipts.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from bench import sms_kannel
from bench.child import Rate
from bench.report import Report, Target
from bench.sms_far import Far, fast_smsc, node_smsc
from bench.sms_peers import CLIENTS, client, ours, whole_node

BULK, DURABLE, AWAIT = "ours bulk", "ours durable", "ours await"
KANNEL, STORED = "Kannel", "Kannel with store"
NODE = "ours, whole node"
FAST, OTHER = "fast", "node"
WANTED_STORED, WANTED_CLIENT = 5.0, 7.0
AT = 100
"""The window the targets are for."""

Side = Callable[[Far, int], Awaitable[Rate]]
Rows = dict[str, dict[int, float]]


class Effort(msgspec.Struct, frozen=True):
    """How long to look: seconds a figure, rounds, windows; messages where seconds cannot be."""

    seconds: float
    rounds: int
    windows: tuple[int, ...]
    messages: int
    contacts: int


FULL = Effort(seconds=1.0, rounds=3, windows=(1, 10, 100, 1000), messages=20_000, contacts=10_000)
SMOKE = Effort(seconds=0.1, rounds=1, windows=(1, 100), messages=300, contacts=100)


async def run(smoke: bool) -> Report:  # noqa: FBT001 - the signature of every bench
    """Measure all sides against the fast SMSC, then those that are no Kannel against the other."""
    effort = SMOKE if smoke else FULL
    with tempfile.TemporaryDirectory() as folder:
        async with fast_smsc(Path(folder)) as far:
            fast = await measure(far, {**libraries(effort), **kannels(effort)}, effort)
        async with fast_smsc(Path(folder), receipts=True) as far:
            rates = [await whole_node(far, effort.contacts) for _ in range(effort.rounds)]
    async with node_smsc() as far:
        other = await measure(far, libraries(effort), effort)
    return report(fast, other, statistics.median(rate.per_s for rate in rates))


def libraries(effort: Effort) -> dict[str, Side]:
    """Ours and the client libraries: they send for so many seconds."""
    ways: dict[str, Side] = {name: partial(_client, name, effort.seconds) for name in CLIENTS}
    for name in (BULK, DURABLE, AWAIT):
        ways[name] = partial(_ours, name.removeprefix("ours "), effort.seconds)
    return ways


def kannels(effort: Effort) -> dict[str, Side]:
    """Kannel without and with its store, where it is installed."""
    if not sms_kannel.installed():
        return {}
    return {
        KANNEL: partial(_kannel, effort.messages, store=False),
        STORED: partial(_kannel, effort.messages, store=True),
    }


async def _client(name: str, seconds: float, far: Far, window: int) -> Rate:
    return await client(name, far, window, seconds)


async def _ours(way: str, seconds: float, far: Far, window: int) -> Rate:
    return await ours(way, far, window, seconds)


async def _kannel(messages: int, far: Far, window: int, *, store: bool) -> Rate:
    return await sms_kannel.kannel(far, window, messages // (4 if window == 1 else 1), store=store)


async def measure(far: Far, sides: dict[str, Side], effort: Effort) -> Rows:
    """Round after round, window after window, everybody in turn."""
    rates: dict[str, dict[int, list[float]]] = {
        name: {window: [] for window in effort.windows} for name in sides
    }
    for _ in range(effort.rounds):
        for window in effort.windows:
            for name, side in sides.items():
                rates[name][window].append((await side(far, window)).per_s)
    return {
        name: {window: statistics.median(found) for window, found in by_window.items()}
        for name, by_window in rates.items()
    }


def report(fast: Rows, other: Rows, node_per_s: float) -> Report:
    """The tables, ratios to the best library and to Kannel, and how the targets were met."""
    results: dict[str, Any] = {
        FAST: fast,
        OTHER: other,
        NODE: {"messages_per_s": node_per_s},
        "ratios": {FAST: ratios(fast), OTHER: ratios(other)},
    }
    tables = [
        table("submit_sm/s against the fast SMSC (ours, in C)", fast),
        table("submit_sm/s against npm's smpp as SMSC", other),
    ]
    tables[0].caption = f"{NODE}, campaign to the last receipt: {node_per_s:,.0f} messages/s"
    return Report("sms", results, targets(fast), tables)


def ratios(rows: Rows) -> dict[str, dict[int, float]]:
    """Ours by window: over the best library, over Kannel with store where that was measured."""
    found: dict[str, dict[int, float]] = {}
    for name in (BULK, DURABLE, AWAIT):
        found[f"{name} / best library"] = {
            window: rate / max(rows[peer][window] for peer in CLIENTS)
            for window, rate in rows[name].items()
        }
    for kannel in (KANNEL, STORED):
        if kannel in rows:
            name = DURABLE if kannel == STORED else BULK
            found[f"{name} / {kannel}"] = {
                window: rate / rows[kannel][window] for window, rate in rows[name].items()
            }
    return found


def table(title: str, rows: Rows) -> Table:
    """Rates, then ratios; a ratio below 1 is red."""
    shown = Table("side", title=title)
    windows = next(iter(rows.values()))
    for window in windows:
        shown.add_column(f"window {window}", justify="right")
    for name, by_window in rows.items():
        shown.add_row(name, *(f"{rate:,.0f}" for rate in by_window.values()))
    shown.add_section()
    for name, by_window in ratios(rows).items():
        shown.add_row(name, *(_shown(ratio) for ratio in by_window.values()))
    return shown


def _shown(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio >= 1 else f"[red]{ratio:.2f}x[/red]"


def targets(fast: Rows) -> list[Target]:
    """At window ``AT``; without Kannel here, what is to be compared with it is not met."""
    found = ratios(fast)
    best = found[f"{BULK} / best library"][AT]
    aims = [
        Target(
            f"{BULK} at window {AT}",
            f">= {WANTED_CLIENT:.0f} x the best library",
            best,
            best >= WANTED_CLIENT,
        )
    ]
    kannel = found.get(f"{DURABLE} / {STORED}")
    aims.append(
        Target(
            f"{DURABLE} at window {AT}",
            f">= {WANTED_STORED:.0f} x {STORED}",
            "Kannel is not installed (make rivals)" if kannel is None else kannel[AT],
            kannel is not None and kannel[AT] >= WANTED_STORED,
        )
    )
    return aims
