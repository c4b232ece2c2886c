"""/transmissions and /spools over HTTP, on a node that really dials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from engine.model import Contact, Service, Spool, SpoolResult, Transmission, User
from engine.store.base import Query
from gateways.loopback.script import Script
from tests.api.dialling import DEADLINE_S, QUICK, prepared, provider, run, sent
from tests.api.node import Node, made, made_program, running_node


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


@pytest.mark.parametrize(
    "receiver", [{"phone": "1"}, {"email": "ann@example.net"}, {"contact_id": 1}, {}]
)
async def test_a_program_that_is_not_named_is_said_first(
    node: Node, receiver: dict[str, Any]
) -> None:
    """412 (specs/ictcore.md §1.5), and no contact is made for nothing."""
    response = await node.client.post("/transmissions", json=receiver)
    assert response.status_code == 412
    assert response.json()["error"]["message"] == "program_id is missing"
    assert (await node.client.get("/contacts")).json() == []


async def test_results_are_told_by_every_name_they_have(node: Node) -> None:
    await provider(node.client, digits="7")
    program = await made_program(node.client)
    transmission = await made(node.client, "/transmissions", program_id=program, phone="1")
    spool = await sent(node, transmission)
    path = f"/transmissions/{transmission}"
    detail = (await node.client.get(f"{path}/detail")).json()
    assert [row["spool_id"] for row in detail] == [spool]
    for alias in ("logs", "spools"):
        assert (await node.client.get(f"{path}/{alias}")).json() == detail
        filtered = await node.client.get(f"{path}/{alias}", params={"status": "failed"})
        assert filtered.json() == []
    result = (await node.client.get(f"{path}/result")).json()
    assert "7" in [row["data"] for row in result]
    for alias in (f"{path}/results", f"/spools/{spool}/results"):
        assert (await node.client.get(alias)).json() == result


async def test_a_clone_is_the_same_once_more_and_not_sent_yet(node: Node) -> None:
    await provider(node.client, busy=1)
    program = await made_program(node.client)
    transmission = await made(
        node.client, "/transmissions", program_id=program, phone="1", title="hi", try_allowed=1,
        retry_delays={"busy": 60}, origin="crm",
    )  # fmt: skip
    await sent(node, transmission)
    response = await node.client.get(f"/transmissions/{transmission}/clone")
    copy = response.json()["transmission_id"]
    assert copy != transmission
    first, second = [
        (await node.client.get(f"/transmissions/{key}")).json() for key in (transmission, copy)
    ]
    assert (first["status"], first["response"], first["try_done"]) == ("failed", "busy", 1)
    assert (second["status"], second["response"], second["try_done"]) == ("pending", "", 0)
    assert second["last_run"] is None
    own = {
        "transmission_id", "status", "response", "try_done", "last_run", "date_created",
        "last_updated",
    }  # fmt: skip
    assert {k: v for k, v in first.items() if k not in own} == {
        k: v for k, v in second.items() if k not in own
    }
    await sent(node, copy)


async def test_what_a_campaign_sent_is_cloned_out_of_it(node: Node) -> None:
    await provider(node.client)
    program, group = await prepared(node.client, 1)
    campaign = await made(
        node.client, "/campaigns", program_id=program, group_id=group, cpm=600_000
    )
    await run(node, campaign)
    (row,) = (await node.client.get("/transmissions")).json()
    response = await node.client.get(f"/transmissions/{row['transmission_id']}/clone")
    copy = response.json()["transmission_id"]
    shown = (await node.client.get(f"/transmissions/{copy}")).json()
    assert (shown["campaign_id"], shown["contact_id"]) == (None, row["contact_id"])


async def test_whose_transmission_it_is_not_can_neither_read_nor_clone_it(node: Node) -> None:
    program = await made_program(node.client)
    transmission = await made(node.client, "/transmissions", program_id=program, phone="1")
    other = await node.user("other", "user")
    for path in ("", "/clone", "/status", "/detail", "/logs", "/spools", "/result", "/results"):
        response = await other.get(f"/transmissions/{transmission}{path}")
        assert response.status_code == 404, path


async def test_every_service_has_its_list_with_filters_and_pages(node: Node) -> None:
    program = await made_program(node.client)
    ids = [
        await made(node.client, "/transmissions", program_id=program, phone=f"20{n}")
        for n in range(3)
    ]
    listed = (await node.client.get("/calls")).json()
    assert [row["transmission_id"] for row in listed] == ids
    assert listed == (await node.client.get("/transmissions")).json()
    for path in ("/faxes", "/smses", "/emails"):
        assert (await node.client.get(path)).json() == []
    one = await node.client.get("/calls", params={"contact_phone": "201"})
    assert [row["transmission_id"] for row in one.json()] == [ids[1]]
    page = await node.client.get("/calls", params={"limit": 1, "offset": 2})
    assert [row["transmission_id"] for row in page.json()] == [ids[2]]


async def test_a_phone_or_email_is_looked_for_on_both_ends(node: Node) -> None:
    program = await made_program(node.client)
    account = await made(node.client, "/accounts", phone="555000", email="us@example.com", active=1)
    first = await made(
        node.client, "/transmissions", program_id=program, phone="100", email="ada@example.com",
        account_id=account,
    )  # fmt: skip
    second = await made(node.client, "/transmissions", program_id=program, phone="5550")
    for args, found in (
        ({"phone": "5550"}, [first, second]),
        ({"phone": "55500"}, [first]),
        ({"phone": "100"}, [first]),
        ({"contact_phone": "5550"}, [second]),
        ({"account_phone": "5550"}, [first]),
        ({"email": "US@"}, [first]),
        ({"email": "ada"}, [first]),
        ({"account_email": "ada"}, []),
        ({"phone": "%"}, []),
    ):
        rows = (await node.client.get("/transmissions", params=args)).json()
        assert [row["transmission_id"] for row in rows] == found, args


async def test_filters_of_both_ends_and_of_one_go_together(node: Node) -> None:
    program = await made_program(node.client)
    account = await made(node.client, "/accounts", phone="555000", email="us@example.com", active=1)
    sent_to = await made(
        node.client, "/transmissions", program_id=program, phone="100", account_id=account
    )
    await made(node.client, "/transmissions", program_id=program, phone="200", account_id=account)
    both_ends = {"phone": "555", "contact_phone": "100", "account_email": "us@", "email": "us@"}
    for query in (both_ends, {**both_ends, "phone": "100"}):
        found = await node.client.get("/transmissions", params=query)
        assert found.status_code == 200, found.text
        assert [row["transmission_id"] for row in found.json()] == [sent_to]
        assert found.headers["X-Total-Count"] == "1"


async def test_a_fax_tells_how_many_pages_went_out(node: Node) -> None:
    store = node.engine.store
    (admin,) = await store.find(User, Query())
    program = await made_program(node.client)
    contact = await store.insert(Contact(phone="1", owner_id=admin.id))
    fax = await store.insert(
        Transmission(program_id=program, contact_id=contact.id, owner_id=admin.id,
                     service=Service.FAX)
    )  # fmt: skip
    path = f"/transmissions/{fax.id}"
    assert (await node.client.get(path)).json()["pages"] is None
    spool = await store.insert(Spool(transmission_id=fax.id, service=Service.FAX))
    await store.insert(SpoolResult(spool_id=spool.id, type="info", name="pages", data="3"))
    assert (await node.client.get(path)).json()["pages"] == 3
    assert [row["transmission_id"] for row in (await node.client.get("/faxes")).json()] == [fax.id]


async def test_what_is_none_of_the_clients_is_ignored(node: Node) -> None:
    program = await made_program(node.client)
    other = await made(node.client, "/transmissions", program_id=program, phone="1")
    transmission = await made(
        node.client, "/transmissions", program_id=str(program), phone="2", service_flag="8",
        status="", response="", campaign_id=999, transmission_id=other, try_allowed="", email="",
        is_deleted=0,
    )  # fmt: skip
    assert transmission != other
    shown = (await node.client.get(f"/transmissions/{transmission}")).json()
    assert (shown["status"], shown["service_flag"], shown["campaign_id"]) == ("pending", 1, None)
    back = await node.client.put(f"/transmissions/{transmission}", json={**shown, "title": "new"})
    assert back.json() == {**shown, "title": "new", "last_updated": back.json()["last_updated"]}
    both = await node.client.get("/transmissions", params={"is_deleted": 0})
    assert len(both.json()) == 2


async def test_what_is_missing_is_named(node: Node) -> None:
    program = await made_program(node.client)
    contact = await made(node.client, "/contacts", phone="1")
    shortcut = f"/programs/{program}/transmissions"
    for path, body, message in (
        ("/transmissions", {"contact_id": contact}, "program_id is missing"),
        ("/transmissions", {"program_id": program}, "contact is missing"),
        (shortcut, {}, "Transmission data is missing"),
        (shortcut, [], "Transmission data is missing"),
        (shortcut, {"program_data": {"name": "x"}}, "Transmission data is missing"),
        (shortcut, {"transmission_data": "x"}, "Transmission data is missing"),
        (shortcut, {"transmission_data": {"title": "x"}}, "contact is missing"),
    ):
        response = await node.client.post(path, json=body)
        assert response.status_code == 412
        assert response.json()["error"] == {"code": 412, "message": message}


async def test_what_only_receives_can_be_created_and_not_sent(node: Node) -> None:
    await provider(node.client)
    (account,) = (await node.client.get("/accounts")).json()
    program = await made(
        node.client, "/programs/receivefax", name="in", account_id=account["account_id"]
    )
    transmission = await made(node.client, "/transmissions", program_id=program, phone="1")
    response = await node.client.post(f"/transmissions/{transmission}/send")
    assert response.status_code == 423
    assert "cannot be sent" in response.json()["error"]["message"]
    status = (await node.client.get(f"/transmissions/{transmission}/status")).json()
    assert status == {"status": "pending"}


async def test_a_transmission_waits_as_long_as_its_outcome_says(node: Node) -> None:
    await provider(node.client, busy=1)
    program = await made_program(node.client)
    transmission = await made(
        node.client, "/transmissions", program_id=program, phone="1", try_allowed=2,
        retry_delays={"busy": "3600", "no_answer": 7},
    )  # fmt: skip
    with node.engine.bus.subscribe() as events:
        await node.client.post(f"/transmissions/{transmission}/send")
        with trio.fail_after(DEADLINE_S):
            while getattr(await events.get(), "response", "") != "busy":
                pass
    shown = (await node.client.get(f"/transmissions/{transmission}")).json()
    assert (shown["status"], shown["try_done"]) == ("pending", 1)
    assert shown["retry_delays"] == {"busy": 3600, "no_answer": 7}
    assert 3600 <= shown["due_at"] - shown["last_run"] < 3600 + DEADLINE_S


@pytest.mark.parametrize(
    "delays",
    [{"ringing": 1}, {"busy": -1}, {"failed": 604_801}, {"no_answer": "soon"}, {"busy": None},
     {"busy": True}, {"busy": [1]}],
)  # fmt: skip
async def test_a_delay_that_makes_no_sense_is_refused_by_its_key(
    node: Node, delays: dict[str, Any]
) -> None:
    program, group = await prepared(node.client)
    (key,) = delays
    for path, body in (
        ("/transmissions", {"program_id": program, "phone": "1"}),
        ("/campaigns", {"program_id": program, "group_id": group}),
    ):
        response = await node.client.post(path, json={**body, "retry_delays": delays})
        assert response.status_code == 412, response.text
        assert f"retry_delays.{key}" in response.json()["error"]["message"]


async def test_who_is_deleted_gets_nothing_more_and_what_was_sent_stays(node: Node) -> None:
    await provider(node.client)
    program, _ = await prepared(node.client)
    contact = await made(node.client, "/contacts", phone="100")
    over = await made(node.client, "/transmissions", program_id=program, contact_id=contact)
    await sent(node, over)
    waiting = await made(node.client, "/transmissions", program_id=program, contact_id=contact)
    assert (await node.client.delete(f"/contacts/{contact}")).json() is True
    shown = [(await node.client.get(f"/transmissions/{id_}")).json() for id_ in (over, waiting)]
    assert [row["contact_id"] for row in shown] == [None, None]
    assert [row["contact_phone"] for row in shown] == [None, None]
    assert [row["status"] for row in shown] == ["completed", "invalid"]
    assert shown[1]["response"] == "contact_deleted"
    for verb in ("send", "retry"):
        refused = await node.client.post(f"/transmissions/{waiting}/{verb}")
        assert refused.status_code == 423, refused.text


async def test_a_contact_stays_while_it_is_called(tmp_path: Path) -> None:
    async with running_node(tmp_path, Script(ring_s=(60, 60))) as node:
        await made(node.client, "/providers", name="trunk", type="loopback")
        program, _ = await prepared(node.client)
        contact = await made(node.client, "/contacts", phone="100")
        message = await made(node.client, "/transmissions", program_id=program, contact_id=contact)
        assert (await node.client.post(f"/transmissions/{message}/send")).status_code == 200
        refused = await node.client.delete(f"/contacts/{contact}")
        assert refused.status_code == 423, refused.text
        assert (await node.client.get(f"/contacts/{contact}")).status_code == 200
