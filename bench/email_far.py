"""What everybody in ``bench email`` sends, and whom to: Postfix's ``smtp-sink``.

``smtp-source`` is the ceiling: it sends the same bytes again and again and signs nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import orjson
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.child import HOST, Rate, free_port, listening

ROOT = Path(__file__).parent.parent
SINK, SOURCE = "/usr/sbin/smtp-sink", "/usr/sbin/smtp-source"
CONNECTIONS = 10
START_S = 20.0
DEADLINE_S = 120.0
SENDER, SENDER_NAME, DOMAIN = "news@example.org", "Example News", "example.org"
SELECTOR = "bench"
SUBJECT = "News for [contact:first_name]"
_SENTENCE = "Everything that has happened since we last wrote is in this letter, and more. "
HTML = (
    "<html><body><h1>Dear [contact:first_name] [contact:last_name],</h1>\n<p>"
    + _SENTENCE * 5
    + "</p>\n<p>Your number is [contact:custom1].</p>\n<p>"
    + _SENTENCE * 4
    + '</p>\n<p><a href="https://example.org/[contact:custom1]">Read on</a></p></body></html>\n'
)
"""A kilobyte with four tokens."""
PLAIN = re.sub(r"<[^>]*>", "", HTML)
_COUNTED = re.compile(rb"mesg=(\d+)\s")


def values(number: int) -> dict[str, str]:
    """Of one recipient's tokens."""
    return {"first_name": f"First{number}", "last_name": "O'Neil & Co", "custom1": f"n{number}"}


def address(number: int) -> str:
    """Of one recipient."""
    return f"r{number}@example.net"


def private_key() -> bytes:
    """RSA-2048 as PEM (PKCS #1: dkimpy reads that without a detour)."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


class Far:
    """A running smtp-sink."""

    def __init__(self, port: int, process: trio.Process) -> None:
        self.port = port
        self._process = process
        self._seen = bytearray()

    async def drain(self) -> None:
        """Read what it counts."""
        if self._process.stdout is None:
            raise RuntimeError("no pipe")
        async for chunk in self._process.stdout:
            self._seen += chunk
            del self._seen[:-4096]

    @property
    def taken(self) -> int:
        """Mails since its start."""
        counts = _COUNTED.findall(self._seen)
        return int(counts[-1]) if counts else 0

    async def agrees(self, sent: int, before: int) -> None:
        """Wait until it has counted so many; raises ``RuntimeError`` where it has others."""
        with trio.move_on_after(START_S):
            while self.taken - before < sent:  # noqa: ASYNC110 - its counter comes through a pipe
                await trio.sleep(0.01)
        if self.taken - before != sent:
            raise RuntimeError(f"{sent} sent, {self.taken - before} came")


@asynccontextmanager
async def smtp_sink() -> AsyncIterator[Far]:
    """Started, counting, killed at the end of the block."""
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = await trio.lowlevel.open_process(
        [SINK, *user, "-c", f"{HOST}:{port}", "256"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        await listening(port, START_S)
        async with trio.open_nursery() as nursery:
            far = Far(port, process)
            nursery.start_soon(far.drain)
            yield far
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def smtp_source(far: Far, messages: int) -> Rate:
    """Postfix's load generator: the same mail of the same length, unsigned."""
    before, begun = far.taken, time.perf_counter()
    with trio.fail_after(DEADLINE_S):
        await trio.run_process(
            [
                *(SOURCE, "-d", "-s", str(CONNECTIONS), "-m", str(messages)),
                *("-l", str(len(HTML) + len(PLAIN)), "-f", SENDER, "-t", address(0)),
                f"{HOST}:{far.port}",
            ]
        )
    rate = Rate(messages, time.perf_counter() - begun)
    await far.agrees(messages, before)
    return rate


async def child(far: Far, module: str, *arguments: str) -> Rate:
    """``python -m bench.MODULE PORT ...``; what it says it sent, the sink has to agree."""
    before = far.taken
    with trio.fail_after(DEADLINE_S):
        done = await trio.run_process(
            [sys.executable, "-m", f"bench.{module}", str(far.port), *arguments],
            capture_stdout=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    rate = msgspec.convert(orjson.loads(done.stdout), Rate)
    await far.agrees(rate.sent, before)
    return rate
