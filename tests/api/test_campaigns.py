"""/programs and /campaigns over HTTP, on a node that really dials."""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Any

import pytest
import trio

from tests.api.dialling import DEADLINE_S, ended, prepared, provider, run
from tests.api.node import Node, made, made_program


async def test_a_campaign_from_nothing_to_its_end(node: Node) -> None:
    await provider(node.client, busy=0.3, digits="5")
    program, group = await prepared(node.client, 40)
    campaign = await made(
        node.client, "/campaigns", program_id=program, group_id=str(group), cpm=600_000,
        try_allowed="2",
    )  # fmt: skip
    await run(node, campaign)
    shown = (await node.client.get(f"/campaigns/{campaign}")).json()
    assert shown["status"] == "completed"
    assert (shown["contact_total"], shown["contact_done"]) == (40, 40)
    assert shown["program_type"] == "voicemessage"
    rows = (await node.client.get("/transmissions", params={"campaign_id": campaign})).json()
    assert len(rows) == 40
    outcome = Counter((row["status"], row["response"]) for row in rows)
    assert set(outcome) <= {("completed", "answered"), ("failed", "busy")}
    assert shown["tally"]["transmissions"] == 40
    assert shown["tally"]["completed"] == outcome["completed", "answered"]
    busy = [row for row in rows if row["status"] == "failed"]
    for row in busy:
        detail = (await node.client.get(f"/transmissions/{row['transmission_id']}/detail")).json()
        assert [spool["response"] for spool in detail] == ["busy", "busy"]
        assert row["try_done"] == 2
    statistics = (await node.client.get("/statistics")).json()
    assert statistics["campaign_total"] == 1
    assert statistics["campaign_active"] == 0
    assert statistics["contact_total"] == 40
    assert statistics["transmission_total"] == 40
    assert statistics["spool_success"] == outcome["completed", "answered"]
    assert statistics["spool_total"] == shown["tally"]["dialled"]


async def test_a_campaign_stops_and_goes_on(node: Node) -> None:
    await provider(node.client)
    program, group = await prepared(node.client, 20)
    campaign = await made(node.client, "/campaigns", program_id=program, group_id=group, cpm=1)
    path = f"/campaigns/{campaign}"
    assert (await node.client.put(f"{path}/stop")).status_code == 423
    assert (await node.client.put(f"{path}/start")).json() is True
    assert (await node.client.put(f"{path}/start")).status_code == 423
    assert (await node.client.get(path)).json()["status"] == "running"
    running = await node.client.get("/campaigns", params={"status": "running"})
    assert [row["campaign_id"] for row in running.json()] == [campaign]
    assert (await node.client.delete(path)).status_code == 423
    assert (await node.client.delete(f"/groups/{group}")).status_code == 423
    assert (await node.client.put(path, json={"group_id": 10**6})).status_code == 423
    assert (await node.client.put(f"{path}/stop")).json() is True
    assert (await node.client.get(path)).json()["status"] == "paused"
    faster = await node.client.put(path, json={"cpm": 600_000, "status": "running"})
    assert (faster.json()["cpm"], faster.json()["status"]) == (600_000, "paused")
    await run(node, campaign)
    assert (await node.client.get(path)).json()["contact_done"] == 20
    assert (await node.client.delete(path)).json() is True
    kept = await node.client.get("/transmissions")
    assert len(kept.json()) == 20


