"""Who wants nothing gets nothing: new, retried, queued, sent by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine import clock, do_not_contact
from engine.app import Engine
from engine.auth import ROLES, Principal
from engine.catalog import Catalog
from engine.config import Config
from engine.do_not_contact import CAUSE, DoNotContacts
from engine.errors import NotReadyError
from engine.gateway import Order, Progress
from engine.model import (
    Contact,
    DoNotContact,
    Service,
    SpoolStatus,
    Transmission,
    TransmissionStatus,
    User,
)
from engine.results import Fate
from engine.store import open_store
from engine.store.base import Query
from gateways.loopback.gateway import LoopbackGateway
from gateways.loopback.script import Script
from tests.support.engine import (
    DEADLINE_S,
    add_campaign,
    add_program,
    add_provider,
    config_in,
    run_to_end,
    spools_of,
    transmissions_of,
)

VOICE, SMS = Service.VOICE, Service.SMS
Hook = Callable[[Order], Awaitable[None]]


class Listened(LoopbackGateway):
    """Tells of every order before it is delivered."""

    def __init__(self, script: Script | None = None) -> None:
        super().__init__(script, seed=1)
        self.dialled: list[str] = []
        self.hook: Hook | None = None

    async def deliver(self, order: Order, progress: Progress) -> Fate:
        self.dialled.append(order.destination)
        if self.hook is not None:
            await self.hook(order)
        return await super().deliver(order, progress)


@asynccontextmanager
async def at_work(
    folder: Path, script: Script | None = None
) -> AsyncIterator[tuple[Engine, Listened]]:
    config, gateway = config_in(folder), Listened(script)
    async with open_store(config, clock=clock.now) as store:
        engine = Engine(config=config, store=store, gateways={"loopback": gateway})
        async with trio.open_nursery() as nursery:
            with trio.fail_after(DEADLINE_S):
                await nursery.start(engine.run)
                yield engine, gateway
            engine.stop()


def close(number: str, service: Service = VOICE, owner_id: int | None = None) -> DoNotContact:
    return DoNotContact(address=number, service=service, owner_id=owner_id)


async def test_a_campaign_leaves_them_out_and_its_check_says_so(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (engine, gateway):
        await add_provider(engine)
        owner = (await engine.store.insert(User(username="ann"))).id
        campaign = await add_campaign(engine, 20, owner_id=owner)
        await engine.do_not_contact.forbid(close("1003", owner_id=owner))
        await engine.do_not_contact.forbid(close("1007"))
        # For something else, for somebody else.
        await engine.do_not_contact.forbid(close("1001", SMS, owner))
        await engine.do_not_contact.forbid(close("1002", VOICE, owner + 1))
        check = await engine.check_campaign(campaign)
        assert (check.dialable, check.skipped) == (18, {CAUSE: 2})
        await run_to_end(engine, campaign)
        assert sorted({str(1000 + n) for n in range(20)} - set(gateway.dialled)) == ["1003", "1007"]
        tally = await engine.store.campaign_tally(campaign.id)
        assert tally[f"response:{CAUSE}"] == tally["invalid"] == 2
        assert tally["dialled"] == 18


async def test_what_is_queued_when_they_ask_is_not_sent(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (engine, gateway):
        await add_provider(engine, channels=1)
        campaign = await add_campaign(engine, 5)

        async def ask(_: Order) -> None:
            if len(gateway.dialled) == 1:
                for number in range(1000, 1004):
                    await engine.do_not_contact.forbid(close(str(number)))

        gateway.hook = ask
        await run_to_end(engine, campaign)
        assert gateway.dialled == ["1000", "1004"]
        rows = await transmissions_of(engine.store, campaign)
        refused = [row for row in rows if row.response == CAUSE]
        assert [row.status for row in refused] == [TransmissionStatus.FAILED] * 3
        spools = [s for s in await spools_of(engine.store, campaign) if s.response == CAUSE]
        assert [(s.disposition, s.status) for s in spools] == [("screened", SpoolStatus.FAILED)] * 3


async def test_a_retry_is_asked_about_too(tmp_path: Path) -> None:
    async with at_work(tmp_path, Script(answer=0.0, busy=1.0)) as (engine, gateway):
        await add_provider(engine)
        campaign = await add_campaign(engine, 2, try_allowed=3)

        async def ask(order: Order) -> None:
            if order.destination == "1000":
                await engine.do_not_contact.forbid(close("1000"))

        gateway.hook = ask
        await run_to_end(engine, campaign)
        assert gateway.dialled.count("1000") == 1
        assert gateway.dialled.count("1001") == 3
        first, _ = await transmissions_of(engine.store, campaign)
        assert (first.status, first.response) == (TransmissionStatus.INVALID, CAUSE)


@pytest.mark.parametrize("number", ["+49 170 12", "004917012", "4917012"])
async def test_a_single_one_is_not_sent(tmp_path: Path, number: str) -> None:
    async with at_work(tmp_path) as (engine, gateway):
        await add_provider(engine)
        contact = await engine.store.insert(Contact(phone=number))
        program = await add_program(engine.store)
        one, two = [
            await engine.store.insert(Transmission(program_id=program.id, contact_id=contact.id))
            for _ in range(2)
        ]
        closed = await engine.do_not_contact.forbid(close("4917012"))
        with pytest.raises(NotReadyError):
            await engine.send(one.id)
        stored = await engine.store.get(Transmission, one.id)
        assert stored is not None
        assert (stored.status, stored.response) == (TransmissionStatus.INVALID, CAUSE)
        root = Principal(user_id=1, username="r", permissions=ROLES["user"] | ROLES["admin"])
        await engine.catalog.delete(root, DoNotContact, closed.id)
        assert await engine.send(two.id)
        assert len(gateway.dialled) == 1


async def test_who_closes_an_address_owns_the_line(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (engine, _):
        ann = Principal(user_id=5, username="ann", permissions=ROLES["user"])
        entry = DoNotContact(address="+49 (170) 12", service=SMS, owner_id=99)
        made = await engine.do_not_contact.create(ann, entry)
        assert (made.address, made.owner_id) == ("4917012", 5)
        mail = DoNotContact(address=" Ada@Example.com", service=Service.EMAIL)
        assert (await engine.do_not_contact.create(ann, mail)).address == "ada@example.com"
        assert await engine.do_not_contact.among(
            5, Service.EMAIL, ["ADA@example.com", "bob@example.com"]
        ) == {"ADA@example.com"}
        assert len(await engine.store.find(DoNotContact, Query())) == 2


SERVICES = st.sampled_from([VOICE, SMS, VOICE | SMS])
STEPS = st.lists(
    st.tuples(st.booleans(), st.sampled_from("123"), st.sampled_from([None, 7]), SERVICES)
)


@given(STEPS)
def test_memory_says_what_was_noted(
    steps: list[tuple[bool, str, int | None, Service]],
) -> None:
    model: dict[tuple[str, int | None], Service] = {}
    list_ = _alone()
    for closes, number, owner_id, service in steps:
        entry, key = close(number, service, owner_id), (number, owner_id)
        before = model.get(key, Service.NONE)
        if closes:
            list_.note(entry)
            model[key] = before | service
        else:
            list_.forget(entry)
            model[key] = before & ~service
    for number in "123":
        for service in (VOICE, SMS):
            own = model.get((number, 7), Service.NONE) | model.get((number, None), Service.NONE)
            assert list_.closed_lately(7, service, f"+{number}") is bool(own & service)
            everybodys = model.get((number, None), Service.NONE)
            assert list_.closed_lately(8, service, number) is bool(everybodys & service)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(do_not_contact, "REMEMBERED", 10)
    list_ = _alone()
    for number in range(100):
        list_.note(close(str(number)))
        assert list_.closed_lately(None, VOICE, str(number))
    assert list_.statistics() == {"closed_lately": 10}
    assert not list_.closed_lately(None, VOICE, "1")


def _alone() -> DoNotContacts:
    """A list whose store is never asked."""
    nothing: Any = None
    return DoNotContacts(Catalog(nothing, clock.now, Config()))
