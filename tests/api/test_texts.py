"""/messages/texts over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from engine.model import Text
from tests.api.node import Node, made

PATH = "/messages/texts"


async def test_crud_on_both_paths(node: Node) -> None:
    one = await made(node.client, PATH, name="Sale", data="Hello [contact:first_name]\nBye")
    two = await made(
        node.client, "/texts", name="offer", data="x", type="UTF-8", description="of May"
    )
    shown = (await node.client.get(f"/texts/{one}")).json()
    assert (shown["data"], shown["length"]) == ("Hello [contact:first_name]\nBye", 30)
    assert (shown["type"], shown["class"], shown["message_id"]) == ("plain", 1, one)
    for params, found in (
        ({"name": "aL"}, [one]),
        ({"description": "may"}, [two]),
        ({"type": "utf"}, [two]),
        ({"text_id": one}, [one]),
        ({"user_id": shown["user_id"]}, [one, two]),
        ({"before": 1}, []),
    ):
        rows = (await node.client.get("/texts", params=params)).json()
        assert [row["text_id"] for row in rows] == found, params
    changed = await node.client.put(f"{PATH}/{one}", json={**shown, "data": "Hi"})
    assert (changed.json()["data"], changed.json()["length"]) == ("Hi", 2)
    assert (await node.client.delete(f"{PATH}/{two}")).json() is True
    assert (await node.client.get(f"/texts/{two}")).status_code == 404
    assert (await node.client.get(f"/texts/{one}/media")).status_code == 404


@pytest.mark.parametrize(
    ("type_", "data", "encoding"),
    [
        ("plain", "Grüße für 5 €", 0),
        ("plain", "Привет", 2),
        ("unicode", "hello", 2),
        ("binary", "0605040B8423F0", 1),
        ("ISO-8859-1", "{~}[]|^\\", 3),  # asked for, so it is sent as that
        ("ISO-8859-1", "5 €", 2),
        ("UTF-8", "ok ✓", 2),
    ],
)
async def test_the_encoding_is_what_the_characters_need(
    node: Node, type_: str, data: str, encoding: int
) -> None:
    text = await made(node.client, PATH, name="n", data=data, type=type_)
    shown = (await node.client.get(f"{PATH}/{text}")).json()
    assert (shown["encoding"], shown["length"], shown["type"]) == (encoding, len(data), type_)


async def test_the_longest_text_is_taken(node: Node) -> None:
    text = await made(node.client, PATH, name="n", data="é" * 4000)
    assert (await node.client.get(f"{PATH}/{text}")).json()["length"] == 4000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("name", "a\r\nb"), ("data", ""), ("data", "x" * 4001), ("data", "a\x00b"),
        ("type", "x" * 17), ("type", "a b"), ("description", "x" * 256), ("class", 2),
        ("class", -1), ("class", "flash"), ("validity", -1), ("validity", 5_443_201),
        ("validity", "long"),
    ],
)  # fmt: skip
async def test_a_field_that_cannot_be_is_named(node: Node, field: str, value: Any) -> None:
    response = await node.client.post(PATH, json={"name": "n", "data": "d", field: value})
    assert response.status_code == 412
    assert field in response.json()["error"]["message"]


@pytest.mark.parametrize("data", ["hello", "0", "0x00", "00 0", "[contact:custom1]"])
async def test_binary_data_must_be_hexadecimal_digits(node: Node, data: str) -> None:
    body = {"name": "n", "data": data, "type": "binary"}
    response = await node.client.post(PATH, json=body)
    assert response.status_code == 412
    assert "pairs of hexadecimal digits" in response.json()["error"]["message"]
    text = await made(node.client, PATH, name="n", data=data)
    changed = await node.client.put(f"{PATH}/{text}", json={"type": "binary"})
    assert changed.status_code == 412
    assert (await node.client.get(f"{PATH}/{text}")).json()["type"] == "plain"


async def test_class_and_validity_are_kept(node: Node) -> None:
    text = await made(node.client, PATH, **{"class": 0}, name="n", data="d", validity="3600")
    shown = (await node.client.get(f"{PATH}/{text}")).json()
    assert (shown["class"], shown["validity"]) == (0, 3600)
    stored = await node.engine.store.get(Text, text)
    assert stored is not None
    assert (stored.flash, stored.validity_s) == (True, 3600.0)
    # Clients send the whole back with what they change.
    again = (await node.client.put(f"{PATH}/{text}", json={**shown, "name": "m"})).json()
    assert again == {**shown, "name": "m", "last_updated": again["last_updated"]}
    normal = await node.client.put(f"{PATH}/{text}", json={"class": 1, "validity": 0})
    assert (normal.json()["class"], normal.json()["validity"]) == (1, 0)


@pytest.mark.parametrize(
    ("type_", "data", "parts"),
    [
        ("plain", "a" * 160, 1),
        ("plain", "a" * 161, 2),
        ("plain", "€" * 80, 1),
        ("plain", "€" * 81, 2),
        ("unicode", "a" * 71, 2),
        ("plain", "😀" * 36, 2),
        ("latin1", "a" * 141, 2),
        ("binary", "00" * 140, 1),
        ("binary", "00" * 141, 2),
    ],
)
async def test_parts_are_counted(node: Node, type_: str, data: str, parts: int) -> None:
    text = await made(node.client, PATH, name="n", data=data, type=type_)
    assert (await node.client.get(f"{PATH}/{text}")).json()["parts"] == parts


async def test_a_text_older_than_the_check_of_its_data_is_shown(node: Node) -> None:
    old = await node.engine.store.insert(Text(name="n", data="hello", type="binary"))
    shown = (await node.client.get(f"{PATH}/{old.id}")).json()
    assert (shown["encoding"], shown["parts"], shown["length"]) == (1, 0, 5)


async def test_the_classic_mount_lists_strings(node: Node) -> None:
    text = int((await node.client.post("/api/texts", json={"name": "n", "data": "d"})).content)
    [row] = (await node.client.get("/api/messages/texts")).json()
    assert (row["text_id"], row["length"], row["class"]) == (str(text), "1", "1")
    assert (row["parts"], row["validity"]) == ("1", "0")


async def test_a_text_in_use_is_not_deleted(node: Node) -> None:
    text = await made(node.client, PATH, name="n", data="d")
    # A document with the same number is another message.
    assert await made(node.client, "/documents", name="n") == text
    program = await made(node.client, "/programs/sendsms", name="sms", text_id=text)
    assert (await node.client.delete(f"/documents/{text}")).json() is True
    assert (await node.client.delete(f"{PATH}/{text}")).status_code == 417
    assert (await node.client.delete(f"/programs/{program}")).json() is True
    assert (await node.client.delete(f"{PATH}/{text}")).json() is True
