"""A node that is really running: SQLite, loopback gateway, HTTP on a real socket."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import argon2
import httpx
import numpy as np
import soundfile
import trio
from joserfc.jwk import RSAKey

from api.server import serve_http
from api.web import create_app
from engine.app import Engine
from engine.auth import ROLES, Tokens
from engine.clock import now
from engine.config import Config, HttpConfig, WebsiteConfig
from engine.model import Account, User
from gateways.loopback.script import Script
from tests.api.recorder import RECORDER
from tests.support.engine import config_in, running_engine

PASSWORD = "correct horse"  # noqa: S105 - of users that live for one test


@cache
def signing_key() -> bytes:
    """One key for the whole run: making one takes longer than most tests."""
    return RSAKey.generate_key(2048).as_pem(private=True)


@cache
def password_hash() -> str:
    return argon2.PasswordHasher(time_cost=1, memory_cost=1024).hash(PASSWORD)


class Node:
    """A running node. ``client`` speaks as the administrator."""

    client: httpx.AsyncClient

    def __init__(
        self, engine: Engine, port: int, shutdown: trio.Event, clients: AsyncExitStack
    ) -> None:
        self.engine = engine
        self.port = port
        self.shutdown = shutdown
        self.tokens = Tokens(RSAKey.import_key(signing_key()), lifetime_s=600, clock=now)
        self._clients = clients

    async def user(self, name: str, *roles: str) -> httpx.AsyncClient:
        """A client speaking as a new user with its default account."""
        user = await self.engine.store.insert(
            User(username=name, password_hash=password_hash(), roles=roles)
        )
        await self.engine.store.insert(Account(username=name, owner_id=user.id, active=True))
        return await self.speaking(Authorization=f"Bearer {self.tokens.issue(user)}")

    async def speaking(self, **headers: str) -> httpx.AsyncClient:
        """A client that sends these headers; closed with the node."""
        client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            headers=headers,
            event_hooks={"response": [RECORDER]},
        )
        return await self._clients.enter_async_context(client)

    async def raw(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


def node_config(folder: Path, *, website: WebsiteConfig | None = None, **http: Any) -> Config:
    key = folder / "keys" / "jwt.pem"
    key.parent.mkdir(parents=True, exist_ok=True)
    key.touch(mode=0o600)
    key.write_bytes(signing_key())
    return config_in(
        folder, http=HttpConfig(**{"port": 0, **http}), website=website or WebsiteConfig()
    )


@asynccontextmanager
async def running_node(
    folder: Path,
    script: Script | None = None,
    *,
    website: WebsiteConfig | None = None,
    **http: Any,
) -> AsyncIterator[Node]:
    config = node_config(folder, website=website, **http)
    async with (
        running_engine(config, script) as engine,
        trio.open_nursery() as nursery,
        AsyncExitStack() as clients,
    ):
        shutdown = trio.Event()
        serve = partial(serve_http, create_app(engine), config.http, shutdown)
        node = Node(engine, await nursery.start(serve), shutdown, clients)
        node.client = await node.user("admin", *ROLES)
        try:
            yield node
        finally:
            shutdown.set()


async def made(client: httpx.AsyncClient, path: str, **body: Any) -> int:
    """The id of something created by POST."""
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    (value,) = response.json().values()
    assert isinstance(value, int)
    return value


def sound(
    format_: str, subtype: str | None = None, *, rate: int = 44_100, channels: int = 2
) -> bytes:
    """A second of 440 Hz as a file of the given kind."""
    time = np.arange(rate) / rate
    tone = 0.4 * np.sin(2 * np.pi * 440 * time)
    file = io.BytesIO()
    soundfile.write(file, np.stack([tone] * channels, 1), rate, format=format_, subtype=subtype)
    return file.getvalue()


async def made_program(client: httpx.AsyncClient) -> int:
    """A voice message that can be sent."""
    recording_id = await made(client, "/messages/recordings", name="message")
    media = sound("WAV", rate=8000, channels=1)
    response = await client.put(f"/messages/recordings/{recording_id}/media", content=media)
    assert response.status_code == 200, response.text
    return await made(client, "/programs/voicemessage", name="call", recording_id=recording_id)
