"""A simulated carrier: SIPp as UAS, with its own log and counts of what it saw."""

from __future__ import annotations

import csv
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from tests.support import LOCALHOST, free_media_port, free_udp_port
from tests.support.sipp import started

MIXED = Path(__file__).parents[2] / "api" / "demo_carrier" / "mixed.xml"
LIMIT_S = 600


class Invite(msgspec.Struct, frozen=True):
    """A call as SIPp saw it come in (retransmissions left out)."""

    call_id: str
    number: str


class Carrier:
    """A running SIPp UAS. ``port`` is where trunks shall send their calls."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    def invites(self) -> list[Invite]:
        """Every INVITE that opened a dialog, in the order they came."""
        seen: dict[str, Invite] = {}
        for line in self._one("*shortmessages.log").read_text(errors="replace").splitlines():
            found = re.search(r"\sR\s+(\S+)\s+.*INVITE sip:([^@]*)@", line)
            if found and found[1] not in seen:
                seen[found[1]] = Invite(found[1], found[2])
        return list(seen.values())

    def counts(self) -> dict[str, int]:
        """SIPp's own counter of every message of the scenario, by SIPp's column name."""
        with self._one("*counts.csv").open() as file:
            rows = list(csv.reader(file, delimiter=";"))
        names, last = rows[0], rows[-1]
        return {n: int(v) for n, v in zip(names, last, strict=False) if v.isdigit()}

    def _one(self, pattern: str) -> Path:
        (path,) = self.folder.glob(pattern)
        return path


@asynccontextmanager
async def carrier(folder: Path, scenario: Path = MIXED) -> AsyncIterator[Carrier]:
    """SIPp answering by ``scenario``; ended (SIGUSR1: finish calls, then quit) with the block."""
    sipp = shutil.which("sipp")
    assert sipp is not None, "sipp is not installed (make setup)"
    folder.mkdir()
    port = free_udp_port()
    command = [
        sipp, "-sf", str(scenario), "-i", LOCALHOST, "-p", str(port), "-nostdin",
        "-mp", str(free_media_port()), "-fd", "1",
        "-trace_shortmsg", "-trace_counts", "-trace_err",
        "-timeout", str(LIMIT_S), "-recv_timeout", "30000",
    ]  # fmt: skip
    async with started(command, folder, port) as process:
        yield Carrier(folder, port)
        process.send_signal(signal.SIGUSR1)
        with trio.move_on_after(40):
            await process.wait()
