"""E-mail campaigns through the public API to a real Postfix, and what comes back from it."""

from __future__ import annotations

import os
import smtplib
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.acceptance import mail_campaign as mail
from tests.acceptance.session import create
from tests.support import LOCALHOST, free_port, wait_until
from tests.support.mail.dkim_keys import Keys
from tests.support.mail.dovecot import dovecot
from tests.support.mail.postfix import Postfix, postfix
from tests.support.node_process import NodeProcess, node_process

CONTACTS = int(os.environ.get("OUTSPOOL_TEST_MAIL_CONTACTS", "10000"))
SAMPLE = 500
MEMORY_MIB = 600
BOUNCES = "bounces.example.org"
PATTERN = f"b+{{token}}@{BOUNCES}"
REFUSED, GONE = "refused@example.net", "gone@example.net"
BOUNCE_WAIT_S = 10.0  # Postfix bounces within a second; mailboxes are read every five
REFUSED_BY, BOUNCED_BY = "550 5.1.1", "5.1.1"

pytestmark = pytest.mark.slow


@pytest.mark.timeout(1800)
async def test_ten_thousand_arrive_once_signed_personal_and_whole(tmp_path: Path) -> None:
    who, keys = mail.people(CONTACTS), Keys("example.org")
    async with (
        postfix(tmp_path / "mta") as mta,
        node_process(mail.config(tmp_path, mta)) as node,
    ):
        async with node.client() as client:
            await mail.provider(client, mta.port, dkim=keys.settings)
            sender = await mail.account(client)
            template = await mail.template(client, files=mail.FILES)
            campaign_id = await mail.campaign(client, who, template, sender)
            await mail.start(client, campaign_id)
            found = await mail.outcome(client, campaign_id)
            await mta.queue_empty()
            mails = await mta.messages()
            left = await _unsubscribed(client, mta, campaign_id, who)
        peak = _peak_mib(node)
        assert await node.terminate() == 0
    check = partial(mail.assert_each_once_and_intact, mails, who)
    await trio.to_thread.run_sync(check)
    await trio.to_thread.run_sync(partial(mail.assert_signed, mails, keys, sample=SAMPLE))
    assert {m.sender for m in mails} == {mail.SENDER}
    assert found.responses == {("completed", "accepted"): CONTACTS}
    mail.assert_counts_agree(found, CONTACTS)
    assert left == {person.email for person in who[3:20]}
    assert peak < MEMORY_MIB, f"{peak} MiB"


async def _unsubscribed(
    client: httpx.AsyncClient,
    mta: Postfix,
    campaign_id: int,
    who: list[mail.Person],
) -> set[str]:
    """Three use the link of their own mail; who a campaign over twenty still reaches."""
    links = {m.recipient: mail.unsubscribe_url(m) for m in await mta.messages()}
    async with httpx.AsyncClient() as anybody:
        for person in who[:3]:
            form = {"List-Unsubscribe": "One-Click"}
            answer = await anybody.post(links[person.email], data=form)
            assert answer.status_code == 200, answer.text
    listed = await mail.every(client, "/do_not_contact")
    assert {row["email"] for row in listed} == {person.email for person in who[:3]}
    return await _reached(client, mta, campaign_id, who[:20])


async def _reached(
    client: httpx.AsyncClient, mta: Postfix, like: int, who: list[mail.Person]
) -> set[str]:
    """Who gets a mail of one more campaign."""
    before = mta.arrived()
    model = await mail.read(client, f"/campaigns/{like}")
    again = await mail.again(client, who, model["program_id"], model["account_id"])
    await mail.start(client, again)
    await mail.outcome(client, again)
    await mta.queue_empty()
    return {m.recipient for m in (await mta.messages())[before:]}


