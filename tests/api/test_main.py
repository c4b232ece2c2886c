"""Starting and stopping a node: readiness, the first password, draining, killing, refusals."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from api.log import redact
from engine import clock
from engine.config import load
from engine.model import Spool
from engine.store import open_store
from engine.store.base import Query
from tests.acceptance.session import tone_wav
from tests.api.node import made
from tests.support import LOCALHOST, wait_for_line, wait_until
from tests.support.command import outspool, serving
from tests.support.node_process import NodeProcess, config_text, node_process

DEADLINE_S = 30.0


async def test_the_first_start_prints_a_password_once(tmp_path: Path) -> None:
    arguments = ("--data", str(tmp_path / "data"), "--http", f"{LOCALHOST}:0")
    said = await _start_and_stop(arguments, tmp_path)
    found = re.search(r"user admin, password (\S+)", said)
    assert found is not None
    assert len(found[1]) >= 16
    assert "password" not in await _start_and_stop(arguments, tmp_path)


async def _start_and_stop(arguments: tuple[str, ...], folder: Path) -> str:
    process = await serving(*arguments, cwd=folder, OUTSPOOL_NODE_GATEWAYS="loopback")
    assert process.stdout is not None
    said = await wait_for_line(process.stdout, "outspool is ready: http://")
    url = said.rpartition(" ")[2].strip()
    async with httpx.AsyncClient() as client:
        health = (await client.get(f"{url}/healthz")).json()
    assert health == {"ready": True, "draining": False, "store": "ok", "secrets": "ok"}
    process.terminate()
    with trio.fail_after(DEADLINE_S):
        assert await process.wait() == 0
    return said


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (("--http", "here"), {}, "--http: 'here' is not HOST:PORT"),
        (("--config", "missing.toml"), {}, "missing.toml"),
        ((), {"OUTSPOOL_HTTP_PORT": "many"}, "configuration: "),
        ((), {"OUTSPOOL_LOG_LEVEL": "loud"}, "log.level"),
        ((), {"OUTSPOOL_NODE_GATEWAYS": "pigeon"}, "no such gateway: pigeon"),
    ],
)
async def test_a_wrong_setting_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], expected: str
) -> None:
    ran = await outspool("serve", *arguments, cwd=tmp_path, **environment)
    assert ran.code == 1
    assert expected in ran.err
    assert "Traceback" not in ran.err


async def test_an_address_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server((LOCALHOST, 0)) as taken:
        address = f"{LOCALHOST}:{taken.getsockname()[1]}"
        ran = await outspool(
            "serve", "--http", address, cwd=tmp_path, OUTSPOOL_NODE_GATEWAYS="loopback"
        )
    assert ran.code == 1
    assert f"cannot listen on {address}" in ran.err
    assert "Traceback" not in ran.err


async def _calls_up(node: NodeProcess, **script: Any) -> None:
    """One call, long enough to be up for as long as the test likes."""
    async with node.client() as client:
        await made(
            client, "/providers", name="script", type="loopback", host="here", settings=script
        )
        recording_id = await made(client, "/messages/recordings", name="tone")
        media = f"/messages/recordings/{recording_id}/media"
        (await client.put(media, content=tone_wav(1.5))).raise_for_status()
        program_id = await made(
            client, "/programs/voicemessage", name="tone", recording_id=recording_id
        )
        sent = await made(client, "/transmissions", program_id=program_id, phone="49123")
        (await client.post(f"/transmissions/{sent}/send")).raise_for_status()


async def _spool(config: Path) -> Spool:
    async with open_store(load(config, {}, {}), clock=clock.now) as store:
        (spool,) = await store.find(Spool, Query())
    return spool


async def test_sigterm_lets_the_call_end_by_itself(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(config_text(tmp_path, node={"gateways": ["loopback"]}))
    async with node_process(config) as node:
        await _calls_up(node)
        assert await node.terminate() == 0
    spool = await _spool(config)
    assert (spool.status.value, spool.response) == ("completed", "answered")
    assert spool.amount_s >= 1.5


@pytest.mark.parametrize("drain_timeout_s", [0.2, 60.0])
async def test_the_second_signal_or_the_drains_end_hangs_up(
    tmp_path: Path, drain_timeout_s: float
) -> None:
    config = tmp_path / "node.toml"
    settings = {"gateways": ["loopback"], "drain_timeout_s": drain_timeout_s}
    config.write_text(config_text(tmp_path, node=settings))
    async with node_process(config) as node:
        await _calls_up(node, speed=0.001)  # the recording would take half an hour
        node.signal(signal.SIGTERM)
        if drain_timeout_s > 1:
            await _refuses_connections(node)
            node.signal(signal.SIGINT)
        assert await node.exit_code() == 0
    spool = await _spool(config)
    assert (spool.status.value, spool.response) == ("failed", "cancelled")


async def _refuses_connections(node: NodeProcess) -> None:
    """The drain has begun: the web server takes nobody any more."""

    async def refused() -> bool:
        try:
            async with httpx.AsyncClient() as client:
                await client.get(f"{node.url}/healthz")
        except httpx.ConnectError:
            return True
        return False

    await wait_until(refused, "the web server is closed")


def test_secrets_never_reach_the_log() -> None:
    event = {"event": "login", "username": "eve", "password": "x", "access_token": "y"}
    shown = redact(None, "info", event)
    assert shown == {
        "event": "login",
        "username": "eve",
        "password": "***",
        "access_token": "***",
    }
