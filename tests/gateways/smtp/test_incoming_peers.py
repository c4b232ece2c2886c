"""What comes in, with the real parts: Postfix's bounces, reader processes, the journal of mails."""

from __future__ import annotations

import os
import random
import smtplib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from unicodedata import category

import msgspec
import pytest
import trio

from engine.clock import now
from engine.config import SmtpConfig
from engine.model import Provider
from engine.results import Awaiting
from gateways.smtp.books import Flag
from gateways.smtp.bounces import Matcher
from gateways.smtp.imap import ImapPoller
from gateways.smtp.intake import SCRATCH, Intake
from gateways.smtp.journal import Journal
from gateways.smtp.listener import Listener
from gateways.smtp.loop import Loop
from gateways.smtp.readers import Readers
from gateways.smtp.settings import ImapSettings
from gateways.smtp.tracker import Booked, Intent, Tracker, awaiting
from gateways.smtp.verp import Verp
from tests.gateways.smtp.corpus import CORPUS, mutations
from tests.gateways.smtp.incoming import ALICE, PATTERN, SENDER, Desk, Peer, Post
from tests.gateways.smtp.test_verp import Keys
from tests.support import LOCALHOST, free_port
from tests.support.mail.dovecot import Dovecot, dovecot
from tests.support.mail.postfix import Postfix, postfix

DEADLINE_S = 60.0
PASSWORD = "s3cret"  # noqa: S105 - of a Dovecot of its own
GONE = "gone@example.net"
_OFFICE = "alice@bounces.example.org"
OURS = Verp(Keys())
MUTANTS = int(os.environ.get("OUTSPOOL_TEST_MUTANTS", "300"))
GROWTH_BYTES = 150_000_000


