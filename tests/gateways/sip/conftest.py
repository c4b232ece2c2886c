"""An RTP engine and a far end for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateways.sip.media import RtpEngine
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
