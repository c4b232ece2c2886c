"""An SMSC that is away for longer than a message is kept in hand: nothing is lost, nothing doubled.

A whole engine with its store, the smpp gateway with its journal, and an SMSC of another make, which
is killed and started again. Its record judges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from engine import clock
from engine.app import Engine
from engine.config import Config, DialConfig, RetryConfig
from engine.model import Campaign, CampaignStatus, Program, Provider, Service, Text
from engine.model import TransmissionStatus as Status
from engine.store import open_store
from gateways.smpp.gateway import SmppGateway
from tests.gateways.smpp.desk import QUICK
from tests.support import LOCALHOST, free_port, wait_until
from tests.support.engine import (
    add_campaign,
    config_in,
    spools_of,
    transmissions_of,
)
from tests.support.smsc.peers import Smsc, node_smsc

DEADLINE_S = 60.0
PATIENCE_S = 0.3
PROBED = 8  # so many were put off: five closed the trunk, the others were probes
SOON = [0.2, 0.4] + [0.5] * 98
LONG = "A text of more than one part. " * 20


def _config(folder: Path, **dial: Any) -> Config:
    given = {"ring_timeout_s": PATIENCE_S, "trunk_cooldown_s": 0.1, **dial}
    return config_in(folder, dial=DialConfig(**given), retry=RetryConfig())


@asynccontextmanager
async def _running(config: Config) -> AsyncIterator[Engine]:
    """A node without its web; what is up at the end is cut short."""
    async with open_store(config, clock=clock.now) as store:
        engine = Engine(config=config, store=store, gateways={"smpp": SmppGateway(config)})
        async with trio.open_nursery() as nursery:
            with trio.fail_after(DEADLINE_S):
                await nursery.start(engine.run)
            try:
                yield engine
            finally:
                engine.stop()


async def _provider(engine: Engine, fields: dict[str, Any], **settings: Any) -> Provider:
    given = {**QUICK, "retry_s": SOON, **settings}
    provider = Provider(**fields, service=Service.SMS, transport="tcp", settings=given)
    stored = await engine.store.insert(provider)
    await engine.providers_changed()
    return stored


def _nobody() -> dict[str, Any]:
    """Fields of a provider where nobody listens."""
    return {"name": "dead", "type": "smpp", "host": LOCALHOST, "port": free_port(),
            "username": "u", "password": "p"}  # fmt: skip


async def _campaign(
    engine: Engine, contacts: int, text: str = "Hello", *, valid_s: int = 0
) -> Campaign:
    row = await engine.store.insert(Text(name="t", data=text, validity_s=valid_s))
    program = await engine.store.insert(Program(name="p", type="sendsms", data={"text_id": row.id}))
    return await add_campaign(
        engine, contacts, first=491700000000, program_id=program.id, calls_per_minute=60_000.0
    )


async def _until_put_off(engine: Engine, campaign: Campaign, least: int) -> None:
    async def enough() -> bool:
        tally = await engine.store.campaign_tally(campaign.id)
        return tally.get("disposition:deferred", 0) >= least

    await wait_until(enough, f"{least} put off", deadline_s=DEADLINE_S)


async def _until_over(engine: Engine, campaign: Campaign) -> None:
    async def over() -> bool:
        now = await engine.store.get(Campaign, campaign.id)
        return now is not None and now.status is CampaignStatus.COMPLETED

    await wait_until(over, "the end of the campaign", deadline_s=DEADLINE_S)


async def _assert_each_once(engine: Engine, campaign: Campaign, smsc: Smsc, contacts: int) -> None:
    """Everybody delivered, by one message, in the first try; what was put off was of no message."""
    rows = await transmissions_of(engine.store, campaign)
    told = Counter((row.status, row.response, row.try_done) for row in rows)
    assert told == {(Status.COMPLETED, "delivered", 1): contacts}
    arrived = Counter(message.destination for message in smsc.messages())
    assert (len(arrived), set(arrived.values())) == (contacts, {1})
    spools = await spools_of(engine.store, campaign)
    ends = Counter((spool.disposition, spool.response) for spool in spools)
    assert ends.keys() <= {("answered", "delivered"), ("deferred", "not_bound")}
    assert ends["answered", "delivered"] == contacts


async def test_an_outage_longer_than_the_patience_loses_nothing(tmp_path: Path) -> None:
    contacts = 200
    async with node_smsc(tmp_path / "smsc") as smsc, _running(_config(tmp_path)) as engine:
        await _provider(engine, smsc.provider)
        await smsc.wait_event("bind")
        await smsc.kill()
        campaign = await _campaign(engine, contacts)
        await engine.start_campaign(campaign.id)
        # Some that were in hand, and probes after that: the first waits are long over.
        await _until_put_off(engine, campaign, PROBED)
        stored = await engine.store.get(Campaign, campaign.id)
        assert stored is not None
        assert stored.status is CampaignStatus.RUNNING
        await smsc.start()
        await _until_over(engine, campaign)
        await _assert_each_once(engine, campaign, smsc, contacts)
        # A trunk that is down is tried by one of them at a time, whatever is due.
        spools = await spools_of(engine.store, campaign)
        assert len(spools) < 2 * contacts + PROBED


async def test_an_outage_over_a_restart_of_the_node_loses_nothing(tmp_path: Path) -> None:
    contacts, config = 100, _config(tmp_path)
    async with node_smsc(tmp_path / "smsc") as smsc:
        async with _running(config) as engine:
            await _provider(engine, smsc.provider)
            await smsc.wait_event("bind")
            await smsc.kill()
            campaign = await _campaign(engine, contacts, LONG)
            await engine.start_campaign(campaign.id)
            await _until_put_off(engine, campaign, PROBED)
        async with _running(config) as engine:
            await _until_put_off(engine, campaign, 2 * PROBED)
            await smsc.start()
            await _until_over(engine, campaign)
            rows = await transmissions_of(engine.store, campaign)
            assert Counter(row.response for row in rows) == {"delivered": contacts}
            arrived = Counter((m.destination, m.complete) for m in smsc.messages())
            assert len(arrived) == contacts
            assert set(arrived.values()) == {1}
            assert all(complete for _, complete in arrived)


async def test_the_next_trunk_comes_before_waiting(tmp_path: Path) -> None:
    contacts = 20
    async with node_smsc(tmp_path / "smsc") as smsc, _running(_config(tmp_path)) as engine:
        await _provider(engine, _nobody())
        await _provider(engine, smsc.provider)
        campaign = await _campaign(engine, contacts)
        await engine.start_campaign(campaign.id)
        await _until_over(engine, campaign)
        arrived = Counter(message.destination for message in smsc.messages())
        assert (len(arrived), set(arrived.values())) == (contacts, {1})
        spools = await spools_of(engine.store, campaign)
        ends = Counter((spool.disposition, spool.response) for spool in spools)
        assert ends.keys() == {("answered", "delivered"), ("failed", "not_bound")}
        assert {row.try_done for row in await transmissions_of(engine.store, campaign)} == {1}


async def test_beyond_its_validity_it_has_failed_and_the_campaign_ends(tmp_path: Path) -> None:
    config = _config(tmp_path, ring_timeout_s=0.05, trunk_failures_to_open=1_000)
    async with _running(config) as engine:
        await _provider(engine, _nobody(), retry_s=[0.4, 0.5, 0.2])
        campaign = await _campaign(engine, 5, valid_s=1)
        await engine.start_campaign(campaign.id)
        await _until_over(engine, campaign)
        rows = await transmissions_of(engine.store, campaign)
        told = Counter((row.status, row.response, row.try_done) for row in rows)
        assert told == {(Status.FAILED, "not_bound", 1): 5}
        spools = await spools_of(engine.store, campaign)
        # Two waits are within a second, the third is not.
        assert Counter(spool.disposition for spool in spools) == {"deferred": 10, "failed": 5}
        assert await engine.store.next_due_at(campaign.id) is None