class Entrance:
    """All that mail passes on its way in, but the engine."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        config = SmtpConfig(listen_port=port)
        self.folder = folder
        self.post = Post()
        self.loop = Loop()
        self.readers = Readers(config)
        self.journal = Journal(folder / "journal.db")
        self.tracker = Tracker(self.journal, now)
        matcher = Matcher(OURS, self.tracker)
        matcher.serve([PATTERN])
        self.intake = Intake(
            inbox=self.post,
            readers=self.readers,
            matcher=matcher,
            books=self.tracker,
            data=folder,
            clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            repeat_within_s=60.0,
        )
        self.listener = Listener(config, self.loop, self.intake)
        self.port = 0

    async def sent(self, spool_id: int, recipient: str, *, answered: bool = True) -> None:
        """A mail of ours left, and was taken."""
        intent = Intent(
            spool_id=spool_id,
            transmission_id=10 * spool_id,
            provider_id=1,
            recipient=recipient,
            flags=Flag.SUPPRESS,
        )
        await self.tracker.intend([intent])
        if answered:
            await self.answered(spool_id)

    async def answered(self, spool_id: int) -> None:
        """Its 250 is booked."""
        fate = awaiting(now(), 900.0, code="250")
        await self.tracker.answered([Booked(spool_id=spool_id, fate=fate, left=True)])

    def left(self) -> list[Path]:
        folder = self.folder / SCRATCH
        return list(folder.iterdir()) if folder.exists() else []


@asynccontextmanager
async def entrance(folder: Path, port: int = 0) -> AsyncIterator[Entrance]:
    """It is open."""
    found = Entrance(folder, port)
    await found.journal.open()
    await found.tracker.open()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.tracker.run, found.post)
            await nursery.start(found.loop.serve)
            await nursery.start(found.readers.run)
            desk = Desk(found.listener, found.intake, found.post, None, OURS)  # type: ignore[arg-type]
            found.port = await nursery.start(desk.run)
            yield found
            await desk.stop()
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await found.journal.aclose()
    assert found.loop.statistics()["errors"] == 0
    assert "faults" not in found.listener.statistics()
    assert found.left() == []


def _hand_over(port: int, sender: str, to: str, raw: bytes) -> None:
    """As our own gateway does it: with ENVID where the server has DSN."""
    with smtplib.SMTP(LOCALHOST, port, timeout=DEADLINE_S) as client:
        client.ehlo()
        client.mail(sender, ["RET=HDRS", f"ENVID={OURS.token(7)}"])
        assert client.rcpt(to, ["NOTIFY=FAILURE"])[0] == 250
        assert client.data(raw)[0] == 250


@pytest.mark.parametrize("way", ["token", "envid"])
async def test_a_bounce_of_postfix_fails_the_mail_and_closes_its_address(
    tmp_path: Path, way: str
) -> None:
    """By the address it goes to; else by the envelope id that we gave (RFC 3461 §4.4)."""
    sender = OURS.address(PATTERN, 7) if way == "token" else _OFFICE
    async with _bouncing(tmp_path) as (house, mta):
        raw = f"From: {ALICE}\r\nMessage-ID: <x@y>\r\nSubject: x\r\n\r\nHi\r\n".encode()
        await trio.to_thread.run_sync(_hand_over, mta.port, sender, GONE, raw)
        with trio.fail_after(DEADLINE_S):
            await house.post.until(reports=1)
            await mta.queue_empty()

    [report] = house.post.reports
    assert report.spool_id == 7
    assert report.result.suppress.startswith("bounce 5.1.1")
    rows = {row.name: row.data for row in report.result.rows}
    assert rows["bounce_action"] == "failed"
    assert rows["bounce_status"] == "5.1.1"
    assert house.post.mails == []


async def test_a_bounce_that_knows_our_message_id_only_proves_nothing(tmp_path: Path) -> None:
    """Whoever got a copy knows the Message-ID: such a report is mail like any other."""
    async with _bouncing(tmp_path) as (house, mta):
        message_id = OURS.message_id(70, "example.org")
        raw = f"From: {ALICE}\r\nMessage-ID: {message_id}\r\nSubject: x\r\n\r\nHi\r\n".encode()
        await trio.to_thread.run_sync(_hand_over_plainly, mta.port, _OFFICE, GONE, raw)
        with trio.fail_after(DEADLINE_S):
            await house.post.until(mails=1)
            await mta.queue_empty()
        known = (await house.tracker.recall([7]))[7]

    assert house.post.reports == []
    assert isinstance(known, Awaiting)


@asynccontextmanager
async def _bouncing(tmp_path: Path) -> AsyncIterator[tuple[Entrance, Postfix]]:
    """A listener that waits for what becomes of mail 7, and a Postfix that bounces to it."""
    port = free_port()
    async with entrance(tmp_path, port) as house:
        assert house.post.addresses is not None
        house.post.addresses.add(_OFFICE)
        await house.sent(7, GONE)
        async with postfix(
            tmp_path / "mta", gone=[GONE], bounce_to=("bounces.example.org", port)
        ) as mta:
            yield house, mta


async def test_a_bounce_in_a_mailbox_elsewhere_is_found_by_imap(tmp_path: Path) -> None:
    """The envelope is gone: Postfix leaves it in Delivered-To and Return-Path."""
    raw = f"From: {ALICE}\r\nSubject: x\r\n\r\nHi\r\n".encode()
    boxes = {"^b[+].*@bounces[.]example[.]org$": "bounces"}
    accept = "example.net bounces.example.org"
    async with entrance(tmp_path) as house:
        await house.sent(7, GONE)
        async with postfix(tmp_path / "mta", gone=[GONE], accept=accept, boxes=boxes) as mta:
            sender = OURS.address(PATTERN, 7)
            await trio.to_thread.run_sync(_hand_over_plainly, mta.port, sender, GONE, raw)
            await mta.wait_messages(1, "bounces")
            folder = mta.mailbox("bounces").parent
            async with dovecot(tmp_path / "imap", {"bounces": PASSWORD}, mail=folder) as server:
                await _poller(house, server).look()
                await _poller(house, server).look()

    assert [report.spool_id for report in house.post.reports] == [7]
    assert house.intake.statistics()["bounces"] == 1


def _poller(house: Entrance, server: Dovecot) -> ImapPoller:
    settings = ImapSettings(
        host=LOCALHOST, port=server.tls_port, username="bounces", password=PASSWORD
    )
    provider = Provider(id=1, name="mail", type="smtp")
    return ImapPoller(provider, settings, house.intake, house.journal, ca_file=str(server.trusted))


def _hand_over_plainly(port: int, sender: str, to: str, raw: bytes) -> None:
    with smtplib.SMTP(LOCALHOST, port, timeout=DEADLINE_S) as client:
        client.sendmail(sender, [to], raw)


DSN = """\
From: MAILER-DAEMON@mx.example.net
To: b@bounces.example.org
Subject: Undelivered Mail Returned to Sender
Message-ID: <dsn{salt}@mx.example.net>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b1"

--b1
Content-Type: text/plain

I'm sorry to have to inform you.

--b1
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: rfc822; {recipient}
Action: {action}
Status: {status}
Diagnostic-Code: smtp; 550 {status} no

