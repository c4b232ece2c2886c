"""SIPp as the far end: scenarios of ``scenarios/`` on free ports, with what it saw and counted."""

from __future__ import annotations

import csv
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from tests.support import LOCALHOST, free_media_port, free_port, wait_until

SCENARIOS = Path(__file__).parent / "scenarios"
_QUIT_S = 10.0
_RULE = "-----------------------------------------------"


class Message(NamedTuple):
    """One SIP message of SIPp's log; ``sent`` by SIPp, or received."""

    sent: bool
    text: str

    @property
    def start(self) -> str:
        """The start line."""
        return self.text.split("\r\n", 1)[0].split("\n", 1)[0]

    def header(self, name: str) -> str:
        """The value of the first header of this name, "" where there is none."""
        for line in self.text.splitlines():
            key, _, value = line.partition(":")
            if key.strip().lower() == name.lower():
                return value.strip()
        return ""

    @property
    def rtp(self) -> tuple[str, int]:
        """Where its SDP wants RTP."""
        lines = self.text.splitlines()
        host = next(line for line in lines if line.startswith("c=IN IP4 ")).split()[2]
        return host, int(next(line for line in lines if line.startswith("m=audio ")).split()[1])


class Sipp:
    """A running SIPp."""

    def __init__(self, process: trio.Process, port: int, folder: Path) -> None:
        self.process = process
        self.port = port
        self._folder = folder

    def messages(self) -> list[Message]:
        """All messages so far; the last may still be incomplete."""
        path = self._folder / "messages.log"
        if not path.exists():
            return []
        found = []
        for block in path.read_text(errors="replace").split(_RULE)[1:]:
            head, _, text = block.partition(":\n\n")
            if " message " in head:
                found.append(Message(" sent " in head, text))
        return found

    def received(self, start: str) -> list[Message]:
        """Messages SIPp received whose start line begins with ``start``."""
        return [m for m in self.messages() if not m.sent and m.start.startswith(start)]

    async def wait_received(self, start: str, count: int = 1) -> list[Message]:
        """Wait until SIPp has received so many."""

        async def enough() -> bool:
            return len(self.received(start)) >= count

        await wait_until(enough, f"{count} x {start}")
        return self.received(start)

    async def finish(self) -> dict[str, int]:
        """Have SIPp end its calls and leave; its counters, cumulative ones without the (C)."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGUSR1)
            with trio.move_on_after(_QUIT_S):
                await self.process.wait()
        path = self._folder / "statistics.csv"
        with path.open() as file:
            *_, last = csv.DictReader(file, delimiter=";")
        return {k[:-3]: int(v) for k, v in last.items() if k and k.endswith("(C)") and v.isdigit()}


@asynccontextmanager
async def run_sipp(
    folder: Path, scenario: str, *arguments: str, keys: dict[str, str], log: bool = True
) -> AsyncIterator[Sipp]:
    """A UAS by the scenario of this name (``:uas`` = SIPp's own); ``keys`` fill its ``[key]``s."""
    folder.mkdir(parents=True, exist_ok=True)
    tcp = "t1" in arguments
    port = free_port(socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    command = [
        "sipp",
        *_which(folder, scenario, keys),
        "-i",
        LOCALHOST,
        "-p",
        str(port),
        "-mp",
        str(free_media_port()),
        "-nostdin",
        *arguments,
    ]
    command += ["-trace_stat", "-stf", str(folder / "statistics.csv"), "-fd", "1"]
    command += ["-trace_err", "-error_file", str(folder / "errors.log")]
    if log:
        command += ["-trace_msg", "-message_file", str(folder / "messages.log")]
    async with started(command, folder, port, tcp=tcp) as process:
        yield Sipp(process, port, folder)


@asynccontextmanager
async def started(
    command: Sequence[str], folder: Path, port: int, *, tcp: bool = False
) -> AsyncIterator[trio.Process]:
    """SIPp once it holds its port; killed at the end of the block where it is still there."""
    process = await trio.lowlevel.open_process(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await _wait_bound(process, port, tcp=tcp)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def _which(folder: Path, scenario: str, keys: dict[str, str]) -> list[str]:
    """Filled in by us: SIPp's own -key is not taken in a status line."""
    if scenario.startswith(":"):
        return ["-sn", scenario[1:]]
    text = (SCENARIOS / f"{scenario}.xml").read_text()
    for key, value in keys.items():
        text = text.replace(f"[{key}]", value)
    path = folder / "scenario.xml"
    path.write_text(text)
    return ["-sf", str(path)]


async def _wait_bound(process: trio.Process, port: int, *, tcp: bool) -> None:
    async def bound() -> bool:
        assert process.returncode is None, f"sipp ended with {process.returncode}"
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((LOCALHOST, port))
            except OSError:
                return True
        return False

    await wait_until(bound, f"sipp on port {port}")
