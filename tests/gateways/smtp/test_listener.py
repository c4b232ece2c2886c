"""The listener with polite peers: what it takes, whom it refuses, how it is told apart."""

from __future__ import annotations

import smtplib
import ssl
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.config import SmtpConfig
from engine.errors import InvalidError
from gateways.smtp.intake import NO_ROOM
from gateways.smtp.listener import Listener
from gateways.smtp.loop import Loop
from gateways.smtp.parsed import Parsed
from tests.gateways.smtp.incoming import (
    ALICE,
    BOB,
    DEADLINE_S,
    PATTERN,
    SENDER,
    Raw,
    codes,
    listening,
)
from tests.support import LOCALHOST, wait_until
from tests.support.mail.certificates import Authority, Certificate, ca
from tests.support.mail.sink import smtp_source

LOGIN = {"listen_username": "relay", "listen_password": "s3cret"}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return ca(tmp_path / "ca")


@pytest.fixture
def certificate(authority: Authority) -> Certificate:
    return authority.issue(LOCALHOST)


def _tls(certificate: Certificate, **more: object) -> dict[str, Any]:
    files: dict[str, Any] = {
        "listen_certificate": str(certificate.certificate),
        "listen_key": str(certificate.key),
    }
    return files | more


def _trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.bundle)


async def test_a_mail_is_taken_once_it_is_durable(tmp_path: Path) -> None:
    async with listening(tmp_path) as desk, desk.peer() as peer:
        offers = await peer.hello()
        reply = await peer.mail(ALICE, BOB, text=b"Subject: x\r\n\r\n..dotted\r\n")

    assert "SIZE 25000000" in offers
    assert "SMTPUTF8" in offers
    assert "STARTTLS" not in offers
    assert "AUTH" not in offers
    assert reply == "250 2.0.0 Taken"
    assert [(mail.source.address, mail.destination) for mail in desk.post.mails] == [
        (SENDER, ALICE),
        (SENDER, BOB),
    ]


async def test_dots_are_unstuffed_and_lines_kept(tmp_path: Path) -> None:
    readers = Raw()
    async with listening(tmp_path, readers) as desk, desk.peer() as peer:
        await peer.hello()
        await peer.mail(ALICE, text=b"a\r\n..b\r\n.c\r\n\r\n")

    assert readers.seen == [b"a\r\n.b\r\nc\r\n\r\n"]


async def test_the_null_sender_is_nobody(tmp_path: Path) -> None:
    async with listening(tmp_path, Raw(Parsed())) as desk, desk.peer() as peer:
        await peer.hello()
        assert await peer.mail(ALICE, sender="") == "250 2.0.0 Taken"

    assert desk.post.mails[0].source.address == ""


async def test_recipients_are_ours_or_refused(tmp_path: Path) -> None:
    async with listening(tmp_path) as desk, desk.peer() as peer:
        await peer.hello()
        token = desk.verp.address(PATTERN, 7)
        forged = token.replace("b+a", "b+b", 1)
        replies = await peer.envelope(
            ALICE, "nobody@example.org", "", token, forged, f"{ALICE}@relay.example"
        )

        assert codes(replies) == [250, 550, 550, 250, 550, 550]
        desk.post.down.add("everybody")
        assert (await peer.say(f"RCPT TO:<{BOB}>")).startswith("451 4.3.0")


async def test_a_source_route_is_dropped_and_a_relay_never_made(tmp_path: Path) -> None:
    async with listening(tmp_path) as desk, desk.peer() as peer:
        await peer.hello()
        replies = await peer.envelope(
            f"@a.example:{ALICE}", "alice%example.net@example.org", "x@example.net"
        )

        assert codes(replies) == [250, 550, 550]


async def test_one_store_down_puts_all_off_and_the_next_time_is_a_repeat(tmp_path: Path) -> None:
    async with listening(tmp_path) as desk, desk.peer() as peer:
        await peer.hello()
        desk.post.down.add(BOB)
        assert (await peer.mail(ALICE, BOB)).startswith("451 4.3.0")
        desk.post.down.clear()
        assert await peer.mail(ALICE, BOB) == "250 2.0.0 Taken"

    assert [mail.destination for mail in desk.post.mails] == [ALICE, BOB]