--b1--
"""


def _dsn(*, recipient: str = GONE, action: str = "failed", status: str = "5.1.1") -> bytes:
    salt = random.getrandbits(64)
    text = DSN.format(recipient=recipient, action=action, status=status, salt=salt)
    return text.replace("\n", "\r\n").encode()


@asynccontextmanager
async def _peer(house: Entrance) -> AsyncIterator[Peer]:
    async with await trio.open_tcp_stream(LOCALHOST, house.port) as stream:
        peer = Peer(stream)
        await peer.hello()
        yield peer


async def test_failed_with_a_status_of_4_is_final_and_closes_nothing(tmp_path: Path) -> None:
    async with entrance(tmp_path) as house, _peer(house) as peer:
        await house.sent(7, GONE)
        to = OURS.address(PATTERN, 7)
        assert (await peer.mail(to, sender="", text=_dsn(action="delayed"))).startswith("250")
        assert (await peer.mail(to, sender="", text=_dsn(status="4.4.1"))).startswith("250")
        with trio.fail_after(DEADLINE_S):
            await house.post.until(reports=1)

    assert [report.result.suppress for report in house.post.reports] == [""]


@pytest.mark.parametrize(
    ("to", "sender", "recipient"),
    [
        (OURS.address(PATTERN, 8), "", GONE),  # of another mail
        (Verp(Keys(b"theirs")).address(PATTERN, 7), "", GONE),
        (OURS.address(PATTERN, 7), "", "other@example.net"),
        (OURS.address(PATTERN, 7), SENDER, GONE),
        (ALICE, "", GONE),
    ],
)
async def test_a_bounce_made_up_changes_nothing(
    tmp_path: Path, to: str, sender: str, recipient: str
) -> None:
    async with entrance(tmp_path) as house, _peer(house) as peer:
        await house.sent(7, GONE)
        await peer.mail(to, sender=sender, text=_dsn(recipient=recipient))
        before = (await house.tracker.recall([7]))[7]

    assert house.post.reports == []
    assert type(before).__name__ == "Awaiting"


async def test_a_bounce_that_overtakes_our_own_books_comes_again(tmp_path: Path) -> None:
    async with entrance(tmp_path) as house, _peer(house) as peer:
        await house.sent(7, GONE, answered=False)
        dsn, to = _dsn(), OURS.address(PATTERN, 7)
        assert (await peer.mail(to, sender="", text=dsn)).startswith("451 4.3.0")
        await house.answered(7)
        assert (await peer.mail(to, sender="", text=dsn)).startswith("250")
        assert (await peer.mail(to, sender="", text=dsn)).startswith("250")  # and once more
        with trio.fail_after(DEADLINE_S):
            await house.post.until(reports=1)

    assert [report.spool_id for report in house.post.reports] == [7]


@pytest.mark.slow
async def test_hostile_mail_hurts_nobody_but_itself(tmp_path: Path) -> None:
    async with entrance(tmp_path) as house, trio.open_nursery() as nursery:
        good: list[str] = []
        over = trio.Event()

        async def send_good() -> None:
            async with _peer(house) as peer:
                while not over.is_set():
                    text = b"Subject: good\r\n\r\n%d\r\n" % len(good)
                    good.append(await peer.mail(ALICE, text=text))

        nursery.start_soon(send_good)
        before = _resident_bytes()
        for raw in (*(hostile.raw for hostile in CORPUS), *mutations(MUTANTS, seed=21)):
            async with _peer(house) as bad:
                with trio.fail_after(DEADLINE_S):
                    reply = await bad.mail(ALICE, text=_stuffed(raw))
            assert reply[:3] in ("250", "500", "554"), reply
        over.set()

    assert set(good) == {"250 2.0.0 Taken"}
    assert _resident_bytes() - before < GROWTH_BYTES
    for mail in house.post.mails:
        for text in (mail.subject, mail.source.address, mail.source.name, mail.message_id):
            assert not {category(each) for each in text} & {"Cc", "Cs", "Zl", "Zp"}, repr(text)
        for file in mail.files:
            assert house.folder in file.path.parents
            assert "/" not in file.name
        msgspec.json.encode(mail.rows)


def _stuffed(raw: bytes) -> bytes:
    """As SMTP carries it (RFC 5321 §4.5.2), with what is no line end in it left alone."""
    lines = raw.removesuffix(b"\r\n").split(b"\r\n")
    return b"".join(b"." * line.startswith(b".") + line + b"\r\n" for line in lines)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