async def test_the_pace_changes_while_a_campaign_runs(node: Node) -> None:
    await provider(node.client)
    program, group = await prepared(node.client, 20)
    campaign = await made(node.client, "/campaigns", program_id=program, group_id=group, cpm=1)
    with node.engine.bus.subscribe(10_000) as events:
        await node.client.put(f"/campaigns/{campaign}/start")
        await node.client.put(f"/campaigns/{campaign}", json={"cpm": "600000"})
        with trio.fail_after(DEADLINE_S):  # at one a minute it would take twenty
            await ended(events)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cpm": 0}, "cpm"),
        ({"cpm": -1}, "cpm"),
        ({"cpm": "fast"}, "cpm"),
        ({"cpm": "nan"}, "cpm"),
        ({"try_allowed": 0}, "try_allowed"),
        ({"try_allowed": 10**30}, "try_allowed"),
        ({"program_id": ""}, "program_id"),
        ({"group_id": None}, "group_id"),
        ({"group_id": [1]}, "group_id"),
        ({"source": "x" * 129}, "source"),
    ],
)
async def test_a_bad_campaign_is_refused_by_its_field(
    node: Node, change: dict[str, Any], field: str
) -> None:
    program, group = await prepared(node.client)
    body = {"program_id": program, "group_id": group, **change}
    response = await node.client.post("/campaigns", json=body)
    assert response.status_code == 412
    assert field in response.json()["error"]["message"]


async def test_defaults_are_icts(node: Node) -> None:
    program, group = await prepared(node.client)
    campaign = await made(
        node.client, "/campaigns", program_id=program, group_id=group, cpm="", try_allowed="",
        status="", source="",
    )  # fmt: skip
    shown = (await node.client.get(f"/campaigns/{campaign}")).json()
    assert (shown["cpm"], shown["try_allowed"], shown["status"]) == (2, 1, "new")
    (account,) = (await node.client.get("/accounts")).json()
    assert shown["account_id"] == account["account_id"]


async def test_without_provider_nothing_starts(node: Node) -> None:
    program, group = await prepared(node.client, 1)
    campaign = await made(node.client, "/campaigns", program_id=program, group_id=group)
    transmission = await made(node.client, "/transmissions", program_id=program, phone="1")
    for verb, path in (
        ("PUT", f"/campaigns/{campaign}/start"),
        ("POST", f"/transmissions/{transmission}/send"),
    ):
        response = await node.client.request(verb, path)
        assert response.status_code == 404
        assert response.json()["error"]["message"] == "No provider available"


async def test_without_media_nothing_starts(node: Node) -> None:
    await provider(node.client)
    recording = await made(node.client, "/messages/recordings", name="empty")
    program = await made(node.client, "/programs/voicemessage", name="p", recording_id=recording)
    group = await made(node.client, "/groups", name="g")
    campaign = await made(node.client, "/campaigns", program_id=program, group_id=group)
    assert (await node.client.put(f"/campaigns/{campaign}/start")).status_code == 423


async def test_programs(node: Node) -> None:
    program = await made_program(node.client)
    shown = (await node.client.get(f"/programs/{program}")).json()
    assert (shown["type"], shown["name"]) == ("voicemessage", "call")
    found = await node.client.get("/programs", params={"type": "voice", "program_id": program})
    assert [row["program_id"] for row in found.json()] == [program]
    for body in ({}, {"name": "x"}, {"name": "x", "recording_id": ""}, {"recording_id": 1}):
        response = await node.client.post("/programs/voicemessage", json=body)
        assert response.status_code == 412
    missing = await node.client.post(
        "/programs/voicemessage", json={"name": "x", "recording_id": 999}
    )
    assert missing.status_code == 404
    group = await made(node.client, "/groups", name="g")
    await made(node.client, "/campaigns", program_id=program, group_id=group)
    assert (await node.client.delete(f"/programs/{program}")).status_code == 417


async def test_a_campaign_shows_what_became_of_it(node: Node) -> None:
    trunk = await provider(node.client, busy=1)
    program, group = await prepared(node.client, 3)
    await node.client.post(f"/groups/{group}/csv", content="1000000\n")
    campaign = await made(
        node.client, "/campaigns", program_id=program, group_id=group, cpm=600_000, delay="5"
    )
    path = f"/campaigns/{campaign}"
    fresh = (await node.client.get(path)).json()
    assert (fresh["successful"], fresh["failed"], fresh["reason"]) == (0, 0, "")
    await run(node, campaign)
    shown = (await node.client.get(path)).json()
    assert (shown["successful"], shown["failed"], shown["reason"]) == (0, 4, "busy")
    await node.client.put(f"/providers/{trunk}", json={"settings": {"speed": 0}})
    await node.client.post(f"/groups/{group}/csv", content="1000001\n")
    await run(node, campaign)
    shown = (await node.client.get(path)).json()
    assert (shown["successful"], shown["failed"], shown["reason"]) == (1, 4, "busy")