async def test_without_room_on_the_disk_nobody_is_a_recipient(tmp_path: Path) -> None:
    async with listening(tmp_path, min_free_bytes=2**62) as desk, desk.peer() as peer:
        await peer.hello()
        assert await peer.envelope(ALICE, "x@example.org") == [str(NO_ROOM)] * 2
        assert (await peer.say("DATA")).startswith("503")
        assert desk.listener.statistics()["no_room"] == 2


async def test_what_cannot_be_read_is_refused_for_good(tmp_path: Path) -> None:
    async with listening(tmp_path) as desk, desk.peer() as peer:
        await peer.hello()
        assert (await peer.mail(ALICE, text=Raw.MARK + b"\r\n")).startswith("554 5.6.0")
        assert await peer.mail(ALICE) == "250 2.0.0 Taken"


async def test_a_fault_of_ours_puts_the_mail_off_and_the_session_goes_on(tmp_path: Path) -> None:
    readers = Raw()
    async with listening(tmp_path, readers) as desk, desk.peer() as peer:
        await peer.hello()
        readers.answer = None  # type: ignore[assignment]
        assert await peer.mail(ALICE) == "451 4.3.0 Try again later"
        readers.answer = Parsed()
        assert await peer.mail(ALICE) == "250 2.0.0 Taken"
        assert desk.listener.statistics()["faults"] == 1


async def test_an_address_in_utf_8_needs_smtputf8(tmp_path: Path) -> None:
    async with listening(tmp_path) as desk, desk.peer() as peer:
        assert desk.post.addresses is not None
        desk.post.addresses.add("jürgen@example.org")
        await peer.hello()
        assert (await peer.say("MAIL FROM:<jörg@example.net>")).startswith("553 5.6.7")
        assert (await peer.say(b"MAIL FROM:<j\xf6rg@example.net> SMTPUTF8")).startswith("553")
        assert (await peer.say(f"MAIL FROM:<{SENDER}>")).startswith("250")
        assert (await peer.say("RCPT TO:<jürgen@example.org>")).startswith("553 5.6.7")
        assert (await peer.say("RSET")).startswith("250")
        assert (await peer.say("MAIL FROM:<jörg@example.net> SMTPUTF8")).startswith("250")
        assert (await peer.say("RCPT TO:<jürgen@example.org>")).startswith("250")
        assert (await peer.data("Subject: ü\r\n\r\nü\r\n".encode())).startswith("250")

    assert desk.post.mails[0].destination == "jürgen@example.org"


async def test_nobody_learns_who_is_here_and_nothing_is_sent_on(tmp_path: Path) -> None:
    async with listening(tmp_path) as desk, desk.peer() as peer:
        await peer.hello()
        replies = [await peer.say(line) for line in ("VRFY alice", "EXPN all", "HELP", "TURN")]

    assert codes(replies) == [502, 502, 214, 500]
    assert desk.post.asked == []


async def test_smtp_source_brings_a_hundred_over_ten_connections(tmp_path: Path) -> None:
    async with listening(tmp_path) as desk:
        desk.post.addresses = {"b@example.net"}
        await smtp_source(desk.port, 100, size=3000)
        assert desk.listener.statistics()["mails"] == 100

    # They are alike but for their Message-IDs, if any: repeats are told and said to be taken.
    assert 1 <= len(desk.post.mails) <= 100


