"""The sip gateway by the shared suite, against SIPp."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from gateways.sip.gateway import SipGateway
from tests.gateways.sip.harness import SipHarness, config, running
from tests.suites.gateway_suite import Delivery, GatewaySuite, play


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[SipHarness]:
    async with running(SipGateway(config())) as gateway:
        yield SipHarness(gateway, tmp_path)


class TestSipGateway(GatewaySuite):
    """``tests.suites.gateway_suite``."""
