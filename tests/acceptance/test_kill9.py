"""kill -9 of the node in the middle of a campaign, again and again; SIPp is the witness.

Over the whole run no contact is lost, nobody gets a second INVITE without a recorded reason,
nothing left the node whose intent was not durable, and no process of a killed node stays behind.
"""

from __future__ import annotations

import os
import random
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import trio

from engine import clock
from engine.config import Config, load
from engine.model import Spool, SpoolStatus, Transmission, TransmissionStatus
from engine.store import open_store
from engine.store.base import Query
from tests.acceptance.session import prepare_campaign, wait_completed
from tests.support.carrier import Carrier, carrier
from tests.support.node_process import config_text, node_process

KILLS = int(os.environ.get("OUTSPOOL_TEST_KILLS", "20"))
CONTACTS = 60 * KILLS
REASONS_TO_CALL_AGAIN = {"busy", "no_answer", "network_timeout"}


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_no_contact_is_lost_and_none_called_twice_without_a_reason(tmp_path: Path) -> None:
    config = tmp_path / "outspool.toml"
    config.write_text(config_text(tmp_path))
    dice = random.Random(KILLS)
    async with carrier(tmp_path / "sipp") as sipp, node_process(config) as node:
        async with node.client() as client:
            campaign_id = await prepare_campaign(client, sipp.port, CONTACTS)
            answer = await client.put(f"/campaigns/{campaign_id}/start")
            assert answer.status_code == 200, answer.text
        for _ in range(KILLS):
            await trio.sleep(dice.uniform(0.05, 1.0))  # the instant of the kill is the input
            await node.kill()
            await node.start()
        async with node.client() as client:
            campaign = await wait_completed(client, campaign_id)
        assert await node.terminate() == 0
    assert campaign["contact_done"] == CONTACTS
    await _agrees(load(config, {}, {}), sipp)


async def _agrees(config: Config, sipp: Carrier) -> None:
    """The store and SIPp's log tell the same story."""
    async with open_store(config, clock=clock.now) as store:
        transmissions = await store.find(Transmission, Query())
        spools = await store.find(Spool, Query())
    assert len({t.contact_id for t in transmissions}) == len(transmissions) == CONTACTS
    final = {TransmissionStatus.COMPLETED, TransmissionStatus.FAILED}
    assert {t.status for t in transmissions} <= final
    assert all(t.response for t in transmissions)
    by_call_id = {str(spool.uid): spool for spool in spools}
    called: dict[str, list[Spool]] = defaultdict(list)
    for invite in sipp.invites():
        assert invite.call_id in by_call_id, "an INVITE left before its intent was durable"
        spool = by_call_id[invite.call_id]
        assert spool.destination == invite.number
        called[invite.number].append(spool)
    for number, attempts in called.items():
        for earlier in attempts[:-1]:
            assert earlier.status is SpoolStatus.FAILED, number
            assert earlier.response in REASONS_TO_CALL_AGAIN, (number, earlier.response)
    cut = [spool for spool in spools if spool.response == "interrupted"]
    sys.stdout.write(
        f"kills {KILLS}, contacts {CONTACTS}, INVITEs {len(by_call_id)}, interrupted {len(cut)}\n"
    )
