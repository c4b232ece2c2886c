"""The SMSCs of ``bench sms``: a fast one of our own in C, and npm's ``smpp`` on Node.js."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import orjson
import trio

HERE = Path(__file__).parent
ROOT = HERE.parent
PEERS = ROOT / "tests" / "support" / "smsc"
NODE_MODULES = PEERS / "node_modules"
START_S = 20.0

Pipes = trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream]


class Taken(msgspec.Struct, frozen=True):
    """Messages an SMSC took since it was last asked, and from the first to the last of them."""

    taken: int
    seconds: float


class Far:
    """A running SMSC; ``counts``: it says what it took."""

    def __init__(self, pipes: Pipes, port: int, *, counts: bool) -> None:
        self._pipes = pipes
        self.port = port
        self.counts = counts

    async def taken(self, *, reset: bool = False) -> Taken:
        """What it took; only of one that ``counts``."""
        await self._pipes.send_all(b"reset\n" if reset else b"stat\n")
        return msgspec.convert(await next_line(self._pipes), Taken)


async def next_line(pipes: Pipes) -> dict[str, int | float]:
    """The next line of a process, as JSON."""
    line = bytearray()
    with trio.fail_after(START_S):
        while not line.endswith(b"\n"):
            chunk = await pipes.receive_some()
            if not chunk:
                raise RuntimeError(f"a process of the bench ended early: {line.decode()!r}")
            line += chunk
    found: dict[str, int | float] = orjson.loads(line)
    return found


@asynccontextmanager
async def child(command: Sequence[str], folder: Path | None = None) -> AsyncIterator[Pipes]:
    """The pipes of a process, killed at the end of the block."""
    process = await trio.lowlevel.open_process(
        list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, env=environment()
    )
    if process.stdio is None:
        raise RuntimeError("no pipes")
    try:
        yield process.stdio
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def environment() -> dict[str, str]:
    """Ours, with the checkout and the npm packages importable."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "NODE_PATH": str(NODE_MODULES)}


@asynccontextmanager
async def fast_smsc(folder: Path, *, receipts: bool = False) -> AsyncIterator[Far]:
    """Compiled with the compiler that ``make setup`` needs anyway."""
    program = folder / "sms_smsc"
    await trio.run_process(["gcc", "-O2", "-o", str(program), str(HERE / "sms_smsc.c")])
    arguments = ["receipts"] if receipts else []
    async with child([str(program), *arguments]) as pipes:
        yield Far(pipes, int((await next_line(pipes))["port"]), counts=True)


@asynccontextmanager
async def node_smsc() -> AsyncIterator[Far]:
    """The npm package ``smpp``; it keeps nothing and sends no receipts."""
    options = orjson.dumps({"receipt": "none"}).decode()
    async with child(["node", str(PEERS / "node_smsc.js"), options]) as pipes:
        port = int((await next_line(pipes))["port"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, pipes)
            yield Far(pipes, port, counts=False)
            nursery.cancel_scope.cancel()


async def _drain(pipes: Pipes) -> None:
    """It reports binds: nobody wants to know."""
    async for _ in pipes:
        pass
