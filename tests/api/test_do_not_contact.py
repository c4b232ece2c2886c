"""/do_not_contact over HTTP: addresses that nothing may be sent to."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from engine.model import DoNotContact, Service
from tests.api.node import Node, made

PATH = "/do_not_contact"


async def shown(client: httpx.AsyncClient, key: int) -> dict[str, Any]:
    response = await client.get(f"{PATH}/{key}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_crud(node: Node) -> None:
    ada = await made(node.client, PATH, phone="+49 (30) 123-456", reason="asked for it")
    bob = await made(node.client, PATH, email="Bob@Example.com")
    one, two = await shown(node.client, ada), await shown(node.client, bob)
    assert (one["phone"], one["email"], one["service_flag"]) == ("4930123456", "", 7)
    assert (one["reason"], one["do_not_contact_id"]) == ("asked for it", ada)
    assert (two["phone"], two["email"], two["service_flag"]) == ("", "bob@example.com", 8)
    assert (await node.client.delete(f"{PATH}/{ada}")).json() is True
    assert (await node.client.get(f"{PATH}/{ada}")).status_code == 404
    assert (await node.client.delete(f"{PATH}/{ada}")).status_code == 404
    assert [row["do_not_contact_id"] for row in (await node.client.get(PATH)).json()] == [bob]


async def test_filters(node: Node) -> None:
    ada = await made(node.client, PATH, phone="+4930123456", service_flag=4)
    bob = await made(node.client, PATH, phone="004930123457", service_flag=3)
    eve = await made(node.client, PATH, email="eve@example.com")
    for params, found in (
        ({"address": "+49301"}, [ada, bob]),
        ({"address": "123457"}, [bob]),
        ({"phone": "0049 30 123456"}, [ada]),
        ({"email": "EVE@"}, [eve]),
        ({"service_flag": 4}, [ada]),
        ({"service_flag": 2}, [bob]),
        ({"service_flag": 8}, [eve]),
        ({"sort": "-address"}, [eve, bob, ada]),
        ({"before": 1}, []),
    ):
        rows = (await node.client.get(PATH, params=params)).json()
        assert [row["do_not_contact_id"] for row in rows] == found, params


async def test_a_second_post_is_merged(node: Node) -> None:
    one = await made(node.client, PATH, phone="+4930123456", service_flag=4, reason="STOP")
    assert await made(node.client, PATH, phone="4930123456", service_flag=1) == one
    merged = await shown(node.client, one)
    assert (merged["service_flag"], merged["reason"]) == (5, "STOP")
    assert len((await node.client.get(PATH)).json()) == 1


async def test_services_that_reach_no_such_address_are_left_out(node: Node) -> None:
    one = await made(node.client, PATH, phone="4930123456", service_flag=15)
    assert (await shown(node.client, one))["service_flag"] == 7


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "phone"), ({"phone": "", "email": ""}, "phone"),
        ({"phone": "123", "email": "a@b"}, "either"), ({"phone": "alice"}, "phone"),
        ({"phone": "1" * 33}, "phone"), ({"phone": "12\r\n3"}, "phone"),
        ({"email": "alice"}, "email"), ({"email": "a b@c"}, "email"),
        ({"phone": "123", "service_flag": 8}, "service_flag"),
        ({"phone": "123", "service_flag": 0}, "service_flag"),
        ({"phone": "123", "service_flag": 16}, "service_flag"),
        ({"phone": "123", "service_flag": -1}, "service_flag"),
        ({"phone": "123", "service_flag": 2**70}, "service_flag"),
        ({"email": "a@b", "service_flag": 4}, "service_flag"),
        ({"phone": "123", "service_flag": "x"}, "service_flag"),
        ({"phone": "123", "reason": "x" * 256}, "reason"),
        ({"phone": "123", "reason": "a\x00"}, "reason"),
    ],
)  # fmt: skip
async def test_a_field_that_cannot_be_is_named(node: Node, body: dict[str, Any], word: str) -> None:
    response = await node.client.post(PATH, json=body)
    assert response.status_code == 412, response.text
    assert word in response.json()["error"]["message"]
    assert (await node.client.get(PATH)).json() == []


async def test_the_classic_mount_spells_it_its_way(node: Node) -> None:
    answer = await node.client.post(f"/api{PATH}", json={"phone": "123"})
    assert answer.content.isdigit()
    [row] = (await node.client.get(f"/api{PATH}")).json()
    assert (row["phone"], row["service_flag"]) == ("123", "7")
    assert (await node.client.delete(f"/api{PATH}/{row['do_not_contact_id']}")).json() is True


async def test_an_administrator_sees_what_is_closed_for_everybody(node: Node) -> None:
    list_ = node.engine.do_not_contact
    await list_.forbid(DoNotContact(address="1", service=Service.SMS, reason="STOP by SMS"))
    [row] = (await node.client.get(PATH)).json()
    assert (row["phone"], row["user_id"], row["reason"]) == ("1", None, "STOP by SMS")
    assert (await node.client.delete(f"{PATH}/{row['do_not_contact_id']}")).json() is True
    assert not list_.closed_lately(None, Service.SMS, "1")


async def test_what_is_closed_is_not_sent_to(node: Node) -> None:
    await made(node.client, "/accounts", phone="4930999", active=1)
    await made(node.client, "/providers", name="p", type="loopback", service_flag=5)
    text = await made(node.client, "/texts", name="n", data="Hi")
    program = await made(node.client, "/programs/sendsms", name="sms", text_id=text)
    ada = await made(node.client, "/contacts", phone="+4930123456")
    closed = await made(node.client, PATH, phone="4930123456", service_flag=4)
    one = await made(node.client, "/transmissions", program_id=program, contact_id=ada)
    assert (await node.client.post(f"/transmissions/{one}/send")).status_code == 423
    row = (await node.client.get(f"/transmissions/{one}")).json()
    assert (row["status"], row["response"]) == ("invalid", "do_not_contact")
    assert (await node.client.delete(f"{PATH}/{closed}")).json() is True
    two = await made(node.client, "/transmissions", program_id=program, contact_id=ada)
    assert (await node.client.post(f"/transmissions/{two}/send")).status_code == 200
