"""The worker process by itself: forked by the zygote, spoken to over its stream, no gateway."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
import trio

from native.pjsua.wire import SLOTS, CallSpec, Verb, WorkerConfig
from tests.support import LOCALHOST, free_udp_port, wait_until
from tests.support.uas import Dialog, run_uas, sdp

DEADLINE_S = 20.0


class Peer:
    """The node's end of a worker's stream."""

    def __init__(self, stream: trio.SocketStream, pid: int) -> None:
        self.stream = stream
        self.pid = pid
        self._rest = b""
        self._lines: list[list[Any]] = []

    async def say(self, *words: Any) -> None:
        await self.stream.send_all(msgspec.json.encode(words) + b"\n")

    async def hear(self, verb: Verb) -> list[Any]:
        """The next line with this verb; others before it are dropped."""
        with trio.fail_after(DEADLINE_S):
            while True:
                while self._lines:
                    line = self._lines.pop(0)
                    if line[0] == verb:
                        return line
                data = await self.stream.receive_some(65_536)
                assert data, "the worker is gone"
                *lines, self._rest = (self._rest + data).split(b"\n")
                self._lines += [orjson.loads(line) for line in lines]


@asynccontextmanager
async def zygote(**fields: Any) -> AsyncIterator[socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "native.pjsua.zygote", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        ours.send(msgspec.json.encode(WorkerConfig(host=LOCALHOST, **fields)))
        try:
            yield ours
        finally:
            ours.close()
            with trio.CancelScope(shield=True), trio.move_on_after(DEADLINE_S):
                assert await process.wait() == 0


def fork(control: socket.socket) -> Peer:
    control.settimeout(DEADLINE_S)
    control.send(b"0")
    data, descriptors, _, _ = socket.recv_fds(control, 100, 1)
    stream = trio.socket.from_stdlib_socket(socket.socket(fileno=descriptors[0]))
    return Peer(trio.SocketStream(stream), int(data))


def spec(port: int, call_id: str = "a") -> CallSpec:
    return CallSpec(
        call_id=call_id,
        request_uri=f"sip:100@{LOCALHOST}:{port}",
        from_uri=f"<sip:us@{LOCALHOST}>",
        rtp_host=LOCALHOST,
        rtp_port=40_000,
    )


async def ended(pid: int) -> None:
    async def gone() -> bool:
        return not Path(f"/proc/{pid}").exists()

    await wait_until(gone, f"end of {pid}")


async def test_end_of_file_ends_the_worker_and_leaves_no_zombie() -> None:
    async with zygote() as control:
        peer = fork(control)
        await peer.hear(Verb.READY)
        await peer.stream.aclose()
        await ended(peer.pid)


async def test_end_of_file_says_bye_first() -> None:
    async def script(dialog: Dialog) -> None:
        await dialog.answer(sdp())
        await dialog.until_bye()

    async with zygote() as control, run_uas(script) as uas:
        peer = fork(control)
        await peer.say(Verb.CALL, 1, spec(uas.port))
        await peer.hear(Verb.UP)
        await peer.stream.aclose()
        with trio.fail_after(DEADLINE_S):
            await uas.ended.wait()
        await ended(peer.pid)


async def test_goodbye_is_bounded_where_nobody_answers() -> None:
    async with zygote(goodbye_s=0.5, transaction_timeout_s=30.0) as control:
        peer = fork(control)
        await peer.say(Verb.CALL, 1, spec(free_udp_port()))
        await peer.stream.aclose()
        await ended(peer.pid)


async def test_a_fifth_call_is_refused_and_harms_nobody() -> None:
    """PJSUA_MAX_CALLS is 4 whatever maxCalls says; pjsua2 raises ETOOMANY."""

    async def script(dialog: Dialog) -> None:
        await dialog.answer(sdp())
        await dialog.until_bye()

    async with zygote() as control, run_uas(script) as uas:
        peer = fork(control)
        for number in range(SLOTS):
            await peer.say(Verb.CALL, number, spec(uas.port, f"c{number}"))
            await peer.hear(Verb.UP)
        await peer.say(Verb.CALL, 9, spec(uas.port, "c9"))
        end = await peer.hear(Verb.END)
        assert (end[1], end[2][0], end[2][3]) == (9, 0, "local")
        assert (await peer.hear(Verb.FREE))[1] == 1
        for number in range(SLOTS):
            await peer.say(Verb.HANG_UP, number)
            assert (await peer.hear(Verb.END))[1] == number
        await peer.stream.aclose()


@pytest.mark.parametrize("uri", ["not a uri", "sip:", "sip:a@b c", ""])
async def test_an_unusable_address_ends_the_call_not_the_worker(uri: str) -> None:
    async with zygote() as control:
        peer = fork(control)
        bad = spec(5060)
        bad.request_uri = uri
        await peer.say(Verb.CALL, 1, bad)
        assert (await peer.hear(Verb.END))[1] == 1
        assert (await peer.hear(Verb.FREE))[1] == 1
        await peer.stream.aclose()


@pytest.mark.parametrize("host", ["255.255.255.255", "0.0.0.1"])
async def test_an_address_the_kernel_refuses_ends_the_call(host: str) -> None:
    """The packet cannot even be sent: the stack may say so while the call is being placed."""
    async with zygote(transaction_timeout_s=1.0) as control:
        peer = fork(control)
        bad = spec(5060)
        bad.request_uri = f"sip:100@{host}:5060"
        await peer.say(Verb.CALL, 1, bad)
        assert (await peer.hear(Verb.END))[1] == 1
        assert (await peer.hear(Verb.FREE))[1] == 1
        await peer.stream.aclose()


async def test_an_idle_worker_does_not_run() -> None:
    """No poll loop: between two looks a second apart it is not even scheduled."""
    async with zygote() as control:
        peer = fork(control)
        await peer.hear(Verb.READY)
        await trio.sleep(0.3)
        before = _switches(peer.pid)
        await trio.sleep(1.0)
        assert _switches(peer.pid) - before <= 1
        await peer.stream.aclose()


def _switches(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


async def test_many_calls_on_one_worker_leave_no_port_in_the_bridge() -> None:
    """setNoDev: without the drain ended calls fill the conference bridge (488)."""

    async def script(dialog: Dialog) -> None:
        await dialog.answer(sdp())
        await dialog.until_bye()

    async with zygote() as control, run_uas(script) as uas:
        peer = fork(control)
        for number in range(300):
            await peer.say(Verb.CALL, number, spec(uas.port, f"n{number}"))
            await peer.hear(Verb.UP)
            await peer.say(Verb.HANG_UP, number)
            assert (await peer.hear(Verb.END))[2][0] == 200
            await peer.hear(Verb.FREE)
        await peer.stream.aclose()
