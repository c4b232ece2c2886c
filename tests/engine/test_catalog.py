"""Rules of the catalog that no single request shows: races, ownership, limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.auth import ROLES, Principal
from engine.catalog import Catalog
from engine.errors import ForbiddenError, InvalidError, NotFoundError, NotReadyError
from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Contact,
    Document,
    DoNotContact,
    Entity,
    Group,
    Permission,
    Program,
    Provider,
    Recording,
    Role,
    Spool,
    Template,
    Text,
    Transmission,
    User,
)
from engine.reports import Reports
from engine.store import open_store
from engine.store.base import Query, Store
from engine.validation import LENGTHS, check
from tests.support.engine import config_in

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ALICE = Principal(user_id=1, username="alice", permissions=ROLES["user"])
BOB = Principal(user_id=2, username="bob", permissions=ROLES["user"])
ROOT = Principal(user_id=3, username="root", permissions=ROLES["user"] | ROLES["admin"])
NOBODY = Principal(user_id=4, username="nobody")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(config_in(tmp_path)) as opened:
        yield opened


@pytest.fixture
def catalog(store: Store, tmp_path: Path) -> Catalog:
    return Catalog(store, lambda: NOON, config_in(tmp_path))


async def test_a_row_belongs_to_who_made_it(catalog: Catalog) -> None:
    contact = await catalog.create(ALICE, Contact(phone="1", owner_id=BOB.user_id))
    assert (contact.owner_id, contact.created_at) == (ALICE.user_id, NOON)
    assert await catalog.read(ALICE, Contact, contact.id) == contact
    assert await catalog.read(ROOT, Contact, contact.id) == contact
    with pytest.raises(NotFoundError):
        await catalog.read(BOB, Contact, contact.id)
    with pytest.raises(ForbiddenError):
        await catalog.read(NOBODY, Contact, contact.id)
    assert await catalog.find(BOB, Contact, Query()) == []
    assert await catalog.find(ROOT, Contact, Query()) == [contact]


async def test_what_an_edit_cannot_touch(catalog: Catalog) -> None:
    contact = await catalog.create(ALICE, Contact(phone="1"))
    changes = {"id": 9, "uid": None, "owner_id": 2, "created_at": None, "first_name": "A"}
    after = await catalog.update(ALICE, Contact, contact.id, changes)
    assert (after.id, after.uid, after.owner_id) == (contact.id, contact.uid, ALICE.user_id)
    assert after.first_name == "A"


async def test_an_administrators_edit_leaves_the_owner(catalog: Catalog) -> None:
    contact = await catalog.create(ALICE, Contact(phone="1"))
    after = await catalog.update(ROOT, Contact, contact.id, {"last_name": "B"})
    assert after.owner_id == ALICE.user_id


async def test_edits_at_once_are_all_kept(catalog: Catalog) -> None:
    contact = await catalog.create(ALICE, Contact(phone="1"))
    fields = ("first_name", "last_name", "address", "custom1", "custom2", "custom3")
    async with trio.open_nursery() as nursery:
        for field in fields:
            nursery.start_soon(catalog.update, ALICE, Contact, contact.id, {field: field})
    after = await catalog.read(ALICE, Contact, contact.id)
    assert [getattr(after, field) for field in fields] == list(fields)


async def test_a_refused_edit_changes_nothing(catalog: Catalog) -> None:
    contact = await catalog.create(ALICE, Contact(phone="1"))
    with pytest.raises(InvalidError, match="phone"):
        await catalog.update(ALICE, Contact, contact.id, {"phone": "x", "first_name": "A"})
    assert await catalog.read(ALICE, Contact, contact.id) == contact


async def a_campaign(catalog: Catalog, store: Store, who: Principal) -> Campaign:
    await store.insert(Account(owner_id=who.user_id, active=True))
    recording = await catalog.create(who, Recording(name="r"))
    program = await catalog.create(
        who, Program(name="p", type="voicemessage", data={"recording_id": recording.id})
    )
    group = await catalog.create(who, Group(name="g"))
    return await catalog.create(who, Campaign(program_id=program.id, group_id=group.id))


async def test_the_callers_account_is_the_default(catalog: Catalog, store: Store) -> None:
    campaign = await a_campaign(catalog, store, ALICE)
    (account,) = await store.find(Account, Query())
    assert campaign.account_id == account.id
    contact = await catalog.create(BOB, Contact(phone="1"))
    recording = await catalog.create(BOB, Recording(name="r"))
    program = await catalog.create(
        BOB, Program(name="p", type="voicemessage", data={"recording_id": recording.id})
    )
    with pytest.raises(NotFoundError, match="Account"):
        await catalog.create(BOB, Transmission(program_id=program.id, contact_id=contact.id))


async def test_what_is_at_work_is_not_deleted(catalog: Catalog, store: Store) -> None:
    campaign = await a_campaign(catalog, store, ALICE)
    await store.set_campaign_status(campaign.id, CampaignStatus.RUNNING, NOON)
    for kind, entity_id in ((Campaign, campaign.id), (Group, campaign.group_id)):
        with pytest.raises(NotReadyError):
            await catalog.delete(ALICE, kind, entity_id)
    other = await catalog.create(ALICE, Group(name="other"))
    with pytest.raises(NotReadyError):
        await catalog.update(ALICE, Campaign, campaign.id, {"group_id": other.id})
    same = {"group_id": campaign.group_id, "calls_per_minute": 5.0}
    assert (await catalog.update(ALICE, Campaign, campaign.id, same)).calls_per_minute == 5
    await store.set_campaign_status(campaign.id, CampaignStatus.PAUSED, NOON)
    await catalog.delete(ALICE, Campaign, campaign.id)


async def test_spools_are_seen_with_their_transmission(catalog: Catalog, store: Store) -> None:
    campaign = await a_campaign(catalog, store, ALICE)
    contact = await catalog.create(ALICE, Contact(phone="1"))
    transmission = await catalog.create(
        ALICE, Transmission(program_id=campaign.program_id, contact_id=contact.id)
    )
    spool = await store.insert(Spool(transmission_id=transmission.id))
    reports = Reports(catalog)
    assert (await reports.spool(ALICE, spool.id)).id == spool.id
    assert (await reports.spool(ROOT, spool.id)).id == spool.id
    assert [s.id for s in await reports.spools(ALICE, transmission.id, Query())] == [spool.id]
    for refused in (spool.id, 0, 999, 2**70):
        with pytest.raises(NotFoundError):
            await reports.spool(BOB, refused)


VALID: dict[type[Entity], dict[str, Any]] = {
    Contact: {"phone": "1"},
    Group: {"name": "g"},
    Recording: {"name": "r"},
    Document: {"name": "d"},
    Template: {"name": "t"},
    Text: {"name": "t", "data": "hello"},
    User: {"username": "u"},
    Role: {"name": "r"},
    Permission: {"name": "contact_juggle"},
    Program: {"name": "p", "type": "voicemessage", "data": {"recording_id": 1}},
    Campaign: {"program_id": 1, "group_id": 1},
    Transmission: {"program_id": 1, "contact_id": 1},
    Account: {},
    Provider: {"name": "p", "host": "h"},
    DoNotContact: {"address": "1"},
}


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind, fields in LENGTHS.items() for field in fields]
)
def test_every_text_is_limited_and_free_of_control_characters(
    kind: type[Entity], field: str
) -> None:
    check(kind(**VALID[kind]))
    for value in ("x" * (LENGTHS[kind][field] + 1), "a\x00", "a\x7f", "\x1b[2J"):
        with pytest.raises(InvalidError) as caught:
            check(kind(**{**VALID[kind], field: value}))
        assert caught.value.field == field


@given(st.text(max_size=40))
def test_no_accepted_text_can_break_a_line(value: str) -> None:
    try:
        check(Account(username=value, first_name=value, phone=value[:16]))
    except InvalidError:
        return
    assert not set(value) & set("\r\n\x00\x7f")
