"""POST /messages/texts/preview: what a text comes to, before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from engine.model import Text
from engine.store.base import Query
from tests.api.node import Node, made

PATH = "/messages/texts/preview"


async def preview(node: Node, **body: Any) -> dict[str, Any]:
    response = await node.client.post(PATH, json=body)
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown


async def provider(node: Node, **fields: Any) -> int:
    return await made(
        node.client,
        "/providers",
        **{"name": "p", "type": "smpp", "host": "smsc.example.com", "service_flag": 4, **fields},
    )


async def test_a_text_comes_to_parts(node: Node) -> None:
    shown = await preview(node, data="a" * 152 + "€b")
    assert shown == {
        "data": "a" * 152 + "€b",
        "length": 154,
        "alphabet": "gsm",
        "encoding": 0,
        "units": 155,
        "per_part": 160,
        "parts": 1,
        "texts": ["a" * 152 + "€b"],
        "unsupported": [],
        "unresolved": [],
        "provider_id": None,
        "price": 0,
        "currency": "EUR",
        "estimated": 0,
    }
    longer = await preview(node, data="a" * 152 + "€b" + "c" * 6)
    assert (longer["units"], longer["per_part"], longer["parts"]) == (161, 153, 2)
    assert longer["texts"] == ["a" * 152, "€b" + "c" * 6]
    assert await node.engine.store.find(Text, Query()) == []


async def test_what_costs_the_gsm_alphabet_is_named(node: Node) -> None:
    shown = await preview(node, data="`a` ✓ 😀 ✓")
    assert (shown["alphabet"], shown["unsupported"]) == ("ucs2", ["`", "✓", "😀"])
    assert shown["units"] == 10


async def test_the_price_is_the_providers(node: Node) -> None:
    settings = {"price_per_part": 0.07, "concatenation": "udh16"}
    cheap = await provider(node, settings=settings)
    shown = await preview(node, data="a" * 305, provider_id=cheap)
    assert (shown["parts"], shown["per_part"]) == (3, 152)
    assert (shown["price"], shown["currency"], shown["provider_id"]) == (0.21, "EUR", cheap)


async def test_without_a_provider_it_is_the_dearest_that_carries_sms(node: Node) -> None:
    await provider(node, settings={"price_per_part": 0.01})
    dear = await provider(node, settings={"price_per_part": 0.05})
    await provider(node, settings={"price_per_part": 9}, active=0)
    await provider(node, settings={"price_per_part": 9}, service_flag=1)
    shown = await preview(node, data="a")
    assert (shown["price"], shown["provider_id"]) == (0.05, dear)


async def test_where_coding_0_is_latin1_other_characters_need_ucs2(node: Node) -> None:
    latin1 = await provider(node, settings={"default_alphabet": "latin1"})
    assert (await preview(node, data="Grüße", provider_id=latin1))["alphabet"] == "gsm"
    assert (await preview(node, data="5 €", provider_id=latin1))["alphabet"] == "ucs2"


async def test_tokens_are_replaced_for_a_contact(node: Node) -> None:
    ada = await made(node.client, "/contacts", phone="+4930123456", first_name="Ada")
    data = "Dear [contact:first_name] of [contact:shoe] and [transmission:title]"
    text = await made(node.client, "/messages/texts", name="n", data=data)
    shown = await preview(node, text_id=text, contact_id=ada)
    assert shown["data"] == "Dear Ada of [contact:shoe] and [transmission:title]"
    assert shown["unresolved"] == ["[contact:shoe]", "[transmission:title]"]
    assert shown["estimated"] == 1
    bare = await preview(node, text_id=text)
    assert (bare["data"], len(bare["unresolved"])) == (data, 3)


async def test_the_body_comes_before_the_stored_text(node: Node) -> None:
    text = await made(node.client, "/messages/texts", name="n", data="00ff", type="binary")
    shown = await preview(node, text_id=text)
    assert (shown["alphabet"], shown["encoding"], shown["units"]) == ("binary", 1, 2)
    assert shown["texts"] == ["00FF"]
    other = await preview(node, text_id=text, data="hello", type="latin1")
    assert (other["alphabet"], other["encoding"]) == ("latin1", 3)
    flash = await preview(node, text_id=text, data="hello", type="latin1", **{"class": 0})
    assert flash["alphabet"] == "gsm"  # Latin-1 has no class


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({}, 412, "data"),
        ({"data": "xy", "type": "binary"}, 412, "data"),
        ({"data": "a" * 4001}, 412, "data"),
        ({"data": "a\x00"}, 412, "data"),
        ({"data": "a", "type": "a b"}, 412, "type"),
        ({"text_id": 99}, 404, "Text"),
        ({"data": "a", "contact_id": 99}, 404, "Contact"),
        ({"data": "a", "provider_id": 99}, 404, "Provider"),
        ({"data": "a", "provider_id": "x"}, 412, "provider_id"),
    ],
)
async def test_what_cannot_be_previewed_is_said(
    node: Node, body: dict[str, Any], status: int, named: str
) -> None:
    response = await node.client.post("/texts/preview", json=body)
    assert response.status_code == status
    assert named in response.json()["error"]["message"]


async def test_the_classic_mount_has_it(node: Node) -> None:
    response = await node.client.post("/api/texts/preview", json={"data": "a" * 161})
    assert response.status_code == 200
    assert response.json()["parts"] == "2"
