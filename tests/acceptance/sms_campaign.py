"""An operator's SMS campaign over HTTP, and its outcome beside the SMSC's own record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import httpx
import msgspec
import trio

from tests.acceptance.session import create
from tests.support.smsc.peers import Message, Smsc

SENDER = "4930555000"
PAGE = 10_000
DEADLINE_S = 900.0
EVERY = 5  # each of so many contacts has an emoji in the name, so that the whole text is Unicode

SHORT_TEXT = "Hello [contact:first_name], your code is {[contact:custom1]}."
_OPENING = f"{SHORT_TEXT[:-1]}: 5 € ^ \\ [now] ~ | @£$¥èéùìòÇ"
LONG_TEXT = (_OPENING + " and so on, until the last character counts." * 40)[:1600] + " END"
"""More than 1,500 characters once the tokens are filled, those of the GSM extension among them."""


class Person(msgspec.Struct, frozen=True):
    """A contact of a test campaign."""

    phone: str
    first_name: str
    code: str

    def text(self, template: str) -> str:
        """What this contact shall read."""
        named = template.replace("[contact:first_name]", self.first_name)
        return named.replace("[contact:custom1]", self.code)


def people(count: int) -> list[Person]:
    """Contacts with numbers, names and codes of their own; some names need Unicode."""
    names = [f"Zoë😀{n}" if n % EVERY == 0 else f"José_{n}" for n in range(count)]
    return [Person(f"4917{n:08d}", name, f"{n:x}|~") for n, name in enumerate(names)]


async def provider(client: httpx.AsyncClient, smsc: Smsc, **settings: Any) -> int:
    """A trunk to the SMSC."""
    return await create(
        client, "/providers", "provider_id", {**smsc.provider, "settings": settings}
    )


async def campaign(
    client: httpx.AsyncClient, who: list[Person], template: str, **fields: Any
) -> int:
    """Account, text, program, group, CSV of contacts, campaign; its id. Not started."""
    sender = {"type": "did", "username": "sender", "phone": SENDER, "active": 1}
    account = await create(client, "/accounts", "account_id", sender)
    text = await create(
        client, "/messages/texts", "text_id", {"name": "hello", "data": template, "type": "plain"}
    )
    program = await create(
        client, "/programs/sendsms", "program_id", {"name": "hello", "text_id": text}
    )
    given = {"program_id": program, "group_id": await group(client, who), "account_id": account}
    return await create(
        client, "/campaigns", "campaign_id", {**given, "cpm": 6_000_000, "try_allowed": 1, **fields}
    )


async def group(client: httpx.AsyncClient, who: Iterable[Person]) -> int:
    """A group of these contacts, by CSV."""
    found = await create(client, "/groups", "group_id", {"name": "people"})
    lines = "".join(f"{p.phone},{p.first_name},,,,{p.code},,,\n" for p in who)
    answer = await client.post(
        f"/groups/{found}/csv", content=lines.encode(), headers={"Content-Type": "text/csv"}
    )
    assert answer.status_code == 200, answer.text
    return found


async def start(client: httpx.AsyncClient, campaign_id: int) -> None:
    """Off it goes."""
    answer = await client.put(f"/campaigns/{campaign_id}/start")
    assert answer.status_code == 200, answer.text


async def completed(client: httpx.AsyncClient, campaign_id: int) -> dict[str, Any]:
    """Poll, as a client does, until the campaign is completed; the campaign."""
    with trio.fail_after(DEADLINE_S):
        while True:
            found = await read(client, f"/campaigns/{campaign_id}")
            if found["status"] == "completed":
                return dict(found)
            await trio.sleep(0.5)  # another process: there is nothing to wait on


async def read(client: httpx.AsyncClient, path: str, **filters: Any) -> Any:
    """GET."""
    answer = await client.get(path, params=filters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def every(client: httpx.AsyncClient, path: str, **filters: Any) -> list[dict[str, Any]]:
    """GET a list, page by page."""
    rows: list[dict[str, Any]] = []
    while True:
        page = await read(client, path, **filters, limit=PAGE, offset=len(rows))
        rows += page
        if len(page) < PAGE:
            return rows


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the API says of a campaign that is over."""

    campaign: dict[str, Any]
    transmissions: list[dict[str, Any]]
    spools: list[dict[str, Any]]
    statistics: dict[str, Any]

    @property
    def responses(self) -> Counter[tuple[str, str]]:
        """Transmissions by status and response."""
        return Counter((row["status"], row["response"]) for row in self.transmissions)

    @property
    def last_spools(self) -> dict[str, dict[str, Any]]:
        """The last attempt for each number."""
        ordered = sorted(self.spools, key=lambda spool: int(spool["spool_id"]))
        return {spool["destination"]: spool for spool in ordered}


async def outcome(client: httpx.AsyncClient, campaign_id: int) -> Outcome:
    """Wait for the end of the campaign and read all there is about it."""
    found = await completed(client, campaign_id)
    return Outcome(
        campaign=found,
        transmissions=await every(client, "/transmissions", campaign_id=campaign_id),
        spools=await every(client, "/spools", campaign_id=campaign_id),
        statistics=await read(client, "/statistics"),
    )


def assert_each_once_and_intact(
    messages: list[Message], who: list[Person], template: str, sender: str = SENDER
) -> None:
    """The SMSC's record: one whole message for each person, word for word, from the sender."""
    assert len(messages) == len(who)
    assert all(message.complete for message in messages)
    got = {message.destination: message.text for message in messages}
    assert got == {person.phone: person.text(template) for person in who}
    assert {message.source for message in messages} == {sender}


def assert_counts_agree(found: Outcome, smsc: Smsc, contacts: int) -> None:
    """Campaign, transmissions, spools and statistics, and the SMSC's receipts: one story."""
    assert (found.campaign["contact_total"], found.campaign["contact_done"]) == (contacts, contacts)
    assert found.campaign["successful"] + found.campaign["failed"] == contacts
    assert len({row["contact_id"] for row in found.transmissions}) == contacts
    assert len(found.transmissions) == contacts
    assert {row["status"] for row in found.spools} <= {"completed", "failed"}
    statistics = found.statistics
    ended = Counter(row["status"] for row in found.spools)
    assert statistics["spool_total"] == len(found.spools)
    assert statistics["spool_success"] == ended["completed"] == found.campaign["successful"]
    assert statistics["spool_failed"] == ended["failed"]
    assert statistics["transmission_active"] == 0
    asked = {submit.number for submit in smsc.taken() if submit.registered_delivery & 3}
    assert smsc.delivered() == asked, "a receipt was not taken"
