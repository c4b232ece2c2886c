"""The whole node of ``bench email``: ``python -m bench.email_node PORT CONTACTS KEY``.

A campaign of a template over SQLite and the smtp gateway with its journal, from the start until the
last spool is closed; prints one JSON line.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import orjson
import trio

from api.log import configure
from bench.email_far import HTML, SENDER, SENDER_NAME, SUBJECT, address, values
from bench.email_ours import relay
from bench.node import CHUNK, config_for, running
from engine import clock
from engine.app import Engine
from engine.config import LogConfig
from engine.model import Account, Campaign, CampaignStatus, Group, Program, Template
from engine.store.base import ContactRow, Store
from gateways.smtp.gateway import SmtpGateway

CALLS_PER_MINUTE = 6_000_000
LOOK_S = 0.02


async def send(port: int, contacts: int, key: str) -> dict[str, Any]:
    """Run the campaign; how many mails, how long."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_for(Path(folder))
        async with running(config, {"smtp": SmtpGateway(config)}) as engine:
            campaign = await _prepared(engine, port, contacts, key)
            begun = time.perf_counter()
            await engine.start_campaign(campaign.id)
            await _completed(engine, campaign.id)
            spent = time.perf_counter() - begun
            tally = await engine.store.campaign_tally(campaign.id)
    return {"sent": tally["completed"], "seconds": spent}


async def _prepared(engine: Engine, port: int, contacts: int, key: str) -> Campaign:
    store = engine.store
    await store.insert(msgspec.structs.replace(relay(port, key), id=0))
    await engine.providers_changed()
    account = await store.insert(
        Account(type="eaddress", username=SENDER, email=SENDER, first_name=SENDER_NAME)
    )
    template = await store.insert(Template(name="bench", subject=SUBJECT, body=HTML))
    program = await store.insert(
        Program(name="bench", type="sendemail", data={"template_id": template.id})
    )
    group = await store.insert(Group(name="bench"))
    await _add_contacts(store, group.id, contacts)
    return await store.insert(
        Campaign(
            program_id=program.id,
            group_id=group.id,
            account_id=account.id,
            calls_per_minute=CALLS_PER_MINUTE,
        )
    )


async def _add_contacts(store: Store, group_id: int, contacts: int) -> None:
    for first in range(0, contacts, CHUNK):
        rows = [
            ContactRow(phone=f"49{n:010d}", email=address(n), **_texts(n))
            for n in range(first, min(first + CHUNK, contacts))
        ]
        await store.import_contacts(group_id, None, rows, clock.now())


def _texts(number: int) -> dict[str, Any]:
    return {**values(number)}


async def _completed(engine: Engine, campaign_id: int) -> None:
    while True:
        campaign = await engine.store.get(Campaign, campaign_id)
        if campaign is None or campaign.status is CampaignStatus.COMPLETED:
            return
        await trio.sleep(LOOK_S)


def main() -> None:
    """Command line of the child process."""
    configure(LogConfig(level="error"))  # standard output is the bench's
    port, contacts, key = sys.argv[1:]
    result = trio.run(send, int(port), int(contacts), key)
    sys.stdout.write(orjson.dumps(result).decode() + "\n")


if __name__ == "__main__":
    main()
