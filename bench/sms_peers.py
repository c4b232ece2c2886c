"""The client libraries of ``bench sms``, each in a process of its own: HOST PORT WINDOW SECONDS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import orjson
import trio

from bench.child import HOST, Rate
from bench.sms_far import Far, environment

HERE = Path(__file__).parent
TEXT = b"Your table for two is booked for tonight at eight."
FIRST_NUMBER = 4_917_010_000_000
DEADLINE_S = 120.0


CLIENTS = {
    "smpplib Client": (sys.executable, str(HERE / "sms_client.py")),
    "perl Net::SMPP": ("perl", str(HERE / "sms_client.pl")),
    "node smpp": ("node", str(HERE / "sms_client.js")),
}
OURS = (sys.executable, "-m", "bench.sms_ours")


async def client(name: str, far: Far, window: int, seconds: float) -> Rate:
    """One of ``CLIENTS`` against an SMSC."""
    return await measured((*CLIENTS[name], HOST), far, window, seconds)


async def ours(way: str, far: Far, window: int, seconds: float) -> Rate:
    """One of our ways to send; see ``sms_ours``."""
    return await measured((*OURS, HOST), far, window, seconds, way)


async def whole_node(far: Far, contacts: int) -> Rate:
    """A node's campaign over so many contacts; see ``sms_node``."""
    return await measured((sys.executable, "-m", "bench.sms_node", HOST), far, contacts, 0)


async def measured(
    command: tuple[str, ...], far: Far, window: int, seconds: float, *more: str
) -> Rate:
    """Run a client; where the SMSC counts, it has to agree with what the client says."""
    if far.counts:
        await far.taken(reset=True)
    with trio.fail_after(DEADLINE_S):
        done = await trio.run_process(
            [*command, str(far.port), str(window), str(seconds), *more],
            capture_stdout=True,
            stderr=subprocess.DEVNULL if command[0] == "perl" else None,
            env=environment(),
        )
    rate = msgspec.convert(orjson.loads(done.stdout), Rate)
    if far.counts:
        seen = (await far.taken()).taken
        if seen != rate.sent:
            raise RuntimeError(f"{command[1]}: {rate.sent} sent, {seen} came")
    return rate
