"""What a node needs to dial, and waiting until it has: for tests over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import trio

from engine.bus import Subscription
from engine.events import CampaignChanged, TransmissionEnded
from engine.model import CampaignStatus
from gateways.loopback.script import Script
from tests.api.node import Node, made, made_program

DEADLINE_S = 30.0
QUICK = Script(speed=0)


async def prepared(client: httpx.AsyncClient, contacts: int = 0) -> tuple[int, int]:
    """A program and a group of that many people."""
    program = await made_program(client)
    group = await made(client, "/groups", name="people")
    lines = "".join(f"{1000 + n}\n" for n in range(contacts))
    if lines:
        await client.post(f"/groups/{group}/csv", content=lines)
    return program, group


async def provider(client: httpx.AsyncClient, **settings: Any) -> int:
    body = {"name": "trunk", "type": "loopback", "settings": {"speed": 0, **settings}}
    return await made(client, "/providers", **body)


async def run(node: Node, campaign: int) -> None:
    """Start a campaign and wait for its end."""
    with node.engine.bus.subscribe(10_000) as events:
        started = await node.client.put(f"/campaigns/{campaign}/start")
        assert (started.status_code, started.json()) == (200, True), started.text
        with trio.fail_after(DEADLINE_S):
            await ended(events)


async def ended(events: Subscription) -> None:
    while True:
        event = await events.get()
        if isinstance(event, CampaignChanged) and event.status is CampaignStatus.COMPLETED:
            return


async def sent(node: Node, transmission: int, verb: str = "send") -> int:
    """Send one and wait for its end; returns the spool's id."""
    with node.engine.bus.subscribe(10_000) as events:
        response = await node.client.post(f"/transmissions/{transmission}/{verb}", content=b"[]")
        assert response.status_code == 200, response.text
        with trio.fail_after(DEADLINE_S):
            while not isinstance(await events.get(), TransmissionEnded):
                pass
    spool_id = response.json()["spool_id"]
    assert isinstance(spool_id, int)
    return spool_id