async def test_everybody_is_tried_as_often_as_allowed_and_no_more(node: Node) -> None:
    await provider(node.client, busy=1)
    program, group = await prepared(node.client, 5)
    campaign = await made(
        node.client, "/campaigns", program_id=program, group_id=group, cpm=600_000, try_allowed=3,
        retry_delays={"busy": 0},
    )  # fmt: skip
    await run(node, campaign)
    rows = (await node.client.get("/transmissions", params={"campaign_id": campaign})).json()
    assert [(row["status"], row["try_done"]) for row in rows] == [("failed", 3)] * 5
    spools = (await node.client.get("/spools", params={"campaign_id": campaign})).json()
    assert Counter(spool["transmission_id"] for spool in spools) == {
        row["transmission_id"]: 3 for row in rows
    }


async def test_retry_delays_are_shown_and_changed(node: Node) -> None:
    program, group = await prepared(node.client)
    campaign = await made(
        node.client, "/campaigns", program_id=program, group_id=group,
        retry_delays={"busy": 60, "no_answer": 120.5, "failed": "30"},
    )  # fmt: skip
    path = f"/campaigns/{campaign}"
    shown = (await node.client.get(path)).json()
    assert shown["retry_delays"] == {"busy": 60, "no_answer": 120.5, "failed": 30}
    changed = await node.client.put(path, json={**shown, "retry_delays": {"busy": 5}})
    assert changed.json()["retry_delays"] == {"busy": 5}
    # PHP writes an empty map as an empty list.
    for empty, left in ((None, {"busy": 5}), ("", {"busy": 5}), ([], {})):
        changed = await node.client.put(path, json={"retry_delays": empty})
        assert changed.json()["retry_delays"] == left
    assert (await node.client.put(path, json={"retry_delays": {"bus": 5}})).status_code == 412


async def test_a_delay_changed_while_a_call_is_up_holds_for_its_result(node: Node) -> None:
    await provider(node.client, busy=1, ring_s=0.5, speed=1)
    program, group = await prepared(node.client, 1)
    campaign = await made(
        node.client, "/campaigns", program_id=program, group_id=group, cpm=600_000, try_allowed=2,
        retry_delays={"busy": 0},
    )  # fmt: skip
    with node.engine.bus.subscribe() as events:
        await node.client.put(f"/campaigns/{campaign}/start")
        with trio.fail_after(DEADLINE_S):
            while getattr(await events.get(), "stage", "") != "left":
                pass
            await node.client.put(f"/campaigns/{campaign}", json={"retry_delays": {"busy": 900}})
            while getattr(await events.get(), "response", "") != "busy":
                pass
    (row,) = (await node.client.get("/transmissions")).json()
    assert (row["status"], row["try_done"]) == ("pending", 1)
    assert 900 <= row["due_at"] - row["last_run"] < 900 + DEADLINE_S


def everything(node: Node) -> list[str]:
    """The whole database as text."""
    with sqlite3.connect(node.engine.config.data_path / "outspool.db") as connection:
        lines = list(connection.iterdump())
    connection.close()
    return lines


