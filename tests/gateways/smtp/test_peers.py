"""The gateway against real peers: Postfix and Dovecot's logins, every way in, and smtp-sink."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import MIMEPart
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio

from engine.config import Config, NodeConfig, SmtpConfig
from engine.gateway import Mailer, Order
from engine.mail import MailForm, MailMessage
from engine.model import Provider, Service
from engine.results import Awaiting, Disposition, Fate, Result, ResultRow
from gateways.smtp.gateway import SmtpGateway
from tests.acceptance.mail_campaign import parsed
from tests.support import LOCALHOST, free_port
from tests.support.inbox import Tray
from tests.support.mail.dovecot import dovecot
from tests.support.mail.postfix import postfix
from tests.support.mail.sink import smtp_sink, smtp_source

SENDER = "sender@example.org"
MANY = 200
_FORM = MailForm(
    body=("<p>Grüße, ", "</p>\n.\nFrom here\n"),
    body_alt=("Grüße, ", "\n.\n..\nFrom here\n"),
)
_numbers = count(1)

pytestmark = pytest.mark.slow


class Sender:
    """One provider at a running gateway."""

    def __init__(self, gateway: SmtpGateway, provider: Provider) -> None:
        self._gateway = gateway
        self._provider = provider

    async def send(self, recipient: str, *, sender: str = SENDER) -> Fate:
        """One mail; what became of it."""
        number = next(_numbers)
        order = Order(
            spool_id=number,
            uid=UUID(int=number),
            service=Service.EMAIL,
            provider=self._provider,
            destination=recipient,
            program=partial(_mail, number),
            caller_id=sender,
            caller_name="Zoë",
            transmission_id=number,
        )
        return await self._gateway.deliver(order, lambda *_: None)


async def _mail(number: int, mailer: Mailer) -> None:
    value = f"№ {number}"
    message = MailMessage(form=_FORM, subject=f"Äpfel {number}", body=(value,), body_alt=(value,))
    await mailer.send_mail(message)


@asynccontextmanager
async def sending(
    folder: Path, port: int, *, ca_file: Path | None = None, listen: int = 0, **fields: Any
) -> AsyncIterator[Sender]:
    """A gateway with one relay; fields of the provider, the rest are its settings."""
    known = {key: fields.pop(key) for key in ("transport", "username", "password") if key in fields}
    provider = Provider(
        id=1, name="relay", type="smtp", service=Service.EMAIL, host=LOCALHOST, port=port,
        settings=fields, **{"transport": "tcp", **known},
    )  # fmt: skip
    config = Config(
        node=NodeConfig(data_dir=str(folder)),
        smtp=SmtpConfig(ca_file=str(ca_file or ""), listen_port=listen),
    )
    gateway = SmtpGateway(config)
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run, Tray())
        await gateway.providers({1: provider})
        yield Sender(gateway, provider)
        nursery.cancel_scope.cancel()


def _accepted(fate: Fate) -> bool:
    return isinstance(fate, Result) and fate.cause == "accepted"


async def test_starttls_with_a_certificate_that_is_checked(tmp_path: Path) -> None:
    async with (
        postfix(tmp_path / "mta") as mta,
        sending(tmp_path, mta.port, ca_file=mta.trusted) as relay,
    ):
        assert _accepted(await relay.send("b@example.net"))
        [mail] = await mta.wait_messages(1)
        assert "TLS connection established" in mta.log()
    assert b"with ESMTPS id" in mail.raw
    assert mail.sender == SENDER
    message = parsed(mail.raw)
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert re.fullmatch(r"Grüße, № \d+\n\.\n\.\.\nFrom here\n", _words(plain))
    assert re.fullmatch(r"<p>Grüße, № \d+</p>\n\.\nFrom here\n", _words(html))


def _words(part: MIMEPart) -> str:
    content = part.get_content()
    assert isinstance(content, str)
    return content.replace("\r\n", "\n")


async def test_tls_from_the_first_byte(tmp_path: Path) -> None:
    async with (
        postfix(tmp_path / "mta") as mta,
        sending(tmp_path, mta.tls_port, ca_file=mta.trusted, transport="tls") as relay,
    ):
        assert _accepted(await relay.send("b@example.net"))
        [mail] = await mta.wait_messages(1)
    assert b"with ESMTPS id" in mail.raw


async def test_a_certificate_nobody_knows_is_not_talked_to(tmp_path: Path) -> None:
    async with postfix(tmp_path / "mta") as mta, sending(tmp_path, mta.port) as relay:
        fate = await relay.send("b@example.net")
        assert mta.arrived() == 0
    assert isinstance(fate, Result)
    assert (fate.cause, fate.disposition) == ("tls_failed", Disposition.DEFERRED)


@pytest.mark.parametrize("way", ["auto", "plain", "login", "cram-md5"])
async def test_every_way_to_log_in(tmp_path: Path, way: str) -> None:
    async with (
        dovecot(tmp_path / "login", {"relay": "öpen sesame" if way == "plain" else "open"}) as who,
        postfix(tmp_path / "mta", auth=who.auth_port) as mta,
        sending(
            tmp_path, mta.port, ca_file=mta.trusted, auth=way, username="relay",
            password="öpen sesame" if way == "plain" else "open",
        ) as relay,
    ):  # fmt: skip
        assert _accepted(await relay.send("b@example.net"))
        [mail] = await mta.wait_messages(1)
    assert b"with ESMTPSA id" in mail.raw


async def test_a_wrong_login(tmp_path: Path) -> None:
    async with (
        dovecot(tmp_path / "login", {"relay": "open"}) as logins,
        postfix(tmp_path / "mta", auth=logins.auth_port) as mta,
        sending(
            tmp_path,
            mta.port,
            ca_file=mta.trusted,
            username="relay",
            password="barley",  # noqa: S106 - wrong
        ) as relay,
    ):
        fate = await relay.send("b@example.net")
        assert mta.arrived() == 0
    assert isinstance(fate, Result)
    assert fate.cause == "auth_failed"
    assert fate.code.startswith("535")


async def test_addresses_beyond_ascii_where_they_are_taken(tmp_path: Path) -> None:
    async with (
        postfix(tmp_path / "mta") as mta,
        sending(tmp_path, mta.port, ca_file=mta.trusted) as relay,
    ):
        assert _accepted(await relay.send("grüße@example.net"))
        [mail] = await mta.wait_messages(1)
    assert mail.recipient == "grüße@example.net"
    assert b"UTF8SMTPS id" in mail.raw


async def test_addresses_beyond_ascii_where_they_are_not(tmp_path: Path) -> None:
    async with smtp_sink() as sink, sending(tmp_path, sink.port, starttls="never") as relay:
        fate = await relay.send("grüße@example.net")
        assert sink.messages == 0
    assert isinstance(fate, Result)
    assert fate.cause == "no_smtputf8"
    assert ResultRow("email", "reply", "SMTPUTF8 is not offered") in fate.rows


async def test_a_bounce_comes_with_our_token_and_envelope_id(tmp_path: Path) -> None:
    boxes = {"^b[+].*@bounces[.]example[.]org$": "bounces"}
    async with (
        postfix(
            tmp_path / "mta",
            gone=["gone@example.net"],
            accept="example.net bounces.example.org",
            boxes=boxes,
        ) as mta,
        sending(
            tmp_path, mta.port, ca_file=mta.trusted, listen=free_port(),
            bounce_address="b+{token}@bounces.example.org",
        ) as relay,
    ):  # fmt: skip
        fate = await relay.send("gone@example.net")
        [bounce] = await mta.wait_messages(1, "bounces")
    assert isinstance(fate, Awaiting)
    token = re.fullmatch(r"b\+([a-z2-7]{24})@bounces\.example\.org", bounce.recipient)
    assert token
    assert bounce.sender == ""
    assert f"Original-Envelope-Id: {token[1]}".encode() in bounce.raw
    assert b"Status: 5.1.1" in bounce.raw


async def test_a_connection_takes_as_many_as_it_may(tmp_path: Path) -> None:
    limits = {"connections": 2, "messages_per_connection": 10}
    async with (
        postfix(tmp_path / "mta") as mta,
        sending(tmp_path, mta.port, ca_file=mta.trusted, **limits) as relay,
    ):
        fates: list[Fate] = []

        async def one(number: int) -> None:
            fates.append(await relay.send(f"r{number}@example.net"))

        async with trio.open_nursery() as nursery:
            for number in range(MANY):
                nursery.start_soon(one, number)
        mails = await mta.wait_messages(MANY)
        sessions = re.findall(r"disconnect from .* mail=(\d+)", mta.log_file.read_text())
    assert all(map(_accepted, fates))
    assert len({mail.recipient for mail in mails}) == len(mails) == MANY
    assert max(map(int, sessions)) == 10
    assert mta.log_file.name == "maillog"


async def test_smtp_sink_and_smtp_source_agree() -> None:
    async with smtp_sink() as sink:
        sent = await smtp_source(sink.port, MANY)
        await sink.wait_messages(MANY)
        assert sink.messages == sent.messages == MANY
