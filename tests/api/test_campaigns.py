"""/programs, /campaigns, /transmissions and /spools over HTTP, on a node that really dials."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from engine.bus import Subscription
from engine.events import CampaignChanged, TransmissionEnded
from engine.model import CampaignStatus
from gateways.loopback.script import Script
from tests.api.node import Node, made, made_program, running_node

DEADLINE_S = 30.0
QUICK = Script(speed=0)


async def prepared(client: httpx.AsyncClient, contacts: int = 0) -> tuple[int, int]:
    """A program and a group of that many people."""
    program = await made_program(client)
    group = await made(client, "/groups", name="people")
    lines = "".join(f"{1000 + n}\n" for n in range(contacts))
    if lines:
        await client.post(f"/groups/{group}/csv", content=lines)
    return program, group


async def provider(client: httpx.AsyncClient, **settings: Any) -> int:
    body = {"name": "trunk", "type": "loopback", "settings": {"speed": 0, **settings}}
    return await made(client, "/providers", **body)


async def run(node: Node, campaign: int) -> None:
    """Start a campaign and wait for its end."""
    with node.engine.bus.subscribe(10_000) as events:
        started = await node.client.put(f"/campaigns/{campaign}/start")
        assert (started.status_code, started.json()) == (200, True), started.text
        with trio.fail_after(DEADLINE_S):
            await ended(events)


async def ended(events: Subscription) -> None:
    while True:
        event = await events.get()
        if isinstance(event, CampaignChanged) and event.status is CampaignStatus.COMPLETED:
            return


async def sent(node: Node, transmission: int, verb: str = "send") -> int:
    """Send one and wait for its end; returns the spool's id."""
    with node.engine.bus.subscribe(10_000) as events:
        response = await node.client.post(f"/transmissions/{transmission}/{verb}", content=b"[]")
        assert response.status_code == 200, response.text
        with trio.fail_after(DEADLINE_S):
            while not isinstance(await events.get(), TransmissionEnded):
                pass
    spool_id = response.json()["spool_id"]
    assert isinstance(spool_id, int)
    return spool_id


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


@pytest.mark.parametrize("verb", ["PUT", "POST"])
@pytest.mark.parametrize("nested", [False, True])
async def test_the_shortcut_takes_both_verbs_and_both_bodies(
    node: Node, verb: str, *, nested: bool
) -> None:
    program = await made_program(node.client)
    contact = await made(node.client, "/contacts", phone="123")
    body: dict[str, Any] = {"contact_id": str(contact), "title": "hi"}
    if nested:
        body = {"program_data": {"name": "ignored"}, "transmission_data": body}
    path = f"/programs/{program}/transmissions"
    response = await node.client.request(verb, path, json=body)
    transmission = response.json()["transmission_id"]
    (row,) = (await node.client.get(path)).json()
    assert (row["transmission_id"], row["title"]) == (transmission, "hi")
    assert row["contact"]["phone"] == row["contact_phone"] == "123"
    assert row["status"] == "pending"
    assert (await node.client.request(verb, path, json={})).status_code == 412


async def test_a_transmission_is_sent_once(tmp_path: Path) -> None:
    async with running_node(tmp_path, QUICK) as node:
        await provider(node.client, digits="42")
        program = await made_program(node.client)
        transmission = await made(
            node.client, "/transmissions", program_id=program, phone=923001234567, first_name="A"
        )
        path = f"/transmissions/{transmission}"
        assert (await node.client.get(f"{path}/status")).json() == {"status": "pending"}
        spool = await sent(node, transmission)
        assert (await node.client.get(f"{path}/status")).json() == {"status": "completed"}
        assert (await node.client.get(f"/spools/{spool}/status")).json() == {"status": "completed"}
        (detail,) = (await node.client.get(f"{path}/detail")).json()
        assert detail["spool_id"] == spool
        assert detail["response"] == "answered"
        assert detail["destination"] == "923001234567"
        times = [detail[f"time_{name}"] for name in ("spool", "start", "connect", "end")]
        assert times == sorted(times)
        assert len(detail["call_id"]) == 36
        results = (await node.client.get(f"{path}/result")).json()
        assert results == (await node.client.get(f"/spools/{spool}/result")).json()
        assert "42" in "".join(row["data"] for row in results)
        named = await node.client.get(f"{path}/result", params={"name": results[0]["name"]})
        assert results[0] in named.json()
        for verb in ("send", "retry"):
            assert (await node.client.post(f"{path}/{verb}")).status_code == 423
        assert (await node.client.put(path, json={"contact_id": 999})).status_code == 423
        assert (await node.client.put(path, json={"title": "new"})).json()["title"] == "new"
        assert (await node.client.get(f"{path}/status")).json() == {"status": "completed"}


async def test_a_failed_one_may_be_retried(node: Node) -> None:
    trunk = await provider(node.client, busy=1)
    program = await made_program(node.client)
    transmission = await made(node.client, "/transmissions", program_id=program, phone="1")
    path = f"/transmissions/{transmission}"
    await sent(node, transmission)
    failed = (await node.client.get(path)).json()
    assert (failed["status"], failed["response"]) == ("failed", "busy")
    changed = await node.client.put(f"/providers/{trunk}", json={"settings": {"speed": 0}})
    assert changed.status_code == 200
    await sent(node, transmission, "retry")
    after = (await node.client.get(path)).json()
    assert (after["status"], after["response"], after["try_done"]) == ("completed", "answered", 2)
    assert len((await node.client.get(f"{path}/detail")).json()) == 2
    filtered = await node.client.get(f"{path}/detail", params={"response": "busy"})
    assert len(filtered.json()) == 1


async def test_transmissions_filter_edit_and_go(node: Node) -> None:
    program = await made_program(node.client)
    ids = [
        await made(node.client, "/transmissions", program_id=program, phone=f"10{n}")
        for n in range(3)
    ]
    found = await node.client.get("/transmissions", params={"contact_phone": "101"})
    assert [row["transmission_id"] for row in found.json()] == [ids[1]]
    for args in ({"status": "pend"}, {"service_flag": 1}, {"origin": "voicemessage"}):
        assert len((await node.client.get("/transmissions", params=args)).json()) == 3
    for args in ({"status": "failed"}, {"service_flag": 8}, {"program_id": 999}):
        assert (await node.client.get("/transmissions", params=args)).json() == []
    edited = await node.client.put(f"/transmissions/{ids[0]}", json={"try_allowed": 3})
    assert edited.json()["try_allowed"] == 3
    assert (await node.client.delete(f"/transmissions/{ids[0]}")).json() is True
    assert (await node.client.get(f"/transmissions/{ids[0]}")).status_code == 404
    bodies: tuple[dict[str, Any], ...] = (
        {},
        {"program_id": program},
        {"program_id": program, "phone": "x"},
        {"program_id": program, "phone": "1", "direction": "inbound"},
    )
    for body in bodies:
        response = await node.client.post("/transmissions", json=body)
        assert response.status_code == 412, body
    assert (await node.client.get("/spools/1/status")).status_code == 404
