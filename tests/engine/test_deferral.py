"""Mails that the network puts off: by the schedule, uncounted, over restarts, at no cost."""

from __future__ import annotations

import gc
import tracemalloc
from datetime import timedelta
from pathlib import Path

import msgspec
import trio
import trio.testing

from engine.app import Engine
from engine.clock import now
from engine.config import Config
from engine.events import TransmissionEnded
from engine.gateway import Order
from engine.mail import MailForm, MailMessage
from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Contact,
    Program,
    Spool,
    SpoolStatus,
    Template,
    Transmission,
    TransmissionStatus,
)
from engine.results import Blame, ResultRow
from engine.sends import BATCH
from engine.store import open_store
from engine.store.base import Query
from tests.engine.mailing import (
    DEFERRED,
    EMAIL,
    Network,
    mail_campaign,
    the_one,
    until_pending,
    wait_for,
)
from tests.engine.scheduling import Wall
from tests.engine.test_reaper import running
from tests.support.engine import (
    add_provider,
    config_in,
    run_to_end,
    spools_of,
)


# --- put off --------------------------------------------------------------------------------------
async def test_put_off_by_the_schedule_and_uncounted(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wall, gateway = Wall(autojump_clock), Network(DEFERRED, DEFERRED)
    async with running(config_in(tmp_path), wall, gateway) as engine:
        await add_provider(engine, service=EMAIL)
        campaign = await mail_campaign(engine, ["a@example.com"])
        began = wall()
        await engine.start_campaign(campaign.id)
        for tries, least_s, most_s in ((1, 60, 65), (2, 360, 375)):
            await until_pending(engine, campaign, tries)
            row = await the_one(engine, campaign)
            assert row.due_at is not None
            assert least_s <= (row.due_at - began).total_seconds() <= most_s
            assert (row.try_done, row.response) == (0, "greylisted")
            now = await engine.store.get(Campaign, campaign.id)
            assert now is not None
            assert now.status is CampaignStatus.RUNNING
            wall.set(row.due_at)
        await wait_for(engine, campaign, CampaignStatus.COMPLETED)
        spools = await spools_of(engine.store, campaign)
        assert [one.disposition for one in spools] == ["deferred", "deferred", "answered"]
        assert [one.status for one in spools[:2]] == [SpoolStatus.FAILED] * 2
        row = await the_one(engine, campaign)
        assert (row.status, row.try_done) == (TransmissionStatus.COMPLETED, 1)
        tally = await engine.store.campaign_tally(campaign.id)
        assert (tally["dialled"], tally["retries"]) == (3, 0)


async def test_used_up_it_has_failed_and_the_policy_of_retries_holds(tmp_path: Path) -> None:
    put_off = msgspec.structs.replace(DEFERRED, later_s=(0.01,))
    gateway = Network(put_off, put_off)
    async with running(config_in(tmp_path), now, gateway) as engine:
        await add_provider(engine, service=EMAIL)
        campaign = await mail_campaign(engine, ["a@example.com"], try_allowed=2)
        await run_to_end(engine, campaign)
        spools = await spools_of(engine.store, campaign)
        assert [one.disposition for one in spools] == ["deferred", "failed", "answered"]
        assert [one.response for one in spools] == ["greylisted", "greylisted", "accepted"]
        assert [one.code for one in spools[:2]] == ["451 4.7.1"] * 2
        assert (await the_one(engine, campaign)).try_done == 2


async def test_used_up_without_another_try(tmp_path: Path) -> None:
    put_off = msgspec.structs.replace(DEFERRED, later_s=())
    async with running(config_in(tmp_path), now, Network(put_off)) as engine:
        await add_provider(engine, service=EMAIL)
        campaign = await mail_campaign(engine, ["a@example.com"])
        await run_to_end(engine, campaign)
        [spool] = await spools_of(engine.store, campaign)
        assert (spool.disposition, spool.response) == ("failed", "greylisted")
        assert (await the_one(engine, campaign)).status is TransmissionStatus.FAILED


async def test_the_next_trunk_comes_before_waiting(tmp_path: Path) -> None:
    down = msgspec.structs.replace(DEFERRED, blame=Blame.PROVIDER, cause="busy")
    assert down.trunk_failed
    gateway = Network(down, DEFERRED)
    async with running(config_in(tmp_path), now, gateway) as engine:
        for name in ("one", "two"):
            await add_provider(engine, service=EMAIL, name=name)
        campaign = await mail_campaign(engine, ["a@example.com"])
        await engine.start_campaign(campaign.id)
        await until_pending(engine, campaign, 2)
        first, second = await spools_of(engine.store, campaign)
        # What went on at once was not put off: the schedule starts with the second.
        assert (first.disposition, second.disposition) == ("failed", "deferred")
        assert first.provider_id != second.provider_id
        row = await the_one(engine, campaign)
        assert row.due_at is not None
        assert second.ended_at is not None
        assert 59 <= (row.due_at - second.ended_at).total_seconds() <= 61
        assert row.try_done == 0


async def test_a_restart_and_a_stop_keep_the_due_time(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wall, config = Wall(autojump_clock), config_in(tmp_path)
    async with running(config, wall, Network(DEFERRED)) as engine:
        await add_provider(engine, service=EMAIL)
        campaign = await mail_campaign(engine, ["a@example.com"])
        await engine.start_campaign(campaign.id)
        await until_pending(engine, campaign, 1)
        due_at = (await the_one(engine, campaign)).due_at
        await engine.stop_campaign(campaign.id)
        await engine.start_campaign(campaign.id)
        assert (await the_one(engine, campaign)).due_at == due_at
    gateway = Network(DEFERRED)
    async with running(config, wall, gateway) as engine:
        assert (await the_one(engine, campaign)).due_at == due_at
        assert due_at is not None
        assert not gateway.orders
        wall.set(due_at + timedelta(seconds=1))
        await until_pending(engine, campaign, 2)
        # It is counted over the restart: the second delay of the schedule.
        row = await the_one(engine, campaign)
        assert row.due_at is not None
        assert 290 <= (row.due_at - wall()).total_seconds() <= 300


async def test_a_single_mail_is_put_off_too(tmp_path: Path) -> None:
    again = msgspec.structs.replace(DEFERRED, later_s=(0.01, 0.01))
    async with running(config_in(tmp_path), now, Network(again, again)) as engine:
        await add_provider(engine, service=EMAIL)
        template = await engine.store.insert(Template(name="t", subject="s", body="b"))
        program = await engine.store.insert(
            Program(name="p", type="sendemail", data={"template_id": template.id})
        )
        contact = await engine.store.insert(Contact(email="a@example.com"))
        account = await engine.store.insert(Account(email="us@example.net", active=True))
        row = await engine.store.insert(
            Transmission(
                program_id=program.id, contact_id=contact.id, service=EMAIL, account_id=account.id
            )
        )
        await engine.send(row.id)

        async def done() -> bool:
            now = await engine.store.get(Transmission, row.id)
            return now is not None and now.status is TransmissionStatus.COMPLETED

        with trio.fail_after(20):
            while not await done():  # noqa: ASYNC110 - a store has no events
                await trio.sleep(0.01)
        assert len(await engine.store.find(Spool, Query())) == 3


async def _due_mails(config: Config, wall: Wall, count: int) -> None:
    """Single mails of one template whose time has come while no node was up."""
    async with open_store(config, clock=wall) as store:
        template = await store.insert(Template(name="t", subject="s", body="b"))
        data = {"template_id": template.id}
        program = await store.insert(Program(name="p", type="sendemail", data=data))
        account = await store.insert(Account(email="us@example.net", active=True))
        for number in range(count):
            contact = await store.insert(Contact(email=f"c{number}@example.com"))
            await store.insert(
                Transmission(
                    title=f"mail {number}", program_id=program.id, contact_id=contact.id,
                    service=EMAIL, account_id=account.id, due_at=wall(),
                )
            )  # fmt: skip


async def test_single_mails_that_fall_due_together_come_as_there_is_room(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    config, wall, gateway, count = config_in(tmp_path), Wall(autojump_clock), Network(), 3 * BATCH
    await _due_mails(config, wall, count)
    gateway.hold = trio.Event()
    async with running(config, wall, gateway) as engine:
        await add_provider(engine, service=EMAIL, channels=4)
        await trio.sleep(30)
        assert len(gateway.orders) == 4
        assert engine._sends is not None
        assert len(engine._sends._open) <= 4 + BATCH
        forms = {id(await _form_of(order)) for order in gateway.orders}
        assert len(forms) == 1  # what a gateway encodes once, attachments and all
        gateway.hold.set()
        with trio.fail_after(3600):
            while engine._sends._open or len(gateway.orders) < count:  # noqa: ASYNC110 - virtual
                await trio.sleep(0.1)
        titles = {row.title for row in await engine.store.find(Transmission, Query())}
    assert len({order.transmission_id for order in gateway.orders}) == len(titles) == count


async def _form_of(order: Order) -> MailForm:
    """What the program of an order shares with others."""
    kept: list[MailForm] = []

    class Reader:
        """Takes the mail, for its form."""

        async def send_mail(self, message: MailMessage) -> None:
            kept.append(message.form)

        def note(self, row: ResultRow) -> None:
            """Nobody asks."""

    await order.program(Reader())
    return kept[0]


async def test_sent_by_hand_nobody_would_bring_it_again(tmp_path: Path) -> None:
    """One more try of a campaign that is over: put off, it has failed."""
    failed = msgspec.structs.replace(DEFERRED, later_s=())
    async with running(config_in(tmp_path), now, Network(failed, DEFERRED)) as engine:
        await add_provider(engine, service=EMAIL)
        campaign = await mail_campaign(engine, ["a@example.com"])
        await run_to_end(engine, campaign)
        row = await the_one(engine, campaign)
        with engine.bus.subscribe() as events:
            await engine.send(row.id)
            while not isinstance(await events.get(), TransmissionEnded):
                pass
        row = await the_one(engine, campaign)
        assert (row.status, row.response) == (TransmissionStatus.FAILED, "greylisted")
        dispositions = [one.disposition for one in await spools_of(engine.store, campaign)]
        assert dispositions == ["failed", "failed"]


async def test_put_off_mails_cost_no_memory(tmp_path: Path) -> None:
    first, many = 2_000, 10_000
    gateway = Network()
    gateway.fates = [msgspec.structs.replace(DEFERRED, later_s=(86_400.0,))] * many
    gateway.orders = _Forgetful()
    config = config_in(tmp_path)
    async with running(config, now, gateway) as engine:
        await add_provider(engine, service=EMAIL)
        addresses = [f"c{number}@example.com" for number in range(many)]
        campaign = await mail_campaign(engine, addresses, calls_per_minute=6_000_000.0)
        await engine.start_campaign(campaign.id)
        await _put_off(engine, campaign, first)
        tracemalloc.start()
        try:
            await _put_off(engine, campaign, many)
            gc.collect()
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # Bytes a mail: not even its order is kept.
        assert kept / (many - first) < 200
        status = await engine.store.get(Campaign, campaign.id)
        assert status is not None
        assert status.status is CampaignStatus.RUNNING
        assert engine.statistics()["dispatcher"]["busy"] == 0


async def _put_off(engine: Engine, campaign: Campaign, mails: int) -> None:
    with trio.fail_after(240):
        while True:
            tally = await engine.store.campaign_tally(campaign.id)
            if tally.get("disposition:deferred", 0) >= mails:
                return
            await trio.sleep(0.1)


class _Forgetful(list[Order]):
    def append(self, _: Order) -> None:
        return
