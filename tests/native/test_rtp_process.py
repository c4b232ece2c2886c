"""The engine as a process: how it ends, what it survives, and what sanitizers say of its code."""

from __future__ import annotations

import errno
import os
import random
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from gateways.sip import media_protocol as protocol
from native.rtp import build
from tests.support import free_udp_port
from tests.support.audio import chirp, write_wav
from tests.support.rtp import sip_config

DEADLINE_S = 20.0
COMMANDS = range(1, 9)


class Engine(msgspec.Struct):
    """A bare engine process and our end of its control socket."""

    process: subprocess.Popen[bytes]
    control: socket.socket

    def event(self) -> tuple[int, ...] | None:
        """The next event; None at the end of the stream."""
        data = self.control.recv(protocol.EVENT.size, socket.MSG_WAITALL)
        return protocol.EVENT.unpack(data) if data else None

    def exit_status(self) -> int:
        return self.process.wait(DEADLINE_S)


@contextmanager
def bare_engine(ports: int = 4) -> Iterator[Engine]:
    config = sip_config(ports)
    shared = protocol.SharedMemory()
    ours, theirs = socket.socketpair()
    ours.settimeout(DEADLINE_S)
    options = {
        "--control-fd": theirs.fileno(), "--shared-fd": shared.fd, "--host": config.host,
        "--port-min": config.rtp_port_min, "--port-max": config.rtp_port_max, "--threads": 2,
    }  # fmt: skip
    command = [str(part) for pair in options.items() for part in pair]
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "native.rtp", *command],
            pass_fds=(theirs.fileno(), shared.fd),
            stderr=subprocess.PIPE,
        )
    shared.close_fd()
    with ours, process:
        try:
            engine = Engine(process, ours)
            event = engine.event()
            assert event is not None
            assert event[0] == protocol.READY
            yield engine
        finally:
            process.kill()


def test_the_end_of_the_stream_is_its_end() -> None:
    with bare_engine() as engine:
        engine.control.close()
        assert engine.exit_status() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_to_the_group_are_for_the_node(number: signal.Signals) -> None:
    with bare_engine() as engine:
        engine.process.send_signal(number)
        # It still serves: a recording that is not there is answered as ever.
        engine.control.sendall(protocol.lease(0, 1, 0))
        engine.control.sendall(protocol.command(protocol.PLAY, 0, 1, 77, b"/nowhere"))
        event = engine.event()
        assert event is not None
        assert event[0] == protocol.PLAY_FAILED
        assert event[5] == 77


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\0" * 12, id="length 0"),
        pytest.param(b"\xff" * 12, id="length too large"),
        pytest.param(protocol.command(99, 0, 1, None, b""), id="no such command"),
        pytest.param(protocol.command(protocol.STOP, 60000, 1, None, b""), id="no such port"),
        pytest.param(protocol.command(protocol.PLAY, 0, 1, 1, b""), id="no path"),
        pytest.param(protocol.command(protocol.PLAY, 0, 1, 1, b"a\0b"), id="a path with NUL"),
        pytest.param(protocol.command(protocol.DTMF, 0, 1, 1, b"1" * 33), id="too many digits"),
        pytest.param(protocol.command(1, 0, 1, None, b""), id="a lease cut short"),
        pytest.param(protocol.command(2, 0, 1, None, b""), id="a connect cut short"),
    ],
)
def test_what_is_not_the_protocol_ends_it_with_a_reason(data: bytes) -> None:
    with bare_engine() as engine:
        engine.control.sendall(data)
        assert engine.exit_status() == errno.EPROTO
        assert engine.process.stderr is not None
        assert b"Protocol error" in engine.process.stderr.read()


