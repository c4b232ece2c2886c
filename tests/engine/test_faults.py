"""What a crash left behind, a store that refuses, a gateway that breaks: nothing lost, all said."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import trio

from engine import clock
from engine.app import Engine
from engine.config import RetryConfig
from engine.events import StoreHealth, TransmissionEnded
from engine.gateway import Order, Progress
from engine.model import (
    Campaign,
    CampaignStatus,
    Contact,
    Group,
    Service,
    SpoolStatus,
    Transmission,
    TransmissionStatus,
)
from engine.results import Fate
from engine.store import open_store
from engine.store.base import Condition, Intent, Op, Query, Store
from gateways.loopback.gateway import LoopbackGateway
from gateways.loopback.script import Script
from tests.support import wait_until
from tests.support.engine import (
    DEADLINE_S,
    add_campaign,
    add_contacts,
    add_program,
    add_provider,
    completed,
    config_in,
    run_to_end,
    running_engine,
    spools_of,
    transmissions_of,
)


async def _crashed_campaign(store: Store, try_allowed: int) -> Campaign:
    """A running campaign of three contacts; the first one's spool has an intent and no result."""
    program = await add_program(store)
    group = await store.insert(Group(name="people"))
    await add_contacts(store, group.id, ["100", "101", "102"])
    campaign = await store.insert(
        Campaign(
            program_id=program.id,
            group_id=group.id,
            calls_per_minute=60_000.0,
            try_allowed=try_allowed,
        )
    )
    await store.set_campaign_status(campaign.id, CampaignStatus.RUNNING, clock.now())
    (first, *_) = await store.new_candidates(campaign.id, group.id, 0, 10)
    intent = Intent(
        uid=uuid4(),
        at=clock.now(),
        service=Service.VOICE,
        destination="100",
        provider_id=None,
        account_id=None,
        contact_id=first.contact.id,
        program_id=program.id,
        owner_id=None,
        campaign_id=campaign.id,
        link_id=first.link_id,
        try_allowed=try_allowed,
    )
    (begun,) = await store.begin_spools([intent])
    assert begun is not None
    return campaign


@pytest.mark.parametrize("redial", [False, True])
async def test_after_a_crash_the_campaign_goes_on_and_the_open_call_is_named_interrupted(
    tmp_path: Path, *, redial: bool
) -> None:
    retry = RetryConfig(interrupted=redial, interrupted_delay_s=0.01)
    config = config_in(tmp_path, retry=retry)
    async with open_store(config, clock=clock.now) as store:
        campaign = await _crashed_campaign(store, try_allowed=2)
    # The provider must be there before the engine goes on by itself.
    async with running_engine(config) as engine:
        with engine.bus.subscribe(1000) as events:
            await add_provider(engine)
            await completed(events, campaign)
        by_number = {s.destination: s for s in await spools_of(engine.store, campaign)}
        spools = await spools_of(engine.store, campaign)
        assert len(spools) == 4 if redial else 3
        assert set(by_number) == {"100", "101", "102"}
        interrupted = spools[0]
        assert (interrupted.status, interrupted.response) == (SpoolStatus.FAILED, "interrupted")
        statuses = [t.status for t in await transmissions_of(engine.store, campaign)]
        assert statuses.count(TransmissionStatus.FAILED) == (0 if redial else 1)


