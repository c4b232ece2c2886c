"""A node as an operator runs it: ``outspool serve`` in its own process, to be killed at will."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.support import LOCALHOST, free_port, wait_until

PASSWORD = "correct horse battery"  # noqa: S105 - of a node that lives for one test
START_S = 60.0
GONE_S = 15.0


def config_text(folder: Path, **settings: dict[str, Any]) -> str:
    """TOML of a node in ``folder``: sections as keyword arguments, over quick defaults."""
    port = free_port()
    # Even ports below the ephemeral range, a window of its own for every node of the run.
    rtp = 10_000 + (port * 2) % 20_000
    defaults: dict[str, dict[str, Any]] = {
        "node": {"data_dir": str(folder / "data")},
        "http": {"port": port},
        "sip": {"rtp_port_min": rtp, "rtp_port_max": rtp + 1000, "transaction_timeout_s": 4.0},
        "dial": {"ring_timeout_s": 2.0},
        "retry": {"busy_delay_s": 0.5, "no_answer_delay_s": 0.5, "failed_delay_s": 0.5},
    }
    lines = []
    for section in defaults | settings:
        values = defaults.get(section, {}) | settings.get(section, {})
        lines += [f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)


class NodeProcess:
    """``outspool serve`` on a configuration file; ``url`` and a client for its API."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self.log_file = config.with_suffix(".log")
        port = next(
            line.split("=")[1].strip()
            for line in config.read_text().partition("[http]")[2].splitlines()
            if line.startswith("port")
        )
        self.url = f"http://{LOCALHOST}:{port}"
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """Start and wait until it is ready."""
        with self.log_file.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "api.cli", "serve", "--config", str(self._config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OUTSPOOL_ADMIN_PASSWORD": PASSWORD},
                start_new_session=True,
            )
        async with httpx.AsyncClient() as client:

            async def ready() -> bool:
                if self._started.returncode is not None:
                    raise AssertionError(f"the node ended: {self.log()}")
                try:
                    return (await client.get(f"{self.url}/healthz")).status_code == 200
                except httpx.TransportError:
                    return False

            await wait_until(ready, "the node is ready", deadline_s=START_S)

    @property
    def _started(self) -> trio.Process:
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._started.pid

    def log(self) -> str:
        """What the node wrote so far."""
        return self.log_file.read_text(errors="replace")[-4000:]

    async def kill(self) -> None:
        """kill -9, and wait until nothing that it started is left."""
        self._started.send_signal(signal.SIGKILL)
        await self._started.wait()
        await self.nothing_left()

    async def nothing_left(self) -> None:
        """No process of the node's session is alive."""

        async def gone() -> bool:
            return not self.processes()

        await wait_until(gone, f"no orphans: {self.processes()}", deadline_s=GONE_S)

    def signal(self, number: signal.Signals) -> None:
        """Send the node a signal."""
        self._started.send_signal(number)

    async def terminate(self) -> int:
        """SIGTERM; returns the exit code once it drained."""
        self.signal(signal.SIGTERM)
        return await self.exit_code()

    async def exit_code(self) -> int:
        """The exit code once the node has ended; nothing that it started is left then."""
        with trio.fail_after(START_S):
            code = await self._started.wait()
        await self.nothing_left()
        return code

    def processes(self) -> list[int]:
        """Pids of the node's session that are alive (zombies are not)."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended while we looked
            state, session = fields[0], int(fields[3])
            if session == self._started.pid and state != "Z":
                found.append(int(entry.name))
        return found

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client of its API, as the administrator."""
        auth = httpx.BasicAuth("admin", PASSWORD)
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            answer = await client.post(
                "/authenticate", json={"username": "admin", "password": PASSWORD}, auth=auth
            )
            answer.raise_for_status()
            client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
            yield client


@asynccontextmanager
async def node_process(config: Path) -> AsyncIterator[NodeProcess]:
    """A started node; whatever is left of it at the end of the block is killed."""
    node = NodeProcess(config)
    await node.start()
    try:
        yield node
    finally:
        with trio.CancelScope(shield=True):
            if node._started.returncode is None:
                await node.kill()
