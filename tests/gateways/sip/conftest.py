"""A sip gateway, an RTP engine, and a far end for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateways.sip.gateway import SipGateway
from gateways.sip.media import RtpEngine
from tests.gateways.sip.harness import SipHarness, config
from tests.gateways.sip.harness import running as running_gateway
from tests.support.rtp import running, sip_config
from tests.support.rtp_peer import RtpPeer, open_peer


@pytest.fixture
async def engine() -> AsyncIterator[RtpEngine]:
    async with running(RtpEngine(sip_config(64), quarantine_s=0.0)) as engine:
        yield engine


@pytest.fixture
async def peer() -> AsyncIterator[RtpPeer]:
    async with open_peer() as peer:
        yield peer


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[SipHarness]:
    async with running_gateway(SipGateway(config(transaction_timeout_s=2.0))) as gateway:
        yield SipHarness(gateway, tmp_path)