async def test_recovery_happens_once(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with open_store(config, clock=clock.now) as store:
        campaign = await _crashed_campaign(store, try_allowed=1)
    for _ in range(2):
        async with running_engine(config) as engine:
            assert (await engine.store.campaign_tally(campaign.id))["response:interrupted"] == 1


@contextmanager
def _full_disk(largest_file: int) -> Iterator[None]:
    """No file may grow beyond ``largest_file`` bytes: SQLite sees a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_stops_the_dialling_loses_nothing_and_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    async with running_engine(config_in(tmp_path), Script(ring_s=0.01)) as engine:
        await add_provider(engine, channels=5)
        campaign = await add_campaign(engine, 300, calls_per_minute=60_000.0)
        with engine.bus.subscribe(100_000) as events:
            with _full_disk(1):
                # Starting is a write too; it is refused and nothing is running.
                with pytest.raises(Exception, match=r".") as refusal:
                    await engine.start_campaign(campaign.id)
                assert type(refusal.value).__name__ == "UnavailableError"
            await engine.start_campaign(campaign.id)
            with _full_disk(1), trio.fail_after(DEADLINE_S):
                while not isinstance(event := await events.get(), StoreHealth):
                    pass
                assert not event.writable
                assert engine.health()["store"] != "ok"
            await completed(events, campaign)
        assert engine.health()["store"] == "ok"
        transmissions = await transmissions_of(engine.store, campaign)
        assert {t.status for t in transmissions} == {TransmissionStatus.COMPLETED}
        spools = await spools_of(engine.store, campaign)
        assert len({s.destination for s in spools}) == len(spools) == 300


async def _refused_once(engine: Engine) -> None:
    async def refused() -> bool:
        return not engine.store.statistics()["writable"]

    await wait_until(refused, "the store refuses a write")


async def test_a_campaign_that_ends_on_a_full_disk_is_completed_when_there_is_room(
    tmp_path: Path,
) -> None:
    async with running_engine(config_in(tmp_path), Script(ring_s=0.2)) as engine:
        await add_provider(engine)
        campaign = await add_campaign(engine, 1)
        with engine.bus.subscribe(1000) as events:
            await engine.start_campaign(campaign.id)
            async with engine._verbs:  # the campaign's end waits for us, on a disk with room
                with trio.fail_after(DEADLINE_S):
                    while not isinstance(await events.get(), TransmissionEnded):
                        pass
                soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
            try:
                await _refused_once(engine)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            await completed(events, campaign)


async def test_a_retry_that_falls_due_on_a_full_disk_is_dealt_with_when_there_is_room(
    tmp_path: Path,
) -> None:
    config = config_in(tmp_path, retry=RetryConfig(busy_delay_s=0.5))
    async with running_engine(config, Script(busy=1.0)) as engine:
        await add_provider(engine)
        contact = await engine.store.insert(Contact(phone="4930"))
        program = await add_program(engine.store)
        transmission = await engine.store.insert(
            Transmission(program_id=program.id, contact_id=contact.id, try_allowed=2)
        )
        with engine.bus.subscribe(1000) as events:
            await engine.send(transmission.id)
            with trio.fail_after(DEADLINE_S):
                while getattr(await events.get(), "status", "") != SpoolStatus.FAILED:
                    pass
        await engine.store.update(Contact(id=contact.id, phone="nobody"))
        with _full_disk(1):
            await _refused_once(engine)

        async def closed() -> bool:
            stored = await engine.store.get(Transmission, transmission.id)
            return stored is not None and stored.status is TransmissionStatus.INVALID

        await wait_until(closed, "the retry is closed")
        stored = await engine.store.get(Transmission, transmission.id)
        assert stored is not None
        assert stored.response == "invalid_number"


class BrokenGateway(LoopbackGateway):
    """Every second delivery raises: a bug in a gateway."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    async def deliver(self, order: Order, progress: Progress) -> Fate:
        self.calls += 1
        if self.calls % 2:
            raise RuntimeError("a bug")
        return await super().deliver(order, progress)


async def test_a_bug_in_a_gateway_costs_its_call_and_nothing_else(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with running_engine(config) as engine:
        gateway = BrokenGateway()
        engine._gateways["loopback"] = gateway  # type: ignore[index]
        await add_provider(engine)
        campaign = await add_campaign(engine, 10, try_allowed=3)
        await run_to_end(engine, campaign)
        condition = Condition("campaign_id", Op.EQ, campaign.id)
        found = await engine.store.find(Transmission, Query(conditions=(condition,)))
        responses = sorted(t.response for t in found)
        assert responses == ["answered"] * 5 + ["gateway_error"] * 5
        # It may have reached a person: not redialled although tries were left.
        assert gateway.calls == 10
