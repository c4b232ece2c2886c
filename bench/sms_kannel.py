"""Debian's Kannel as one side of ``bench sms``: bearerbox, fed by its own mtbatch.

The rate is what the SMSC saw, from the first message to the last. With a store, every message and
every answer is appended to a file before it goes on; bearerbox does not fsync it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from bench.child import HOST, Rate, free_port, listening
from bench.sms_far import Far
from bench.sms_peers import FIRST_NUMBER, TEXT

BEARERBOX = "/usr/sbin/bearerbox"
DEADLINE_S = 60.0
_LOOK_S = 0.05


def installed() -> bool:
    """Whether ``make rivals`` was run here, or the package is there anyway."""
    return Path(BEARERBOX).exists() and shutil.which("mtbatch") is not None


async def kannel(far: Far, window: int, messages: int, *, store: bool) -> Rate:
    """A bearerbox of its own for every measurement."""
    with tempfile.TemporaryDirectory() as name:
        folder, box_port = Path(name), free_port()
        (folder / "kannel.conf").write_text(_config(far.port, box_port, window, store=store))
        (folder / "content").write_text(TEXT.decode())
        numbers = range(FIRST_NUMBER, FIRST_NUMBER + messages)
        (folder / "to").write_text("".join(f"{number}\n" for number in numbers))
        await far.taken(reset=True)
        inject = ["mtbatch", "-v", "4", "-b", HOST, "-p", str(box_port)]
        async with _quiet([BEARERBOX, "-v", "4", "kannel.conf"], folder):
            await listening(box_port, DEADLINE_S)
            async with _quiet([*inject, "-f", "4930", "content", "to"], folder):
                return await _all_taken(far, messages)


def _config(smsc_port: int, box_port: int, window: int, *, store: bool) -> str:
    kept = "store-type = file\nstore-location = kannel.store\n" if store else ""
    return f"""
group = core
admin-port = {free_port()}
admin-password = bench
smsbox-port = {box_port}
box-allow-ip = "{HOST}"
log-level = 4
sms-outgoing-queue-limit = 1000000
{kept}
group = smsc
smsc = smpp
smsc-id = far
host = {HOST}
port = {smsc_port}
smsc-username = outspool
smsc-password = secret
system-type = ""
transceiver-mode = true
max-pending-submits = {window}
enquire-link-interval = 60

group = smsbox
bearerbox-host = {HOST}
"""


@asynccontextmanager
async def _quiet(command: list[str], folder: Path) -> AsyncIterator[trio.Process]:
    with (folder / "log").open("ab") as log:
        process = await trio.lowlevel.open_process(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _all_taken(far: Far, messages: int) -> Rate:
    with trio.fail_after(DEADLINE_S):
        while (seen := await far.taken()).taken < messages:  # noqa: ASYNC110 - another process
            await trio.sleep(_LOOK_S)
    return Rate(seen.taken, seen.seconds)
