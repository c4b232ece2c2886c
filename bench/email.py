"""``python -m bench email``: mails a second, built, signed and sent, ours beside the libraries.

Everybody sends a kilobyte of HTML with four tokens and its plain text, signed with RSA-2048, over
ten connections to the same ``smtp-sink`` in the same run, taking turns; a figure is the median of
its rounds, and the sink has to have counted what each says it sent. Ours: at the gateway (words
filled in, signed, intent and answer on the disk with fsync), the same without DKIM, and the whole
node. ``smtp-source`` (C) builds and signs nothing: it is what the sink can take.
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

from bench.child import Rate
from bench.email_far import Far, child, private_key, smtp_sink, smtp_source
from bench.report import Report, Target

SOURCE = "smtp-source (C, unsigned)"
OURS, UNSIGNED, NODE = "ours, gateway", "ours, gateway, no DKIM", "ours, whole node"
NAIVE = "EmailMessage, dkimpy, aiosmtplib through trio-asyncio"
ASYNCIO = "EmailMessage, dkimpy, aiosmtplib on asyncio"
THREADS = "EmailMessage, dkimpy, smtplib in threads"
WANTED, WANTED_SOURCE = 10.0, 0.8

Side = Callable[[Far], Awaitable[Rate]]


class Effort(msgspec.Struct, frozen=True):
    """How long to look: seconds a figure and rounds; mails where seconds cannot be."""

    seconds: float
    rounds: int
    messages: int
    contacts: int


FULL = Effort(seconds=4.0, rounds=5, messages=40_000, contacts=3_000)
SMOKE = Effort(seconds=0.3, rounds=1, messages=500, contacts=50)


async def run(smoke: bool) -> Report:  # noqa: FBT001 - the signature of every bench
    """Round after round, everybody in turn."""
    effort = SMOKE if smoke else FULL
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key.pem"
        key.write_bytes(private_key())
        async with smtp_sink() as far:
            rates = await measure(far, sides(effort, key), effort.rounds)
    return report(rates)


def sides(effort: Effort, key: Path) -> dict[str, Side]:
    """Everybody, in the order of their turns."""
    seconds, contacts = str(effort.seconds), str(effort.contacts)
    return {
        SOURCE: partial(smtp_source, messages=effort.messages),
        OURS: partial(_child, "email_ours", seconds, str(key)),
        NAIVE: partial(_child, "email_naive", seconds, "trio"),
        NODE: partial(_child, "email_node", contacts, str(key)),
        UNSIGNED: partial(_child, "email_ours", seconds, ""),
        ASYNCIO: partial(_child, "email_naive", seconds, "asyncio"),
        THREADS: partial(_child, "email_smtplib", seconds),
    }


async def _child(module: str, *rest: Any) -> Rate:
    *arguments, far = rest
    return await child(far, module, *arguments)


async def measure(far: Far, everybody: dict[str, Side], rounds: int) -> dict[str, list[float]]:
    """Mails a second of each, round by round."""
    rates: dict[str, list[float]] = {name: [] for name in everybody}
    for _ in range(rounds):
        for name, side in everybody.items():
            rates[name].append((await side(far)).per_s)
    return rates


def report(rates: dict[str, list[float]]) -> Report:
    """The table, ratios, and how the targets were met."""
    medians = {name: statistics.median(found) for name, found in rates.items()}
    results: dict[str, Any] = {
        "mails_per_s": medians,
        "rounds": rates,
        "ratios": {name: medians[OURS] / rate for name, rate in medians.items() if name != OURS},
        "node_ratios": {NAIVE: medians[NODE] / medians[NAIVE]},
    }
    return Report("email", results, targets(medians), [table(medians)])


def table(medians: dict[str, float]) -> Table:
    """Rates, and what ours are a multiple of."""
    shown = Table("side", title="mails a second to smtp-sink, 10 connections, 1 kB HTML + text")
    for column in ("mails/s", "of smtp-source", "x naive"):
        shown.add_column(column, justify="right")
    for name, rate in medians.items():
        share, times = rate / medians[SOURCE], rate / medians[NAIVE]
        shown.add_row(name, f"{rate:,.0f}", f"{share:.3f}", f"{times:.1f}x")
    return shown


def targets(medians: dict[str, float]) -> list[Target]:
    """At the gateway, over the library stack and of what the sink can take."""
    naive, source = medians[OURS] / medians[NAIVE], medians[OURS] / medians[SOURCE]
    return [
        Target(f"{OURS} / {NAIVE}", f">= {WANTED:.0f} x", naive, naive >= WANTED),
        Target(f"{OURS} / {SOURCE}", f">= {WANTED_SOURCE} x", source, source >= WANTED_SOURCE),
    ]
