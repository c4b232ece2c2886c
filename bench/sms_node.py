"""The whole node of ``bench sms``: ``python -m bench.sms_node HOST PORT CONTACTS 0``.

A campaign with tokens in its text over SQLite and the smpp gateway with its journal, from the start
until the last receipt has closed its spool; prints one JSON line.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import trio

from api.log import configure
from bench.child import say
from bench.node import UNPACED_CPM, add_contacts, send_all
from bench.sms_peers import TEXT
from engine.app import Engine
from engine.config import LogConfig
from engine.model import Campaign, Group, Program, Provider, Text
from engine.validation import PROVIDER_TYPES
from gateways.smpp.gateway import SmppGateway

WINDOW = 500


async def send(host: str, port: int, contacts: int) -> dict[str, Any]:
    """Run the campaign; how many messages, how long."""
    campaign = partial(_campaign, host=host, port=port, contacts=contacts)
    return await send_all("smpp", SmppGateway, campaign)


async def _campaign(engine: Engine, host: str, port: int, contacts: int) -> Campaign:
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
        Campaign(program_id=program.id, group_id=group.id, calls_per_minute=UNPACED_CPM)
    )


def main() -> None:
    """Command line of the child process."""
    configure(LogConfig(level="error"))  # standard output is the bench's
    host, port, contacts, _ = sys.argv[1:]
    say(trio.run(send, host, int(port), int(contacts)))


if __name__ == "__main__":
    main()
