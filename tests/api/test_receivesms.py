"""Messages that came in, as clients see them: what receivesms made of them."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from engine.clock import now
from engine.gateway import InboundText, Reception, TextKind
from engine.model import Provider, Service
from engine.results import ResultRow
from tests.api.node import Node, made

OURS, ADA = "4930999", "4917012345"


async def asked(client: httpx.AsyncClient, path: str) -> Any:
    response = await client.get(path)
    assert response.status_code == 200, response.text
    return response.json()


async def receive(node: Node, text: str, **fields: Any) -> Reception:
    provider = await node.engine.store.insert(
        Provider(name="smsc", type="loopback", service=Service.SMS)
    )
    message = InboundText(
        provider=provider, source=ADA, destination=OURS, text=text, kind=TextKind.UNICODE,
        at=now(), key=text, rows=(ResultRow("sms", "parts", "2"),),
    )  # fmt: skip
    return await node.engine.inbox.receive(msgspec.structs.replace(message, **fields))


async def reachable(node: Node, *, program: str = "subscribed") -> int:
    """Our number, and what serves it."""
    account = await made(node.client, "/accounts", type="did", phone=f"+{OURS}", active=1)
    if program == "subscribed":
        other = await made(node.client, "/accounts", phone="1", active=1)
        made_for = await made(node.client, "/programs/receivesms", name="in", account_id=other)
        await node.client.put(f"/accounts/{account}/programs/{made_for}")
    elif program == "made for it":
        await made(node.client, "/programs/receivesms", name="in", account_id=account)
    else:
        await node.client.put(f"/accounts/{account}/programs/receivesms")
    return account


@pytest.mark.parametrize("program", ["subscribed", "made for it", "equipped"])
@pytest.mark.parametrize("mount", ["", "/api"])
async def test_it_is_a_transmission_like_any_other(node: Node, program: str, mount: str) -> None:
    account = await reachable(node, program=program)
    assert await receive(node, "Hallo 😀") is Reception.TAKEN
    client = node.client
    [row] = await asked(client, f"{mount}/smses")
    assert await asked(client, f"{mount}/transmissions?service_flag=4") == [row]
    assert await asked(client, f"{mount}/transmissions?service_flag=1") == []
    assert (row["direction"], row["status"]) == ("inbound", "completed")
    assert (str(row["account_id"]), row["contact_phone"]) == (str(account), ADA)
    assert (row["account_phone"], row["origin"]) == (f"+{OURS}", "receivesms")
    results = await asked(client, f"/transmissions/{row['transmission_id']}/results")
    found = {(one["type"], one["name"]): one["data"] for one in results}
    contact, text = found["contact", "contact_new"], found["message", "text"]
    assert found == {
        ("application", "sms_receive"): "success", ("sms", "parts"): "2",
        ("contact", "contact_new"): contact, ("message", "text"): text,
    }  # fmt: skip
    assert (await asked(client, f"/texts/{text}"))["data"] == "Hallo 😀"
    assert (await asked(client, f"/contacts/{contact}"))["phone"] == ADA
    [spool] = await asked(client, f"/transmissions/{row['transmission_id']}/spools")
    assert (spool["status"], spool["destination"]) == ("completed", OURS)
    counts = await asked(client, "/statistics")
    assert (counts["transmission_inbound"], counts["transmission_outbound"]) == (1, 0)
    assert (counts["spool_success"], counts["contact_total"]) == (1, 1)


async def test_who_is_known_is_not_made_again(node: Node) -> None:
    await reachable(node)
    ada = await made(node.client, "/contacts", phone=f"+{ADA}", first_name="Ada")
    for text in ("one", "two"):
        assert await receive(node, text) is Reception.TAKEN
    rows = await asked(node.client, "/smses")
    assert [row["contact_id"] for row in rows] == [ada, ada]
    assert len(await asked(node.client, "/contacts")) == 1


async def test_in_and_out_stand_side_by_side(node: Node) -> None:
    await reachable(node)
    text = await made(node.client, "/texts", name="n", data="Hi")
    program = await made(node.client, "/programs/sendsms", name="out", text_id=text)
    ada = await made(node.client, "/contacts", phone=ADA)
    sent = await made(node.client, "/transmissions", program_id=program, contact_id=ada)
    await receive(node, "Hi too")
    rows = await asked(node.client, "/smses")
    assert [row["direction"] for row in rows] == ["outbound", "inbound"]
    only = await asked(node.client, "/smses?direction=inbound")
    assert [row["transmission_id"] for row in only] == [rows[1]["transmission_id"]]
    assert rows[0]["transmission_id"] == sent
    # A transmission that came in is not for sending.
    again = await node.client.post(f"/transmissions/{rows[1]['transmission_id']}/send")
    assert again.status_code == 423


async def test_without_a_program_nobody_takes_it(node: Node) -> None:
    await made(node.client, "/accounts", type="did", phone=OURS, active=1)
    assert await receive(node, "Hello?") is Reception.UNWANTED
    assert await asked(node.client, "/smses") == []


async def test_stop_is_on_the_list_and_start_is_not(node: Node) -> None:
    await reachable(node)
    await receive(node, "Stop.")
    [entry] = await asked(node.client, "/do_not_contact")
    assert (entry["phone"], entry["service_flag"]) == (ADA, 4)
    assert entry["reason"] == "STOP by SMS"
    await receive(node, "start")
    assert await asked(node.client, "/do_not_contact") == []
