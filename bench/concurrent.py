"""``python -m bench concurrent``: calls up with audio at once.

Two RTP engines as the node runs them, each held to one core, send to each other: every session
plays a recording and receives one, 50 packets a second each way. How late each packet leaves is
taken inside the engine against its own 1 ms clock; lost is what the one sent and the other did not
receive, counted after both have stopped. Only one of the two counts as "calls": the other is the
far end. The same run measures pjsua2's own media: processes of four calls each that play a file
to one another over real RTP. Both rows are media only, in CPU per call, never as totals.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile
import structlog
import trio
from rich.table import Table

from bench.pjsua_media import CALLS_A_PROCESS, HOST
from bench.report import Report, Target
from engine.config import SipConfig
from engine.gateway import Media
from gateways.sip.media import RemoteMedia, RtpEngine, RtpSession
from gateways.sip.media_protocol import percentile_ms

LATE_P99_MS = 5.0
WANTED_CALLS, GOAL_CALLS = 1000, 4000
# 4,000 even ports each and some to spare, below a node's own (SipConfig) and the ephemeral ones.
PORTS = {"ours": 2_000, "theirs": 11_000}
PJSUA_RTP_PORT = 30_000
MESSAGE_S = 60.0


class Usage(msgspec.Struct, frozen=True):
    """What processes have used: CPU seconds so far, and proportional memory now."""

    cpu_s: float
    memory_bytes: int


class Row(msgspec.Struct, frozen=True):
    """One measurement."""

    media: str
    calls: int
    seconds: float
    cpu_ms_per_s_per_call: float
    memory_kib_per_call: float
    late_p50_ms: float | None = None
    late_p99_ms: float | None = None
    late_max_ms: float | None = None
    packets: int | None = None
    lost: int | None = None
    stalls: int | None = None
    realtime: bool | None = None

    @property
    def clean(self) -> bool:
        """Punctual and complete: no packet lost, no frame skipped."""
        return self.lost == 0 and self.stalls == 0 and (self.late_p99_ms or 0.0) <= LATE_P99_MS


def usage(pids: list[int]) -> Usage:
    """Of these processes, all their threads, from /proc (nanoseconds; ``stat`` has only ticks)."""
    cpu_ns, memory = 0, 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            cpu_ns += int((task / "schedstat").read_text().split()[0])
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                memory += int(line.split()[1]) * 1024
    return Usage(cpu_ns / 1e9, memory)


def hold_to_core(pid: int, number: int) -> None:
    """Each engine gets a core of its own, where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {cores[number % len(cores)]})


def message(directory: Path) -> Media:
    """A minute of noise: nothing about it can be compressed or cached."""
    samples = np.random.default_rng(1).normal(0, 3000, int(MESSAGE_S * 8000)).astype(np.int16)
    path = directory / "message.wav"
    soundfile.write(path, samples, 8000, subtype="PCM_16")
    return Media(path, MESSAGE_S)


@asynccontextmanager
async def engine(name: str, calls: int, core: int) -> AsyncIterator[RtpEngine]:
    """An engine with one thread on one core and ports for so many calls."""
    first = PORTS[name]
    config = SipConfig(
        host=HOST, rtp_port_min=first, rtp_port_max=first + 2 * calls + 400, rtp_threads=1
    )
    one = RtpEngine(config)
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        hold_to_core(one.statistics()["pid"], core)
        yield one
        nursery.cancel_scope.cancel()


def ignore(_digit: str) -> None:
    """Nobody dials here."""


async def connect_both(one: list[RtpSession], other: list[RtpSession], *, send: bool) -> None:
    """Each session to its counterpart; then long enough for both engines to have taken it."""
    for here, there in zip(one, other, strict=True):
        here.connect(RemoteMedia(*there.address, 0, None, send))
        there.connect(RemoteMedia(*here.address, 0, None, send))
    await trio.sleep(0.5)


async def measure_engine(calls: int, seconds: float, media: Media) -> Row:
    """So many calls between two engines."""
    async with engine("ours", calls, 0) as ours, engine("theirs", calls, 1) as theirs:
        mine = [ours.lease(ignore) for _ in range(calls)]
        far = [theirs.lease(ignore) for _ in range(calls)]
        pid = ours.statistics()["pid"]
        async with trio.open_nursery() as nursery:
            await connect_both(mine, far, send=False)  # all listen before the first one speaks
            await connect_both(mine, far, send=True)
            for session in [*mine, *far]:
                nursery.start_soon(session.play, media)
            await trio.sleep(1.0)  # all are up
            late, before = ours.late_histogram(), usage([pid])
            begun = trio.current_time()
            await trio.sleep(seconds)
            after, lates = usage([pid]), ours.late_histogram()
            took = trio.current_time() - begun
            nursery.cancel_scope.cancel()
        await connect_both(mine, far, send=False)
        sent, lost = await count_lost(mine, far)
        totals = ours.statistics()
    late = [new - old for new, old in zip(lates, late, strict=True)]
    return Row(
        "outspool RTP engine", calls, took,
        (after.cpu_s - before.cpu_s) * 1000 / took / calls, after.memory_bytes / 1024 / calls,
        percentile_ms(late, 0.5), percentile_ms(late, 0.99), percentile_ms(late, 1.0),
        sent, lost, totals["stalls"], totals["realtime"],
    )  # fmt: skip


async def count_lost(mine: list[RtpSession], far: list[RtpSession]) -> tuple[int, int]:
    """Packets sent both ways, and those that never arrived, once everything has stopped."""
    counts, before = await counted(mine, far), (-1, -1)
    while counts != before:
        await trio.sleep(0.3)
        before, counts = counts, await counted(mine, far)
    return counts[0], counts[0] - counts[1]


