"""kill -9 of the node, and of Postfix, in the middle of a campaign; Postfix's mailbox judges.

Every contact ends; nobody gets a second mail that is not marked; what is called accepted came.
"""

from __future__ import annotations

import os
import random
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

import httpx
import pytest
import trio

from tests.acceptance import mail_campaign as mail
from tests.acceptance.sms_campaign import Outcome
from tests.support.mail.maildir import Arrived
from tests.support.mail.postfix import Postfix, postfix
from tests.support.node_process import node_process

KILLS = int(os.environ.get("OUTSPOOL_TEST_MAIL_KILLS", "5"))
CONTACTS = 150 * KILLS
PACE_CPM = 60_000
SETTINGS = {"retry_s": [1.0] * 90}
ACCEPTED, UNKNOWN = ("completed", "accepted"), ("failed", "unknown")
_QUEUE_ID = re.compile(rb"\bid ([0-9A-Za-z]+)")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


async def _begun(
    client: httpx.AsyncClient, mta: Postfix, who: list[mail.Person], unknown: str
) -> int:
    given = {**SETTINGS, "unknown": unknown}
    await mail.provider(client, mta.port, **given)
    campaign_id = await mail.campaign(
        client, who, await mail.template(client), await mail.account(client), cpm=PACE_CPM
    )
    await mail.start(client, campaign_id)
    return campaign_id


@pytest.mark.parametrize("unknown", ["at_most_once", "at_least_once"])
async def test_our_kill_9_loses_no_mail_and_doubles_none_unmarked(
    tmp_path: Path, unknown: str
) -> None:
    who, dice = mail.people(CONTACTS), random.Random(KILLS)
    async with (
        postfix(tmp_path / "mta") as mta,
        node_process(mail.config(tmp_path, mta)) as node,
    ):
        async with node.client() as client:
            campaign_id = await _begun(client, mta, who, unknown)
        for _ in range(KILLS):
            await _midway(mta, dice)
            await node.kill()
            await node.start()
        async with node.client() as client:
            found = await mail.outcome(client, campaign_id)
            await mta.queue_empty()
            await _agrees(client, found, await mta.messages(), who, unknown)
        assert await node.terminate() == 0


async def test_postfixs_kill_9_loses_no_mail_and_doubles_none(tmp_path: Path) -> None:
    who, dice = mail.people(CONTACTS), random.Random(KILLS)
    async with (
        postfix(tmp_path / "mta") as mta,
        node_process(mail.config(tmp_path, mta)) as node,
    ):
        async with node.client() as client:
            campaign_id = await _begun(client, mta, who, "at_most_once")
            for _ in range(KILLS):
                await _midway(mta, dice)
                await mta.restart()
            found = await mail.outcome(client, campaign_id)
            await mta.queue_empty(deadline_s=300)
            await _agrees(client, found, await mta.messages(), who, "at_most_once")
        assert await node.terminate() == 0


async def _midway(mta: Postfix, dice: random.Random) -> None:
    """Some more mails, and a moment: the instant of the kill is the input."""
    await mta.wait_more(dice.randint(50, 120))
    await trio.sleep(dice.uniform(0.0, 0.1))


async def _agrees(
    client: httpx.AsyncClient,
    found: Outcome,
    mails: list[Arrived],
    who: list[mail.Person],
    unknown: str,
) -> None:
    assert len(found.transmissions) == len(who)
    assert set(found.responses) <= {ACCEPTED, UNKNOWN}, found.responses
    times = Counter({address: len(ids) for address, ids in _taken(mails).items()})
    doubled = {address for address, n in times.items() if n > 1}
    wanted = {person.email for person in who}
    assert times.keys() <= wanted
    spools = found.last_spools
    accepted = {address for address, s in spools.items() if s["response"] == "accepted"}
    assert accepted <= times.keys(), "called accepted, and never came"
    missing = wanted - times.keys()
    assert all(spools[address]["response"] == "unknown" for address in missing)
    if unknown == "at_most_once":
        assert not doubled
    else:
        assert not missing
        marked = await _marked(client, found, doubled)
        assert doubled == marked, "doubled and not marked"
    sys.stdout.write(
        f"kills {KILLS}, contacts {len(who)}, arrived {len(times)}, doubled {len(doubled)}, "
        f"unknown {len(wanted - accepted)}\n"
    )


def _taken(mails: list[Arrived]) -> dict[str, set[bytes]]:
    """Postfix's queue ids by recipient: a mail that it delivers twice itself it took once."""
    found: defaultdict[str, set[bytes]] = defaultdict(set)
    for one in mails:
        match = _QUEUE_ID.search(one.raw)
        assert match, one.raw[:200]
        found[one.recipient].add(match[1])
    return found


async def _marked(client: httpx.AsyncClient, found: Outcome, addresses: set[str]) -> set[str]:
    """Which of them have a spool that says it may be a double."""
    marked = set()
    for spool in found.spools:
        if spool["destination"] in addresses and "possible_duplicate" in await mail.rows_of(
            client, spool
        ):
            marked.add(spool["destination"])
    return marked
