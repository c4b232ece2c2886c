"""/contacts and /groups over HTTP (CSV: test_contacts_csv.py)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.node import Node, made

CONTACT = {
    "first_name": "Ada", "last_name": "Lovelace", "phone": "+44 20 7946-0000",
    "email": "ada@example.com", "address": "1 Analytical Row\nLondon", "custom1": "a",
    "custom2": "b", "custom3": "ünïcödé 電話", "description": 'first, "of" her kind',
}  # fmt: skip


async def test_a_contact_comes_back_as_it_was_given(node: Node) -> None:
    contact_id = await made(node.client, "/contacts", **CONTACT)
    shown = (await node.client.get(f"/contacts/{contact_id}")).json()
    assert {name: shown[name] for name in CONTACT} == CONTACT
    assert shown["contact_id"] == contact_id
    assert isinstance(shown["date_created"], int)


async def test_put_changes_what_it_names_and_nothing_else(node: Node) -> None:
    contact_id = await made(node.client, "/contacts", **CONTACT)
    # A GUI sends the whole object back, with keys that are not its to write.
    shown = (await node.client.get(f"/contacts/{contact_id}")).json()
    sent = {**shown, "contact_id": 99, "user_id": 99, "unknown": [1], "last_name": ""}
    after = (await node.client.put(f"/contacts/{contact_id}", json=sent)).json()
    assert {k: v for k, v in after.items() if k != "last_updated"} == {
        **{k: v for k, v in shown.items() if k != "last_updated"},
        "last_name": "",
    }


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "phone"),
        ({"phone": "", "email": ""}, "phone"),
        ({"phone": "call me"}, "phone"),
        ({"phone": "sip:x@y"}, "phone"),
        ({"phone": "1" * 33}, "phone"),
        ({"phone": True}, "phone"),
        ({"phone": ["1"]}, "phone"),
        ({"phone": "1\r\nX: y"}, "phone"),
        ({"email": "nobody"}, "email"),
        ({"email": "a\x85@example.org"}, "email"),
        ({"email": "a\x9b@example.org"}, "email"),
        ({"email": f"{'x' * 64}@{'d.' * 94}de"}, "email"),
        ({"phone": "1", "first_name": "x" * 65}, "first_name"),
        ({"phone": "1", "custom2": "a\x00b"}, "custom2"),
        ({"phone": "1", "first_name": {"a": 1}}, "first_name"),
    ],
)
async def test_a_bad_field_is_named(node: Node, body: dict[str, Any], field: str) -> None:
    response = await node.client.post("/contacts", json=body)
    assert response.status_code == 412
    assert field in response.json()["error"]["message"]
    assert (await node.client.get("/contacts")).json() == []


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b'{"phone":3001234567}', "application/json"),
        (b'{"phone":"3001234567"}', "application/json; charset=utf-8"),
        (b'{"phone":"3001234567"}', ""),
        (b'{"phone":3001234567.0}', "text/plain"),
        (b"phone=3001234567&first_name=", "application/x-www-form-urlencoded"),
    ],
)
async def test_bodies_as_real_clients_send_them(
    node: Node, content: bytes, content_type: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    response = await node.client.post("/contacts", content=content, headers=headers)
    contact_id = response.json()["contact_id"]
    assert (await node.client.get(f"/contacts/{contact_id}")).json()["phone"] == "3001234567"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'""', b"\xff", b"[" * 5000])
async def test_what_is_no_map_counts_as_no_fields(node: Node, content: bytes) -> None:
    assert (await node.client.post("/groups", content=content)).status_code == 412
    group = await made(node.client, "/groups", name="g")
    response = await node.client.put(f"/groups/{group}", content=content)
    assert response.json()["name"] == "g"


async def test_lists_filter_and_page(node: Node) -> None:
    group = await made(node.client, "/groups", name="some people")
    for number in range(5):
        contact = await made(
            node.client, "/contacts", phone=f"10{number}", first_name=f"Name {number % 2}"
        )
        if number < 3:
            await node.client.put(f"/contacts/{contact}/link/{group}")

    async def phones(**args: Any) -> list[str]:
        response = await node.client.get("/contacts", params=args)
        assert response.status_code == 200, response.text
        return [row["phone"] for row in response.json()]

    assert await phones() == ["100", "101", "102", "103", "104"]
    assert await phones(phone="3") == ["103"]
    assert await phones(first_name="NAME 1") == ["101", "103"]
    assert await phones(first_name="%") == []
    assert await phones(contact_id=2) == ["101"]
    assert await phones(group_id=group) == ["100", "101", "102"]
    assert await phones(group_id=group, first_name="0") == ["100", "102"]
    assert await phones(user_id=999) == []
    assert await phones(before=0) == []
    assert await phones(after=0, unknown="x") == await phones()
    assert await phones(limit=2) == ["100", "101"]
    assert await phones(limit=2, offset=4) == ["104"]
    more = await node.client.get("/contacts", params={"limit": 2, "first_name": "Name"})
    assert more.headers["Link"] == '</contacts?limit=2&first_name=Name&offset=2>; rel="next"'
    last = await node.client.get("/contacts", params={"limit": 5})
    assert "Link" not in last.headers


@pytest.mark.parametrize(
    "query",
    [
        "contact_id=x",
        "group_id=1e3",
        "limit=0",
        "limit=100000",
        "limit=9999999999999999999",
        "offset=-1",
        "before=soon",
        "after=99999999999999",
        "email=" + "x" * 300,
    ],
)
async def test_a_filter_that_makes_no_sense_is_named(node: Node, query: str) -> None:
    response = await node.client.get(f"/contacts?{query}")
    assert response.status_code == 412
    assert query.split("=", maxsplit=1)[0] in response.json()["error"]["message"]


async def test_links_are_made_and_taken_back(node: Node) -> None:
    contact = await made(node.client, "/contacts", phone="1")
    group = await made(node.client, "/groups", name="g")
    path = f"/contacts/{contact}/link/{group}"
    linked = await node.client.put(path, content=b"[]")
    assert linked.json()["contact_id"] == contact
    assert (await node.client.put(path)).status_code == 417
    assert (await node.client.get(f"/groups/{group}")).json()["contact_total"] == 1
    assert [
        c["contact_id"] for c in (await node.client.get(f"/groups/{group}/contacts")).json()
    ] == [contact]
    assert (await node.client.delete(path)).json()["contact_id"] == contact
    assert (await node.client.delete(path)).status_code == 404
    assert (await node.client.get(f"/groups/{group}/contacts")).json() == []


async def test_deleting_takes_the_links_along(node: Node) -> None:
    contact = await made(node.client, "/contacts", phone="1")
    group = await made(node.client, "/groups", name="g", description="")
    await node.client.put(f"/contacts/{contact}/link/{group}")
    gone = await node.client.delete(f"/contacts/{contact}")
    assert (gone.status_code, gone.json()) == (200, True)
    assert (await node.client.get(f"/contacts/{contact}")).status_code == 404
    assert (await node.client.delete(f"/contacts/{contact}")).status_code == 404
    assert (await node.client.get(f"/groups/{group}")).json()["contact_total"] == 0
    assert (await node.client.delete(f"/groups/{group}")).json() is True


async def test_groups_are_renamed_and_found(node: Node) -> None:
    group = await made(node.client, "/groups", name="customers", description="all of them")
    renamed = await node.client.put(f"/groups/{group}", json={"name": "clients"})
    assert renamed.json()["name"] == "clients"
    assert renamed.json()["description"] == "all of them"
    assert renamed.json()["id"] == group
    found = (await node.client.get("/groups", params={"name": "LIEN"})).json()
    assert [row["group_id"] for row in found] == [group]
    assert (await node.client.put(f"/groups/{group}", json={"name": ""})).status_code == 412
