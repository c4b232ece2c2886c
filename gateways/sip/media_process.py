"""One life of the RTP engine process, as the node sees it.

``start`` runs ``python -m native.rtp`` with one stream socket (commands in, events out) and the
shared memory; the ``EngineProcess`` it yields keeps the ports, the queue of commands and everybody
who waits for an event. When the process ends, for whatever reason, all of them get ``MediaLost``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import structlog
import trio

import native
from engine.config import SipConfig
from engine.errors import UnavailableError
from gateways.sip import media_protocol as protocol

READY_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
HANG_TIMEOUT_S = 5.0  # without a heartbeat for this long the process counts as hung
MAX_QUEUE_BYTES = 4_000_000  # commands the engine has not taken: some 20,000 calls' worth

log = structlog.get_logger(__name__)


class MediaLost(Exception):  # noqa: N818 - like CallEnded: what happened, not what was wrong
    """The RTP engine died under the call, or the session was released; there is no audio."""


class PlaybackError(MediaLost):
    """The recording cannot be played (missing, unreadable, not 8 kHz mono 16-bit WAV)."""


class Lessee(Protocol):
    """Who has a port: whom its events are told to."""

    generation: int

    def heard_digit(self, digit: str) -> None:
        """A digit was received."""

    def heard_nothing(self) -> None:
        """Nothing was received for the time agreed at the lease."""


class Wait:
    """One playback, digit string or recording under way."""

    __slots__ = ("_done", "_error", "token")

    def __init__(self, token: int) -> None:
        self.token = token
        self._done = trio.Event()
        self._error: Exception | None = None

    def finish(self, error: Exception | None = None) -> None:
        """End it; only the first word counts."""
        if not self._done.is_set():
            self._error = error
            self._done.set()

    async def result(self) -> None:
        """Wait for the end; raises what it ended with."""
        await self._done.wait()
        if self._error is not None:
            raise self._error


class EngineProcess:
    """The parent's half of one engine process."""

    def __init__(
        self,
        process: trio.Process,
        stream: trio.SocketStream,
        shared: protocol.SharedMemory,
        quarantine_s: float,
    ) -> None:
        self.process = process
        self.shared = shared
        self.lost = trio.Event()
        self.ports: list[int] = []
        self.lessees: dict[int, Lessee] = {}
        self._quarantine_s = quarantine_s
        self._generations: list[int] = []
        self._free: deque[tuple[float, int]] = deque()  # (not before, index), longest free first
        self._waits: dict[int, Wait] = {}
        self._token = 0
        self._stream = stream
        self._ready = trio.Event()
        self._out = bytearray()
        self._wake = trio.Event()

    # Ports

    @property
    def ports_free(self) -> int:
        """Ports not leased, those in quarantine included."""
        return len(self._free)

    def take_port(self) -> tuple[int, int]:
        """A free port's index and the generation of its new lease; ``UnavailableError``."""
        if not self._free or self._free[0][0] > trio.current_time():
            raise UnavailableError("no RTP port is free")
        _, index = self._free.popleft()
        self._generations[index] = (self._generations[index] + 1) & 0xFFFFFFFF
        return index, self._generations[index]

    def free_port(self, index: int) -> None:
        """Give a port back; it rests first, for its old far end may still be sending."""
        del self.lessees[index]
        self._free.append((trio.current_time() + self._quarantine_s, index))

    # Commands

    @property
    def queued_bytes(self) -> int:
        """Commands not yet written."""
        return len(self._out)

    def send(self, data: bytes) -> None:
        """Queue a command."""
        if self.lost.is_set():
            return
        if not self._out:
            self._wake.set()
        self._out += data
        if len(self._out) > MAX_QUEUE_BYTES:
            log.error("rtp engine takes no commands", queued_bytes=len(self._out))
            self.lose()

    def wait(self) -> Wait:
        """A fresh token, and the wait for the event that will bear it."""
        self._token = self._token % 0xFFFFFFFF + 1
        wait = self._waits[self._token] = Wait(self._token)
        return wait

    def end_wait(self, wait: Wait, error: Exception | None = None) -> bool:
        """End a wait from this side; False where the engine's event came first."""
        wait.finish(error)
        return self._waits.pop(wait.token, None) is not None

    # Service

    async def serve(self) -> None:
        """Exchange commands and events until the process is lost."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            nursery.start_soon(self._read)
            nursery.start_soon(self._watch)
            await self.lost.wait()
            nursery.cancel_scope.cancel()

    async def wait_ready(self) -> None:
        """Returns once ports are bound, or when the process is lost."""
        with trio.move_on_after(READY_TIMEOUT_S):
            await self._ready.wait()
            return
        log.error("rtp engine is not ready in time")
        self.lose()

    def lose(self) -> None:
        """The process is gone or good for nothing: everybody who waits for it learns."""
        self.lost.set()
        self._ready.set()
        waits, self._waits = self._waits, {}
        for wait in waits.values():
            wait.finish(MediaLost("the RTP engine died"))

    async def _write(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                batch, self._out = self._out, bytearray()
                await self._stream.send_all(batch)
        except trio.BrokenResourceError:
            self.lose()

    async def _read(self) -> None:
        record = protocol.EVENT.size
        rest = b""
        try:
            while data := await self._stream.receive_some(65536):
                data = rest + data
                whole = len(data) - len(data) % record
                for event in protocol.EVENT.iter_unpack(data[:whole]):
                    self._take(*event)
                rest = data[whole:]
        except trio.BrokenResourceError:
            pass  # the same as the end of the stream
        self.lose()

    def _take(self, kind: int, arg: int, _: int, index: int, generation: int, token: int) -> None:
        if kind in protocol.DONE:
            self._finish(token, None)
        elif kind in protocol.FAILED:
            reason = OSError(arg, os.strerror(arg))
            playing = kind == protocol.PLAY_FAILED
            self._finish(token, PlaybackError(str(reason)) if playing else reason)
        elif kind == protocol.READY:
            self._open()
        else:
            self._tell(kind, arg, index, generation)

    def _finish(self, token: int, error: Exception | None) -> None:
        wait = self._waits.pop(token, None)
        if wait is not None:
            wait.finish(error)

    def _tell(self, kind: int, arg: int, index: int, generation: int) -> None:
        lessee = self.lessees.get(index)
        if lessee is None or lessee.generation != generation:
            return  # of a lease that is over
        if kind == protocol.DIGIT:
            lessee.heard_digit(chr(arg))
        elif kind == protocol.DEAD:
            lessee.heard_nothing()

    def _open(self) -> None:
        self.ports = self.shared.ports()
        self._generations = [0] * len(self.ports)
        self._free.extend((0.0, index) for index, port in enumerate(self.ports) if port)
        wanted, bound = len(self.ports), len(self._free)
        if bound < wanted:
            log.warning(
                "rtp ports taken by others or beyond our limits", wanted=wanted, bound=bound
            )
        self._ready.set()

    async def _watch(self) -> None:
        """A process that lives but stands still is as good as dead.

        Seen so twice in a row: after a pause of the whole machine one look proves nothing.
        """
        await self._ready.wait()
        suspected = False
        while True:
            heartbeat, clocks = self.shared.heartbeat, self.shared.clocks()
            await trio.sleep(HANG_TIMEOUT_S / 2)
            frozen = any(
                busy and (ticks, busy) == now
                for (ticks, busy), now in zip(clocks, self.shared.clocks(), strict=False)
            )
            still = frozen or heartbeat == self.shared.heartbeat
            if still and suspected:
                log.error("rtp engine hangs", heartbeat=heartbeat, clocks=clocks)
                self.lose()
            suspected = still


def _command(
    config: SipConfig, control_fd: int, shared_fd: int, *, realtime: bool
) -> tuple[list[str], dict[str, str]]:
    threads = config.rtp_threads or len(os.sched_getaffinity(0))
    arguments = {
        "--control-fd": control_fd,
        "--shared-fd": shared_fd,
        "--parent-pid": os.getpid(),
        "--host": config.host,
        "--port-min": config.rtp_port_min,
        "--port-max": config.rtp_port_max,
        "--threads": min(threads, protocol.MAX_THREADS),
    }
    command = [sys.executable, "-m", "native.rtp"]
    command += [str(part) for pair in arguments.items() for part in pair]
    root = str(Path(native.__file__).parent.parent)  # a checkout need not be installed
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return command + ["--no-realtime"] * (not realtime), {**os.environ, "PYTHONPATH": path}


@asynccontextmanager
async def start(
    config: SipConfig, *, quarantine_s: float, realtime: bool
) -> AsyncIterator[EngineProcess]:
    """Start the process; on leaving, let it finish its recordings, then make sure it is gone."""
    ours, theirs = socket.socketpair()
    shared = protocol.SharedMemory()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    try:
        command, environment = _command(config, theirs.fileno(), shared.fd, realtime=realtime)
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), shared.fd),
            env=environment,
        )
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    finally:
        theirs.close()
        shared.close_fd()
    engine = EngineProcess(process, stream, shared, quarantine_s)
    try:
        yield engine
    finally:
        hung = engine.lost.is_set()
        engine.lose()
        await _end(process, stream, 0.2 if hung else STOP_TIMEOUT_S)


async def _end(process: trio.Process, stream: trio.SocketStream, timeout_s: float) -> None:
    with trio.CancelScope(shield=True):
        await stream.aclose()  # what the engine takes as its order to end
        with trio.move_on_after(timeout_s):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
