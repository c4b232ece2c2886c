"""kill -9 of the node, and of the SMSC, in the middle of a campaign; the SMSC's record judges.

Nobody gets a message twice, every contact ends, and one that nobody can tell about says so.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
import trio

from tests.acceptance import sms_campaign as sms
from tests.support.node_process import config_text, node_process
from tests.support.smsc.peers import Message, Smsc, node_smsc

KILLS = int(os.environ.get("OUTSPOOL_TEST_SMS_KILLS", "10"))
CONTACTS = 300 * KILLS
SETTLED = {("completed", "delivered"), ("failed", "unknown")}
UNKNOWN_WAIT_S = 10.0  # of being bound: long enough for the receipts of a whole window
PACE_CPM = 60_000
OUTAGE_S = 60.0  # no outage of the test lasts as long: nothing may fail for want of a bind

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


async def test_our_kill_9_loses_no_message_and_doubles_none(tmp_path: Path) -> None:
    who, dice = sms.people(CONTACTS), random.Random(KILLS)
    config = tmp_path / "outspool.toml"
    config.write_text(config_text(tmp_path, dial={"ring_timeout_s": OUTAGE_S}))
    async with node_smsc(tmp_path / "smsc") as smsc, node_process(config) as node:
        async with node.client() as client:
            await sms.provider(client, smsc, unknown_wait_s=UNKNOWN_WAIT_S, reconnect_min_s=0.1)
            campaign_id = await sms.campaign(client, who, sms.SHORT_TEXT, cpm=PACE_CPM)
            await sms.start(client, campaign_id)
        for _ in range(KILLS):
            await trio.sleep(dice.uniform(0.05, 0.5))  # the instant of the kill is the input
            await node.kill()
            await node.start()
        async with node.client() as client:
            found = await sms.outcome(client, campaign_id)
        assert await node.terminate() == 0
        _agrees(found, smsc, who)


async def test_the_smscs_kill_9_loses_no_message_and_doubles_none(tmp_path: Path) -> None:
    who, dice = sms.people(CONTACTS), random.Random(KILLS)
    config = tmp_path / "outspool.toml"
    config.write_text(config_text(tmp_path, dial={"ring_timeout_s": OUTAGE_S}))
    async with node_smsc(tmp_path / "smsc") as smsc, node_process(config) as node:
        async with node.client() as client:
            await sms.provider(client, smsc, unknown_wait_s=UNKNOWN_WAIT_S, reconnect_min_s=0.1)
            campaign_id = await sms.campaign(client, who, sms.SHORT_TEXT, cpm=PACE_CPM)
            await sms.start(client, campaign_id)
            for _ in range(KILLS):
                await trio.sleep(dice.uniform(0.05, 0.5))  # the instant of the kill is the input
                await smsc.restart()
            found = await sms.outcome(client, campaign_id)
        assert await node.terminate() == 0
        _agrees(found, smsc, who)


def _agrees(found: sms.Outcome, smsc: Smsc, who: list[sms.Person]) -> None:
    """Each contact once at the SMSC and delivered, or unknown; nothing else."""
    assert len(found.transmissions) == len(who)
    assert set(found.responses) <= SETTLED, found.responses
    messages = smsc.messages()
    doubled = {number: n for number, n in _whole(messages).items() if n > 1}
    assert not doubled
    arrived = {message.destination: message.text for message in messages if message.complete}
    wanted = {person.phone: person.text(sms.SHORT_TEXT) for person in who}
    assert arrived.items() <= wanted.items()
    spools = found.last_spools
    delivered = {number for number, spool in spools.items() if spool["response"] == "delivered"}
    assert delivered <= arrived.keys(), "called delivered, and never came"
    assert arrived.keys() <= delivered, "came, its receipt too, and called unknown"
    missing = wanted.keys() - arrived.keys()
    assert all(spools[number]["response"] == "unknown" for number in missing)
    sys.stdout.write(
        f"kills {KILLS}, contacts {len(who)}, at the SMSC {len(arrived)}, "
        f"unknown {len(wanted) - len(delivered)}\n"
    )


def _whole(messages: list[Message]) -> Counter[str]:
    return Counter(message.destination for message in messages)
