"""The gateways that carry e-mail, by the suite each of them passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.model import Provider, Service
from gateways.loopback.gateway import LoopbackGateway
from tests.suites.mail_suite import MailSuite, Network
from tests.suites.sending_suite import Inbox, running

_SCRIPTS: dict[Network, dict[str, Any]] = {
    Network.ACCEPT: {"ring_s": 0.01},
    Network.BOUNCE: {"receipt_s": 0.05, "undelivered": 1.0},
    Network.DEFER: {"defer": 1.0},
    Network.REJECT: {"reject": 1.0},
    Network.UNKNOWN: {"invalid": 1.0},
    Network.SILENT_AFTER_DOT: {"no_answer": 1.0},
    Network.UNAVAILABLE: {"fail": 1.0},
}


class LoopbackHarness:
    """Networks by script."""

    def __init__(self, gateway: LoopbackGateway, inbox: Inbox) -> None:
        self.gateway = gateway
        self.inbox = inbox

    @asynccontextmanager
    async def network(
        self, behaviour: Network, *, bounces: bool = False
    ) -> AsyncIterator[Provider]:
        settings = _SCRIPTS[behaviour]
        if bounces and "receipt_s" not in settings:
            settings = {**settings, "receipt_s": 0.0, "silent": 1.0, "receipt_wait_s": 0.1}
        yield Provider(id=1, name="s", type="loopback", service=Service.EMAIL, settings=settings)


class TestLoopback(MailSuite):
    """``tests.suites.mail_suite``."""

    @pytest.fixture
    async def harness(self) -> AsyncIterator[LoopbackHarness]:
        gateway = LoopbackGateway(seed=1)
        async with running(gateway) as inbox:
            yield LoopbackHarness(gateway, inbox)
