"""E-mail as the engine sees it: campaigns through loopback, reports, addresses that are dead."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from engine import recovery
from engine.app import Engine
from engine.clock import now
from engine.config import DialConfig, RetryConfig
from engine.delivery import MESSAGE_LIMIT_S
from engine.gateway import Report
from engine.model import (
    Campaign,
    CampaignStatus,
    DoNotContact,
    Provider,
    Service,
    SpoolResult,
    SpoolStatus,
    TransmissionStatus,
)
from engine.results import Disposition, Fate
from engine.routing import dialled
from engine.store.base import Condition, Op, Query
from tests.engine.mailing import (
    BOUNCED,
    DEFERRED,
    EMAIL,
    Network,
    mail_campaign,
    the_one,
    wait_for,
)
from tests.engine.test_reaper import running
from tests.support.engine import (
    add_campaign,
    add_provider,
    config_in,
    run_to_end,
    running_engine,
    spools_of,
    transmissions_of,
)


async def test_a_campaign_from_template_to_result(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine, service=EMAIL, prefix="9")
        campaign = await mail_campaign(engine, ["a@example.com", "B@Example.com"])
        await run_to_end(engine, campaign)
        spools = await spools_of(engine.store, campaign)
        # A prefix is for numbers.
        assert {one.destination for one in spools} == {"a@example.com", "B@Example.com"}
        assert {(one.status, one.response) for one in spools} == {
            (SpoolStatus.COMPLETED, "accepted")
        }
        ids = {
            row.data
            for row in await engine.store.find(SpoolResult, Query())
            if row.name == "message_id"
        }
        assert len(ids) == 2


async def test_an_order_says_whose_it_is_and_stays_the_same_message(tmp_path: Path) -> None:
    again = msgspec.structs.replace(DEFERRED, later_s=(0.01,))
    gateway = Network(again)
    async with running(config_in(tmp_path), now, gateway) as engine:
        await add_provider(engine, service=EMAIL)
        campaign = await mail_campaign(engine, ["a@example.com"])
        await run_to_end(engine, campaign)
    first, second = gateway.orders
    assert first.spool_id != second.spool_id
    assert first.transmission_id == second.transmission_id > 0
    assert (first.owner_id, first.caller_id) == (7, "news@example.net")


async def test_the_limit_of_calls_is_none_for_mails(tmp_path: Path) -> None:
    gateway = Network()
    config = config_in(tmp_path, dial=DialConfig(call_limit_s=60.0))
    async with running(config, now, gateway) as engine:
        await add_provider(engine, service=EMAIL | Service.VOICE)
        await run_to_end(engine, await mail_campaign(engine, ["a@example.com"]))
        await run_to_end(engine, await add_campaign(engine, 1))
    limits = {order.service: order.call_limit_s for order in gateway.orders}
    assert limits == {EMAIL: MESSAGE_LIMIT_S, Service.VOICE: 60.0}


# --- dead addresses -------------------------------------------------------------------------------
async def listed(engine: Engine) -> list[tuple[str, str, int | None, Service]]:
    rows = await engine.store.find(DoNotContact, Query())
    return [(row.address, row.reason, row.owner_id, row.service) for row in rows]


async def test_a_bounce_fails_the_spool_and_the_next_campaign_skips_it(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine, service=EMAIL, settings={"receipt_s": 0.05, "undelivered": 1.0})
        # Tries that are left are not used on an address that is dead.
        campaign = await mail_campaign(engine, ["Ada@Example.com"], try_allowed=3)
        await run_to_end(engine, campaign)
        [spool] = await spools_of(engine.store, campaign)
        assert (spool.status, spool.code) == (SpoolStatus.FAILED, "5.1.1")
        assert spool.response == "bounced"
        [(address, reason, owner_id, service)] = await listed(engine)
        assert (address, owner_id, service) == ("ada@example.com", 7, EMAIL)
        assert "5.1.1" in reason
        second = await mail_campaign(engine, ["ada@example.COM", "b@example.com"])
        await run_to_end(engine, second)
        found = {row.response: row.status for row in await transmissions_of(engine.store, second)}
        assert found == {
            "do_not_contact": TransmissionStatus.INVALID, "bounced": TransmissionStatus.FAILED,
        }  # fmt: skip


@pytest.mark.parametrize("service", [EMAIL])
async def test_refused_at_once_is_closed_as_well(tmp_path: Path, service: Service) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine, service=service, settings={"invalid": 1.0})
        campaign = await mail_campaign(engine, ["a@example.com"], try_allowed=3)
        await run_to_end(engine, campaign)
        assert [one[0] for one in await listed(engine)] == ["a@example.com"]
        [spool] = await spools_of(engine.store, campaign)
        assert (spool.disposition, spool.code) == ("invalid", "550 5.1.1")


async def test_closed_between_queueing_and_sending(tmp_path: Path) -> None:
    """The same address twice: the second mail is queued when the first is refused."""
    dead = msgspec.structs.replace(BOUNCED, disposition=Disposition.INVALID)
    gateway = Network(dead)
    gateway.hold = trio.Event()
    async with running(config_in(tmp_path), now, gateway) as engine:
        await add_provider(engine, service=EMAIL, channels=1)
        campaign = await mail_campaign(engine, ["a@example.com", "A@example.com"])
        with engine.bus.subscribe(1000):
            await engine.start_campaign(campaign.id)
            await gateway.started.wait()
            gateway.hold.set()
            await wait_for(engine, campaign, CampaignStatus.COMPLETED)
        assert len(gateway.orders) == 1
        found = sorted(one.response for one in await transmissions_of(engine.store, campaign))
        assert found == ["bounced", "do_not_contact"]


async def test_what_only_failed_for_now_closes_nothing(tmp_path: Path) -> None:
    """``Action: failed`` with a 4.x status is final, and says nothing of the address."""
    full = msgspec.structs.replace(BOUNCED, code="4.2.2", suppress="")
    async with running(config_in(tmp_path), now, Network(full)) as engine:
        await add_provider(engine, service=EMAIL)
        campaign = await mail_campaign(engine, ["a@example.com"])
        await run_to_end(engine, campaign)
        assert await listed(engine) == []


# --- reports --------------------------------------------------------------------------------------
async def test_a_bounce_after_the_end_adds_rows_once_and_closes_the_address(
    tmp_path: Path,
) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine, service=EMAIL)
        campaign = await mail_campaign(engine, ["a@example.com"])
        await run_to_end(engine, campaign)
        [before] = await spools_of(engine.store, campaign)
        report = Report(spool_id=before.id, result=BOUNCED)
        unknown = Report(spool_id=4711, result=BOUNCED)
        for _ in range(2):
            await engine.inbox.report([report, unknown, report])
        [spool] = await spools_of(engine.store, campaign)
        assert spool == before
        mine = Condition("spool_id", Op.EQ, spool.id)
        rows = await engine.store.find(SpoolResult, Query(conditions=(mine,)))
        assert [row.data for row in rows if row.name == "bounce_status"] == ["5.1.1"]
        assert [one[0] for one in await listed(engine)] == ["a@example.com"]
        lists = engine.do_not_contact
        assert lists.closed_lately(7, EMAIL, "A@example.com")


async def test_the_second_report_of_a_batch_adds_to_the_first(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine, service=EMAIL, settings={"receipt_s": 3600.0})
        campaign = await mail_campaign(engine, ["a@example.com"])
        await engine.start_campaign(campaign.id)
        await _handed_over(engine, campaign)
        [spool] = await spools_of(engine.store, campaign)
        accepted = msgspec.structs.replace(
            BOUNCED, disposition=Disposition.ANSWERED, cause="accepted", suppress="", rows=()
        )
        await engine.inbox.report(
            [Report(spool_id=spool.id, result=accepted), Report(spool_id=spool.id, result=BOUNCED)]
        )
        [spool] = await spools_of(engine.store, campaign)
        assert spool.response == "accepted"
        rows = await engine.store.find(SpoolResult, Query())
        assert [row.data for row in rows if row.name == "bounce_status"] == ["5.1.1"]
        assert len(await listed(engine)) == 1


async def _handed_over(engine: Engine, campaign: Campaign) -> None:
    with trio.fail_after(20):
        while True:
            spools = await spools_of(engine.store, campaign)
            if spools and all(one.closes_at for one in spools):
                return
            await trio.sleep(0.01)


async def test_a_report_may_put_off_what_was_handed_over(tmp_path: Path) -> None:
    put_off = msgspec.structs.replace(DEFERRED, later_s=(3600.0,))
    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine, service=EMAIL, settings={"receipt_s": 3600.0})
        campaign = await mail_campaign(engine, ["a@example.com"])
        await engine.start_campaign(campaign.id)
        await _handed_over(engine, campaign)
        [spool] = await spools_of(engine.store, campaign)
        await engine.inbox.report([Report(spool_id=spool.id, result=put_off)])
        row = await the_one(engine, campaign)
        assert (row.status, row.try_done) == (TransmissionStatus.PENDING, 0)
        assert row.due_at is not None
        assert row.due_at > spool.spooled_at + timedelta(seconds=3590)
        # The campaign is over: nobody would bring it.
        await engine.stop_campaign(campaign.id)


async def test_a_journals_word_after_a_crash(tmp_path: Path) -> None:
    """What it knows as put off goes on later; what it knows as dead is closed."""
    config = config_in(tmp_path, retry=RetryConfig())
    async with running_engine(config) as engine:
        await add_provider(engine, service=EMAIL, settings={"receipt_s": 3600.0})
        campaign = await mail_campaign(engine, ["a@example.com", "b@example.com"])
        await engine.start_campaign(campaign.id)
        await _handed_over(engine, campaign)
        found = await engine.store.interrupted_spools(1, 10)
        assert found == []
        spools = {one.destination: one for one in await spools_of(engine.store, campaign)}
        one, two = spools["a@example.com"], spools["b@example.com"]
        batch = await engine.store.unreported_spools(1, one.closes_at or engine.clock(), 10)
        batch += await engine.store.unreported_spools(1, two.closes_at or engine.clock(), 10)
        by_id = {item.spool.id: item for item in batch}
        fates: dict[int, Fate] = {one.id: DEFERRED, two.id: BOUNCED}
        await recovery.settle(engine.store, config.retry, engine.clock, list(by_id.values()), fates)
        rows = {row.response: row for row in await transmissions_of(engine.store, campaign)}
        assert rows["greylisted"].due_at is not None
        assert rows["greylisted"].status is TransmissionStatus.PENDING
        assert rows["bounced"].status is TransmissionStatus.FAILED
        assert [entry[0] for entry in await listed(engine)] == ["b@example.com"]


async def test_where_the_list_cannot_be_written_the_spool_stays_open(tmp_path: Path) -> None:
    """The list first: a crash between the two leaves a spool that is reported again."""

    class Sick:
        async def suppress(self, spool_id: int, reason: str) -> None:
            await trio.lowlevel.checkpoint()
            raise OSError(spool_id, reason)

    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine, service=EMAIL, settings={"receipt_s": 3600.0})
        campaign = await mail_campaign(engine, ["a@example.com"])
        await engine.start_campaign(campaign.id)
        await _handed_over(engine, campaign)
        [spool] = await spools_of(engine.store, campaign)
        ends = await engine.store.open_spools([spool.id])
        outcomes = await recovery.conclude(
            engine.store, RetryConfig(), engine.clock, ends, {spool.id: BOUNCED}
        )
        with pytest.raises(ExceptionGroup):
            await recovery.finish(engine.store, Sick(), outcomes)
        assert await engine.store.open_spools([spool.id])


def test_a_prefix_is_for_numbers() -> None:
    provider = Provider(name="p", prefix="a@|b@")
    assert dialled(provider, EMAIL, "a@example.com") == (0, "a@example.com")
    assert dialled(provider, Service.SMS, "a@1") == (2, "b@1")
