"""One connection: why it is never used again after a doubt, its commands, TLS and login."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
import trio
from aiosmtplib.protocol import SMTPProtocol

from engine.config import SmtpConfig
from gateways.smtp.connection import Connection
from gateways.smtp.loop import Loop
from gateways.smtp.manner import Manner, manner_of
from gateways.smtp.opening import Failed
from gateways.smtp.records import Answer, At, How, Route
from tests.gateways.smtp.crossing import manner, parcel, provider, settings
from tests.gateways.smtp.faulty import PIPELINING, Peer, Script, faulty_mta, hold, in_turn, then
from tests.support.mail.certificates import Authority


@pytest.fixture
async def loop() -> AsyncIterator[Loop]:
    served = Loop()
    async with trio.open_nursery() as nursery:
        await nursery.start(served.serve)
        yield served
        assert served.statistics()["errors"] == 0
        nursery.cancel_scope.cancel()


def route(port: int, name: str = "127.0.0.1", *, verify: bool = True) -> Route:
    return Route(host="127.0.0.1", port=port, name=name, verify=verify)


async def session(
    given: Manner, *numbers: int, way: Route | None = None, **more: Any
) -> tuple[list[Answer], str]:
    """A whole session; asyncio side."""
    connection = Connection(given)
    await connection.open(way or route(given.port))
    answers = [await connection.deliver(parcel(number, **more)) for number in numbers]
    await connection.quit()
    return answers, connection.tls


# --- why: aiosmtplib after a cancel, and its stream after a drain


async def test_aiosmtplib_itself_pairs_a_late_reply_with_the_next_command(loop: Loop) -> None:
    """Messaging.md 16, reproduced: the reason for closing after every cancel and time-out."""
    asked = trio.Event()

    async def late(peer: Peer) -> None:
        asked.set()
        await go.wait()
        await peer.say("250 2.1.0 this is for MAIL")

    go = trio.Event()
    token = trio.lowlevel.current_trio_token()

    async def naive(port: int) -> tuple[bool, str]:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False)
        await client.connect()
        await client.ehlo(hostname="client.test")
        task = asyncio.ensure_future(client.mail("a@example.org"))
        await loop.ask(asked.wait, 10)
        task.cancel()
        await asyncio.wait([task])
        connected = client.is_connected
        rcpt = asyncio.ensure_future(client.rcpt("nobody@example.net"))
        await asyncio.sleep(0)  # it is written and waits
        token.run_sync_soon(go.set)
        reply = await rcpt
        client.close()
        return connected, reply.message

    script: Script = {"MAIL": late, "RCPT": "550 5.1.1 nobody"}
    async with faulty_mta(script) as mta:
        assert await loop.run(lambda: naive(mta.port)) == (True, "2.1.0 this is for MAIL")


async def test_a_stream_writer_for_one_drain_would_close_the_connection(loop: Loop) -> None:
    """Why ``Wire`` waits for its buffer itself: ``StreamWriter`` closes when it is collected."""

    async def drained(port: int) -> bool:
        here = asyncio.get_running_loop()
        transport, protocol = await here.create_connection(
            lambda: SMTPProtocol(here), "127.0.0.1", port
        )
        await asyncio.StreamWriter(
            transport,
            protocol,
            None,
            here,
        ).drain()
        return transport.is_closing()

    async with faulty_mta() as mta:
        with pytest.warns(ResourceWarning, match="unclosed"):
            assert await loop.run(lambda: drained(mta.port))


# --- cancelled at every await


HELD = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "BODY", "DOT", "RSET", "QUIT")


@pytest.mark.parametrize("step", HELD)
@pytest.mark.parametrize("extensions", [(), PIPELINING], ids=["plain", "pipelining"])
async def test_cancelling_at_every_step_closes_the_connection(
    loop: Loop, step: str, extensions: tuple[str, ...]
) -> None:
    async def reached(peer: Peer) -> None:
        if step == "BODY":
            await peer.more()
        peer.event("reached").set()
        await hold(peer)

    script: dict[str, Any] = {step: reached}
    if step == "RSET":
        script |= {"RCPT": "550 5.1.1 nobody", "DATA": "503 5.5.1 no recipient"}
    made: list[Connection] = []

    async def job() -> None:
        made.append(Connection(manner(mta.port)))
        await made[0].open(route(mta.port))
        await made[0].deliver(parcel())
        await made[0].settle()
        await made[0].quit()

    async with faulty_mta(script, extensions=extensions) as mta:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.run, job)
            peer = await mta.peer()
            await peer.event("reached").wait()
            nursery.cancel_scope.cancel()
        assert not made[0].usable
        assert made[0].left == (step in {"BODY", "DOT", "QUIT"})
        late = await loop.run(lambda: made[0].deliver(parcel(2)))
        assert (late.how, late.left) == (How.LOST, False)


# --- commands


async def test_the_envelope_of_a_peer_that_offers_nothing(loop: Loop) -> None:
    script: Script = {"EHLO": "502 5.5.1 what"}
    async with faulty_mta(script) as mta:
        answers, _ = await loop.run(lambda: session(manner(mta.port), 1, 2))
    assert [one.code for one in answers] == [250, 250]
    assert mta.peers[0].lines == [
        "EHLO client.test",
        "HELO client.test",
        *("MAIL FROM:<bounce@example.org>", "RCPT TO:<b1@example.net>", "DATA"),
        *("MAIL FROM:<bounce@example.org>", "RCPT TO:<b2@example.net>", "DATA"),
        "QUIT",
    ]


async def test_the_envelope_with_all_extensions(loop: Loop) -> None:
    more: dict[str, Any] = {
        "smtputf8": True,
        "envid": "a+b=c",
        "recipient": "żółw@example.net",
        "sender": "",
    }
    async with faulty_mta() as mta:
        await loop.run(lambda: session(manner(mta.port), 1, **more))
        await loop.run(lambda: session(manner(mta.port), 2, envid="x", recipient="a+b@x.net"))
        await loop.run(lambda: session(manner(mta.port, dsn=False), 3, envid="x"))
    envelopes = [peer.lines[1:3] for peer in mta.peers]
    size = parcel().size
    assert envelopes == [
        [
            f"MAIL FROM:<> SIZE={size} SMTPUTF8 RET=HDRS ENVID=a+2Bb+3Dc",
            "RCPT TO:<żółw@example.net> NOTIFY=FAILURE",
        ],
        [
            f"MAIL FROM:<bounce@example.org> SIZE={size} RET=HDRS ENVID=x",
            "RCPT TO:<a+b@x.net> NOTIFY=FAILURE ORCPT=rfc822;a+2Bb@x.net",
        ],
        [f"MAIL FROM:<bounce@example.org> SIZE={size}", "RCPT TO:<b3@example.net>"],
    ]


@pytest.mark.parametrize(
    ("more", "extensions", "text"),
    [
        ({"smtputf8": True}, (), "SMTPUTF8 is not offered"),
        ({"recipient": "żółw@example.net"}, ("SMTPUTF8",), "SMTPUTF8 was not asked for"),
        ({}, ("SIZE 10",), "SIZE 10"),
        ({"recipient": "a@b>\r\nRCPT TO:<c@d"}, (), "address"),
        ({"sender": "a b@c"}, (), "address"),
        ({"sender": "a\0@c"}, (), "address"),
    ],
)
async def test_what_this_peer_cannot_take_is_not_even_begun(
    loop: Loop, more: dict[str, Any], extensions: tuple[str, ...], text: str
) -> None:
    async with faulty_mta(extensions=extensions) as mta:
        answers, _ = await loop.run(lambda: session(manner(mta.port), 1, **more))
    assert (answers[0].how, answers[0].text, answers[0].left) == (How.UNABLE, text, False)
    assert mta.peers[0].lines == ["EHLO client.test", "QUIT"]


async def test_a_size_of_zero_is_no_limit(loop: Loop) -> None:
    async with faulty_mta(extensions=("SIZE 0",)) as mta:
        answers, _ = await loop.run(lambda: session(manner(mta.port), 1))
    assert answers[0].code == 250


async def test_a_mail_whose_time_is_over_is_not_begun_or_gone_on_with(loop: Loop) -> None:
    async with faulty_mta() as mta:
        answers, _ = await loop.run(lambda: session(manner(mta.port), 1, not_after=0.0))
    assert (answers[0].how, answers[0].left) == (How.TIMEOUT, False)
    assert mta.mails == []


# --- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def context(
    authority: Authority, *names: str, life: timedelta = timedelta(days=1)
) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = authority.issue(*names, life=life)
    made.load_cert_chain(issued.certificate, issued.key)
    return made


@asynccontextmanager
async def failing(at: At, how: How, code: int = 0) -> AsyncIterator[pytest.ExceptionInfo[Failed]]:
    with pytest.raises(Failed) as caught:
        yield caught
    assert (caught.value.at, caught.value.how, caught.value.code) == (at, how, code)


@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "implicit"])
async def test_tls_with_a_good_certificate(
    loop: Loop,
    authority: Authority,
    implicit: bool,  # noqa: FBT001
) -> None:
    script: Script = {"TLS": ""} if implicit else {}
    async with faulty_mta(script, tls=context(authority, "mx.test")) as mta:
        given = manner(
            mta.port, starttls="require", implicit_tls=implicit, ca_file=str(authority.bundle)
        )
        answers, tls = await loop.run(lambda: session(given, 1, way=route(mta.port, "mx.test")))
    assert (answers[0].code, answers[0].tls, tls) == (250, "TLSv1.3", "TLSv1.3")
    assert mta.peers[0].tls
    # Said again within TLS: what the peer offered in the clear counts no more (RFC 3207 §4.2).
    assert mta.peers[0].lines[0 if implicit else 2] == "EHLO client.test"


@pytest.mark.parametrize("stops", [False, True], ids=["reads", "stops reading"])
async def test_a_large_mail_within_tls(loop: Loop, authority: Authority, *, stops: bool) -> None:
    """The dot is given to TLS only after all of the body was; nothing hangs on its buffers."""
    body = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 600_000 + b"\r\n"

    async def job(given: Manner) -> Answer:
        connection = Connection(given)
        await connection.open(route(given.port, "mx.test"))
        answer = await connection.deliver(parcel(1, body))
        await connection.quit()
        return answer

    script: Script = {"BODY": hold} if stops else {}
    async with faulty_mta(script, tls=context(authority, "mx.test")) as mta:
        given = manner(
            mta.port,
            starttls="require",
            ca_file=str(authority.bundle),
            reply_timeout_s=1.0 if stops else 30.0,
            dot_timeout_s=30.0,
        )
        answer = await loop.run(lambda: job(given))
    assert answer.left == (not stops)
    assert mta.mails == ([] if stops else [body])
    assert answer.how is (How.TIMEOUT if stops else How.REPLY)


@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "implicit"])
@pytest.mark.parametrize(
    ("names", "life", "ours"),
    [
        (("other.test",), timedelta(days=1), True),
        (("mx.test",), timedelta(days=-1), True),
        (("mx.test",), timedelta(days=1), False),
    ],
    ids=["wrong name", "expired", "unknown CA"],
)
async def test_a_wrong_certificate_gets_no_mail_and_no_password(
    loop: Loop, authority: Authority, *, names: tuple[str, ...], life: timedelta, ours: bool,
    implicit: bool,
) -> None:  # fmt: skip
    script: Script = {"TLS": ""} if implicit else {}
    async with faulty_mta(script, tls=context(authority, *names, life=life)) as mta:
        given = manner(
            mta.port,
            starttls="require",
            implicit_tls=implicit,
            ca_file=str(authority.bundle) if ours else "",
            username="u",
            password="p",  # noqa: S106
        )
        async with failing(At.TLS, How.UNTRUSTED):
            await loop.run(lambda: session(given, 1, way=route(mta.port, "mx.test")))
    assert mta.mails == []
    assert not any("AUTH" in line for peer in mta.peers for line in peer.lines)


async def test_no_ca_file_is_told(loop: Loop, authority: Authority, tmp_path: Path) -> None:
    async with faulty_mta(tls=context(authority, "mx.test")) as mta:
        given = manner(mta.port, starttls="require", ca_file=str(tmp_path / "gone.pem"))
        async with failing(At.TLS, How.UNTRUSTED):
            await loop.run(lambda: session(given, 1))


async def test_starttls_that_is_required_and_not_offered(loop: Loop) -> None:
    async with faulty_mta() as mta, failing(At.TLS, How.UNTRUSTED):
        await loop.run(lambda: session(manner(mta.port, starttls="require"), 1))
    assert mta.mails == []


async def test_octets_after_the_220_of_starttls_are_an_attack(
    loop: Loop, authority: Authority
) -> None:
    """RFC 3207 §4.2; here in the same segment, as who sits between would send it."""
    script: Script = {"STARTTLS": then(b"220 go\r\n250-faulty.test\r\n250 AUTH PLAIN\r\n", hold)}
    async with faulty_mta(script, tls=context(authority, "mx.test")) as mta:
        given = manner(mta.port, starttls="require", ca_file=str(authority.bundle))
        async with failing(At.TLS, How.LOST):
            await loop.run(lambda: session(given, 1, way=route(mta.port, "mx.test")))


async def test_starttls_refused(loop: Loop, authority: Authority) -> None:
    script: Script = {"STARTTLS": "454 4.7.0 not now"}
    async with (
        faulty_mta(script, tls=context(authority, "mx.test")) as mta,
        failing(At.TLS, How.REPLY, 454),
    ):
        await loop.run(lambda: session(manner(mta.port, starttls="require"), 1))


@pytest.mark.parametrize(
    "script",
    [
        {"STARTTLS": then("220 go", b"this is no TLS at all\r\n", hold)},
        {"STARTTLS": "454 4.7.0 not now"},
    ],
    ids=["broken", "refused"],
)
async def test_offered_tls_that_fails_at_an_mx_is_gone_without(
    loop: Loop, authority: Authority, script: Script
) -> None:
    """RFC 7435 §3: on a new connection, in the clear."""
    async with faulty_mta(script, tls=context(authority, "mx.test")) as mta:
        given = manner(mta.port, direct=True, starttls="offer", connect_timeout_s=1.0)
        answers, tls = await loop.run(
            lambda: session(given, 1, way=route(mta.port, "mx.test", verify=False))
        )
    assert (answers[0].code, tls, len(mta.peers)) == (250, "", 2)


async def test_any_certificate_does_at_an_mx(loop: Loop, authority: Authority) -> None:
    tls = context(authority, "other.test", life=timedelta(days=-1))
    async with faulty_mta(tls=tls) as mta:
        given = manner(mta.port, direct=True, starttls="offer")
        answers, used = await loop.run(
            lambda: session(given, 1, way=route(mta.port, "mx.test", verify=False))
        )
    assert (answers[0].code, used, len(mta.peers)) == (250, "TLSv1.3", 1)


# --- login

SECRET = "hunter2-ü"  # noqa: S105


def login(port: int, **more: Any) -> Manner:
    given: dict[str, Any] = {"auth_without_tls": True, "username": "user", "password": SECRET}
    return manner(port, **(given | more))


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("offered", "auth", "lines"),
    [
        ("PLAIN LOGIN", "plain", [f"AUTH PLAIN {b64(chr(0) + 'user' + chr(0) + SECRET)}"]),
        ("LOGIN", "auto", ["AUTH LOGIN", b64("user"), b64(SECRET)]),
    ],
)
async def test_logging_in(loop: Loop, offered: str, auth: str, lines: list[str]) -> None:
    async def challenge(peer: Peer) -> None:
        for _ in range(len(lines) - 1):
            await peer.say("334 go on")
            await peer.line()
        await peer.say("235 2.7.0 welcome")

    async with faulty_mta({"AUTH": challenge}, extensions=(f"AUTH {offered}",)) as mta:
        answers, _ = await loop.run(lambda: session(login(mta.port, auth=auth), 1))
    assert answers[0].code == 250
    assert mta.peers[0].lines[1 : 1 + len(lines)] == lines


async def test_logging_in_with_a_challenge(loop: Loop) -> None:
    async def challenge(peer: Peer) -> None:
        await peer.say(f"334 {b64('<1.2@x>')}")
        given = base64.b64decode(await peer.line()).decode()
        proof = hmac.new(SECRET.encode(), b"<1.2@x>", hashlib.md5).hexdigest()
        await peer.say("235 ok" if given == f"user {proof}" else "535 no")

    offered = ("AUTH PLAIN CRAM-MD5",)
    async with faulty_mta({"AUTH": challenge}, extensions=offered) as mta:
        answers, _ = await loop.run(lambda: session(login(mta.port), 1))
    assert answers[0].code == 250
    assert mta.peers[0].lines[1] == "AUTH CRAM-MD5"  # in the clear the password itself is not said


@pytest.mark.parametrize("code", [535, 534, 530, 454])
async def test_a_refused_login_says_nothing_of_the_password(loop: Loop, code: int) -> None:
    script: Script = {"AUTH": f"{code} 5.7.8 wrong: {SECRET}"}
    async with (
        faulty_mta(script, extensions=("AUTH PLAIN",)) as mta,
        failing(At.AUTH, How.REPLY, code) as caught,
    ):
        await loop.run(lambda: session(login(mta.port), 1))
    assert caught.value.text == "5.7.8 wrong: ***"
    assert SECRET not in repr(login(mta.port)) + str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    ("extensions", "more"),
    [
        ((), {}),
        (("AUTH GSSAPI",), {}),
        (("AUTH PLAIN",), {"auth": "login"}),
        (("AUTH PLAIN",), {"auth_without_tls": False}),
    ],
    ids=["no AUTH", "none of ours", "not the one wanted", "no TLS"],
)
async def test_a_login_that_cannot_be_made(
    loop: Loop, extensions: tuple[str, ...], more: dict[str, Any]
) -> None:
    async with faulty_mta(extensions=extensions) as mta, failing(At.AUTH, How.UNABLE):
        await loop.run(lambda: session(login(mta.port, **more), 1))
    assert not any("AUTH" in line for line in mta.peers[0].lines)


# --- what a provider's row makes of it


def test_a_relay_is_verified_and_an_mx_is_not() -> None:
    def made(**more: Any) -> Manner:
        row = provider(0, username="u", password="p", **more)  # noqa: S106
        return manner_of(row, settings(starttls=None), SmtpConfig(), "me.test")

    relay, secure, direct = made(), made(transport="tls"), made(host="", transport="tls")
    assert (relay.starttls, relay.verify, relay.port) == ("require", True, 25)
    assert (secure.implicit_tls, secure.port) == (True, 465)
    assert (direct.starttls, direct.verify, direct.port) == ("offer", False, 25)
    assert (direct.username, direct.implicit_tls) == ("", False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"verify_tls": True}, "require"),  # else who takes STARTTLS away has the mail in the clear
        ({"verify_tls": False}, "offer"),
        ({"verify_tls": True, "starttls": "offer"}, "offer"),
    ],
)
def test_an_mx_whose_certificate_must_be_right_must_have_one(
    given: dict[str, Any], expected: str
) -> None:
    row = provider(0, host="")
    made = manner_of(row, settings(**{"starttls": None, **given}), SmtpConfig(), "me.test")
    assert (made.starttls, made.verify) == (expected, given["verify_tls"])


async def test_quit_of_a_silent_peer_is_bounded(loop: Loop) -> None:
    async with faulty_mta({"QUIT": hold}) as mta:
        answers, _ = await loop.run(lambda: session(manner(mta.port), 1))
        assert answers[0].code == 250
        assert mta.peers[0].lines[-1] == "QUIT"


async def test_rset_refused_ends_the_connection(loop: Loop) -> None:
    async def job(port: int) -> list[bool]:
        connection = Connection(manner(port))
        await connection.open(route(port))
        await connection.deliver(parcel())
        usable = [connection.usable]
        await connection.settle()
        return [*usable, connection.usable]

    script: Script = {"RCPT": in_turn("550 5.1.1 no", "250 ok"), "RSET": "500 what"}
    async with faulty_mta(script) as mta:
        assert await loop.run(lambda: job(mta.port)) == [False, False]
