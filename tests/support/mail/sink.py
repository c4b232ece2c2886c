"""Postfix's own load tools: ``smtp-sink`` takes mail and counts it, ``smtp-source`` sends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio

from tests.support import LOCALHOST, free_port, wait_until

SINK, SOURCE = "/usr/sbin/smtp-sink", "/usr/sbin/smtp-source"
BACKLOG = "256"
DEADLINE_S = 120.0
_COUNTER = re.compile(rb"mesg=(\d+)\s")


class Sink:
    """A running smtp-sink."""

    def __init__(self, port: int, process: trio.Process) -> None:
        self.port = port
        self._process = process
        self._seen = bytearray()

    async def drain(self) -> None:
        """Keep reading its counters (option ``-c``), so that it never waits for us."""
        assert self._process.stdout is not None
        async for chunk in self._process.stdout:
            self._seen += chunk
            del self._seen[:-4096]

    @property
    def messages(self) -> int:
        """Mails taken since its start, by its own counter; it wants the option ``-c``."""
        counts = _COUNTER.findall(self._seen)
        return int(counts[-1]) if counts else 0

    async def wait_messages(self, number: int) -> None:
        """Wait until it has taken so many."""

        async def enough() -> bool:
            return self.messages >= number

        await wait_until(enough, f"{number} mails at smtp-sink", deadline_s=DEADLINE_S)

    async def kill(self) -> None:
        """kill -9."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await self._process.wait()


@asynccontextmanager
async def smtp_sink(*options: str, port: int = 0) -> AsyncIterator[Sink]:
    """A started smtp-sink with these options, counting."""
    port = port or free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = await trio.lowlevel.open_process(
        [SINK, *user, "-c", *options, f"{LOCALHOST}:{port}", BACKLOG],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    sink = Sink(port, process)
    try:
        await wait_until(lambda: _answers(port), "smtp-sink answers")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.drain)
            yield sink
            nursery.cancel_scope.cancel()
    finally:
        await sink.kill()


async def _answers(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream(LOCALHOST, port)
    except OSError:
        return False
    async with stream:
        return True


class Sent(msgspec.Struct, frozen=True):
    """What smtp-source did."""

    messages: int
    seconds: float


async def smtp_source(
    port: int, messages: int, *options: str, connections: int = 10, size: int = 1000
) -> Sent:
    """Send so many mails over so many connections that stay open; raises where one is refused."""
    begun = time.perf_counter()
    load = ["-s", str(connections), "-m", str(messages), "-l", str(size)]
    envelope = ["-f", "a@example.org", "-t", "b@example.net"]
    with trio.fail_after(DEADLINE_S):
        await trio.run_process([SOURCE, "-d", *load, *envelope, *options, f"{LOCALHOST}:{port}"])
    return Sent(messages, time.perf_counter() - begun)
