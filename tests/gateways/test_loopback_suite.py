"""The loopback gateway passes the suite of every voice gateway, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.gateway import Inbound
from engine.model import Media, Provider
from gateways.loopback.gateway import LoopbackGateway
from tests.suites.gateway_suite import FarEnd, GatewaySuite

BEHAVIOURS: dict[FarEnd, dict[str, Any]] = {
    FarEnd.ANSWER: {"ring_s": 0.2},
    FarEnd.BUSY: {"busy": 1.0},
    FarEnd.RING: {"no_answer": 1.0},
    FarEnd.REJECT: {"reject": 1.0},
    FarEnd.UNAVAILABLE: {"fail": 1.0},
    FarEnd.UNKNOWN: {"invalid": 1.0},
    FarEnd.HANG_UP: {"early": 1.0, "talk_s": 0.5},
    FarEnd.PRESS: {"digits": "1#"},
}


class LoopbackHarness:
    """The far end is a script in the provider's settings."""

    media = Media(Path("short.wav"), 1.0)
    long_media = Media(Path("long.wav"), 8.0)

    def __init__(self) -> None:
        self.gateway = LoopbackGateway(seed=1)

    @asynccontextmanager
    async def far_end(self, behaviour: FarEnd) -> AsyncIterator[Provider]:
        yield Provider(
            id=behaviour.value,
            name=behaviour.name,
            type="loopback",
            settings=BEHAVIOURS[behaviour],
        )


class TestLoopback(GatewaySuite):
    @pytest.fixture
    async def harness(self, autojump_clock: Any) -> AsyncIterator[LoopbackHarness]:
        harness = LoopbackHarness()
        send, _ = trio.open_memory_channel[Inbound](0)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(harness.gateway.run, send))
            yield harness
            nursery.cancel_scope.cancel()