async def counted(mine: list[RtpSession], far: list[RtpSession]) -> tuple[int, int]:
    """Sent and received of all sessions now."""
    await trio.lowlevel.checkpoint()
    stats = [session.statistics() for session in [*mine, *far]]
    return sum(one.sent for one in stats), sum(one.received for one in stats)


class Peer(msgspec.Struct):
    """A process of ``bench.pjsua_media`` and what it still has to say."""

    process: trio.Process
    rest: bytes = b""

    async def line(self) -> str:
        """Its next line; ``RuntimeError`` where it ended instead."""
        stdout = self.process.stdout
        while stdout is not None and b"\n" not in self.rest:
            data = await stdout.receive_some(4096)
            if not data:
                raise RuntimeError(f"pjsua2 process ended with {await self.process.wait()}")
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\n")
        return line.decode()

    async def until(self, start: str, count: int = 1) -> str:
        """Read (past pjlib's own messages) until so many lines begin like this; the last one."""
        while True:
            line = await self.line()
            count -= line.startswith(start)
            if not count:
                return line


@asynccontextmanager
async def pjsua(*arguments: str) -> AsyncIterator[Peer]:
    """One process, killed at the end: it has nothing to save."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "bench.pjsua_media", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield Peer(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def pjsua_pair(stack: AsyncExitStack, number: int, media: Media) -> list[int]:
    """Four calls between two processes; their process ids."""
    port = PJSUA_RTP_PORT + number * 4 * CALLS_A_PROCESS
    wav = str(media.path)
    callee = await stack.enter_async_context(pjsua("callee", str(port), wav))
    sip_port = (await callee.until("port ")).split()[1]
    other = str(port + 2 * CALLS_A_PROCESS)
    caller = await stack.enter_async_context(
        pjsua("caller", other, wav, sip_port, str(CALLS_A_PROCESS))
    )
    await caller.until("up", CALLS_A_PROCESS)
    await callee.until("up", CALLS_A_PROCESS)
    return [callee.process.pid, caller.process.pid]


async def measure_pjsua(calls: int, seconds: float, media: Media) -> Row:
    """So many calls carried by pjsua2 itself, counted at both ends: each end is one call."""
    async with AsyncExitStack() as stack:
        pids: list[int] = []
        with trio.fail_after(60):
            for number in range(calls // (2 * CALLS_A_PROCESS)):
                pids += await pjsua_pair(stack, number, media)
        await trio.sleep(1.0)
        before, begun = usage(pids), trio.current_time()
        await trio.sleep(seconds)
        after, took = usage(pids), trio.current_time() - begun
    ends = len(pids) * CALLS_A_PROCESS
    return Row(
        "pjsua2's own media", ends, took,
        (after.cpu_s - before.cpu_s) * 1000 / took / ends, after.memory_bytes / 1024 / ends,
    )  # fmt: skip


async def run(smoke: bool) -> Report:  # noqa: FBT001 - every bench's entry point
    """Measure; in smoke mode few calls for a moment."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is JSON's
    sizes = [50] if smoke else [WANTED_CALLS, 2000, GOAL_CALLS]
    seconds = 1.0 if smoke else 6.0
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="outspool-bench-") as directory:
        media = message(Path(directory))
        rows += [await measure_pjsua(8 if smoke else 80, seconds, media)]
        rows += [await measure_engine(calls, seconds, media) for calls in sizes]
    return report(rows)


def report(rows: list[Row]) -> Report:
    """The rows as tables, JSON and targets."""
    pjsua_row, engine_rows = rows[0], rows[1:]
    first = engine_rows[0]
    clean = max((row.calls for row in engine_rows if row.clean), default=0)
    ratio = pjsua_row.cpu_ms_per_s_per_call / first.cpu_ms_per_s_per_call
    results: dict[str, Any] = {
        "rows": msgspec.to_builtins(rows),
        "cpu_per_call_pjsua2_to_engine": ratio,
    }
    lateness = f"lateness p99 <= {LATE_P99_MS:g} ms, none lost"
    targets = [
        Target(
            "calls up with audio",
            f">= {WANTED_CALLS}, {lateness}",
            float(clean),
            clean >= WANTED_CALLS,
        ),
        Target("the goal", f">= {GOAL_CALLS}, {lateness}", float(clean), clean >= GOAL_CALLS),
    ]
    return Report("concurrent", results, targets, [table(rows, ratio)])


def table(rows: list[Row], ratio: float) -> Table:
    """One line a measurement."""
    caption = f"pjsua2 spends {ratio:.1f} times the CPU of the engine per call, in this run"
    shown = Table(
        "media by", "calls", "CPU ms/s per call", "KiB per call", "late p50 / p99 / max ms",
        "packets", "lost", "stalls", title="calls up with audio at once", caption=caption,
    )  # fmt: skip
    for row in rows:
        late = (row.late_p50_ms, row.late_p99_ms, row.late_max_ms)
        shown.add_row(
            row.media,
            f"{row.calls:,}",
            f"{row.cpu_ms_per_s_per_call:.3f}",
            f"{row.memory_kib_per_call:,.1f}",
            " / ".join("-" if one is None else f"{one:g}" for one in late),
            "-" if row.packets is None else f"{row.packets:,}",
            "-" if row.lost is None else f"{row.lost:,}",
            "-" if row.stalls is None else f"{row.stalls:,}",
        )
    return shown
