"""Campaigns from start to end on a real store: everybody once, retries, stop and go on, limits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import trio

from engine.config import DialConfig, NodeConfig, RetryConfig
from engine.errors import NoProviderError, NotFoundError, NotReadyError
from engine.events import SpoolChanged
from engine.model import Campaign, CampaignStatus, Spool, SpoolStatus, TransmissionStatus
from gateways.loopback.script import Script
from tests.support.engine import (
    DEADLINE_S,
    add_campaign,
    add_contacts,
    add_provider,
    completed,
    config_in,
    run_to_end,
    running_engine,
    spools_of,
    transmissions_of,
)


async def test_everybody_is_dialled_once_and_the_campaign_completes(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine)
        campaign = await add_campaign(engine, 500)
        await run_to_end(engine, campaign)
        transmissions = await transmissions_of(engine.store, campaign)
        assert len({t.contact_id for t in transmissions}) == len(transmissions) == 500
        assert {t.status for t in transmissions} == {TransmissionStatus.COMPLETED}
        spools = await spools_of(engine.store, campaign)
        assert Counter(s.transmission_id for s in spools) == Counter(t.id for t in transmissions)
        assert {s.status for s in spools} == {SpoolStatus.COMPLETED}
        tally = await engine.store.campaign_tally(campaign.id)
        assert tally["dialled"] == tally["transmissions"] == tally["completed"] == 500
        stored = await engine.store.get(Campaign, campaign.id)
        assert stored is not None
        assert (stored.contact_total, stored.contact_done) == (500, 500)
        assert engine.statistics()["dispatcher"]["busy"] == 0


async def test_busy_ones_are_retried_as_often_as_allowed_and_say_why(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path), Script(busy=1.0)) as engine:
        await add_provider(engine)
        campaign = await add_campaign(engine, 20, try_allowed=3)
        await run_to_end(engine, campaign)
        for transmission in await transmissions_of(engine.store, campaign):
            assert transmission.status is TransmissionStatus.FAILED
            assert transmission.response == "busy"
            assert transmission.try_done == 3
        spools = await spools_of(engine.store, campaign)
        assert len(spools) == 60
        assert {(s.status, s.response) for s in spools} == {(SpoolStatus.FAILED, "busy")}
        assert (await engine.store.campaign_tally(campaign.id))["retries"] == 40


async def test_one_try_means_one_call(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path), Script(reject=1.0)) as engine:
        await add_provider(engine)
        campaign = await add_campaign(engine, 10)
        await run_to_end(engine, campaign)
        assert len(await spools_of(engine.store, campaign)) == 10


async def test_contacts_added_later_are_dialled_and_a_finished_campaign_takes_up_new_ones(
    tmp_path: Path,
) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine, settings={"ring_s": 0.3})
        campaign = await add_campaign(engine, 3)
        with engine.bus.subscribe(1000) as events:
            await engine.start_campaign(campaign.id)
            await add_contacts(engine.store, campaign.group_id, ["2000", "2001"])
            await completed(events, campaign)
        assert len(await spools_of(engine.store, campaign)) == 5
        await add_contacts(engine.store, campaign.group_id, ["3000"])
        await run_to_end(engine, campaign)
        assert len(await spools_of(engine.store, campaign)) == 6


async def test_a_contact_taken_out_and_put_back_is_not_dialled_twice(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine)
        campaign = await add_campaign(engine, 2)
        await run_to_end(engine, campaign)
        (first, _) = await transmissions_of(engine.store, campaign)
        assert first.contact_id is not None
        assert await engine.store.unlink(first.contact_id, campaign.group_id)
        assert await engine.store.link(first.contact_id, campaign.group_id)
        await run_to_end(engine, campaign)
        assert len(await spools_of(engine.store, campaign)) == 2


async def test_stop_lets_calls_end_and_start_goes_on_where_it_was(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path), Script(ring_s=0.05)) as engine:
        await add_provider(engine, channels=4)
        campaign = await add_campaign(engine, 40)
        with engine.bus.subscribe(1000) as events:
            await engine.start_campaign(campaign.id)
            with trio.fail_after(DEADLINE_S):
                while not isinstance(await events.get(), SpoolChanged):
                    pass
            stopped = await engine.stop_campaign(campaign.id)
        assert stopped.status is CampaignStatus.PAUSED
        assert len(await spools_of(engine.store, campaign)) < 40
        with pytest.raises(NotReadyError):
            await engine.stop_campaign(campaign.id)
        await run_to_end(engine, campaign)
        spools = await spools_of(engine.store, campaign)
        assert len({s.destination for s in spools}) == len(spools) == 40


async def test_a_stopped_campaign_stays_stopped_and_a_running_one_goes_on_after_a_restart(
    tmp_path: Path,
) -> None:
    config = config_in(tmp_path)
    async with running_engine(config, Script(ring_s=0.02)) as engine:
        await add_provider(engine, channels=2)
        running = await add_campaign(engine, 30)
        stopped = await add_campaign(engine, 30, first=5000)
        with engine.bus.subscribe(1000) as events:
            await engine.start_campaign(running.id)
            await engine.start_campaign(stopped.id)
            await engine.stop_campaign(stopped.id)
            with trio.fail_after(DEADLINE_S):
                while not isinstance(await events.get(), SpoolChanged):
                    pass
            await engine.drain()
    async with running_engine(config) as engine:
        with engine.bus.subscribe(1000) as events:
            if await _status(engine, running) is not CampaignStatus.COMPLETED:
                await completed(events, running)
        assert await _status(engine, stopped) is CampaignStatus.PAUSED
        spools = await spools_of(engine.store, running)
        assert len({s.destination for s in spools}) == len(spools) == 30


async def _status(engine: object, campaign: Campaign) -> CampaignStatus:
    stored = await engine.store.get(Campaign, campaign.id)  # type: ignore[attr-defined]
    assert stored is not None
    status: CampaignStatus = stored.status
    return status


async def test_numbers_that_cannot_be_dialled_are_closed_with_the_reason(tmp_path: Path) -> None:
    config = config_in(tmp_path, dial=DialConfig(allowed_prefixes=("49",)))
    async with running_engine(config) as engine:
        await add_provider(engine)
        campaign = await add_campaign(engine, 0)
        numbers = ["+4930", "alice", "", "1900", "0049 30"]
        await add_contacts(engine.store, campaign.group_id, numbers)
        await run_to_end(engine, campaign)
        found = Counter(
            (t.status, t.response) for t in await transmissions_of(engine.store, campaign)
        )
        assert found == {
            (TransmissionStatus.COMPLETED, "answered"): 2,
            (TransmissionStatus.INVALID, "invalid_number"): 1,
            (TransmissionStatus.INVALID, "missing_number"): 1,
            (TransmissionStatus.INVALID, "destination_not_allowed"): 1,
        }
        assert len(await spools_of(engine.store, campaign)) == 2


async def test_the_next_trunk_carries_on_within_the_same_try(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        broken = await add_provider(engine, settings={"fail": 1.0}, weight=1)
        working = await add_provider(engine, weight=20)
        campaign = await add_campaign(engine, 30)
        await run_to_end(engine, campaign)
        for transmission in await transmissions_of(engine.store, campaign):
            assert transmission.status is TransmissionStatus.COMPLETED
            assert transmission.try_done == 1
        spools = await spools_of(engine.store, campaign)
        by_provider = Counter((s.provider_id, s.status) for s in spools)
        assert by_provider[working.id, SpoolStatus.COMPLETED] == 30
        # Five failures in a row took the broken one out of use; probes may have come on top.
        assert by_provider[broken.id, SpoolStatus.FAILED] >= 5
        trunks = engine.statistics()["dispatcher"]["trunks"]
        assert trunks[broken.id]["healthy"] is False


async def test_a_broken_only_trunk_costs_a_try_and_is_probed(tmp_path: Path) -> None:
    config = config_in(tmp_path, dial=DialConfig(trunk_cooldown_s=0.05))
    async with running_engine(config) as engine:
        await add_provider(engine, settings={"fail": 1.0})
        campaign = await add_campaign(engine, 8)
        await run_to_end(engine, campaign)
        for transmission in await transmissions_of(engine.store, campaign):
            assert transmission.status is TransmissionStatus.FAILED
            assert transmission.response


async def test_two_campaigns_share_a_limited_trunk_fairly(
    tmp_path: Path,
) -> None:
    async with running_engine(config_in(tmp_path), Script(ring_s=0.05)) as engine:
        provider = await add_provider(engine, calls_per_second=50, channels=4)
        slow = await add_campaign(engine, 100, calls_per_minute=3000.0)
        quick = await add_campaign(engine, 300, first=5000, calls_per_minute=9000.0)
        with engine.bus.subscribe(100_000) as events:
            await engine.start_campaign(slow.id)
            await engine.start_campaign(quick.id)
            seen: list[SpoolChanged] = []
            with trio.fail_after(DEADLINE_S):
                while len(seen) < 160:
                    event = await events.get()
                    if isinstance(event, SpoolChanged) and event.stage == "left":
                        seen.append(event)
        shares = Counter(event.campaign_id for event in seen)
        assert shares[quick.id] / shares[slow.id] == pytest.approx(3.0, rel=0.15)
        trunk = engine.statistics()["dispatcher"]["trunks"][provider.id]
        assert trunk["channels_peak"] <= 4


async def test_the_node_limit_holds_over_all_trunks(tmp_path: Path) -> None:
    config = config_in(tmp_path, node=NodeConfig(data_dir=str(tmp_path), channels=3))
    async with running_engine(config, Script(ring_s=0.01)) as engine:
        one, two = await add_provider(engine), await add_provider(engine)
        campaign = await add_campaign(engine, 60)
        await run_to_end(engine, campaign)
        trunks = engine.statistics()["dispatcher"]["trunks"]
        assert trunks[one.id]["channels_peak"] + trunks[two.id]["channels_peak"] <= 6
        assert engine.statistics()["gateways"]["loopback"]["calls_up_peak"] <= 3
        assert {s.provider_id for s in await spools_of(engine.store, campaign)} == {one.id, two.id}


async def test_pace_may_be_changed_while_it_runs(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine)
        campaign = await add_campaign(engine, 50, calls_per_minute=1.0)
        with engine.bus.subscribe(1000) as events:
            await engine.start_campaign(campaign.id)
            stored = await engine.store.get(Campaign, campaign.id)
            assert stored is not None
            fields = {f: getattr(stored, f) for f in stored.__struct_fields__}
            await engine.store.update(Campaign(**(fields | {"calls_per_minute": 60_000.0})))
            await engine.campaign_changed(campaign.id)
            await completed(events, campaign)


async def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        with pytest.raises(NotFoundError):
            await engine.start_campaign(99)
        campaign = await add_campaign(engine, 1)
        with pytest.raises(NoProviderError):
            await engine.start_campaign(campaign.id)
        await add_provider(engine, settings={"ring_s": 5.0})
        await engine.start_campaign(campaign.id)
        with pytest.raises(NotReadyError):
            await engine.start_campaign(campaign.id)


async def test_stop_of_the_engine_hangs_up_and_records(tmp_path: Path) -> None:
    config = config_in(tmp_path, retry=RetryConfig())
    async with running_engine(config, Script(ring_s=100.0)) as engine:
        await add_provider(engine)
        campaign = await add_campaign(engine, 5)
        with engine.bus.subscribe(1000) as events:
            await engine.start_campaign(campaign.id)
            left = 0
            with trio.fail_after(DEADLINE_S):
                while left < 5:
                    event = await events.get()
                    left += isinstance(event, SpoolChanged) and event.stage == "left"
    async with running_engine(config) as engine:
        spools = await spools_of(engine.store, campaign)
        assert {(s.status, s.response) for s in spools} == {(SpoolStatus.FAILED, "cancelled")}
        assert all(isinstance(s, Spool) and s.ended_at for s in spools)