async def test_a_check_says_what_a_start_would_do_and_does_nothing(node: Node) -> None:
    recording = await made(node.client, "/messages/recordings", name="empty")
    program = await made(node.client, "/programs/voicemessage", name="p", recording_id=recording)
    _, group = await prepared(node.client, 4)
    mail = await made(node.client, "/contacts", email="ada@example.com")
    await node.client.put(f"/contacts/{mail}/link/{group}")
    campaign = await made(node.client, "/campaigns", program_id=program, group_id=group, cpm=30)
    before = everything(node)
    response = await node.client.post(f"/campaigns/{campaign}/check")
    (first, *_) = (await node.client.get(f"/groups/{group}/contacts")).json()
    assert response.json() == {
        "campaign_id": campaign,
        "status": "new",
        "ready": 0,
        "problems": [f"Recording {recording} has no media yet", "No provider available"],
        "contacts": 5,
        "dialable": 4,
        "retries": 0,
        "taken": dict.fromkeys(("pending", "processing", "completed", "failed", "invalid"), 0),
        "skipped": {"missing_number": 1},
        "duration_s": 8,
        "complete": 1,
        "preview": {"contact_id": first["contact_id"], "destination": "1000", "words": {}},
        "sms": None,
    }  # fmt: skip
    assert everything(node) == before


async def test_a_check_knows_whom_the_campaign_has_dealt_with(node: Node) -> None:
    await provider(node.client, busy=1)
    program, group = await prepared(node.client, 3)
    mail = await made(node.client, "/contacts", email="ada@example.com")
    await node.client.put(f"/contacts/{mail}/link/{group}")
    campaign = await made(
        node.client, "/campaigns", program_id=program, group_id=group, cpm=600_000
    )
    path = f"/campaigns/{campaign}"
    ready = (await node.client.post(f"{path}/check")).json()
    assert (ready["ready"], ready["problems"], ready["dialable"]) == (1, [], 3)
    await run(node, campaign)
    await node.client.post(f"/groups/{group}/csv", content="2000\n2001\n")
    after = (await node.client.post(f"{path}/check")).json()
    assert (after["contacts"], after["dialable"], after["skipped"]) == (6, 2, {})
    assert after["taken"] == {
        "pending": 0, "processing": 0, "completed": 0, "failed": 3, "invalid": 1,
    }  # fmt: skip
    assert after["preview"]["destination"] == "2000"
    other = await node.user("other", "user")
    assert (await other.post(f"{path}/check")).status_code == 404


async def test_a_check_previews_the_words_of_the_first_contact(node: Node) -> None:
    program = await made(
        node.client, "/programs/voicetts", name="p", text="Hello [contact:first_name]!"
    )
    group = await made(node.client, "/groups", name="people")
    for name, phone in (("Ada", ""), ("Bob", "4711")):
        contact = await made(
            node.client, "/contacts", first_name=name, phone=phone, email="x@example.com"
        )
        await node.client.put(f"/contacts/{contact}/link/{group}")
    campaign = await made(node.client, "/campaigns", program_id=program, group_id=group)
    found = (await node.client.post(f"/campaigns/{campaign}/check")).json()
    assert found["preview"] == {
        "contact_id": contact, "destination": "4711", "words": {"tts": "Hello Bob!"},
    }  # fmt: skip
    assert found["ready"] == 0
    assert found["problems"] == [
        "Programs of type voicetts cannot be sent by this node", "No provider available",
    ]  # fmt: skip


async def test_a_check_of_an_sms_campaign_says_what_it_costs(node: Node) -> None:
    for price in (0.01, 0.05):
        await made(
            node.client, "/providers", name="p", type="smpp", host="smsc.example.com",
            settings={"price_per_part": price},
        )  # fmt: skip
    data = "Hello [contact:first_name], " + "x" * 150
    text = await made(node.client, "/messages/texts", name="t", data=data)
    program = await made(node.client, "/programs/sendsms", name="p", text_id=text)
    _, group = await prepared(node.client, 10)
    campaign = await made(node.client, "/campaigns", program_id=program, group_id=group)
    found = (await node.client.post(f"/campaigns/{campaign}/check")).json()
    assert found["sms"] == {
        "parts_per_message": 1, "messages": 10, "parts": 10, "price": 0.5, "currency": "EUR",
        "estimated": 1,
    }  # fmt: skip
    await node.client.put(f"/messages/texts/{text}", json={"data": "€" * 100})
    found = (await node.client.post(f"/campaigns/{campaign}/check")).json()
    assert (found["sms"]["parts"], found["sms"]["price"]) == (20, 1)
