"""The processes that read strangers' mail: kept warm, one mail at a time each, replaced when ill.

Whatever a mail does to its reader (time, memory, a crash) is that mail's own fate; the next one
finds a new process. Where it may have been the machine's doing, the mail has two tries more.
Cancelling a read kills the process and returns when it is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import structlog
import trio

import gateways
from engine.config import SmtpConfig
from engine.errors import InvalidError, UnavailableError
from gateways.smtp.parsed import Parsed
from gateways.smtp.reader import LENGTH, MAX_FRAME, Answer, Limits, Request

log = structlog.get_logger("smtp")

MAX_WAITING = 100
"""Mails that wait for a process; beyond that whoever brings one is asked to come again."""

WAIT_S = 60.0
"""How long one of them waits."""

MAX_LOST = 1_000
"""Mails that lost their reader and are known for it."""

MAILS_PER_PROCESS = 200
_TRIES = 3  # of a mail that loses its reader
_DIED_S = 1.0  # how long a process that said no more may take to be dead
_CPU_SHARE = 0.5  # of ``read_timeout_s``: what only waits its turn does not use it up
_RAW = "raw"
_FILE_FACTOR = 2  # a file may be this much bigger than the biggest mail; decoding only shrinks
_MODULE = "gateways.smtp.reader"


class _BrokenError(Exception):
    """The process is gone, or answers what is no answer."""


class _LostError(UnavailableError):
    """The reader was lost over the mail: that may be the mail's doing, or the machine's."""


class Readers:
    """``run`` owns the processes; ``read`` may be called while it runs."""

    def __init__(self, config: SmtpConfig) -> None:
        self._config = config
        self._jobs: trio.MemorySendChannel[_Job] | None = None
        self._counts: Counter[str] = Counter()
        self._lost = _Lost()
        self._waiting = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started when the processes are. No process survives it."""
        send, receive = trio.open_memory_channel[_Job](0)
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(self._config.readers):
                    await nursery.start(self._serve, receive.clone())
                self._jobs = send
                task_status.started()
        finally:
            self._jobs = None
            send.close()
            receive.close()

    async def read(self, raw: bytes, scratch: Path) -> Parsed:
        """Read a mail; its files are at ``scratch``, named by their index, when this returns.

        ``InvalidError``: it is too big, or not readable within the limits. ``UnavailableError``: no
        process has time for it, or what kept it from being read may have been ours.
        """
        if len(raw) > self._config.max_message_bytes:
            raise InvalidError("the mail is too big")
        if self._jobs is None or self._waiting >= MAX_WAITING:
            raise UnavailableError("no process reads mail now")
        path = scratch / _RAW
        await trio.to_thread.run_sync(path.write_bytes, raw)
        try:
            job = _Job(Request(str(path), str(scratch)))
            await self._hand_over(job)
            return await job.outcome()
        except _LostError as error:
            if await trio.to_thread.run_sync(self._lost.times, raw) >= _TRIES:
                raise InvalidError(str(error)) from None
            raise
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(lambda: path.unlink(missing_ok=True))

    async def _hand_over(self, job: _Job) -> None:
        jobs = self._jobs
        if jobs is None:
            raise UnavailableError("no process reads mail now")
        self._waiting += 1
        try:
            with trio.fail_after(WAIT_S):
                await jobs.send(job)
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise UnavailableError("no process has time to read mail") from None
        finally:
            self._waiting -= 1

    async def _serve(
        self, jobs: trio.MemoryReceiveChannel[_Job], *, task_status: trio.TaskStatus[None]
    ) -> None:
        seat = _Seat(self._config, self._counts)
        with jobs:
            try:
                await seat.prepare()
                task_status.started()
                async for job in jobs:
                    await job.serve(seat)
            finally:
                await seat.clear()

    def statistics(self) -> dict[str, Any]:
        """Mails that wait; how many were read, how many ended their process and how."""
        return {"waiting": self._waiting, **self._counts}


class _Lost:
    """How often a mail lost its reader, of the last of them."""

    def __init__(self) -> None:
        self._times: dict[bytes, int] = {}

    def times(self, raw: bytes) -> int:
        """Once more; how often that makes it."""
        digest = blake2b(raw, digest_size=16).digest()
        times = self._times.pop(digest, 0) + 1
        self._times[digest] = times  # the newest at the end
        if len(self._times) > MAX_LOST:
            del self._times[next(iter(self._times))]
        return times


