"""Mail campaigns, and a network that answers as a test says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio
import trio.testing

from engine.app import Engine
from engine.gateway import Order, Progress
from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Group,
    Program,
    Service,
    Template,
    Transmission,
    TransmissionStatus,
)
from engine.results import Blame, Disposition, Fate, Reached, Result, ResultRow
from engine.store.base import ContactRow
from gateways.loopback.gateway import LoopbackGateway
from tests.support.engine import (
    spools_of,
    transmissions_of,
)

EMAIL = Service.EMAIL
DEFERRED = Result(
    disposition=Disposition.DEFERRED,
    cause="greylisted",
    blame=Blame.NETWORK,
    reached=Reached.NOTHING,
    code="451 4.7.1",
    later_s=(60.0, 300.0),
)
BOUNCED = Result(
    disposition=Disposition.FAILED,
    cause="bounced",
    blame=Blame.NETWORK,
    reached=Reached.NETWORK,
    code="5.1.1",
    rows=(ResultRow("email", "bounce_status", "5.1.1"),),
    suppress="bounce 5.1.1: no such address",
)


class Network(LoopbackGateway):
    """Answers each mail as the test says; the mails and their orders are kept."""

    def __init__(self, *fates: Result) -> None:
        super().__init__()
        self.fates = list(fates)
        self.orders: list[Order] = []
        self.hold: trio.Event | None = None
        self.started = trio.Event()

    async def deliver(self, order: Order, progress: Progress) -> Fate:
        self.orders.append(order)
        self.started.set()
        if self.hold is not None:
            await self.hold.wait()
        return self.fates.pop(0) if self.fates else await super().deliver(order, progress)


async def mail_campaign(engine: Engine, addresses: Sequence[str], **fields: Any) -> Campaign:
    """A campaign that sends a template to these addresses; not started."""
    store = engine.store
    account = await store.insert(Account(email="news@example.net", active=True, owner_id=7))
    template = await store.insert(
        Template(name="t", subject="Hi [contact:first_name]", body="<p>Hi</p>", owner_id=7)
    )
    program = await store.insert(
        Program(name="p", type="sendemail", data={"template_id": template.id}, owner_id=7)
    )
    group = await store.insert(Group(name="g", owner_id=7))
    rows = [ContactRow(email=address, first_name="Ada") for address in addresses]
    await store.import_contacts(group.id, 7, rows, engine.clock())
    given = {
        "program_id": program.id, "group_id": group.id, "account_id": account.id, "owner_id": 7,
        "calls_per_minute": 600_000.0,
    }  # fmt: skip
    return await store.insert(Campaign(**(given | fields)))


async def the_one(engine: Engine, campaign: Campaign) -> Transmission:
    [transmission] = await transmissions_of(engine.store, campaign)
    return transmission


async def until_pending(engine: Engine, campaign: Campaign, tries: int) -> None:
    """Wait until the only mail of a campaign is pending after this many spools."""

    async def seen() -> bool:
        found = await spools_of(engine.store, campaign)
        rows = await transmissions_of(engine.store, campaign)
        pending = all(row.status is TransmissionStatus.PENDING for row in rows)
        return len(found) == tries and all(one.ended_at for one in found) and pending

    with trio.fail_after(3600):
        while not await seen():  # noqa: ASYNC110 - virtual time
            await trio.sleep(0.1)


async def wait_for(engine: Engine, campaign: Campaign, status: CampaignStatus) -> None:
    with trio.fail_after(3600):
        while True:
            now = await engine.store.get(Campaign, campaign.id)
            if now is not None and now.status is status:
                return
            await trio.sleep(0.1)
