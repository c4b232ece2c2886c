"""The node's side of the zygote: the process that forks signalling workers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

import native
from native.pjsua.wire import WorkerConfig

EXIT_TIMEOUT_S = 2.0  # beyond the workers' own goodbye
FORK_TIMEOUT_S = 15.0  # the first fork waits for the import of pjsua2
_PID_BYTES = 32


class ZygoteGoneError(Exception):
    """The zygote died or does not answer; it must be replaced."""


class Zygote:
    """Asks for workers one at a time (a fork takes about 1 ms)."""

    def __init__(self, control: trio.socket.SocketType, process: trio.Process) -> None:
        self._control = control
        self._process = process
        self._lock = trio.Lock()

    async def wait_gone(self) -> None:
        """Wait until the process has ended, for whatever reason."""
        await self._process.wait()

    async def fork(self, port: int) -> tuple[socket.socket, int]:
        """Stream and process id of a new worker on SIP port ``port`` (0 = any).

        Raises ``ZygoteGoneError``.
        """
        # Shielded: a worker whose stream nobody takes would only end with the node.
        with trio.CancelScope(shield=True):
            async with self._lock:
                forked = await self._fork(port)
        return forked

    async def _fork(self, port: int) -> tuple[socket.socket, int]:
        try:
            with trio.fail_after(FORK_TIMEOUT_S):
                await self._control.send(str(port).encode())
                data, ancillary, _, _ = await self._control.recvmsg(
                    _PID_BYTES, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
                )
        except (OSError, trio.TooSlowError) as error:
            raise ZygoteGoneError(str(error)) from error
        if not data or not ancillary:
            raise ZygoteGoneError("end of file")
        descriptor = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
        return socket.socket(fileno=descriptor), int(data)


@asynccontextmanager
async def open_zygote(config: WorkerConfig) -> AsyncIterator[Zygote]:
    """Start a zygote; on leaving wait until it and all its workers are gone, within a bound."""
    ours, theirs = trio.socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = None
    try:
        with theirs:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "native.pjsua.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(),
            )
        await ours.send(msgspec.json.encode(config))
        yield Zygote(ours, process)
    finally:
        ours.close()
        if process is not None:
            with trio.CancelScope(shield=True):
                await _wait_gone(process, config.goodbye_s + EXIT_TIMEOUT_S)


async def _wait_gone(process: trio.Process, limit_s: float) -> None:
    with trio.move_on_after(limit_s):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


def _environment() -> dict[str, str]:
    """Ours, with the place ``native`` was imported from in front: the child must find the same."""
    root = str(Path(str(native.__file__)).parent.parent)
    paths = [root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
