"""What relays do wrong in the middle of a campaign; mended, everything ends right.

The judge is what a real Postfix delivered in the end: everybody once, and who was called unknown
was not written to again.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from zlib import crc32

import httpx
import pytest

from tests.acceptance import mail_campaign as mail
from tests.acceptance.sms_campaign import Outcome
from tests.support import LOCALHOST, free_port, wait_until
from tests.support.mail import policy
from tests.support.mail.certificates import ca
from tests.support.mail.dovecot import dovecot
from tests.support.mail.postfix import Postfix, postfix
from tests.support.mail.sink import smtp_sink
from tests.support.node_process import NodeProcess, node_process

CONTACTS = 300
FEWER = 40
RETRY_S = [1.0] * 90
ALL_WELL = ("completed", "accepted")
QUICK = {"retry_s": RETRY_S}
DEADLINE_S = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def _prepared(
    client: httpx.AsyncClient, who: list[mail.Person], port: int, **settings: Any
) -> int:
    """A campaign under way."""
    await mail.provider(client, port, **QUICK, **settings)
    template = await mail.template(client)
    campaign_id = await mail.campaign(client, who, template, await mail.account(client))
    await mail.start(client, campaign_id)
    return campaign_id


async def _everybody_once(mta: Postfix, who: list[mail.Person]) -> None:
    await mta.queue_empty()
    domain = who[0].email.partition("@")[2]
    mails = [one for one in await mta.messages() if one.recipient.endswith(f"@{domain}")]
    mail.assert_each_once_and_intact(mails, who, files=False)


def _grey(_: str, time: int) -> str:
    return policy.GREYLISTED if time == 1 else policy.DUNNO


def _busy(address: str, time: int) -> str:
    return policy.GO_AWAY if time == 1 and crc32(address.encode()) % 3 == 0 else policy.DUNNO


@pytest.mark.parametrize("decide", [_grey, _busy], ids=["greylisted", "421_mid_stream"])
async def test_who_was_put_off_is_written_to_later_and_once(
    tmp_path: Path, decide: policy.Decide
) -> None:
    who = mail.people(CONTACTS)
    async with (
        policy.policy(decide) as server,
        postfix(tmp_path / "mta", policy=server.port) as mta,
        node_process(mail.config(tmp_path, mta)) as node,
        node.client() as client,
    ):
        found = await mail.outcome(client, await _prepared(client, who, mta.port))
        await _everybody_once(mta, who)
    assert found.responses == {ALL_WELL: CONTACTS}
    mail.assert_counts_agree(found, CONTACTS)
    tries = Counter(int(row["try_done"]) for row in found.transmissions)
    assert tries == {1: CONTACTS}, "being put off is no try"


async def test_who_is_refused_has_failed_and_is_not_asked_again(tmp_path: Path) -> None:
    who = mail.people(CONTACTS)
    refused = {person.email for person in who[::10]}
    decide = lambda address, _: policy.NOBODY if address in refused else policy.DUNNO  # noqa: E731
    async with (
        policy.policy(decide) as server,
        postfix(tmp_path / "mta", policy=server.port) as mta,
        node_process(mail.config(tmp_path, mta)) as node,
        node.client() as client,
    ):
        found = await mail.outcome(client, await _prepared(client, who, mta.port))
        await _everybody_once(mta, [person for person in who if person.email not in refused])
        closed = {row["email"] for row in await mail.every(client, "/do_not_contact")}
    assert found.responses[ALL_WELL] == CONTACTS - len(refused)
    failed = {s["destination"] for s in found.spools if s["status"] == "failed"}
    assert failed == closed == refused
    assert set(server.asked.values()) == {1}


NOT_TAKEN = {
    "421 in answer to the dot": ("-Q", "."),
    "lost at DATA": ("-q", "DATA"),
    "lost at RCPT": ("-q", "RCPT"),
    "421 to MAIL": ("-Q", "MAIL"),
    "452 to the dot": ("-r", "."),
}


async def test_what_a_broken_relay_did_not_take_comes_once_it_is_mended(tmp_path: Path) -> None:
    """Fault after fault at one node: its provider is a broken smtp-sink, then a real Postfix."""
    accept = " ".join(f"f{number}.example.net" for number in range(len(NOT_TAKEN)))
    async with (
        postfix(tmp_path / "mta", accept=accept) as mta,
        node_process(mail.config(tmp_path, mta)) as node,
        node.client() as client,
    ):
        await mail.provider(client, mta.port, **QUICK, starttls="offer")
        template, account = await mail.template(client), await mail.account(client)
        for number, (fault, options) in enumerate(NOT_TAKEN.items()):
            who = mail.people(FEWER, f"f{number}.example.net")
            campaign_id = await mail.campaign(client, who, template, account)
            async with smtp_sink(*options) as sink:
                await _saved(client, port=sink.port)
                await mail.start(client, campaign_id)
                await _put_off(client, campaign_id)
                await _saved(client, port=mta.port)
                found = await mail.outcome(client, campaign_id)
            assert found.responses == {ALL_WELL: FEWER}, fault
            await _everybody_once(mta, who)


async def _put_off(client: httpx.AsyncClient, campaign_id: int, *, spools: int = 10) -> None:
    """Wait until so many attempts have ended otherwise than well."""

    async def some() -> bool:
        rows = await mail.every(client, "/spools", campaign_id=campaign_id)
        assert not [row for row in rows if row["response"] == "accepted"]
        return sum(row["status"] in {"failed", "completed"} for row in rows) >= spools

    await wait_until(some, f"{spools} attempts failed", deadline_s=DEADLINE_S)


@pytest.mark.parametrize("unknown", ["at_most_once", "at_least_once"])
async def test_a_relay_that_hangs_up_after_the_dot(tmp_path: Path, unknown: str) -> None:
    """Nobody can say whether it took them: not sent again, or sent again and marked."""
    who, port = mail.people(FEWER), free_port()
    authority = ca(tmp_path / "ca")
    async with AsyncExitStack() as stack:
        config = mail.config(tmp_path, None, smtp={"ca_file": str(authority.bundle)})
        node = await stack.enter_async_context(node_process(config))
        client = await stack.enter_async_context(node.client())
        async with smtp_sink("-q", ".", port=port):
            campaign_id = await _prepared(client, who, port, starttls="offer", unknown=unknown)
            await _put_off(client, campaign_id)
        mta = await stack.enter_async_context(
            postfix(tmp_path / "mta", port=port, certificate=authority.issue(LOCALHOST))
        )
        found = await mail.outcome(client, campaign_id)
        doubtful = {s["destination"] for s in found.spools if s["response"] == "unknown"}
        marked = await _marked(client, found)
        if unknown == "at_most_once":
            await _everybody_once(mta, [p for p in who if p.email not in doubtful])
            assert doubtful
            assert set(found.responses) <= {ALL_WELL, ("failed", "unknown")}
        else:
            await _everybody_once(mta, who)
            assert found.responses == {ALL_WELL: FEWER}
            resent = {s["destination"] for s in found.spools if s["response"] == "resent"}
            assert resent
            assert resent <= marked


async def _marked(client: httpx.AsyncClient, found: Outcome) -> set[str]:
    """Destinations of spools that say they may be doubles."""
    marked = set()
    for spool in found.spools:
        if "possible_duplicate" in await mail.rows_of(client, spool):
            marked.add(spool["destination"])
    return marked


async def test_a_wrong_certificate_gets_nothing_until_it_is_right(tmp_path: Path) -> None:
    who = mail.people(FEWER)
    good, bad = ca(tmp_path / "good"), ca(tmp_path / "bad")
    certificate = bad.issue(LOCALHOST)
    config = mail.config(tmp_path, None, smtp={"ca_file": str(good.bundle)})
    async with (
        postfix(tmp_path / "mta", certificate=certificate) as mta,
        node_process(config) as node,
        node.client() as client,
    ):
        campaign_id = await _prepared(client, who, mta.port)
        await _put_off(client, campaign_id)
        assert mta.arrived() == 0
        assert "client=" not in mta.log(), "a mail was begun"
        assert _alarms(node, "tls_failed") <= 1
        right = good.issue(LOCALHOST)
        certificate.certificate.write_bytes(right.certificate.read_bytes())
        certificate.key.write_bytes(right.key.read_bytes())
        await mta.reload()
        await _saved(client, description="mended")
        found = await mail.outcome(client, campaign_id)
        await _everybody_once(mta, who)
    assert found.responses == {ALL_WELL: FEWER}


async def test_a_wrong_login_is_tried_once_not_for_every_mail(tmp_path: Path) -> None:
    who = mail.people(FEWER)
    async with (
        dovecot(tmp_path / "login", {"relay": "open sesame"}) as logins,
        postfix(tmp_path / "mta", auth=logins.auth_port) as mta,
        node_process(mail.config(tmp_path, mta)) as node,
        node.client() as client,
    ):
        wrong = {"username": "relay", "password": "open barley"}
        campaign_id = await _prepared(client, who, mta.port, **wrong)
        await _put_off(client, campaign_id)
        assert mta.arrived() == 0
        # Each of its ten connections may find out for itself; no mail does.
        assert mta.log_file.read_text().count("authentication failed") <= 10
        await _saved(client, password="open sesame")  # noqa: S106 - of a test
        found = await mail.outcome(client, campaign_id)
        await _everybody_once(mta, who)
        assert _alarms(node, "auth_failed") <= 1
    assert found.responses == {ALL_WELL: FEWER}


async def _saved(client: httpx.AsyncClient, **changes: str | int) -> None:
    [provider] = await mail.every(client, "/providers")
    answer = await client.put(f"/providers/{provider['provider_id']}", json=changes)
    assert answer.status_code == 200, answer.text


def _alarms(node: NodeProcess, cause: str) -> int:
    lines = node.log_file.read_text().splitlines()
    return sum("error" in line and cause in line for line in lines)


async def test_a_slow_relay_gets_all_in_its_own_time(tmp_path: Path) -> None:
    who = mail.people(30)
    async with (
        smtp_sink("-w", "1") as sink,
        node_process(mail.config(tmp_path, None)) as node,
        node.client() as client,
    ):
        campaign_id = await _prepared(client, who, sink.port, starttls="never")
        found = await mail.outcome(client, campaign_id)
        await sink.wait_messages(len(who))
        assert sink.messages == len(who)
    assert found.responses == {ALL_WELL: len(who)}
    assert len(found.spools) == len(who)
