"""The whole node of ``bench email``: ``python -m bench.email_node PORT CONTACTS KEY``.

A campaign of a template over SQLite and the smtp gateway with its journal, from the start until the
last spool is closed; prints one JSON line.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import msgspec
import trio

from api.log import configure
from bench.child import say
from bench.email_far import HTML, SENDER, SENDER_NAME, SUBJECT, address, values
from bench.email_ours import relay
from bench.node import UNPACED_CPM, add_contacts, send_all
from engine.app import Engine
from engine.config import LogConfig
from engine.model import Account, Campaign, Group, Program, Template
from engine.store.base import ContactRow
from gateways.smtp.gateway import SmtpGateway


async def send(port: int, contacts: int, key: str) -> dict[str, Any]:
    """Run the campaign; how many mails, how long."""
    campaign = partial(_campaign, port=port, contacts=contacts, key=key)
    return await send_all("smtp", SmtpGateway, campaign)


async def _campaign(engine: Engine, port: int, contacts: int, key: str) -> Campaign:
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
    await add_contacts(store, group.id, contacts, _recipient)
    return await store.insert(
        Campaign(
            program_id=program.id,
            group_id=group.id,
            account_id=account.id,
            calls_per_minute=UNPACED_CPM,
        )
    )


def _recipient(number: int) -> ContactRow:
    given: dict[str, Any] = {**values(number)}
    return ContactRow(phone=f"49{number:010d}", email=address(number), **given)


def main() -> None:
    """Command line of the child process."""
    configure(LogConfig(level="error"))  # standard output is the bench's
    port, contacts, key = sys.argv[1:]
    say(trio.run(send, int(port), int(contacts), key))


if __name__ == "__main__":
    main()