def _peak_mib(node: NodeProcess) -> int:
    """The most memory the node's process had."""
    status = Path(f"/proc/{node.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) // 1024


# --- what bounces --------------------------------------------------------------------------------


def _with_bad_ones() -> list[mail.Person]:
    bad = [mail.Person(address, "No", "Body", "0") for address in (REFUSED, GONE)]
    return [*mail.people(10), *bad]


async def test_bounces_to_our_listener_end_failed_and_close_the_address(tmp_path: Path) -> None:
    port = free_port()
    async with (
        postfix(tmp_path / "mta", refuse=[REFUSED], gone=[GONE], bounce_to=(BOUNCES, port)) as mta,
        node_process(mail.config(tmp_path, mta, smtp={"listen_port": port})) as node,
        node.client() as client,
    ):
        await mail.provider(client, mta.port, bounce_address=PATTERN, bounce_wait_s=BOUNCE_WAIT_S)
        await _bounce(client, mta)


async def test_bounces_read_by_imap_end_failed_and_close_the_address(tmp_path: Path) -> None:
    accept = f"example.net {BOUNCES}"
    boxes = {"^b([+].*)?@bounces[.]example[.]org$": "bounces"}
    async with (
        postfix(tmp_path / "mta", refuse=[REFUSED], gone=[GONE], accept=accept, boxes=boxes) as mta,
        dovecot(tmp_path / "imap", {"bounces": "open sesame"}, mail=mta.mailbox().parent) as imap,
        node_process(_trusting(tmp_path, mta, imap.trusted)) as node,
        node.client() as client,
    ):
        login = {"username": "bounces", "password": "open sesame", "poll_s": 5}
        box = {"host": LOCALHOST, "port": imap.tls_port, "tls": "implicit", **login}
        await mail.provider(
            client, mta.port, bounce_address=PATTERN, bounce_wait_s=BOUNCE_WAIT_S, imap=box
        )
        await _bounce(client, mta)


def _trusting(folder: Path, mta: Postfix, other: Path) -> Path:
    bundle = folder / "bundle.pem"
    bundle.write_bytes(mta.trusted.read_bytes() + other.read_bytes())
    return mail.config(folder, mta, smtp={"ca_file": str(bundle)})


async def _bounce(client: httpx.AsyncClient, mta: Postfix) -> None:
    """One address is refused, one bounced: both failed, closed, and left out from now on."""
    who = _with_bad_ones()
    campaign_id = await mail.campaign(
        client, who, await mail.template(client), await mail.account(client)
    )
    await mail.start(client, campaign_id)
    found = await mail.outcome(client, campaign_id)
    spools = found.last_spools
    assert {address for address, s in spools.items() if s["status"] == "failed"} == {REFUSED, GONE}
    assert found.responses[("completed", "accepted")] == 10
    for address in (REFUSED, GONE):
        assert BOUNCED_BY in spools[address]["code"], spools[address]
    rows = await mail.rows_of(client, spools[GONE])
    assert rows["bounce_status"] == BOUNCED_BY
    assert "unknown user" in rows["bounce_diagnostic"]
    assert REFUSED_BY in (await mail.rows_of(client, spools[REFUSED]))["reply"]
    closed = {row["email"]: row["reason"] for row in await mail.every(client, "/do_not_contact")}
    assert closed.keys() == {REFUSED, GONE}
    assert all(BOUNCED_BY in reason for reason in closed.values()), closed
    await _left_out(client, mta, campaign_id, who)


async def _left_out(
    client: httpx.AsyncClient, mta: Postfix, like: int, who: list[mail.Person]
) -> None:
    model = await mail.read(client, f"/campaigns/{like}")
    check = await mail.again(client, who, model["program_id"], model["account_id"])
    await mail.start(client, check)
    found = await mail.outcome(client, check)
    assert found.responses[("completed", "accepted")] == len(who) - 2
    left_out = [row for row in found.transmissions if row["response"] == "do_not_contact"]
    assert {row["contact_email"] for row in left_out} == {REFUSED, GONE}


async def test_a_bounce_after_accepted_adds_rows_and_closes_the_address(tmp_path: Path) -> None:
    port = free_port()
    who = [mail.Person(GONE, "No", "Body", "0")]
    async with (
        postfix(tmp_path / "mta", gone=[GONE], bounce_to=(BOUNCES, port)) as mta,
        node_process(mail.config(tmp_path, mta, smtp={"listen_port": port})) as node,
        node.client() as client,
    ):
        await mail.provider(client, mta.port, bounce_address=PATTERN, bounce_wait_s=0)
        campaign_id = await mail.campaign(
            client, who, await mail.template(client), await mail.account(client)
        )
        await mail.start(client, campaign_id)
        found = await mail.outcome(client, campaign_id)
        assert found.responses == {("completed", "accepted"): 1}
        [spool] = found.spools

        async def noted() -> bool:
            return "bounce_status" in await mail.rows_of(client, spool)

        await wait_until(noted, "the late bounce is among the rows", deadline_s=60)
        [entry] = await mail.every(client, "/do_not_contact")
        assert entry["email"] == GONE
        [after] = await mail.every(client, "/spools", campaign_id=campaign_id)
        assert after["status"] == "completed"


# --- what comes in -------------------------------------------------------------------------------


async def test_what_is_written_to_an_account_is_read_at_emails(tmp_path: Path) -> None:
    port = free_port()
    config = mail.config(tmp_path, None, smtp={"listen_port": port})
    async with node_process(config) as node, node.client() as client:
        address = await mail.account(client)
        await create(
            client, "/programs/receiveemail", "program_id", {"name": "in", "account_id": address}
        )
        message, name = _letter(), mail.FILES[1][0]
        await trio.to_thread.run_sync(_hand_in, port, message)
        [received] = await mail.every(client, "/emails", direction="inbound")
        [kept] = await mail.every(client, "/messages/templates")
        [contact] = await mail.every(client, "/contacts")
        file = await client.get(f"/messages/templates/{kept['template_id']}/media")
    assert received["status"] == "completed"
    assert kept["subject"] == message["Subject"]
    assert "Grüße aus Köln" in kept["body_alt"]
    assert contact["email"] == "zoe@example.com"
    assert kept["aAttachment"] == [name]
    assert file.content == mail.FILES[1][2]


def _letter() -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Zoë Ärger <zoe@example.com>"
    message["To"] = mail.SENDER
    message["Subject"] = "Frage: 5 € für Äpfel 😀?"
    message["Message-ID"] = "<1@example.com>"
    message.set_content("Grüße aus Köln\n")
    name, kind, content = mail.FILES[1]
    main, _, sub = kind.partition("/")
    message.add_attachment(content, maintype=main, subtype=sub, filename=name)
    return message


def _hand_in(port: int, message: EmailMessage) -> None:
    with smtplib.SMTP(LOCALHOST, port, timeout=30) as client:
        refused: dict[str, Any] = client.send_message(message)
    assert refused == {}
