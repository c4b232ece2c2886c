"""The demo's two processes, a node and a carrier played by SIPp; both end with their block."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from threading import Timer

from engine.errors import UnavailableError

LOCALHOST = "127.0.0.1"
START_S = 30.0
STOP_S = 10.0
# Whatever happens to us, SIPp is gone after this long.
CARRIER_LIFETIME_S = 3600


class Carrier:
    """SIPp answering as a carrier would."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, counts: Path) -> None:
        self.port = port
        self._process = process
        self._counts = counts

    def finish(self) -> int | None:
        """Let SIPp write its statistics and end; how many calls it saw, by its own count."""
        self._process.send_signal(signal.SIGUSR1)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return None
        with self._counts.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter=";"))
        return int(rows[-1]["IncomingCall(C)"]) if rows else None


@contextmanager
def carrier(folder: Path) -> Iterator[Carrier]:
    """A simulated carrier on a free port: 70 % answer, 20 % are busy, 10 % ring for ever."""
    sipp = shutil.which("sipp")
    if sipp is None:
        raise UnavailableError("the demo's carrier is SIPp: apt-get install sip-tester")
    port = _free_udp_port()
    counts = folder / "carrier.csv"
    with as_file(files("api") / "demo_carrier" / "mixed.xml") as scenario:
        command = [
            sipp, "-sf", str(scenario), "-i", LOCALHOST, "-p", str(port), "-nostdin",
            "-mp", str(_free_media_port()), "-trace_stat", "-stf", str(counts), "-fd", "1",
            "-timeout", str(CARRIER_LIFETIME_S),
        ]  # fmt: skip
        with _process(command, folder, stdout=subprocess.DEVNULL) as process:
            _wait_bound(port, process)
            yield Carrier(process, port, counts)


@contextmanager
def node(folder: Path, config: str, password: str, http: str) -> Iterator[str]:
    """A node of its own, like any ``outspool serve``; its URL once it is ready."""
    (folder / "demo.toml").write_text(config)
    command = [
        sys.executable, "-m", "api.cli", "serve", "--config", str(folder / "demo.toml"),
        "--data", str(folder / "data"), "--http", http,
    ]  # fmt: skip
    with _process(command, None, stdout=subprocess.PIPE, password=password) as process:
        yield _ready_url(process)


@contextmanager
def _process(
    command: list[str], folder: Path | None, *, stdout: int, password: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    # The operator's own settings are not the demo's.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OUTSPOOL_")}
    if password:
        environment["OUTSPOOL_ADMIN_PASSWORD"] = password
    process = subprocess.Popen(  # noqa: S603 - our own command, no shell
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=stdout
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _ready_url(process: subprocess.Popen[bytes]) -> str:
    """The URL in the line that says the node is ready; a node that never says so is ended."""
    assert process.stdout is not None  # noqa: S101 - we asked for the pipe
    deadline = Timer(START_S, process.kill)
    deadline.start()
    try:
        for line in process.stdout:
            if b" is ready: " in line:
                return line.rpartition(b" ")[2].strip().decode()
    finally:
        deadline.cancel()
    raise UnavailableError("the demo's node did not start; its messages are above")


def _free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOCALHOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _free_media_port() -> int:
    """An even port whose next even one is free too: SIPp binds audio and video or gives up."""
    while True:
        port = _free_udp_port() & ~1
        try:
            with ExitStack() as probes:
                for wanted in (port, port + 2):
                    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    probes.enter_context(probe).bind((LOCALHOST, wanted))
        except OSError:
            continue
        return port


def _wait_bound(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until SIPp holds its port: an INVITE before that would count as a broken trunk."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((LOCALHOST, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return
                raise
        time.sleep(0.05)
    raise UnavailableError("the demo's carrier (SIPp) did not start")
