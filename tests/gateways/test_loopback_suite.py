"""The loopback gateway by the suite every voice gateway passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.gateway import Media
from engine.model import Provider
from gateways.loopback.gateway import LoopbackGateway
from tests.suites.gateway_suite import FarEnd, GatewaySuite
from tests.support.inbox import Tray

_SCRIPTS: dict[FarEnd, dict[str, Any]] = {
    FarEnd.ANSWER: {"ring_s": 0.05},
    FarEnd.BUSY: {"busy": 1.0},
    FarEnd.RING: {"no_answer": 1.0},
    FarEnd.REJECT: {"reject": 1.0},
    FarEnd.UNAVAILABLE: {"fail": 1.0},
    FarEnd.UNKNOWN: {"invalid": 1.0},
    FarEnd.HANG_UP: {"early": 1.0, "talk_s": 0.5},
    FarEnd.PRESS: {"digits": "1#"},
}


class LoopbackHarness:
    """Far ends by script."""

    def __init__(self, gateway: LoopbackGateway) -> None:
        self.gateway = gateway
        self.media = Media(Path("short.wav"), 0.2)
        self.long_media = Media(Path("long.wav"), 5.0)

    @asynccontextmanager
    async def far_end(self, behaviour: FarEnd) -> AsyncIterator[Provider]:
        yield Provider(id=1, name="script", type="loopback", settings=_SCRIPTS[behaviour])


@pytest.fixture
async def harness() -> AsyncIterator[LoopbackHarness]:
    gateway = LoopbackGateway()
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run, Tray())
        yield LoopbackHarness(gateway)
        nursery.cancel_scope.cancel()


class TestLoopbackGateway(GatewaySuite):
    """``tests.suites.gateway_suite``."""
