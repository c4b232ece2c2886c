"""The README's session: 1,000 contacts, SIPp answers 70 %, is busy for 20 %, rings on for 10 %.

Every contact ends completed or failed with the true reason, retries happened, and the node's counts
agree with SIPp's own.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.session import prepare_campaign, wait_completed
from tests.support.carrier import carrier
from tests.support.node_process import config_text, node_process

CONTACTS = 1000
PAGE = 500


async def _all(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        answer = await client.get(path, params={"limit": PAGE, "offset": len(rows)})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        rows += page
        if len(page) < PAGE:
            return rows


@pytest.mark.slow
async def test_a_thousand_contacts_and_what_became_of_each(tmp_path: Path) -> None:
    config = tmp_path / "outspool.toml"
    config.write_text(config_text(tmp_path))
    async with carrier(tmp_path / "sipp") as sipp, node_process(config) as node:
        async with node.client() as client:
            campaign_id = await prepare_campaign(client, sipp.port, CONTACTS)
            answer = await client.put(f"/campaigns/{campaign_id}/start")
            assert answer.status_code == 200, answer.text
            campaign = await wait_completed(client, campaign_id)
            transmissions = await _all(client, "/transmissions")
            statistics = (await client.get("/statistics")).json()
        assert await node.terminate() == 0
    assert (campaign["contact_total"], campaign["contact_done"]) == (CONTACTS, CONTACTS)
    outcomes = Counter((t["status"], t["response"]) for t in transmissions)
    assert set(outcomes) <= {
        ("completed", "answered"),
        ("failed", "busy"),
        ("failed", "no_answer"),
    }
    assert sum(outcomes.values()) == CONTACTS
    invites = sipp.invites()
    assert len(invites) == statistics["spool_total"] > CONTACTS
    assert statistics["spool_success"] == outcomes["completed", "answered"]
    tries = Counter(invite.number for invite in invites)
    assert len(tries) == CONTACTS
    assert max(tries.values()) == 2
    tally = campaign["tally"]
    counts = sipp.counts()
    assert tally["response:busy"] == _sent(counts, "486")
    assert tally["response:no_answer"] == _sent(counts, "487")
    assert tally["disposition:answered"] == _received(counts, "BYE")


def _sent(counts: dict[str, int], code: str) -> int:
    return sum(n for name, n in counts.items() if name.endswith(f"_{code}_Sent"))


def _received(counts: dict[str, int], method: str) -> int:
    return sum(n for name, n in counts.items() if name.endswith(f"_{method}_Recv"))
