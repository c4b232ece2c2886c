"""The whole node of ``bench sms``: ``python -m bench.sms_node HOST PORT CONTACTS 0``.

A campaign with tokens in its text over SQLite and the smpp gateway with its journal, from the start
until the last receipt has closed its spool; prints one JSON line.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
import trio

from api.log import configure
from bench.node import add_contacts, config_for, running
from bench.sms_peers import TEXT
from engine.app import Engine
from engine.config import LogConfig
from engine.model import Campaign, CampaignStatus, Group, Program, Provider, Text
from engine.validation import PROVIDER_TYPES
from gateways.smpp.gateway import SmppGateway

WINDOW = 500
CALLS_PER_MINUTE = 6_000_000
LOOK_S = 0.02


async def send(host: str, port: int, contacts: int) -> dict[str, Any]:
    """Run the campaign; how many messages, how long."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_for(Path(folder))
        async with running(config, {"smpp": SmppGateway(config)}) as engine:
            campaign = await _prepared(engine, host, port, contacts)
            begun = time.perf_counter()
            await engine.start_campaign(campaign.id)
            await _completed(engine, campaign.id)
            spent = time.perf_counter() - begun
            tally = await engine.store.campaign_tally(campaign.id)
    return {"sent": tally["completed"], "seconds": spent}


async def _prepared(engine: Engine, host: str, port: int, contacts: int) -> Campaign:
    store = engine.store
    await store.insert(
        Provider(
            name="far", type="smpp", service=PROVIDER_TYPES["smpp"].service, host=host, port=port,
            transport="tcp", username="outspool", password="secret",  # noqa: S106 - of a bench
            settings={"window": WINDOW, "sender_id": "4930"},
        )
    )  # fmt: skip
    await engine.providers_changed()
    words = f"Dear [contact:first_name], {TEXT.decode()}"
    text = await store.insert(Text(name="bench", data=words))
    program = await store.insert(Program(name="bench", type="sendsms", data={"text_id": text.id}))
    group = await store.insert(Group(name="bench"))
    await add_contacts(store, group.id, contacts)
    return await store.insert(
        Campaign(program_id=program.id, group_id=group.id, calls_per_minute=CALLS_PER_MINUTE)
    )


async def _completed(engine: Engine, campaign_id: int) -> None:
    while True:
        campaign = await engine.store.get(Campaign, campaign_id)
        if campaign is None or campaign.status is CampaignStatus.COMPLETED:
            return
        await trio.sleep(LOOK_S)


def main() -> None:
    """Command line of the child process."""
    configure(LogConfig(level="error"))  # standard output is the bench's
    host, port, contacts, _ = sys.argv[1:]
    result = trio.run(send, host, int(port), int(contacts))
    sys.stdout.write(orjson.dumps(result).decode() + "\n")


if __name__ == "__main__":
    main()
