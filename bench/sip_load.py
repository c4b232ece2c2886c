"""Finding the highest rate without a failed session (RFC 7502 §4), and SIPp on both ends of it."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from engine.gateway import Stage
from engine.results import Result

HOST = "127.0.0.1"
KEPT_UP = 0.95  # of the asked rate: below, the side is saturated even if nothing failed
SETTLE_S = 0.5
BUFFER = ["-buff_size", "4000000"]  # SIPp's own 64 KiB lose packets whenever it is not scheduled


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One run at one rate. ``cpu_us`` is CPU time per call of all processes of the side."""

    rate: float
    achieved: float
    calls: int
    failed: int
    cpu_us: float = 0.0
    pdd_p50_ms: float = 0.0
    pdd_p99_ms: float = 0.0

    @property
    def clean(self) -> bool:
        """No failed session, and the rate was really kept."""
        return self.failed == 0 and self.achieved >= KEPT_UP * self.rate


Side = Callable[[float, float], Awaitable[Trial]]
"""``await side(rate, seconds)``: one trial."""


async def search(side: Side, start: float, seconds: float, steps: int) -> list[Trial]:
    """Double from ``start`` until it fails, then halve the gap; the trials, in order.

    A rate fails when it fails twice: one hiccup of a shared machine says nothing about a side.
    """
    trials: list[Trial] = []
    low, high, rate = 0.0, float("inf"), start
    for _ in range(steps):
        trial = await side(rate, seconds)
        trials.append(trial)
        if not trial.clean:
            await trio.sleep(SETTLE_S)
            trial = await side(rate, seconds)
            trials.append(trial)
        if trial.clean:
            low = rate
        else:
            high = rate
        rate = low * 2 if high == float("inf") else (low + high) / 2
        await trio.sleep(SETTLE_S)
    return trials


def best(trials: list[Trial]) -> Trial:
    """The clean trial with the highest achieved rate; where none is clean, the least bad one."""
    clean = [trial for trial in trials if trial.clean]
    if clean:
        return max(clean, key=lambda trial: trial.achieved)
    return min(trials, key=lambda trial: trial.failed / max(trial.calls, 1))


def free_port() -> int:
    """A UDP port nobody uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def sipp_uas() -> AsyncIterator[int]:
    """``sipp -sn uas`` on a free port: rings and answers at once."""
    port = free_port()
    command = ["sipp", "-sn", "uas", "-i", HOST, "-p", str(port), "-nostdin", *BUFFER]
    with tempfile.TemporaryDirectory() as folder:
        process = await trio.lowlevel.open_process(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await trio.sleep(SETTLE_S)
            yield port
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def sipp_uac(port: int) -> Side:
    """``sipp -sn uac`` against the UAS on ``port``."""

    async def trial(rate: float, seconds: float) -> Trial:
        calls = int(rate * seconds)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "statistics.csv"
            command = [
                "sipp", "-sn", "uac", f"{HOST}:{port}", "-i", HOST, "-p", str(free_port()),
                "-r", str(int(rate)), "-m", str(calls), "-l", "100000", "-nostdin", *BUFFER,
                "-timeout", f"{seconds * 2 + 5:.0f}", "-trace_stat", "-stf", str(file), "-fd", "1",
            ]  # fmt: skip
            before_s = children_cpu_s()
            # Lost packets are repeated for half a minute: such a trial has failed long before.
            with trio.move_on_after(seconds * 1.5 + 2) as scope:
                await trio.run_process(
                    command, cwd=folder, check=False, capture_stdout=True, capture_stderr=True,
                    deliver_cancel=_kill,
                )  # fmt: skip
            cpu_s = children_cpu_s() - before_s
            with file.open() as lines:
                *_, last = csv.DictReader(lines, delimiter=";")
        done = int(last["SuccessfulCall(C)"])
        achieved = 0.0 if scope.cancelled_caught else float(last["CallRate(C)"])
        failed = calls - done
        return Trial(
            rate=rate, achieved=achieved, calls=calls, failed=failed,
            cpu_us=cpu_s / max(done, 1) * 1e6,
        )  # fmt: skip

    return trial


async def _kill(process: trio.Process) -> None:
    process.kill()


def children_cpu_s() -> float:
    """CPU seconds of all children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


Place = Callable[[int, Callable[[Stage], None]], Awaitable[Result]]
"""``await place(number, progress)``: one call from order to result."""


def paced(place: Place, cpu_s: Callable[[], float]) -> Side:
    """A side that calls ``place`` at an even rate; ``cpu_s`` tells the CPU of all its processes."""

    async def trial(rate: float, seconds: float) -> Trial:
        run = _Run(place, int(rate * seconds))
        before_s = cpu_s()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.start_all, rate, nursery)
        took_s = trio.current_time() - began
        # The last calls end after the last start: what counts is the rate they were taken at.
        achieved = run.calls / max(run.last_left - began, 1e-9) if run.last_left else 0.0
        waits = sorted(run.waits) or [0.0]
        return Trial(
            rate=rate,
            achieved=min(achieved, run.calls / max(took_s - run.longest_s, 1e-9)),
            calls=run.calls,
            failed=run.calls - run.answered,
            cpu_us=(cpu_s() - before_s) / run.calls * 1e6,
            pdd_p50_ms=waits[len(waits) // 2] * 1e3,
            pdd_p99_ms=waits[int(len(waits) * 0.99)] * 1e3,
        )

    return trial


class _Run:
    """The calls of one trial."""

    def __init__(self, place: Place, calls: int) -> None:
        self.calls = calls
        self.answered = 0
        self.last_left = 0.0
        self.longest_s = 0.0
        self.waits: list[float] = []
        self._place = place

    async def start_all(self, rate: float, nursery: trio.Nursery) -> None:
        began = trio.current_time()
        for number in range(self.calls):
            due = began + number / rate
            if due > trio.current_time():
                await trio.sleep_until(due)
            nursery.start_soon(self._one, number)
            if number % 64 == 0:
                await trio.lowlevel.checkpoint()

    async def _one(self, number: int) -> None:
        asked = left = trio.current_time()

        def progress(stage: Stage) -> None:
            nonlocal left
            if stage is Stage.LEFT:
                left = self.last_left = trio.current_time()
            elif stage is Stage.CONNECTED:
                self.waits.append(trio.current_time() - left)

        result = await self._place(number, progress)
        self.answered += result.succeeded
        self.longest_s = max(self.longest_s, trio.current_time() - asked)


def family_cpu_s() -> float:
    """CPU seconds of this process and all that descend from it and live."""
    return sum(_cpu_s(pid) for pid in [os.getpid(), *_descendants(os.getpid())])


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        below = [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except OSError:
        return found  # it has just ended
    for child in below:
        found += [child, *_descendants(child)]
    return found


def _cpu_s(pid: int) -> float:
    try:
        if Path(f"/proc/{pid}/comm").read_text().strip() == "sipp":
            return 0.0
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except OSError:
        return 0.0


__all__ = ["Place", "Side", "Trial", "best", "family_cpu_s", "paced", "search", "sipp_uac"]
