"""The sip gateway under test, with SIPp as the far end of its trunks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from engine.config import SipConfig
from engine.gateway import Media
from engine.model import Provider
from gateways.sip.gateway import SipGateway
from tests.suites.gateway_suite import FarEnd
from tests.support import LOCALHOST, audio
from tests.support.inbox import Tray
from tests.support.rtp import sip_config
from tests.support.rtp_peer import RtpPeer, open_peer
from tests.support.sipp import Message, Sipp, run_sipp
from tests.support.uas import Uas

_REFUSALS = {
    FarEnd.BUSY: "486 Busy Here",
    FarEnd.REJECT: "603 Decline",
    FarEnd.UNAVAILABLE: "503 Service Unavailable",
    FarEnd.UNKNOWN: "404 Not Found",
}
_SCENARIOS = {FarEnd.RING: "no_answer", FarEnd.HANG_UP: "answer_hang_up"}


_CALLS = 64


def config(**fields: Any) -> SipConfig:
    """A small gateway; its RTP engine leaves out ports that others hold."""
    return sip_config(_CALLS, **({"workers_min": 1, "workers_max": 12} | fields))


def trunk(uas: Uas, **fields: Any) -> Provider:
    """The provider that leads to ``uas``."""
    values: dict[str, Any] = {"id": 1, "name": "far", "host": LOCALHOST, "port": uas.port}
    return Provider(**(values | {"transport": uas.transport} | fields))


@asynccontextmanager
async def running(gateway: SipGateway) -> AsyncIterator[SipGateway]:
    """The gateway, serving."""
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run, Tray())
        yield gateway
        nursery.cancel_scope.cancel()


class SipHarness:
    """``tests.suites.gateway_suite.Harness`` for SIP; ``sipp`` is the latest far end."""

    def __init__(self, gateway: SipGateway, folder: Path) -> None:
        self.gateway = gateway
        self.media = self.recording(folder, 0.4)
        self.long_media = self.recording(folder, 5.0)
        self.sipp: Sipp | None = None
        ports = gateway._rtp._config
        self.rtp_ports = range(ports.rtp_port_min, ports.rtp_port_max, 2)
        self._folder = folder
        self._runs = 0

    @staticmethod
    def recording(folder: Path, seconds: float) -> Media:
        path = audio.write_wav(folder / f"{seconds}.wav", audio.chirp(seconds))
        return Media(path, seconds)

    @asynccontextmanager
    async def far_end(self, behaviour: FarEnd) -> AsyncIterator[Provider]:
        if behaviour is FarEnd.PRESS:
            async with self._pressing() as provider:
                yield provider
        elif behaviour in _REFUSALS:
            async with self.scenario("refuse", status=_REFUSALS[behaviour], more="X-A: b") as one:
                yield one
        else:
            async with self.scenario(_SCENARIOS.get(behaviour, "answer"), "-d", "500") as one:
                yield one

    @asynccontextmanager
    async def scenario(self, name: str, *arguments: str, **keys: str) -> AsyncIterator[Provider]:
        """A SIPp by a scenario, as a provider."""
        self._runs += 1
        folder = self._folder / f"sipp{self._runs}"
        keys = {"rtp_host": LOCALHOST, "rtp_port": "49152"} | keys
        async with run_sipp(folder, name, *arguments, keys=keys) as self.sipp:
            yield Provider(id=1, name=name, host=LOCALHOST, port=self.sipp.port)

    @asynccontextmanager
    async def hearing(
        self, name: str, *arguments: str, **keys: str
    ) -> AsyncIterator[tuple[Provider, RtpPeer]]:
        """As ``scenario``, with somebody at the RTP address of its SDP."""
        async with open_peer() as peer:
            keys = {"rtp_port": str(peer.address[1])} | keys
            async with self.scenario(name, *arguments, **keys) as provider:
                yield provider, peer

    @asynccontextmanager
    async def _pressing(self) -> AsyncIterator[Provider]:
        async with self.hearing("answer") as (provider, peer), trio.open_nursery() as nursery:
            nursery.start_soon(self._press, peer, "1#")
            yield provider
            nursery.cancel_scope.cancel()

    async def _press(self, peer: RtpPeer, digits: str) -> None:
        invite = await self.invite()
        await peer.more(3)
        for digit in digits:
            await peer.send_digit(invite.rtp, 101, digit, lose=lambda _: False)

    async def invite(self) -> Message:
        """The first INVITE SIPp received."""
        assert self.sipp is not None
        return (await self.sipp.wait_received("INVITE"))[0]
