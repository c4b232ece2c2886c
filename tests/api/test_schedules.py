"""Schedules over HTTP: every route of transmissions and campaigns, on a node that really fires."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
import trio

from engine.events import TaskFired
from tests.api.node import Node, made, made_program

DEADLINE_S = 30.0
CANCELS = [("DELETE", ""), ("POST", ""), ("DELETE", "/start"), ("DELETE", "/stop")]


async def campaign(client: httpx.AsyncClient) -> str:
    """The path of a campaign."""
    program = await made_program(client)
    group = await made(client, "/groups", name="people")
    return f"/campaigns/{await made(client, '/campaigns', program_id=program, group_id=group)}"


async def transmission(client: httpx.AsyncClient) -> str:
    """The path of a transmission."""
    program = await made_program(client)
    return f"/transmissions/{await made(client, '/transmissions', program_id=program, phone='1')}"


async def scheduled(client: httpx.AsyncClient, verb: str, path: str, **body: Any) -> int:
    response = await client.request(verb, path, json=body)
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["schedule_id"]
    schedule_id = response.json()["schedule_id"]
    assert isinstance(schedule_id, int)
    return schedule_id


async def listed(client: httpx.AsyncClient, path: str, **args: Any) -> list[dict[str, Any]]:
    response = await client.get(path, params=args)
    assert response.status_code == 200, response.text
    rows = response.json()
    assert isinstance(rows, list)
    return rows


async def test_a_transmission_is_scheduled_changed_listed_and_cancelled(node: Node) -> None:
    one = await transmission(node.client)
    path = f"{one}/schedule"
    first = await scheduled(
        node.client, "PUT", path, hour="9", minute="*/15", timezone="Asia/Tokyo"
    )
    (row,) = await listed(node.client, path)
    assert (row["schedule_id"], row["task_id"]) == (first, first)
    assert (row["type"], row["action"], row["status"]) == ("transmission", "send", "pending")
    assert f"/transmissions/{row['transmission_id']}" == one
    assert row["campaign_id"] is None
    assert [row[name] for name in ("year", "month", "day", "weekday", "hour", "minute")] == [
        "*", "*", "*", "*", "9", "*/15",
    ]  # fmt: skip
    assert (row["timezone"], row["is_recurring"], row["note"]) == ("Asia/Tokyo", 0, "")
    assert row["due_at"] > time.time()
    assert row["due_at"] % 86_400 == 0  # 09:00 in Tokyo is midnight UTC
    again = await scheduled(node.client, "PUT", path, delay=3600)
    assert again == first
    (row,) = await listed(node.client, path)
    assert (row["hour"], row["expiry"]) == ("*", None)
    assert (await node.client.delete(path)).json() is True
    assert await listed(node.client, path) == []
    assert (await node.client.delete(path)).json() is True
    assert (await node.client.get(f"{one}/status")).json() == {"status": "pending"}


async def test_a_scheduled_transmission_is_sent(node: Node) -> None:
    await made(node.client, "/providers", name="t", type="loopback", settings={"speed": 0})
    one = await transmission(node.client)
    with node.engine.bus.subscribe(1000) as events:
        await scheduled(node.client, "PUT", f"{one}/schedule", delay="0")
        with trio.fail_after(DEADLINE_S):
            while not isinstance(event := await events.get(), TaskFired):
                pass
    assert event.done
    (spool,) = await listed(node.client, f"{one}/detail")
    (row,) = await listed(node.client, f"{one}/schedule")
    assert (row["status"], row["note"]) == ("processed", f"sent as spool {spool['spool_id']}")
    assert row["last_run"] >= row["due_at"]


@pytest.mark.parametrize("verb", ["POST", "PUT"])
@pytest.mark.parametrize("action", ["start", "stop"])
async def test_a_campaign_may_have_many_schedules(node: Node, verb: str, action: str) -> None:
    one = await campaign(node.client)
    path = f"{one}/{action}/schedule"
    ids = [
        await scheduled(
            node.client, verb, path, weekday="2-6", hour=hour, is_recurring="1", weight=3,
            expiry=4_000_000_000,
        )
        for hour in (9, "17")
    ]  # fmt: skip
    rows = await listed(node.client, f"{one}/schedule")
    assert [row["schedule_id"] for row in rows] == ids
    assert {row["action"] for row in rows} == {action}
    assert {(row["minute"], row["is_recurring"], row["weight"]) for row in rows} == {("0", 1, 3)}
    assert {row["expiry"] for row in rows} == {4_000_000_000}
    assert {f"/campaigns/{row['campaign_id']}" for row in rows} == {one}


@pytest.mark.parametrize(("verb", "kind"), CANCELS)
async def test_cancelling_forgets_what_it_names(node: Node, verb: str, kind: str) -> None:
    one = await campaign(node.client)
    for action in ("start", "stop"):
        await scheduled(node.client, "POST", f"{one}/{action}/schedule", delay=600)
    response = await node.client.request(verb, f"{one}{kind}/schedule")
    assert (response.status_code, response.json()) == (200, True)
    left = {"": [], "/start": ["stop"], "/stop": ["start"]}[kind]
    assert [row["action"] for row in await listed(node.client, f"{one}/schedule")] == left


async def test_a_campaign_starts_and_stops_by_its_schedules(node: Node) -> None:
    await made(node.client, "/providers", name="t", type="loopback", settings={"speed": 0})
    one = await campaign(node.client)
    group = (await node.client.get(one)).json()["group_id"]
    await node.client.post(
        f"/groups/{group}/csv", content="".join(f"{n}\n" for n in range(1000, 1100))
    )
    with node.engine.bus.subscribe(10_000) as events:
        for action, status in (("start", "running"), ("stop", "paused")):
            now = int(time.time())
            await scheduled(node.client, "POST", f"{one}/{action}/schedule", timestamp=now)
            with trio.fail_after(DEADLINE_S):
                while not isinstance(event := await events.get(), TaskFired):
                    pass
            assert event.done, event.note
            assert (await node.client.get(one)).json()["status"] == status


async def test_all_schedules_with_filters(node: Node) -> None:
    one, two = await campaign(node.client), await transmission(node.client)
    start = await scheduled(node.client, "POST", f"{one}/start/schedule", delay=600)
    stop = await scheduled(node.client, "POST", f"{one}/stop/schedule", hour=9, is_recurring=1)
    send = await scheduled(node.client, "PUT", f"{two}/schedule", delay=600)
    for args, expected in (
        ({}, [start, stop, send]),
        ({"type": "campaign"}, [start, stop]),
        ({"action": "send"}, [send]),
        ({"is_recurring": 1}, [stop]),
        ({"schedule_id": stop}, [stop]),
        ({"status": "processed"}, []),
    ):
        rows = await listed(node.client, "/schedules", **args)
        assert [row["schedule_id"] for row in rows] == expected, args
    other = await node.user("other", "user")
    assert await listed(other, "/schedules") == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "delay"),
        ({"dealy": 60}, "delay"),
        ({"hour": 25}, "hour"),
        ({"hour": "9-"}, "hour"),
        ({"minute": 60}, "minute"),
        ({"weekday": 0}, "weekday"),
        ({"month": 2, "day": 31}, "day"),
        ({"year": 2001}, "year"),
        ({"hour": [9]}, "hour"),
        ({"delay": -1}, "delay"),
        ({"delay": "soon"}, "delay"),
        ({"timestamp": 1}, "timestamp"),
        ({"timestamp": 10**18}, "timestamp"),
        ({"datetime": "tomorrow"}, "datetime"),
        ({"datetime": "2001-01-01"}, "datetime"),
        ({"due_at": "later"}, "due_at"),
        ({"delay": 5, "timestamp": 4_000_000_000}, "timestamp"),
        ({"delay": 5, "is_recurring": 1}, "is_recurring"),
        ({"delay": 5, "timezone": "Mars/Olympus"}, "timezone"),
        ({"delay": 5, "expiry": "never"}, "expiry"),
        ({"delay": 500, "expiry": 1}, "expiry"),
        ({"delay": 5, "weight": -1}, "weight"),
    ],
)
async def test_nonsense_is_refused_by_its_field(
    node: Node, body: dict[str, Any], field: str
) -> None:
    one, two = await campaign(node.client), await transmission(node.client)
    for verb, path in (
        ("PUT", f"{two}/schedule"),
        ("POST", f"{one}/start/schedule"),
        ("PUT", f"{one}/stop/schedule"),
    ):
        response = await node.client.request(verb, path, json=body)
        assert response.status_code == 412, response.text
        assert field in response.json()["error"]["message"]
    assert await listed(node.client, "/schedules") == []


@pytest.mark.parametrize(
    "body",
    [
        {"datetime": "2060-01-02T03:04:05Z"},
        {"datetime": "2060-01-02 03:04:05", "timezone": "UTC"},
        {"due_at": "2060-01-02 04:04:05+01:00"},
        {"due_at": 2_840_238_245},
        {"timestamp": "2840238245"},
        # As GUIs send whole objects back: what is empty, a star, 0 or a status says nothing.
        {"timestamp": 2_840_238_245, "delay": "", "datetime": None, "due_at": 0, "expiry": "0",
         "year": "*", "hour": "*", "status": 0, "is_recurring": 0, "weight": ""},
    ],
)  # fmt: skip
async def test_a_moment_may_be_spelled_in_many_ways(node: Node, body: dict[str, Any]) -> None:
    one = await transmission(node.client)
    await scheduled(node.client, "PUT", f"{one}/schedule", **body)
    (row,) = await listed(node.client, f"{one}/schedule")
    assert row["due_at"] == 2_840_238_245


async def test_who_may_not_or_does_not_see_is_refused(node: Node) -> None:
    one, two = await campaign(node.client), await transmission(node.client)
    stranger, nobody = await node.user("stranger", "user"), await node.user("nobody")
    for verb, path in (
        ("PUT", f"{two}/schedule"),
        ("DELETE", f"{two}/schedule"),
        ("GET", f"{two}/schedule"),
        ("POST", f"{one}/start/schedule"),
        ("PUT", f"{one}/stop/schedule"),
        ("DELETE", f"{one}/start/schedule"),
        ("DELETE", f"{one}/stop/schedule"),
        ("DELETE", f"{one}/schedule"),
        ("POST", f"{one}/schedule"),
        ("GET", f"{one}/schedule"),
    ):
        body = {"delay": 60}
        assert (await stranger.request(verb, path, json=body)).status_code == 404, path
        assert (await nobody.request(verb, path, json=body)).status_code == 403, path
    assert (await nobody.get("/schedules")).status_code == 403


async def test_what_is_over_cannot_be_scheduled(node: Node) -> None:
    await made(node.client, "/providers", name="t", type="loopback", settings={"speed": 0})
    one = await transmission(node.client)
    with node.engine.bus.subscribe(1000) as events:
        await scheduled(node.client, "PUT", f"{one}/schedule", delay=0)
        with trio.fail_after(DEADLINE_S):
            while getattr(await events.get(), "status", "") != "completed":
                pass
    response = await node.client.put(f"{one}/schedule", json={"delay": 60})
    assert response.status_code == 423


async def test_the_classic_mount_answers_as_deployed_servers_do(node: Node) -> None:
    one, two = await campaign(node.client), await transmission(node.client)
    json = {"Accept": "application/json"}
    send = await node.client.put(f"/api{two}/schedule", json={"delay": "60"}, headers=json)
    assert isinstance(send.json(), int)
    start = await node.client.post(f"/api{one}/start/schedule", json={"hour": 9}, headers=json)
    assert isinstance(start.json(), int)
    assert (await node.client.delete(f"/api{one}/schedule", headers=json)).json() is True
    assert (await node.client.delete(f"/api{two}/schedule", headers=json)).json() is True
