"""The dry run of a campaign: it counts what a start would do, to the contact, and does nothing."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.app import Engine
from engine.check import CHUNK, SmsFigures, check_campaign
from engine.config import DialConfig, SmsConfig
from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Contact,
    Program,
    Provider,
    Service,
    Spool,
    Template,
    Text,
    Transmission,
)
from engine.quotes import Quote, Tariff, dearest, quote, tariff_of, too_long
from engine.segments import Concatenation
from engine.store.base import Query
from gateways.loopback.script import Script
from gateways.smpp.settings import SmppSettings
from tests.support.engine import (
    add_campaign,
    add_contacts,
    add_provider,
    config_in,
    run_to_end,
    running_engine,
    transmissions_of,
)


def _everything(folder: Path) -> list[str]:
    connection = sqlite3.connect(folder / "outspool.db")
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


async def _stored(engine: Engine, campaign: Campaign) -> Campaign:
    found = await engine.store.get(Campaign, campaign.id)
    assert found is not None
    return found


async def test_what_it_counts_is_what_a_start_then_does(tmp_path: Path) -> None:
    config = config_in(tmp_path, dial=DialConfig(allowed_prefixes=("1",)))
    async with running_engine(config) as engine:
        await add_provider(engine)
        campaign = await add_campaign(engine, 20)
        await add_contacts(engine.store, campaign.group_id, ["", "abc", "49", "(1) 23", "+1 5"])
        before = _everything(tmp_path)
        check = await engine.check_campaign(campaign)
        assert _everything(tmp_path) == before
        assert (check.contacts, check.dialable, check.complete) == (25, 22, True)
        assert (check.problems, check.retries) == ((), 0)
        await run_to_end(engine, campaign)
        rows = await transmissions_of(engine.store, campaign)
        invalid = Counter(row.response for row in rows if row.status.value == "invalid")
        assert invalid == check.skipped
        assert len(await engine.store.find(Spool, Query())) == check.dialable
        after = await engine.check_campaign(await _stored(engine, campaign))
        assert (after.dialable, after.skipped, after.preview) == (0, {}, None)
        assert after.taken == Counter(row.status.value for row in rows) | {
            "pending": 0, "processing": 0, "failed": 0,
        }  # fmt: skip


async def test_more_contacts_than_one_look_are_all_counted(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        for contacts in (CHUNK, 2 * CHUNK + 1):
            campaign = await add_campaign(engine, contacts, calls_per_minute=60.0)
            check = await engine.check_campaign(campaign)
            assert (check.dialable, check.duration_s, check.complete) == (contacts, contacts, True)


async def test_where_time_runs_out_it_says_so(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        campaign = await add_campaign(engine, 10)
        check = await check_campaign(
            engine.store, engine.config, campaign, lambda _: True, budget_s=0
        )
        assert (check.complete, check.dialable, check.contacts) == (False, 0, 10)


async def test_who_waits_for_another_try_is_told_apart(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path), Script(busy=1.0)) as engine:
        await add_provider(engine)
        campaign = await add_campaign(engine, 3, try_allowed=2, retry_delays={"busy": 3600})
        with engine.bus.subscribe() as events:
            await engine.start_campaign(campaign.id)
            missing = 3
            while missing:
                missing -= getattr(await events.get(), "response", "") == "busy"
        running = await engine.check_campaign(await _stored(engine, campaign))
        assert running.problems == ("Campaign is running",)
        assert (running.dialable, running.retries, running.taken["pending"]) == (0, 3, 3)
        stopped = await engine.stop_campaign(campaign.id)
        assert stopped.status is CampaignStatus.PAUSED
        assert (await engine.check_campaign(stopped)).problems == ()


async def test_everything_that_is_missing_is_named(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        program = await engine.store.insert(Program(name="in", type="receivesms"))
        campaign = await add_campaign(engine, 1, program_id=program.id)
        check = await engine.check_campaign(campaign)
        refused, provider = check.problems
        assert "cannot be sent" in refused
        assert provider == "No provider available"


async def test_the_preview_is_of_the_first_who_would_be_dialled(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        account = await engine.store.insert(Account(phone="4711"))
        program = await engine.store.insert(
            Program(
                name="p",
                type="voicetts",
                data={"text": "[contact:first_name], call [account:phone] [contact:shoe]"},
            )
        )
        campaign = await add_campaign(engine, 0, program_id=program.id, account_id=account.id)
        for name, phone in (("Ada", "nobody"), ("Bob", "12-34"), ("Eve", "56")):
            contact = await engine.store.insert(Contact(first_name=name, phone=phone))
            await engine.store.link(contact.id, campaign.group_id)
        preview = (await engine.check_campaign(campaign)).preview
        assert preview is not None
        assert preview.destination == "1234"
        assert preview.words == {"tts": "Bob, call 4711 [contact:shoe]"}
        assert await engine.store.find(Transmission, Query()) == []


async def _sms_campaign(engine: Engine, data: str, contacts: int) -> Campaign:
    text = await engine.store.insert(Text(name="t", data=data))
    program = await engine.store.insert(
        Program(name="p", type="sendsms", data={"text_id": text.id})
    )
    return await add_campaign(engine, contacts, program_id=program.id)


async def test_an_sms_campaign_is_counted_in_parts_and_money(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path, sms=SmsConfig(currency="CHF"))) as engine:
        campaign = await _sms_campaign(engine, "x" * 161, 1000)
        free = (await engine.check_campaign(campaign)).sms
        assert free == SmsFigures(
            parts_per_message=2, messages=1000, parts=2000, price=0, currency="CHF",
            estimated=False,
        )  # fmt: skip
        await add_provider(engine, service=Service.SMS, settings={"price_per_part": 0.07})
        priced = (await engine.check_campaign(campaign)).sms
        assert priced is not None
        assert (priced.price, priced.estimated) == (140.0, False)
        await add_provider(engine, service=Service.SMS, settings={"price_per_part": 0.01})
        await add_provider(engine, service=Service.VOICE, settings={"price_per_part": 9.0})
        several = (await engine.check_campaign(campaign)).sms
        assert several is not None
        assert (several.price, several.estimated) == (140.0, True)


async def test_tokens_make_it_an_estimate_by_the_first_contact(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        campaign = await _sms_campaign(engine, "x" * 159 + "[contact:first_name]", 0)
        nobody = (await engine.check_campaign(campaign)).sms
        assert nobody is not None
        assert (nobody.messages, nobody.parts, nobody.estimated) == (0, 0, True)
        for name, phone in (("Al", "+491"), ("B", "+492"), ("nobody", "none")):
            contact = await engine.store.insert(Contact(first_name=name, phone=phone))
            await engine.store.link(contact.id, campaign.group_id)
        found = (await engine.check_campaign(campaign)).sms
        assert found is not None
        assert (found.parts_per_message, found.messages, found.parts) == (2, 2, 4)
        assert found.estimated


async def test_what_was_not_counted_makes_it_an_estimate(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        campaign = await _sms_campaign(engine, "x", 10)
        check = await check_campaign(
            engine.store, engine.config, campaign, lambda _: True, budget_s=0
        )
        assert check.sms is not None
        assert check.sms.estimated


# --- what could never be composed


@pytest.mark.parametrize(
    ("settings", "kind", "takes"),
    [
        ({"max_parts": 2}, "loopback", 2), ({"max_parts": "5"}, "smpp", 5),
        ({"max_parts": 6}, "smpp", 0), ({}, "smpp", 0), ({}, "loopback", 0),
    ],
)  # fmt: skip
async def test_a_text_of_more_parts_than_a_provider_takes_is_a_problem(
    tmp_path: Path, settings: dict[str, Any], kind: str, takes: int
) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine, service=Service.SMS, name="roomy")
        await engine.store.insert(
            Provider(name="p", type=kind, service=Service.SMS, settings=settings)
        )
        campaign = await _sms_campaign(engine, "x" * 900, 1)
        problems = (await engine.check_campaign(campaign)).problems
        assert problems == ((f"Text of 6 parts, a provider takes {takes}",) if takes else ())


def test_a_provider_that_does_not_say_takes_as_many_parts_as_smpp_settings_have() -> None:
    text = Text(name="t", data="x" * 153 * (SmppSettings().max_parts + 1))
    tariff = tariff_of(Provider(name="p", type="smpp"))
    found = too_long(text.data, text, [tariff])
    assert found is not None
    assert found.size.parts == tariff.max_parts + 1
    assert too_long(text.data[153:], text, [tariff]) is None


async def test_a_sender_that_no_sms_can_have_is_a_problem(tmp_path: Path) -> None:
    """It cannot be written any more, but it may have been."""
    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine, service=Service.SMS)
        account = await engine.store.insert(Account(settings={"sender_id": "ACME Söhne"}))
        campaign = await _sms_campaign(engine, "x", 1)
        campaign = await engine.store.update(
            msgspec.structs.replace(campaign, account_id=account.id)
        )
        [problem] = (await engine.check_campaign(campaign)).problems
        assert "sender_id" in problem


@pytest.mark.parametrize(
    ("email", "settings", "ready"),
    [("", {}, False), ("us@example.net", {}, True), ("", {"from_address": "a@b.example"}, True)],
)
async def test_a_mail_without_a_sender_is_a_problem(
    tmp_path: Path,
    email: str,
    settings: dict[str, Any],
    ready: bool,  # noqa: FBT001
) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine, service=Service.EMAIL)
        await engine.store.insert(
            Provider(name="p", type="smtp", service=Service.EMAIL, settings=settings)
        )
        account = await engine.store.insert(Account(phone="1", email=email))
        template = await engine.store.insert(Template(name="t", subject="s", body="b"))
        program = await engine.store.insert(
            Program(name="p", type="sendemail", data={"template_id": template.id})
        )
        campaign = await add_campaign(engine, 0, program_id=program.id, account_id=account.id)
        problems = (await engine.check_campaign(campaign)).problems
        wanted = () if ready else ("No sender: neither account nor provider has an e-mail address",)
        assert problems == wanted


def test_a_tariff_is_read_out_of_any_settings() -> None:
    odd = {"price_per_part": "much", "concatenation": "glue", "default_alphabet": "latin1"}
    assert tariff_of(Provider(id=3, name="p", settings=odd)) == Tariff(
        provider_id=3, through_latin1=True
    )
    own = {"price_per_part": 2, "concatenation": "sar", "gsm_coding": 1} | {
        "default_alphabet": "latin1"
    }
    assert tariff_of(Provider(id=3, name="p", settings=own)) == Tariff(
        provider_id=3, price_per_part=2.0, concatenation=Concatenation.SAR
    )


def test_the_dearest_is_by_all_its_parts() -> None:
    text = Text(name="t", data="ж" * 134)  # two parts, or three with a reference of 16 bits
    few = Tariff(provider_id=1, price_per_part=0.05)
    many = Tariff(provider_id=2, price_per_part=0.04, concatenation=Concatenation.UDH16)
    found = dearest(text.data, text, [few, many])
    assert isinstance(found, Quote)
    assert (found.tariff, found.price) == (many, 0.12)
    assert quote(text.data, text, few).price == 0.1
