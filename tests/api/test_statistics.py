"""/statistics over HTTP: every key, whose rows, which filters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Contact,
    Direction,
    Group,
    Program,
    Service,
    Spool,
    SpoolStatus,
    Transmission,
    TransmissionStatus,
    User,
)
from engine.store.base import Condition, ContactRow, Op, Query
from tests.api.node import Node

# The guide's nine, and those that clients read beside them (specs/ictcore.md §2.1).
GUIDE = {
    "campaign_total", "campaign_active", "group_total", "contact_total", "transmission_total",
    "transmission_active", "spool_total", "spool_success", "spool_failed",
}  # fmt: skip
CLIENTS = {
    "user_total", "account_total", "campaign_total", "campaign_active", "group_total",
    "contact_total", "transmission_total", "transmission_inbound", "transmission_outbound",
    "transmission_active", "did_total",
}  # fmt: skip
_IN, _OUT = Direction.INBOUND, Direction.OUTBOUND
OLD = datetime(2026, 1, 1, tzinfo=UTC)
NEW = OLD + timedelta(days=30)


async def counts(client: httpx.AsyncClient, **args: object) -> dict[str, int]:
    response = await client.get("/statistics", params={k: str(v) for k, v in args.items()})
    assert response.status_code == 200, response.text
    found: dict[str, int] = response.json()
    return found


async def user_id_of(node: Node, name: str) -> int:
    (user,) = await node.engine.store.find(
        User, Query(conditions=(Condition("username", Op.EQ, name),))
    )
    return user.id


async def belongings(node: Node, owner_id: int, at: datetime) -> None:
    """One or two of everything, made at that time."""
    store = node.engine.store
    own: dict[str, Any] = {"owner_id": owner_id, "created_at": at, "updated_at": at}
    await store.insert(Account(type="did", **own))
    group = await store.insert(Group(name="g", **own))
    program = await store.insert(Program(name="p", type="voicemessage", **own))
    for state in (CampaignStatus.RUNNING, CampaignStatus.PAUSED):
        await store.insert(Campaign(program_id=program.id, group_id=group.id, status=state, **own))
    for direction, status, ended, service in (
        (_OUT, TransmissionStatus.PROCESSING, SpoolStatus.CONNECTED, Service.VOICE),
        (_OUT, TransmissionStatus.COMPLETED, SpoolStatus.COMPLETED, Service.FAX),
        (_IN, TransmissionStatus.FAILED, SpoolStatus.FAILED, Service.VOICE),
    ):
        contact = await store.insert(Contact(phone="1", **own))
        transmission = await store.insert(
            Transmission(
                program_id=program.id, contact_id=contact.id, direction=direction, status=status,
                service=service, **own,
            )
        )  # fmt: skip
        await store.insert(
            Spool(transmission_id=transmission.id, status=ended, service=service, **own)
        )


ALL = {
    "account_total": 1, "did_total": 1, "campaign_total": 2, "campaign_active": 1,
    "group_total": 1, "contact_total": 3, "transmission_total": 3, "transmission_active": 1,
    "transmission_inbound": 1, "transmission_outbound": 2, "spool_total": 3, "spool_success": 1,
    "spool_failed": 1,
}  # fmt: skip


async def test_every_key_is_there(node: Node) -> None:
    shown = await counts(node.client)
    assert set(shown) >= GUIDE | CLIENTS
    assert all(type(value) is int for value in shown.values())
    classic = (await node.client.get("/api/statistics")).json()
    assert {key: int(value) for key, value in classic.items()} == shown
    assert all(type(value) is str for value in classic.values())


async def test_ones_own_rows_and_everybodys(node: Node) -> None:
    alice, bob = await node.user("alice", "user"), await node.user("bob", "user")
    alice_id = await user_id_of(node, "alice")
    before = await counts(node.client)
    await belongings(node, alice_id, NEW)
    shown = await counts(alice)
    assert {key: shown[key] for key in ALL} == ALL | {"account_total": 2}
    assert shown["user_total"] == 1, "who may not list users sees one"
    others = await counts(bob)
    assert {key: others[key] for key in ALL} == dict.fromkeys(ALL, 0) | {"account_total": 1}
    everything = await counts(node.client)
    assert {key: everything[key] - before[key] for key in ALL} == ALL
    assert everything["user_total"] == 3


@pytest.mark.parametrize("name", ["since", "from", "date_created"])
async def test_since_when(node: Node, name: str) -> None:
    alice = await node.user("alice", "user")
    alice_id = await user_id_of(node, "alice")
    await belongings(node, alice_id, OLD)
    await belongings(node, alice_id, NEW)
    whole = await counts(alice)
    assert whole["contact_total"] == 2 * ALL["contact_total"]
    new = await counts(alice, **{name: int(NEW.timestamp())})
    # The account of the user itself was made when the test began.
    assert {key: new[key] for key in ALL} == ALL | {"account_total": 2}
    none = await counts(alice, **{name: int(NEW.timestamp()) + 10**9})
    assert {key: none[key] for key in ALL} == dict.fromkeys(ALL, 0)
    recounted = await counts(alice, **{name: 0})
    assert recounted == whole, "the counters say what counting says"


@pytest.mark.parametrize("name", ["user_id", "created_by"])
async def test_of_whom(node: Node, name: str) -> None:
    alice, bob = await node.user("alice", "user"), await node.user("bob", "user")
    alice_id = await user_id_of(node, "alice")
    await belongings(node, alice_id, NEW)
    hers = await counts(alice)
    asked = await counts(node.client, **{name: alice_id})
    assert {key: asked[key] for key in ALL} == {key: hers[key] for key in ALL}
    snooping = await counts(bob, **{name: alice_id})
    assert {key: snooping[key] for key in ALL} == dict.fromkeys(ALL, 0)


async def test_of_which_kind(node: Node) -> None:
    alice = await node.user("alice", "user")
    await belongings(node, await user_id_of(node, "alice"), NEW)
    faxes = await counts(alice, service_flag=2)
    assert (faxes["transmission_total"], faxes["transmission_inbound"]) == (1, 0)
    assert (faxes["spool_total"], faxes["spool_success"], faxes["spool_failed"]) == (1, 1, 0)
    assert faxes["contact_total"] == ALL["contact_total"], "transmissions and spools only"
    dids = await counts(alice, account_type="DID")
    assert (dids["account_total"], dids["did_total"]) == (1, 1)
    assert dids["transmission_total"] == ALL["transmission_total"], "accounts only"
    extensions = await counts(alice, account_type="extension")
    assert (extensions["account_total"], extensions["did_total"]) == (0, 0)


@pytest.mark.parametrize("args", [{"since": "yesterday"}, {"user_id": "me"}, {"service_flag": 99}])
async def test_a_filter_that_makes_no_sense_is_named(node: Node, args: dict[str, Any]) -> None:
    response = await node.client.get("/statistics", params=args)
    assert response.status_code == 412
    assert response.json()["error"]["message"].startswith(f"{next(iter(args))}:")


async def test_contacts_are_counted_as_they_come_and_go(node: Node) -> None:
    """By a counter, so that a dashboard does not count a million rows every few seconds."""
    store = node.engine.store
    owner_id = await user_id_of(node, "admin")
    group = await store.insert(Group(name="g", owner_id=owner_id))
    before = (await counts(node.client))["contact_total"]
    rows = [ContactRow(phone=str(number)) for number in range(100)]
    await store.import_contacts(group.id, owner_id, rows, NEW)
    (contact, *_) = await store.find(Contact, Query(limit=1))
    await node.client.put(f"/contacts/{contact.id}", json={"first_name": "x"})
    assert (await counts(node.client))["contact_total"] == before + 100
    await node.client.delete(f"/contacts/{contact.id}")
    await node.client.post("/contacts", json={"phone": "5"})
    await node.client.delete(f"/contacts/{contact.id}")
    shown = await counts(node.client)
    assert shown["contact_total"] == before + 100
    assert shown == await counts(node.client, since=0)