def test_a_command_of_an_old_lease_does_not_touch_the_new_one(tmp_path: Path) -> None:
    message = os.fsencode(write_wav(tmp_path / "message.wav", chirp(0.1)))
    remote = protocol.RemoteMedia("127.0.0.1", free_udp_port(), 0, 101, send=True)
    with bare_engine() as engine:
        commands = [
            protocol.lease(0, 1, 0),
            protocol.lease(0, 2, 0),
            protocol.connect(0, 2, remote),
        ]
        commands.append(protocol.command(protocol.PLAY, 0, 2, 55, message))
        commands += [
            protocol.command(kind, 0, 1, None, b"") for kind in (protocol.STOP, protocol.RELEASE)
        ]
        engine.control.sendall(b"".join(commands))
        event = engine.event()
        assert event is not None
        assert (event[0], event[3:]) == (protocol.PLAYED, (0, 2, 55))


@pytest.mark.parametrize("seed", range(3))
def test_commands_in_any_order_and_with_any_content_do_not_crash_it(seed: int) -> None:
    chance = random.Random(seed)
    with bare_engine() as engine:
        for _ in range(3000):
            kind = chance.choice(COMMANDS)
            index, generation = chance.randrange(4), chance.randrange(4)
            if kind in (protocol.PLAY, protocol.DTMF, protocol.RECORD):
                text = b"/nowhere/" + bytes(chance.randrange(1, 256) for _ in range(20))
                message = protocol.command(kind, index, generation, 1, text)
            elif kind == 2:
                remote = protocol.RemoteMedia(
                    "127.0.0.1", chance.randrange(1024, 65536), 0, 101, send=True
                )
                message = protocol.connect(index, generation, remote)
            elif kind == 1:
                message = protocol.lease(index, generation, chance.randrange(100))
            else:
                message = protocol.command(kind, index, generation, None, b"")
            engine.control.sendall(message)
        engine.control.shutdown(socket.SHUT_WR)
        assert engine.exit_status() == 0


NODE = """
import os, signal, sys, trio
from engine.config import SipConfig
from gateways.sip.media import RtpEngine

async def node() -> None:
    engine = RtpEngine(SipConfig(rtp_port_min=int(sys.argv[1]), rtp_port_max=int(sys.argv[2])))
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        session = engine.lease(lambda digit: None)
        bystander = 0
        if sys.argv[3] == "fork" and not (bystander := os.fork()):
            signal.pause()  # holds a copy of the control socket
        print(engine.statistics()["pid"], bystander, flush=True)
        await trio.sleep_forever()

trio.run(node)
"""


@pytest.mark.parametrize("bystander", ["alone", "fork"])
def test_no_orphan_is_left_when_the_node_is_killed(bystander: str) -> None:
    config = sip_config(4)
    ports = str(config.rtp_port_min), str(config.rtp_port_max)
    node = subprocess.Popen([sys.executable, "-c", NODE, *ports, bystander], stdout=subprocess.PIPE)
    with node:
        assert node.stdout is not None
        pid, forked = map(int, node.stdout.readline().split())
        gone = os.pidfd_open(pid)
        try:
            node.kill()
            assert select.select([gone], [], [], DEADLINE_S)[0], "the engine outlived its node"
        finally:
            os.close(gone)
            if forked:
                os.kill(forked, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_the_engine_is_clean_under_a_sanitizer(tmp_path: Path, sanitizer: str) -> None:
    program = tmp_path / "rtp_sanitize"
    sources = [build.HERE / name for name in build.SOURCES]
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
    compiled = subprocess.run(
        ["gcc", *flags, f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-I", build.HERE,
         "-o", program, Path(__file__).with_name("rtp_sanitize.c"), *sources],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert compiled.returncode == 0, compiled.stderr
    config = sip_config(64)
    message = write_wav(tmp_path / "message.wav", chirp(0.1))
    ran = subprocess.run(
        [program, str(config.rtp_port_min), str(config.rtp_port_max), message,
         tmp_path / "recorded.wav", "3"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    counts = dict(zip(*[iter(ran.stdout.split())] * 2, strict=True))
    assert all(int(count) > 0 for count in counts.values()), counts


def test_the_code_compiles_without_a_warning(tmp_path: Path) -> None:
    for name in build.SOURCES:
        compiled = subprocess.run(
            ["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-c",
             build.HERE / name, "-o", tmp_path / "out.o"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert compiled.returncode == 0, compiled.stderr