# --- TLS and logins ---------------------------------------------------------------------------
async def test_smtplib_sends_within_tls(
    tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    def send(port: int) -> None:
        with smtplib.SMTP(LOCALHOST, port, timeout=DEADLINE_S) as client:
            client.starttls(context=_trusting(authority))
            client.sendmail(SENDER, [ALICE], b"Subject: x\r\n\r\nbody\r\n")

    async with listening(tmp_path, **_tls(certificate, listen_require_tls=True)) as desk:
        await trio.to_thread.run_sync(send, desk.port)

    assert [mail.destination for mail in desk.post.mails] == [ALICE]


async def test_nothing_is_taken_outside_tls_where_it_is_required(
    tmp_path: Path, certificate: Certificate
) -> None:
    tls = _tls(certificate, listen_require_tls=True)
    async with listening(tmp_path, **tls) as desk, desk.peer() as peer:
        assert "STARTTLS" in await peer.hello()
        assert (await peer.say(f"MAIL FROM:<{SENDER}>")).startswith("530")


async def test_what_was_said_before_tls_is_forgotten(
    tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    """RFC 3207 §4.2, and commands slipped in behind STARTTLS in the clear."""
    async with listening(tmp_path, **_tls(certificate)) as desk, desk.peer() as peer:
        await peer.hello()
        await peer.envelope(ALICE)
        await peer.stream.send_all(b"STARTTLS\r\nRCPT TO:<bob@example.org>\r\n")
        assert (await peer.reply()).startswith("220")
        tls = trio.SSLStream(peer.stream, _trusting(authority), server_hostname=LOCALHOST)
        with trio.fail_after(DEADLINE_S):
            await tls.send_all(b"DATA\r\n")
            assert (await tls.receive_some(100)).startswith(b"503")


async def test_tls_within_tls_is_refused_and_the_session_goes_on(
    tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    """RFC 3207 §4.2."""

    def twice(port: int) -> list[int]:
        with smtplib.SMTP(LOCALHOST, port, timeout=DEADLINE_S) as client:
            client.starttls(context=_trusting(authority))
            client.ehlo()
            assert "starttls" not in client.esmtp_features
            return [client.docmd("STARTTLS")[0], client.mail(SENDER)[0], client.rcpt(ALICE)[0]]

    async with listening(tmp_path, **_tls(certificate)) as desk:
        assert await trio.to_thread.run_sync(twice, desk.port) == [503, 250, 250]


@pytest.mark.parametrize("mechanism", ["plain", "LOGIN"])
async def test_a_login_opens_the_door_within_tls(
    tmp_path: Path, authority: Authority, certificate: Certificate, mechanism: str
) -> None:
    def send(port: int) -> str:
        with smtplib.SMTP(LOCALHOST, port, timeout=DEADLINE_S) as client:
            client.ehlo()
            assert not client.has_extn("auth")
            client.starttls(context=_trusting(authority))
            client.ehlo()
            offered = client.esmtp_features["auth"]
            client.user, client.password = "relay", "s3cret"
            client.auth(mechanism, getattr(client, f"auth_{mechanism.lower()}"))
            client.sendmail(SENDER, [ALICE], b"Subject: x\r\n\r\nbody\r\n")
            return offered

    async with listening(tmp_path, **_tls(certificate, **LOGIN)) as desk:
        assert (await trio.to_thread.run_sync(send, desk.port)).split() == ["PLAIN", "LOGIN"]

    assert len(desk.post.mails) == 1


async def test_a_wrong_password_is_answered_and_the_third_ends_it(
    tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    """aiosmtpd leaves the peer without an answer unless it is told (M20)."""

    def attempt(port: int) -> list[int]:
        with smtplib.SMTP(LOCALHOST, port, timeout=DEADLINE_S) as client:
            client.starttls(context=_trusting(authority))
            client.ehlo()
            blob = b64encode(b"\0relay\0wrong").decode()
            return [client.docmd("AUTH", f"PLAIN {blob}")[0] for _ in range(3)]

    async with listening(tmp_path, **_tls(certificate, **LOGIN)) as desk:
        assert await trio.to_thread.run_sync(attempt, desk.port) == [535, 535, 421]
        await _until_empty(desk)


async def _until_empty(desk: object) -> None:
    async def empty() -> bool:
        return bool(desk.listener.statistics()["sessions"] == 0)  # type: ignore[attr-defined]

    await wait_until(empty, "no session is left")


async def test_a_login_is_asked_for_and_never_in_the_clear(
    tmp_path: Path, certificate: Certificate
) -> None:
    async with listening(tmp_path, **_tls(certificate, **LOGIN)) as desk, desk.peer() as peer:
        assert "AUTH" not in await peer.hello()
        assert (await peer.say("AUTH PLAIN AHJlbGF5AHMzY3JldA==")).startswith("538")
        assert (await peer.say(f"MAIL FROM:<{SENDER}>")).startswith("530")


async def test_a_renewed_certificate_is_used_by_the_next_session(
    tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    def serial(port: int) -> int:
        with smtplib.SMTP(LOCALHOST, port, timeout=DEADLINE_S) as client:
            client.starttls(context=_trusting(authority))
            return int(client.sock.getpeercert()["serialNumber"], 16)  # type: ignore[union-attr]

    async with listening(tmp_path, **_tls(certificate)) as desk:
        before = await trio.to_thread.run_sync(serial, desk.port)
        authority.issue(LOCALHOST)
        after = await trio.to_thread.run_sync(serial, desk.port)
        certificate.certificate.write_text("half")
        kept = await trio.to_thread.run_sync(serial, desk.port)

    assert before != after == kept


@pytest.mark.parametrize("asked", [{"listen_require_tls": True}, LOGIN])
def test_tls_and_logins_need_a_certificate(asked: dict[str, object]) -> None:
    with pytest.raises(InvalidError, match="listen_certificate"):
        Listener(SmtpConfig(**asked), Loop(), None)  # type: ignore[arg-type]


def test_a_login_needs_a_password(certificate: Certificate) -> None:
    """Else the empty one would open the door."""
    config = SmtpConfig(**_tls(certificate, listen_username="relay"))
    with pytest.raises(InvalidError, match="listen_password"):
        Listener(config, Loop(), None)  # type: ignore[arg-type]


async def test_nobody_is_let_in_without_the_certificate(tmp_path: Path) -> None:
    loop = Loop()
    config = SmtpConfig(listen_certificate=str(tmp_path / "none.pem"))
    listener = Listener(config, loop, None)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(loop.serve)
        with pytest.raises(FileNotFoundError):
            await listener.run()
        nursery.cancel_scope.cancel()


async def test_a_handshake_that_never_comes_ends_like_any_silence(
    tmp_path: Path, certificate: Certificate
) -> None:
    async with (
        listening(tmp_path, **_tls(certificate), listen_idle_s=0.3) as desk,
        desk.peer() as peer,
    ):
        await peer.hello()
        assert (await peer.say("STARTTLS")).startswith("220")
        assert await peer.reply() == ""
        await _until_empty(desk)


@pytest.mark.parametrize("handshake", [b"", b"\x16\x03", b"no handshake at all\r\n"])
async def test_a_handshake_that_fails_leaves_no_session(
    tmp_path: Path, certificate: Certificate, handshake: bytes
) -> None:
    async with listening(tmp_path, **_tls(certificate)) as desk:
        async with desk.peer() as peer:
            await peer.hello()
            assert (await peer.say("STARTTLS")).startswith("220")
            await peer.stream.send_all(handshake)
        await _until_empty(desk)
        assert "faults" not in desk.listener.statistics()


# --- the node stops ---------------------------------------------------------------------------
async def test_sessions_are_told_when_the_node_stops(tmp_path: Path) -> None:
    async with listening(tmp_path) as desk, desk.peer() as peer:
        await peer.hello()
        await desk.stop()
        assert (await peer.reply()).startswith("421 4.3.2")
        assert await peer.reply() == ""
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream(LOCALHOST, desk.port)


async def test_a_mail_that_is_being_taken_gets_its_answer_when_the_node_stops(
    tmp_path: Path,
) -> None:
    readers = Raw()
    readers.gate = trio.Event()
    async with (
        listening(tmp_path, readers) as desk,
        desk.peer() as peer,
        trio.open_nursery() as nursery,
    ):
        await peer.hello()
        await peer.envelope(ALICE)
        await peer.say("DATA")
        await peer.stream.send_all(b"Hi\r\n.\r\n")

        async def reading() -> bool:
            return bool(readers.seen)

        await wait_until(reading, "the mail is read")
        nursery.start_soon(desk.stop)
        await trio.testing.wait_all_tasks_blocked()
        readers.gate.set()
        assert await peer.reply() == "250 2.0.0 Taken"
        assert (await peer.reply()).startswith("421")
