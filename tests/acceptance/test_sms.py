"""SMS campaigns through the public API against SMSCs of two other makes, by their own records."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance import sms_campaign as sms
from tests.acceptance.session import create
from tests.support.node_process import config_text, node_process
from tests.support.smsc.peers import Smsc, node_smsc, perl_smsc

CONTACTS = int(os.environ.get("OUTSPOOL_TEST_SMS_CONTACTS", "10000"))
FEWER = max(CONTACTS // 10, 20)
Far = Callable[[Path], AbstractAsyncContextManager[Smsc]]
NPM: Far = partial(node_smsc, ids="hex_to_decimal")
UNDELIVERED_EVERY = 10
SAMPLE = 50

pytestmark = pytest.mark.slow


def _config(folder: Path, **sections: dict[str, Any]) -> Path:
    path = folder / "outspool.toml"
    path.write_text(config_text(folder, **sections))
    return path


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("far", "base"), [(perl_smsc, 10), (NPM, 16)], ids=["perl", "npm"])
async def test_ten_thousand_long_messages_arrive_once_intact_and_receipted(
    tmp_path: Path, far: Far, base: int
) -> None:
    who = sms.people(CONTACTS)
    async with (
        far(tmp_path / "smsc") as smsc,
        node_process(_config(tmp_path)) as node,
    ):
        async with node.client() as client:
            await sms.provider(client, smsc, window=500)
            campaign_id = await sms.campaign(client, who, sms.LONG_TEXT)
            await sms.start(client, campaign_id)
            found = await sms.outcome(client, campaign_id)
            await _rows_agree(client, found, smsc, base)
        assert await node.terminate() == 0
        messages = smsc.messages()
    assert min(len(message.text) for message in messages) > 1500
    assert {message.submits[0].data_coding for message in messages} == {0, 8}
    sms.assert_each_once_and_intact(messages, who, sms.LONG_TEXT)
    assert found.responses == {("completed", "delivered"): CONTACTS}
    sms.assert_counts_agree(found, smsc, CONTACTS)


async def _rows_agree(client: httpx.AsyncClient, found: sms.Outcome, smsc: Smsc, base: int) -> None:
    """Result rows of some spools: the SMSC's own ids (numbers to this base), part by part."""
    numbers = {m.destination: [s.number for s in m.submits] for m in smsc.messages()}
    for spool in found.spools[:: max(len(found.spools) // SAMPLE, 1)]:
        rows = await sms.read(client, f"/spools/{spool['spool_id']}/result", limit=sms.PAGE)
        ids = [int(row["data"], base) for row in rows if row["name"] == "message_id"]
        assert ids == numbers[spool["destination"]]
        data = {row["name"]: row["data"] for row in rows}
        assert (data["stat"], data["err"]) == ("DELIVRD", "000")
        assert int(data["parts"]) == len(ids)
        assert data["done_date"]


@pytest.mark.timeout(900)
async def test_net_smpp_gets_each_once_and_its_failures_are_ours(tmp_path: Path) -> None:
    who = sms.people(FEWER)
    async with (
        perl_smsc(tmp_path / "smsc", undelivered_every=UNDELIVERED_EVERY) as smsc,
        node_process(_config(tmp_path)) as node,
    ):
        async with node.client() as client:
            await sms.provider(client, smsc, binds=2, window=50, concatenation="sar")
            campaign_id = await sms.campaign(client, who, sms.SHORT_TEXT)
            await sms.start(client, campaign_id)
            found = await sms.outcome(client, campaign_id)
        assert await node.terminate() == 0
        messages = smsc.messages()
    sms.assert_each_once_and_intact(messages, who, sms.SHORT_TEXT)
    sms.assert_counts_agree(found, smsc, FEWER)
    failed = {m.destination for m in messages if m.submits[0].number % UNDELIVERED_EVERY == 0}
    assert found.responses == {
        ("completed", "delivered"): FEWER - len(failed),
        ("failed", "undelivered"): len(failed),
    }
    assert {row["destination"] for row in found.spools if row["status"] == "failed"} == failed


@pytest.mark.parametrize("concatenation", ["udh8", "udh16", "sar", "payload"])
async def test_every_way_to_join_parts_is_read_by_another_make(
    tmp_path: Path, concatenation: str
) -> None:
    who = sms.people(2 * sms.EVERY)
    async with (
        node_smsc(tmp_path / "smsc", receipt_form="tlv", receipt="before") as smsc,
        node_process(_config(tmp_path)) as node,
        node.client() as client,
    ):
        await sms.provider(client, smsc, bind="pair", concatenation=concatenation)
        campaign_id = await sms.campaign(client, who, sms.LONG_TEXT)
        await sms.start(client, campaign_id)
        found = await sms.outcome(client, campaign_id)
    sms.assert_each_once_and_intact(smsc.messages(), who, sms.LONG_TEXT)
    assert found.responses == {("completed", "delivered"): len(who)}


async def test_who_says_stop_is_left_out_until_they_say_start(tmp_path: Path) -> None:
    who = sms.people(3)
    quiet = who[1]
    async with (
        node_smsc(tmp_path / "smsc") as smsc,
        node_process(_config(tmp_path)) as node,
        node.client() as client,
    ):
        await sms.provider(client, smsc)
        first = await sms.campaign(client, who, sms.SHORT_TEXT)
        account = (await sms.read(client, f"/campaigns/{first}"))["account_id"]
        await create(
            client, "/programs/receivesms", "program_id", {"name": "in", "account_id": account}
        )
        await sms.start(client, first)
        await sms.completed(client, first)

        assert await smsc.send_text(quiet.phone, sms.SENDER, " stop ") == 0
        listed = await sms.read(client, "/do_not_contact")
        assert [row["phone"] for row in listed] == [quiet.phone]
        assert await _reached(client, smsc, who, first) == {who[0].phone, who[2].phone}

        assert await smsc.send_text(quiet.phone, sms.SENDER, "START") == 0
        assert await sms.read(client, "/do_not_contact") == []
        assert await _reached(client, smsc, who, first) == {person.phone for person in who}


async def _reached(
    client: httpx.AsyncClient, smsc: Smsc, who: list[sms.Person], like: int
) -> set[str]:
    """Numbers that the SMSC gets from one more campaign over the same people."""
    before = len(smsc.messages())
    model = await sms.read(client, f"/campaigns/{like}")
    fields = {key: model[key] for key in ("program_id", "account_id", "cpm")}
    again = await create(
        client, "/campaigns", "campaign_id", {**fields, "group_id": await sms.group(client, who)}
    )
    await sms.start(client, again)
    await sms.completed(client, again)
    return {message.destination for message in smsc.messages()[before:]}


async def test_what_handsets_send_is_read_at_smses(tmp_path: Path) -> None:
    texts = ["Yes please", "5 € {ok}", "Привет 😀", "long " * 60]
    async with (
        node_smsc(tmp_path / "smsc") as smsc,
        node_process(_config(tmp_path)) as node,
        node.client() as client,
    ):
        await sms.provider(client, smsc)
        inbox = {"type": "did", "username": "in", "phone": sms.SENDER, "active": 1}
        account = await create(client, "/accounts", "account_id", inbox)
        await create(
            client, "/programs/receivesms", "program_id", {"name": "in", "account_id": account}
        )
        await smsc.wait_event("bind")
        for text in texts[:3]:
            assert await smsc.send_text("491701", sms.SENDER, text) == 0
        payload = {"short_message": "", "message_payload": texts[3]}
        assert await smsc.send_text("491701", sms.SENDER, "", **payload) == 0
        received = await sms.every(client, "/smses", direction="inbound")
        kept = await sms.every(client, "/messages/texts")
        contacts = await sms.every(client, "/contacts")
    assert [row["status"] for row in received] == ["completed"] * len(texts)
    assert {row["data"] for row in kept} == set(texts)
    assert [row["phone"] for row in contacts] == ["491701"]
