"""The smtp gateway by the suite of every gateway for e-mail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.config import Config, NodeConfig, SmtpConfig
from engine.model import Provider
from gateways.smtp.gateway import SmtpGateway
from tests.gateways.smtp.desk import dsn, hand_in, provider_of
from tests.gateways.smtp.faulty import Peer, Reaction, faulty_mta, hold
from tests.suites.mail_suite import MailSuite, Network
from tests.suites.sending_suite import Inbox, running
from tests.support import free_port

_REPLIES: dict[Network, tuple[str, Reaction]] = {
    Network.DEFER: ("RCPT", "451 4.7.1 come back later"),
    Network.REJECT: ("DOT", "554 5.7.1 no such words here"),
    Network.UNKNOWN: ("RCPT", "550 5.1.1 nobody here"),
    Network.SILENT_AFTER_DOT: ("DOT", hold),
}


class SmtpHarness:
    """A server for each network."""

    def __init__(self, gateway: SmtpGateway, inbox: Inbox, listen_port: int) -> None:
        self.gateway = gateway
        self.inbox = inbox
        self._listen_port = listen_port

    async def _bounce(self, peer: Peer) -> None:
        """Take it, and soon say that it came back; again while that is not taken."""
        await peer.say("250 2.0.0 taken")
        sender = next(line for line in peer.lines if line.startswith("MAIL FROM:"))
        token = sender.partition("<")[2].partition(">")[0]
        while await hand_in(self._listen_port, "", token, dsn("zoe@example.com")) != 250:
            await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def network(
        self, behaviour: Network, *, bounces: bool = False
    ) -> AsyncIterator[Provider]:
        script: dict[str, Reaction] = dict([_REPLIES[behaviour]] if behaviour in _REPLIES else [])
        if behaviour is Network.BOUNCE:
            script["DOT"] = self._bounce
        settings: dict[str, Any] = {"dot_timeout_s": 0.5}
        if bounces:
            wait_s = 30.0 if behaviour is Network.BOUNCE else 0.5
            settings |= {"bounce_address": "b+{token}@example.org", "bounce_wait_s": wait_s}
        async with faulty_mta(script) as mta:
            there = behaviour is not Network.UNAVAILABLE
            provider = provider_of(mta.port if there else free_port(), **settings)
            await self.gateway.providers({1: provider})
            yield provider
            await self.gateway.providers({})


class TestSmtp(MailSuite):
    """``tests.suites.mail_suite``."""

    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[SmtpHarness]:
        port = free_port()
        config = Config(
            node=NodeConfig(data_dir=str(tmp_path)), smtp=SmtpConfig(listen_port=port, readers=1)
        )
        gateway = SmtpGateway(config)
        async with running(gateway) as inbox:
            yield SmtpHarness(gateway, inbox, port)
