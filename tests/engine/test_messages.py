"""Short messages: handed over, waited for, reported; nothing lost and nothing sent twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import trio

from engine.app import Engine
from engine.auth import ROLES, Principal
from engine.bus import Subscription
from engine.config import Config, ReaperConfig, RetryConfig
from engine.errors import NotFoundError, NotReadyError
from engine.events import SpoolChanged, TransmissionEnded
from engine.gateway import Order, Progress, Report, TextKind, TextMessage
from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Contact,
    Service,
    Spool,
    SpoolResult,
    SpoolStatus,
    Text,
    Transmission,
    TransmissionStatus,
)
from engine.results import Awaiting, Blame, Disposition, Fate, Reached, Result, ResultRow
from engine.store import open_store
from engine.store.base import Condition, Op, Query
from gateways.loopback.gateway import LoopbackGateway
from tests.support.engine import (
    DEADLINE_S,
    add_provider,
    completed,
    config_in,
    run_to_end,
    running_engine,
    spools_of,
    transmissions_of,
)
from tests.support.messages import add_sms, add_sms_campaign, add_sms_provider

COMPLETED, FAILED = TransmissionStatus.COMPLETED, TransmissionStatus.FAILED
ADMIN = Principal(user_id=1, username="admin", permissions=ROLES["user"] | ROLES["admin"])
FAR = timedelta(hours=1)

DELIVERED = Result(
    disposition=Disposition.ANSWERED,
    cause="delivered",
    blame=Blame.NOBODY,
    reached=Reached.PERSON,
    rows=(ResultRow("sms", "stat", "DELIVRD"),),
)
UNDELIVERED = Result(
    disposition=Disposition.FAILED,
    cause="undelivered",
    blame=Blame.NETWORK,
    reached=Reached.NETWORK,
)
RESENT = Result(
    disposition=Disposition.INTERRUPTED,
    cause="resent",
    blame=Blame.NETWORK,
    reached=Reached.PERSON,
    again=True,
)
NOT_SENT = msgspec.structs.replace(RESENT, cause="not_sent", reached=Reached.NOTHING)


class Recorded:
    """A messenger that keeps the text."""

    def __init__(self) -> None:
        self.texts: list[TextMessage] = []

    async def send_text(self, message: TextMessage) -> None:
        self.texts.append(message)
        await trio.lowlevel.checkpoint()

    def note(self, row: ResultRow) -> None:
        raise AssertionError(row)


class Carrier(LoopbackGateway):
    """Takes every message and reports none by itself; a test says what becomes of them."""

    def __init__(
        self,
        fate: Callable[[Order], Fate] | None = None,
        recalls: Callable[[Spool], Fate | None] | None = None,
    ) -> None:
        super().__init__()
        self.orders: list[Order] = []
        self.texts: list[TextMessage] = []
        self.recalled: list[int] = []
        self.held: trio.Event | None = None
        self._came = trio.Event()
        self._fate = fate or taken
        self._recalls = recalls

    async def deliver(self, order: Order, progress: Progress) -> Fate:
        messenger = Recorded()
        await order.program(messenger)
        self.orders.append(order)
        self.texts += messenger.texts
        self._came.set()
        self._came = trio.Event()
        if self.held is not None:
            await self.held.wait()
        return self._fate(order)

    async def seen(self, count: int) -> list[Order]:
        """The orders, once so many have come."""
        with trio.fail_after(DEADLINE_S):
            while len(self.orders) < count:
                await self._came.wait()
        return self.orders

    async def recall(self, spools: Sequence[Spool]) -> Mapping[int, Fate]:
        self.recalled += [spool.id for spool in spools]
        await trio.lowlevel.checkpoint()
        found = {spool.id: self._recalls(spool) for spool in spools} if self._recalls else {}
        return {key: fate for key, fate in found.items() if fate is not None}


def taken(order: Order) -> Awaiting:
    """Accepted now, its receipt is waited for an hour."""
    now = datetime.now(UTC)
    rows = (ResultRow("sms", "message_id", f"m{order.spool_id}"),)
    return Awaiting(accepted_at=now, closes_at=now + FAR, code="0", rows=rows)


@asynccontextmanager
async def node(config: Config, carrier: Carrier) -> AsyncIterator[Engine]:
    """An engine whose only gateway is the carrier."""
    async with open_store(config) as store, trio.open_nursery() as nursery:
        engine = Engine(config=config, store=store, gateways={"loopback": carrier})
        with trio.fail_after(DEADLINE_S):
            await nursery.start(engine.run)
        try:
            yield engine
        finally:
            engine.stop()


async def report(engine: Engine, *results: tuple[int, Result]) -> None:
    await engine.inbox.report([Report(spool_id=key, result=one) for key, one in results])


async def spool_of(engine: Engine, spool_id: int) -> Spool:
    found = await engine.store.get(Spool, spool_id)
    assert found is not None
    return found


async def rows_of(engine: Engine, spool_id: int) -> Counter[tuple[str, str]]:
    mine = Query(conditions=(Condition("spool_id", Op.EQ, spool_id),))
    return Counter((row.name, row.data) for row in await engine.store.find(SpoolResult, mine))


async def ended(events: Subscription, transmission_id: int) -> TransmissionEnded:
    with trio.fail_after(DEADLINE_S):
        while True:
            event = await events.get()
            if isinstance(event, TransmissionEnded) and event.transmission_id == transmission_id:
                return event


async def connected(events: Subscription, count: int) -> list[int]:
    """The spools of the next so many that were handed over."""
    found: list[int] = []
    with trio.fail_after(DEADLINE_S):
        while len(found) < count:
            event = await events.get()
            if isinstance(event, SpoolChanged) and event.status is SpoolStatus.CONNECTED:
                found.append(event.spool_id)
    return found


async def test_a_campaign_ends_with_its_last_receipt(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_sms_provider(engine, receipt_s=[0.0, 0.05], undelivered=0.2)
        campaign = await add_sms_campaign(engine, 300)
        await run_to_end(engine, campaign)
        spools = await spools_of(engine.store, campaign)
        causes = Counter(spool.response for spool in spools)
        assert len(spools) == 300 == causes["delivered"] + causes["undelivered"]
        assert causes["undelivered"] > 0
        tally = await engine.store.campaign_tally(campaign.id)
        assert (tally["completed"], tally["failed"]) == (causes["delivered"], causes["undelivered"])
        assert (tally["processing"], tally["dialled"]) == (0, 300)
        statistics = engine.statistics()["dispatcher"]
        assert statistics["spools_handed_over"] == statistics["spools_reported"] == 300
        assert (statistics["spools_up"], statistics["busy"]) == (0, 0)


async def test_without_receipts_the_acceptance_is_the_end(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_sms_provider(engine)
        campaign = await add_sms_campaign(engine, 3)
        await run_to_end(engine, campaign)
        spools = await spools_of(engine.store, campaign)
        assert {spool.response for spool in spools} == {"accepted"}
        assert all(spool.closes_at is None for spool in spools)


async def test_a_message_that_waits_holds_no_channel_and_no_job(tmp_path: Path) -> None:
    carrier = Carrier()
    async with node(config_in(tmp_path), carrier) as engine:
        await add_provider(engine, service=Service.SMS, channels=2)
        campaign = await add_sms_campaign(engine, 50)
        with engine.bus.subscribe(10_000) as events:
            await engine.start_campaign(campaign.id)
            keys = await connected(events, 50)
            (trunk,) = engine.statistics()["dispatcher"]["trunks"].values()
            assert trunk["channels_in_use"] == 0
            assert engine.statistics()["dispatcher"]["busy"] == 0
            waiting = await spool_of(engine, keys[0])
            assert waiting.status is SpoolStatus.CONNECTED
            assert waiting.closes_at is not None
            assert (await engine.store.campaign_tally(campaign.id))["processing"] == 50
            await report(engine, *[(key, DELIVERED) for key in keys[:-1]])
            running = await engine.store.get(Campaign, campaign.id)
            assert running is not None
            assert running.status is CampaignStatus.RUNNING
            await report(engine, (keys[-1], DELIVERED))
            await completed(events, campaign)


async def test_every_contact_gets_its_own_words(tmp_path: Path) -> None:
    carrier = Carrier()
    async with node(config_in(tmp_path), carrier) as engine:
        await add_sms_provider(engine)
        account = await engine.store.insert(Account(phone="4711", settings={"sender_id": "ACME"}))
        campaign = await add_sms_campaign(engine, 3, account_id=account.id)
        text = (await engine.store.find(Text, Query()))[0]
        words = "[contact:phone] [account:phone] [transmission:title] [transmission:spool:spool_id]"
        await engine.store.update(
            msgspec.structs.replace(text, data=words, type="unicode", flash=True, validity_s=60.0)
        )
        with engine.bus.subscribe(1000) as events:
            await engine.start_campaign(campaign.id)
            await connected(events, 3)
        said = {
            order.destination: text
            for order, text in zip(carrier.orders, carrier.texts, strict=True)
        }
        for order in carrier.orders:
            assert said[order.destination] == TextMessage(
                text=f"{order.destination} 4711 hello {order.spool_id}",
                kind=TextKind.UNICODE,
                flash=True,
                validity_s=60.0,
            )
        assert {order.caller_id for order in carrier.orders} == {"ACME"}


async def test_a_program_without_its_text_is_not_started(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_sms_provider(engine)
        message = await add_sms(engine)
        text = (await engine.store.find(Text, Query()))[0]
        await engine.store.delete(Text, text.id)
        with pytest.raises(NotFoundError, match="Text not found"):
            await engine.send(message.id)


@pytest.mark.parametrize(
    ("result", "status", "spool_status"),
    [(DELIVERED, COMPLETED, SpoolStatus.COMPLETED), (UNDELIVERED, FAILED, SpoolStatus.FAILED)],
)
async def test_a_report_closes_the_spool_once(
    tmp_path: Path, result: Result, status: TransmissionStatus, spool_status: SpoolStatus
) -> None:
    async with node(config_in(tmp_path), Carrier()) as engine:
        await add_sms_provider(engine)
        message = await add_sms(engine)
        with engine.bus.subscribe(100) as events:
            key = await engine.send(message.id)
            assert await connected(events, 1) == [key]
            other = DELIVERED if result is UNDELIVERED else UNDELIVERED
            await report(engine, (key, result), (key, other), (key + 999, result))
            assert (await ended(events, message.id)).response == result.cause
            await report(engine, (key, other))
        spool = await spool_of(engine, key)
        assert (spool.status, spool.response) == (spool_status, result.cause)
        assert (await rows_of(engine, key))["message_id", f"m{key}"] == 1
        stored = await engine.store.get(Transmission, message.id)
        assert stored is not None
        assert (stored.status, stored.try_done) == (status, 1)


async def test_a_report_that_is_quicker_than_the_acceptance_is_kept(tmp_path: Path) -> None:
    carrier = Carrier()
    carrier.held = trio.Event()
    async with node(config_in(tmp_path), carrier) as engine:
        await add_sms_provider(engine)
        message = await add_sms(engine)
        with engine.bus.subscribe(100) as events:
            key = await engine.send(message.id)
            await carrier.seen(1)
            await report(engine, (key, DELIVERED))
            before = await spool_of(engine, key)
            carrier.held.set()
            await connected(events, 1)
        assert await spool_of(engine, key) == before
        assert before.status is SpoolStatus.COMPLETED
        assert engine.statistics()["dispatcher"]["spools_up"] == 0


async def test_an_undelivered_message_is_tried_again_by_policy(tmp_path: Path) -> None:
    async with node(config_in(tmp_path), carrier := Carrier()) as engine:
        await add_sms_provider(engine)
        campaign = await add_sms_campaign(engine, 1, try_allowed=2)
        with engine.bus.subscribe(100) as events:
            await engine.start_campaign(campaign.id)
            [first] = await connected(events, 1)
            await report(engine, (first, UNDELIVERED))
            [second] = await connected(events, 1)
            await report(engine, (second, DELIVERED))
            await completed(events, campaign)
        [transmission] = await transmissions_of(engine.store, campaign)
        assert (transmission.status, transmission.try_done) == (COMPLETED, 2)
        assert len(carrier.orders) == 2
        tally = await engine.store.campaign_tally(campaign.id)
        assert (tally["retries"], tally["dialled"]) == (1, 2)


async def test_a_message_sent_again_is_the_same_try(tmp_path: Path) -> None:
    async with node(config_in(tmp_path), Carrier()) as engine:
        await add_sms_provider(engine)
        campaign = await add_sms_campaign(engine, 1)
        with engine.bus.subscribe(100) as events:
            await engine.start_campaign(campaign.id)
            [first] = await connected(events, 1)
            await report(engine, (first, RESENT))
            [second] = await connected(events, 1)
            await report(engine, (second, DELIVERED))
            await completed(events, campaign)
        [transmission] = await transmissions_of(engine.store, campaign)
        assert (transmission.status, transmission.try_done) == (COMPLETED, 1)
        assert (await engine.store.campaign_tally(campaign.id))["retries"] == 0


@pytest.mark.parametrize(("result", "orders"), [(RESENT, 6), (NOT_SENT, 101)])
async def test_what_is_sent_again_and_again_fails_at_last(
    tmp_path: Path, result: Result, orders: int
) -> None:
    carrier = Carrier(lambda _: result)
    async with node(config_in(tmp_path), carrier) as engine:
        await add_sms_provider(engine)
        campaign = await add_sms_campaign(engine, 1)
        await run_to_end(engine, campaign)
        [transmission] = await transmissions_of(engine.store, campaign)
        assert (transmission.status, transmission.response) == (FAILED, result.cause)
        assert len(carrier.orders) == orders


@pytest.mark.parametrize("unknown", [False, True])
async def test_after_a_restart_the_journal_is_asked(tmp_path: Path, *, unknown: bool) -> None:
    """A message cut short goes on waiting; one that never left goes out."""
    config, carrier = config_in(tmp_path), Carrier()
    carrier.held = trio.Event()
    async with node(config, carrier) as engine:
        await add_sms_provider(engine)
        campaign = await add_sms_campaign(engine, 4)
        await engine.start_campaign(campaign.id)
        await carrier.seen(4)
    sent, lost, delivered, nobody = (order.spool_id for order in carrier.orders)
    now = datetime.now(UTC)
    fates: dict[int, Fate] = {
        sent: Awaiting(accepted_at=None if unknown else now, closes_at=now + FAR),
        lost: NOT_SENT,
        delivered: DELIVERED,
    }
    after = Carrier(recalls=lambda spool: fates.get(spool.id))
    async with node(config, after) as engine:
        with engine.bus.subscribe(1000) as events:
            assert set(after.recalled) == {sent, lost, delivered, nobody}
            waiting = await spool_of(engine, sent)
            expected = SpoolStatus.INITIATED if unknown else SpoolStatus.CONNECTED
            assert (waiting.status, waiting.closes_at) == (expected, now + FAR)
            assert (await spool_of(engine, delivered)).response == "delivered"
            assert (await spool_of(engine, nobody)).response == "interrupted"
            [again] = await after.seen(1)
            await report(engine, (sent, DELIVERED), (again.spool_id, DELIVERED))
            await completed(events, campaign)
        rows = await transmissions_of(engine.store, campaign)
        assert Counter(row.response for row in rows) == {"delivered": 3, "interrupted": 1}
        assert {row.try_done for row in rows} == {1}
        assert len(await spools_of(engine.store, campaign)) == 5


async def test_waiting_survives_a_restart_and_a_stop(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with node(config, Carrier()) as engine:
        await add_sms_provider(engine)
        campaign = await add_sms_campaign(engine, 3)
        with engine.bus.subscribe(100) as events:
            await engine.start_campaign(campaign.id)
            keys = await connected(events, 3)
        await engine.stop_campaign(campaign.id)
        await report(engine, (keys[0], DELIVERED))
    async with node(config, after := Carrier()) as engine:
        assert after.recalled == []
        with engine.bus.subscribe(100) as events:
            await engine.start_campaign(campaign.id)
            await report(engine, (keys[1], DELIVERED), (keys[2], UNDELIVERED))
            await completed(events, campaign)
        assert after.orders == []
        tally = await engine.store.campaign_tally(campaign.id)
        assert (tally["completed"], tally["failed"], tally["processing"]) == (2, 1, 0)


async def test_what_is_never_reported_fails_with_its_reason(tmp_path: Path) -> None:
    reaper = ReaperConfig(interval_s=0.05, grace_s=0.0)
    retry = RetryConfig(interrupted=True, failed_delay_s=0.0)
    async with running_engine(config_in(tmp_path, reaper=reaper, retry=retry)) as engine:
        await add_sms_provider(engine, receipt_s=0.0, silent=1.0, receipt_wait_s=0.1)
        campaign = await add_sms_campaign(engine, 5, try_allowed=3)
        await run_to_end(engine, campaign)
        spools = await spools_of(engine.store, campaign)
        assert Counter(spool.response for spool in spools) == {"no_receipt": 5}
        assert engine.statistics()["reaper"]["unreported"] == 5


async def test_a_contact_may_go_while_its_message_waits(tmp_path: Path) -> None:
    """Its report still ends the message, and there is nobody to try again."""
    carrier = Carrier()
    async with node(config_in(tmp_path), carrier) as engine:
        await add_sms_provider(engine)
        campaign = await add_sms_campaign(engine, 1, try_allowed=5)
        [contact] = await engine.store.find(Contact, Query())
        carrier.held = trio.Event()
        with engine.bus.subscribe(100) as events:
            await engine.start_campaign(campaign.id)
            await carrier.seen(1)
            with pytest.raises(NotReadyError, match="in process"):
                await engine.catalog.delete(ADMIN, Contact, contact.id)
            carrier.held.set()
            [key] = await connected(events, 1)
            await engine.catalog.delete(ADMIN, Contact, contact.id)
            await report(engine, (key, UNDELIVERED))
            await completed(events, campaign)
        [transmission] = await transmissions_of(engine.store, campaign)
        assert (transmission.status, transmission.contact_id) == (FAILED, None)