class _Job:
    """One mail for a seat. Whoever waits for ``outcome`` and is cancelled gives it up."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._scope = trio.CancelScope()
        self._done = trio.Event()
        self._parsed: Parsed | None = None
        self._error: InvalidError | UnavailableError = UnavailableError("the gateway is closing")

    async def serve(self, seat: _Seat) -> None:
        try:
            with self._scope:
                self._parsed = await seat.read(self._request)
        except (InvalidError, UnavailableError) as error:
            self._error = error
        finally:
            self._done.set()

    async def outcome(self) -> Parsed:
        try:
            await self._done.wait()
        except trio.Cancelled:
            self._scope.cancel()
            with trio.CancelScope(shield=True):
                await self._done.wait()  # a kill away: the files are nobody's before that
            raise
        if self._parsed is None:
            raise self._error
        return self._parsed


class _Seat:
    """A process and its successors, one at a time."""

    def __init__(self, config: SmtpConfig, counts: Counter[str]) -> None:
        self._config = config
        self._counts = counts
        self._process: trio.Process | None = None
        self._left = 0

    async def prepare(self) -> None:
        """Have a process before the first mail; where there is none now, the mail asks again."""
        try:
            await self.warm()
        except UnavailableError as error:
            log.error("smtp.no_reader", cause=str(error))  # noqa: TRY400 - no fault of ours

    async def warm(self) -> None:
        """Have a process; ``UnavailableError`` where there can be none."""
        if self._left and self._process and self._process.poll() is None:
            return
        await self.clear()
        try:
            self._process = await self._started()
        except OSError as error:
            raise UnavailableError(f"no process to read mail: {error}") from error
        self._left = MAILS_PER_PROCESS

    async def read(self, request: Request) -> Parsed:
        await self.warm()
        self._left -= 1
        answer = None
        try:
            with trio.fail_after(self._config.read_timeout_s):
                answer = await self._asked(request)
        except trio.TooSlowError:
            raise _LostError(self._unreadable("time")) from None
        except _BrokenError:
            if await self._used_up():
                raise InvalidError(self._unreadable("cpu")) from None
            raise _LostError(self._unreadable("broken")) from None
        finally:
            if answer is None or answer.error:
                await self.clear()
        if answer.parsed is None:
            words = self._unreadable(answer.error)
            raise UnavailableError(words) if answer.ours else InvalidError(words)
        self._counts["read"] += 1
        return answer.parsed

    async def clear(self) -> None:
        """Have no process: kill and reap it, whoever is cancelled."""
        process, self._process = self._process, None
        if process is None:
            return
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await trio.aclose_forcefully(pipe)

    def _unreadable(self, cause: str) -> str:
        self._counts[f"unreadable_{cause}"] += 1
        log.warning("smtp.reader_replaced", cause=cause)
        return f"the mail is not readable within the limits ({cause})"

    async def _used_up(self) -> bool:
        """Whether the process ended because its processor time was over."""
        assert self._process is not None  # noqa: S101 - ``warm`` was asked
        with trio.move_on_after(_DIED_S):
            await self._process.wait()
        return self._process.returncode == -signal.SIGXCPU

    async def _asked(self, request: Request) -> Answer:
        process = self._process
        assert process is not None  # noqa: S101 - ``warm`` was asked
        assert process.stdin is not None  # noqa: S101 - started with pipes
        frame = msgspec.json.encode(request)
        try:
            await process.stdin.send_all(LENGTH.pack(len(frame)) + frame)
            size = LENGTH.unpack(await self._octets(LENGTH.size))[0]
            if size > MAX_FRAME:
                raise _BrokenError("a frame too big")
            return msgspec.msgpack.decode(await self._octets(size), type=Answer)
        except (trio.BrokenResourceError, msgspec.MsgspecError) as error:
            raise _BrokenError(str(error)) from error

    async def _octets(self, count: int) -> bytes:
        assert self._process is not None  # noqa: S101 - ``warm`` was asked
        assert self._process.stdout is not None  # noqa: S101 - started with pipes
        octets = bytearray()
        while len(octets) < count:
            more = await self._process.stdout.receive_some(count - len(octets))
            if not more:
                raise _BrokenError("end of file")
            octets += more
        return bytes(octets)

    async def _started(self) -> trio.Process:
        config = self._config
        limits = Limits(
            memory_bytes=config.read_memory_bytes,
            cpu_s=int(config.read_timeout_s * _CPU_SHARE),
            file_bytes=_FILE_FACTOR * config.max_message_bytes,
        )
        return await trio.lowlevel.open_process(
            [sys.executable, "-m", _MODULE, msgspec.json.encode(limits).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
        )


def _environment() -> dict[str, str]:
    """Nothing of ours but where the package was imported from."""
    root = str(Path(str(gateways.__file__)).parent.parent)
    paths = [root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path), "LANG": "C.UTF-8"}
