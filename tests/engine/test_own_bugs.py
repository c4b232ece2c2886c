"""An error nobody thought of, in one campaign, task or send: it ends there, the node goes on."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from engine import clock, screening
from engine.app import Engine
from engine.events import CampaignChanged
from engine.firing import Action
from engine.gateway import Program
from engine.model import Campaign, CampaignStatus, Contact, Transmission, TransmissionStatus
from engine.store import open_store
from engine.store.base import Begun, Candidate
from engine.work import Work, prepare
from gateways.loopback.gateway import LoopbackGateway
from tests.engine.scheduling import (
    SYSTEM,
    Wall,
    administrator,
    after,
    fired,
    running,
    slow_campaign,
    transmission,
)
from tests.support import wait_until
from tests.support.engine import (
    DEADLINE_S,
    add_campaign,
    add_provider,
    config_in,
    run_to_end,
    running_engine,
    spools_of,
)


class Clumsy(Engine):
    """Makes work of no campaign."""

    async def _work(self, campaign: Campaign) -> Work:
        raise RuntimeError(f"a bug with campaign {campaign.id}")


async def test_the_node_starts_without_a_campaign_that_cannot_go_on(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with running_engine(config) as engine:
        await add_provider(engine)
        campaign = await add_campaign(engine, 100, calls_per_minute=1.0)
        await engine.start_campaign(campaign.id)
    async with open_store(config, clock=clock.now) as store, trio.open_nursery() as nursery:
        engine = Clumsy(config=config, store=store, gateways={"loopback": LoopbackGateway()})
        with trio.fail_after(DEADLINE_S):
            await nursery.start(engine.run)
        found = await store.get(Campaign, campaign.id)
        assert found is not None
        assert (engine.ready, found.status) == (True, CampaignStatus.PAUSED)
        engine.stop()


async def test_a_task_says_so_and_the_next_one_fires(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    wall = Wall(autojump_clock)
    async with running(config_in(tmp_path), wall, engine_type=Clumsy) as engine:
        await administrator(engine)
        await add_provider(engine)
        campaign, message = await slow_campaign(engine), await transmission(engine)
        await engine.schedules.run_at(SYSTEM, campaign.id, Action.START, after(10))
        await engine.schedules.send_at(SYSTEM, message.id, after(20))
        with engine.bus.subscribe(1000) as events:
            first, second = await fired(events), await fired(events)
        assert (first.done, first.note) == (False, "not done: an error of ours, see the log")
        assert second.done


async def test_a_campaign_that_breaks_is_paused_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = screening.screen

    def broken(contact: Contact, *rest: Any) -> tuple[str, str]:
        if contact.phone == "1005":
            raise RuntimeError("a bug")
        return whole(contact, *rest)

    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine)
        bad, good = await add_campaign(engine, 10), await add_campaign(engine, 10, first=2000)
        with monkeypatch.context() as patch, engine.bus.subscribe(1000) as events:
            patch.setattr(screening, "screen", broken)
            await engine.start_campaign(bad.id)
            assert await _left(events) == (bad.id, CampaignStatus.PAUSED)
            await run_to_end(engine, good)
        await run_to_end(engine, bad)
        assert len(await spools_of(engine.store, bad)) == 10


async def _left(events: Any) -> tuple[int, CampaignStatus]:
    """The next campaign that is no longer running, and what it is."""
    with trio.fail_after(DEADLINE_S):
        while True:
            event = await events.get()
            if isinstance(event, CampaignChanged) and event.status is not CampaignStatus.RUNNING:
                return event.campaign_id, event.status


class Tongue(Engine):
    """Finds no words for contact 1003."""

    async def _work(self, campaign: Campaign) -> Work:
        work = await super()._work(campaign)

        def letter(candidate: Candidate, _begun: Begun) -> Program:
            if candidate.contact.phone == "1003":
                raise RuntimeError("a bug")
            return work.program

        return msgspec.structs.replace(work, letter=letter)


async def test_words_that_cannot_be_found_cost_their_spool(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running(config_in(tmp_path), Wall(autojump_clock), engine_type=Tongue) as engine:
        await add_provider(engine)
        campaign = await add_campaign(engine, 5)
        await run_to_end(engine, campaign)
        responses = sorted(each.response for each in await spools_of(engine.store, campaign))
        assert responses == ["answered"] * 4 + ["order_error"]


async def test_a_send_that_falls_due_is_refused_and_the_next_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*given: Any, **fields: Any) -> Work:
        if fields["title"] == "bad":
            raise RuntimeError("a bug")
        return await prepare(*given, **fields)

    monkeypatch.setattr("engine.sends.prepare", broken)
    config = config_in(tmp_path)
    due: dict[str, Any] = {
        "status": TransmissionStatus.PENDING,
        "due_at": clock.now() - timedelta(seconds=1),
    }
    async with running_engine(config) as engine:
        await add_provider(engine)
        made = [await transmission(engine, title=title, **due) for title in ("bad", "good")]
    async with running_engine(config) as engine:

        async def over() -> bool:
            rows = [await engine.store.get(Transmission, row.id) for row in made]
            return [row.status for row in rows if row is not None] == [
                TransmissionStatus.INVALID,
                TransmissionStatus.COMPLETED,
            ]

        await wait_until(over, "one refused, one sent", deadline_s=DEADLINE_S)
