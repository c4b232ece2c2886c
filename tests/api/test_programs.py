"""/programs of every type over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from engine.events import TransmissionEnded
from engine.model import Account, Contact, Program
from engine.previews import preview
from engine.programs import PROGRAMS
from tests.api.node import Node, made, made_program
from tests.support.engine import DEADLINE_S, add_provider

SERVICES = {
    "emailtofax": (8, "inbound"), "faxtoemail": (2, "inbound"), "receiveemail": (8, "inbound"),
    "receivefax": (2, "inbound"), "receivesms": (4, "inbound"), "sendemail": (8, "outbound"),
    "sendfax": (2, "outbound"), "sendsms": (4, "outbound"), "voicemessage": (1, "outbound"),
    "voicetts": (1, "outbound"),
}  # fmt: skip
UNSENDABLE = sorted(set(SERVICES) - {"voicemessage", "sendsms", "sendemail"})


async def parameter_of(node: Node, kind: str) -> dict[str, Any]:
    """What a program of this type needs, made first."""
    match kind:
        case "sendfax":
            return {"document_id": await made(node.client, "/documents", name="n")}
        case "sendsms":
            return {"text_id": await made(node.client, "/texts", name="n", data="Hi")}
        case "sendemail":
            return {"template_id": await made(node.client, "/templates", name="n")}
        case "voicemessage":
            return {"recording_id": await made(node.client, "/recordings", name="n")}
        case "voicetts":
            return {"text": "Hello", "delay": 500}
        case _:
            return {"account_id": (await node.client.get("/accounts")).json()[0]["account_id"]}


def test_all_types_of_the_guide_are_there() -> None:
    assert set(PROGRAMS) == set(SERVICES)


@pytest.mark.parametrize("kind", SERVICES)
async def test_life_of_a_program(node: Node, kind: str) -> None:
    parameter = await parameter_of(node, kind)
    program = await made(node.client, f"/programs/{kind}", name="January", **parameter)
    shown = (await node.client.get(f"/programs/{program}")).json()
    assert shown | parameter == shown
    assert (shown["name"], shown["type"]) == ("January", kind)
    assert (shown["service_flag"], shown["direction"]) == SERVICES[kind]
    other = {"voicetts": "sendfax"}.get(kind, "voicetts")
    assert (await node.client.get(f"/programs/{kind}")).json() == [shown]
    assert (await node.client.get(f"/programs/{other}")).json() == []
    # A client sends back what it read, with its changes.
    renamed = await node.client.put(f"/programs/{program}", json={**shown, "name": "May"})
    assert renamed.json() == {
        **shown,
        "name": "May",
        "last_updated": renamed.json()["last_updated"],
    }
    assert (await node.client.delete(f"/programs/{program}")).json() is True
    assert (await node.client.get(f"/programs/{program}")).status_code == 404


@pytest.mark.parametrize("kind", SERVICES)
async def test_the_parameter_is_needed_and_has_to_be_ones_own(node: Node, kind: str) -> None:
    parameter = await parameter_of(node, kind)
    [name, *_] = parameter
    missing = await node.client.post(f"/programs/{kind}", json={"name": "n"})
    assert missing.status_code == 412
    assert f"{name} is missing" in missing.json()["error"]["message"]
    unnamed = await node.client.post(f"/programs/{kind}", json=parameter)
    assert "name is missing" in unnamed.json()["error"]["message"]
    if kind == "voicetts":
        return
    nowhere = await node.client.post(f"/programs/{kind}", json={"name": "n", name: 10**6})
    assert nowhere.status_code == 404
    stranger = await node.user("stranger", "user")
    theirs = await stranger.post(f"/programs/{kind}", json={"name": "n", **parameter})
    assert theirs.status_code == 404
    assert (await stranger.get("/programs")).json() == []


@pytest.mark.parametrize("kind", UNSENDABLE)
async def test_what_no_gateway_carries_is_kept_but_not_sent(node: Node, kind: str) -> None:
    await add_provider(node.engine)
    program = await made(
        node.client, f"/programs/{kind}", name="n", **await parameter_of(node, kind)
    )
    contact = await made(node.client, "/contacts", phone="100", email="a@example.com")
    transmission = await made(node.client, "/transmissions", program_id=program, contact_id=contact)
    shown = (await node.client.get(f"/transmissions/{transmission}")).json()
    assert shown["service_flag"] == SERVICES[kind][0]
    refused = await node.client.post(f"/transmissions/{transmission}/send")
    assert refused.status_code == 423
    assert f"Programs of type {kind}" in refused.json()["error"]["message"]
    group = await made(node.client, "/groups", name="people")
    campaign = await made(node.client, "/campaigns", program_id=program, group_id=group)
    assert (await node.client.put(f"/campaigns/{campaign}/start")).status_code == 423
    status = await node.client.get(f"/transmissions/{transmission}/status")
    assert status.json() == {"status": "pending"}


async def test_filters(node: Node) -> None:
    text = await parameter_of(node, "sendsms")
    one = await made(node.client, "/programs/sendsms", name="January", **text)
    two = await made(node.client, "/programs/voicetts", name="May", text="Hi", parent_id=one)
    user = (await node.client.get(f"/programs/{one}")).json()["user_id"]
    for params, found in (
        ({"name": "JAN"}, [one]),
        ({"type": "voice"}, [two]),
        ({"parent_id": one}, [two]),
        ({"program_id": two}, [two]),
        ({"user_id": user}, [one, two]),
        ({"before": 1}, []),
        ({"sort": "-name"}, [two, one]),
    ):
        rows = (await node.client.get("/programs", params=params)).json()
        assert [row["program_id"] for row in rows] == found, params


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", "x" * 4001), ("text", "a\x00b"), ("delay", -1), ("delay", 10**9),
        ("delay", "soon"), ("name", "x" * 65), ("name", "a\nb"), ("account_id", "x"),
        ("account_id", [1]), ("parent_id", {}),
    ],
)  # fmt: skip
async def test_a_field_that_cannot_be_is_named(node: Node, field: str, value: Any) -> None:
    body = {"name": "n", "text": "Hello,\nthis is us", field: value}
    response = await node.client.post("/programs/voicetts", json=body)
    assert response.status_code == 412, response.text
    assert field in response.json()["error"]["message"]


async def test_changes(node: Node) -> None:
    old, new = await parameter_of(node, "sendsms"), await parameter_of(node, "sendsms")
    program = await made(node.client, "/programs/sendsms", name="n", **old)
    changed = await node.client.put(f"/programs/{program}", json={**new, "document_id": 1})
    assert (changed.json()["text_id"], changed.json()["document_id"]) == (new["text_id"], None)
    assert (await node.client.delete(f"/texts/{old['text_id']}")).json() is True
    nowhere = await node.client.put(f"/programs/{program}", json={"text_id": 10**6})
    assert nowhere.status_code == 404
    kept = await node.client.put(f"/programs/{program}", json={"type": "sendfax", "text_id": ""})
    assert (kept.json()["type"], kept.json()["text_id"]) == ("sendsms", new["text_id"])


async def test_a_short_message_goes_out_through_a_provider_that_carries_it(node: Node) -> None:
    await add_provider(node.engine)
    program = await made(
        node.client, "/programs/sendsms", name="n", **await parameter_of(node, "sendsms")
    )
    sms = await made(node.client, "/transmissions", program_id=program, phone="100")
    refused = await node.client.post(f"/transmissions/{sms}/send")
    assert refused.status_code == 404
    assert refused.json()["error"]["message"] == "No provider available"
    await made(
        node.client, "/providers", name="sms", type="loopback", service_flag=4,
        settings={"receipt_s": 0.0},
    )  # fmt: skip
    with node.engine.bus.subscribe(100) as events:
        sent = await node.client.post(f"/transmissions/{sms}/send")
        assert sent.status_code in {200, 201}, sent.text
        with trio.fail_after(DEADLINE_S):
            while not isinstance(await events.get(), TransmissionEnded):
                pass
    status = await node.client.get(f"/transmissions/{sms}/status")
    assert status.json() == {"status": "completed"}
    [spool] = (await node.client.get(f"/transmissions/{sms}/spools")).json()
    assert (spool["status"], spool["response"]) == ("completed", "delivered")


async def test_what_a_running_campaign_says_is_not_changed_under_it(node: Node) -> None:
    await add_provider(node.engine)
    program = await made_program(node.client)
    group = await made(node.client, "/groups", name="people")
    await node.client.post(
        f"/groups/{group}/csv", content="100\n101\n", headers={"Content-Type": "text/csv"}
    )
    campaign = await made(node.client, "/campaigns", program_id=program, group_id=group, cpm=0.01)
    assert (await node.client.put(f"/campaigns/{campaign}/start")).status_code == 200
    other = {"recording_id": await made(node.client, "/recordings", name="other")}
    refused = await node.client.put(f"/programs/{program}", json=other)
    assert refused.status_code == 423
    renamed = await node.client.put(f"/programs/{program}", json={"name": "new"})
    assert renamed.json()["name"] == "new"
    await node.client.put(f"/campaigns/{campaign}/stop")
    assert (await node.client.put(f"/programs/{program}", json=other)).status_code == 200


async def test_the_type_may_be_in_the_body(node: Node) -> None:
    program = await made(node.client, "/programs", type="voicetts", name="n", text="Hello")
    assert (await node.client.get(f"/programs/{program}")).json()["type"] == "voicetts"
    for body in ({"name": "n"}, {"name": "n", "type": "juggle"}):
        response = await node.client.post("/programs", json=body)
        assert response.status_code == 412
        assert "type" in response.json()["error"]["message"]
    assert (await node.client.get("/programs/juggle")).status_code == 404


# --- the shortcut --------------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [False, True])
async def test_a_program_and_its_transmission_in_one_go(node: Node, *, flat: bool) -> None:
    contact = await made(node.client, "/contacts", phone="100")
    program_data = {**await parameter_of(node, "sendfax"), "name": "Invoice"}
    transmission_data = {"contact_id": contact, "title": "May", "try_allowed": 3}
    body = (
        {**program_data, **transmission_data}
        if flat
        else {"program_data": program_data, "transmission_data": transmission_data}
    )
    transmission = await made(node.client, "/programs/sendfax/transmissions", **body)
    shown = (await node.client.get(f"/transmissions/{transmission}")).json()
    assert (shown["contact_id"], shown["title"], shown["try_allowed"]) == (contact, "May", 3)
    assert (shown["origin"], shown["service_flag"], shown["status"]) == ("sendfax", 2, "pending")
    program = (await node.client.get(f"/programs/{shown['program_id']}")).json()
    assert (program["name"], program["document_id"]) == ("Invoice", program_data["document_id"])


async def test_the_shortcut_on_the_classic_mount_answers_a_number(node: Node) -> None:
    body = {
        "program_data": await parameter_of(node, "sendsms"),
        "transmission_data": {"phone": "100", "title": "Sale"},
    }
    response = await node.client.post("/api/programs/sendsms/transmissions", json=body)
    transmission = (await node.client.get(f"/transmissions/{int(response.content)}")).json()
    assert transmission["contact_phone"] == "100"
    [row] = (await node.client.get("/api/programs/sendsms")).json()
    assert (row["name"], row["program_id"]) == ("Sale", str(transmission["program_id"]))


@pytest.mark.parametrize(
    ("transmission_data", "status"),
    [
        ({"contact_id": 10**6}, 404),
        ({"title": "nobody"}, 412),
        ({}, 412),
        ({"contact_id": "x"}, 412),
        ({"phone": "not a number"}, 412),
        ({"phone": "100", "direction": "inbound"}, 412),
        ({"phone": "100", "account_id": 10**6}, 404),
    ],
)
async def test_a_shortcut_that_fails_leaves_no_program(
    node: Node, transmission_data: dict[str, Any], status: int
) -> None:
    body = {"program_data": {"name": "n", "text": "Hi"}, "transmission_data": transmission_data}
    response = await node.client.post("/programs/voicetts/transmissions", json=body)
    assert response.status_code == status, response.text
    assert (await node.client.get("/programs")).json() == []


# --- what they say -------------------------------------------------------------------------------

ADA = Contact(id=1, first_name="<Ada>", phone="100", email="ada@example.com")
SALES = Account(id=2, first_name="Sales\r\nBcc: x@example.com", phone="200")


@pytest.mark.parametrize(
    ("path", "message", "kind", "words"),
    [
        ("/texts", {"data": "Hi [contact:first_name], [account:phone] [contact:passwd]"},
         "sendsms", {"text": "Hi <Ada>, 200 [contact:passwd]"}),
        ("/templates",
         {"subject": "[account:first_name] for [contact:first_name]",
          "body": "<b>[contact:first_name]</b>\n[program:name]",
          "body_alt": "[contact:first_name]\n[transmission:title]"},
         "sendemail",
         {"subject": "Sales Bcc: x@example.com for <Ada>",
          "body": "<b>&lt;Ada&gt;</b>\nthe program",
          "body_alt": "<Ada>\n[transmission:title]"}),
        ("", {"text": "Hello [contact:first_name]"}, "voicetts", {"tts": "Hello <Ada>"}),
        ("/documents", {}, "sendfax", {}),
    ],
)  # fmt: skip
async def test_what_a_contact_would_be_sent(
    node: Node, path: str, message: dict[str, str], kind: str, words: dict[str, str]
) -> None:
    parameter: dict[str, Any] = message
    if path:
        message_id = await made(node.client, path, name="n", **message)
        parameter = {path.strip("/").removesuffix("s") + "_id": message_id}
    program_id = await made(node.client, f"/programs/{kind}", name="the program", **parameter)
    program = await node.engine.store.get(Program, program_id)
    assert program is not None
    assert await preview(node.engine.catalog, program, ADA, SALES) == words
