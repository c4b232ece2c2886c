"""The smtp gateway as the engine runs it, with an inbox that keeps what is handed in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import trio

from engine.config import Config, NodeConfig, SmtpConfig
from engine.gateway import Order, Program
from engine.model import Provider, Service
from engine.results import Fate, Result
from gateways.smtp.gateway import SmtpGateway
from tests.gateways.smtp.faulty import FaultyMta, Script
from tests.support import LOCALHOST, desk
from tests.support.inbox import Tray
from tests.support.mails import send

GOOD: Script = {}
"""A server as RFC 5321 has it."""

QUICK: dict[str, Any] = {
    "starttls": "never",
    "connect_timeout_s": 5.0,
    "reply_timeout_s": 5.0,
    "dot_timeout_s": 5.0,
    "queue_s": 20.0,
    "idle_s": 1.0,
}
"""Settings with which tests do not wait long."""


def provider_of(port: int, id_: int = 1, name: str = "relay", **settings: Any) -> Provider:
    """A relay on this machine."""
    return Provider(
        id=id_,
        name=name,
        type="smtp",
        service=Service.EMAIL,
        host=LOCALHOST,
        port=port,
        transport="tcp",
        settings={**QUICK, **settings},
    )


def order_of(
    provider: Provider, spool_id: int = 1, program: Program = send, **fields: Any
) -> Order:
    """A mail to ``c<spool_id>@example.net``; its transmission is a thousand more."""
    return Order(
        **{
            "spool_id": spool_id,
            "transmission_id": 1000 + spool_id,
            "uid": UUID(int=spool_id),
            "service": Service.EMAIL,
            "provider": provider,
            "destination": f"c{spool_id}@example.net",
            "program": program,
            "caller_id": "news@example.org",
            "caller_name": "Ann",
            **fields,
        }
    )


class Delivery(desk.Delivery):
    """One order, which the test may give up by ``scope``."""

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self.scope = trio.CancelScope()

    async def try_out(self, gateway: SmtpGateway) -> None:
        """Until there is a fate, or the scope is cancelled."""
        with self.scope:
            await self.run(gateway)
        self.done.set()

    @property
    def result(self) -> Result:
        assert isinstance(self.fate, Result), self.fate
        return self.fate


class Node(desk.Node[SmtpGateway, Tray]):
    """A running gateway."""

    def of(self, name: str = "relay") -> dict[str, Any]:
        """The provider's statistics."""
        return self.statistics_of(name)

    async def deliver(self, order: Order) -> Delivery:
        delivery = Delivery(order)
        await delivery.try_out(self.gateway)
        return delivery

    def start(self, order: Order) -> Delivery:
        """Deliver in the background."""
        delivery = Delivery(order)
        self.nursery.start_soon(delivery.try_out, self.gateway)
        return delivery

    async def fates(self, *spool_ids: int) -> dict[int, Fate]:
        """What the journal knows, as a restart would ask."""
        return dict(await self.gateway._tracker.recall(spool_ids))


@asynccontextmanager
async def running(folder: Path, **smtp: Any) -> AsyncIterator[Node]:
    """A gateway with its journal in ``folder``; ``smtp`` are fields of ``[smtp]``."""
    folder.mkdir(parents=True, exist_ok=True)
    smtp.setdefault("hostname", "node.example.org")
    smtp.setdefault("dns_servers", ("127.0.0.1:9",))  # nobody: no name is asked for outside
    config = Config(node=NodeConfig(data_dir=str(folder)), smtp=SmtpConfig(**smtp))
    gateway, inbox = SmtpGateway(config), Tray()
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run, inbox)
        yield Node(gateway, inbox, nursery)
        nursery.cancel_scope.cancel()


def recipients(mta: FaultyMta) -> list[bytes]:
    """Recipients of the mails that came whole."""
    lines = [line for mail in mta.mails for line in mail.split(b"\r\n")]
    return [line for line in lines if line.startswith(b"To:")]


def causes(deliveries: list[Delivery]) -> set[str]:
    return {each.result.cause for each in deliveries}


async def hand_in(port: int, sender: str, recipient: str, mail: str) -> int:
    """A mail to a listener on this machine, by hand; the code it was answered with."""
    stream = await trio.open_tcp_stream(LOCALHOST, port)
    async with stream:
        code = await _reply(stream)
        for line in (
            "EHLO far.example.com",
            f"MAIL FROM:<{sender}>",
            f"RCPT TO:<{recipient}>",
            "DATA",
            mail.replace("\n", "\r\n") + "\r\n.",
        ):
            await stream.send_all(line.encode() + b"\r\n")
            code = await _reply(stream)
            if code >= 400:
                break
    return code


async def _reply(stream: trio.SocketStream) -> int:
    seen = b""
    while not seen.endswith(b"\r\n") or seen.splitlines()[-1][3:4] == b"-":
        chunk = await stream.receive_some()
        assert chunk, "the listener hung up"
        seen += chunk
    return int(seen.splitlines()[-1][:3])


def dsn(recipient: str, status: str = "5.1.1") -> str:
    """A delivery status notification (RFC 3464)."""
    return f"""\
From: MAILER-DAEMON@far.example.com
To: us@example.org
Subject: Undelivered Mail Returned to Sender
Message-ID: <1@far.example.com>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

It could not be delivered.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; far.example.com

Final-Recipient: rfc822; {recipient}
Action: failed
Status: {status}
Diagnostic-Code: smtp; 550 {status} no such user

--b--
"""
