"""What every test of the RTP engine needs: engines on free ports, a far end's SDP, digits heard."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from engine.config import SipConfig
from engine.gateway import Media
from gateways.sip.media import RemoteMedia, RtpEngine, RtpSession
from tests.support import LOCALHOST, free_udp_port
from tests.support.audio import RATE, Samples, write_wav
from tests.support.rtp_peer import RtpPeer

PCMU, PCMA, EVENTS = 0, 8, 101
SILENCE = {PCMU: b"\xff", PCMA: b"\xd5"}
DEADLINE_S = 30.0


def sip_config(ports: int, **changes: Any) -> SipConfig:
    """A range of that many even ports; those already taken on this machine are left out by it."""
    first = free_udp_port()
    while first % 2 or first + 2 * ports > 65536:
        first = free_udp_port()
    return SipConfig(
        **{"rtp_port_min": first, "rtp_port_max": first + 2 * ports - 1, "rtp_threads": 2} | changes
    )


@asynccontextmanager
async def running(engine: RtpEngine) -> AsyncIterator[RtpEngine]:
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        yield engine
        nursery.cancel_scope.cancel()


def ignore(_digit: str) -> None:
    """For tests in which no digit matters."""


def to(peer: RtpPeer, payload_type: int = PCMU, *, send: bool = True) -> RemoteMedia:
    host, port = peer.address
    return RemoteMedia(host, port, payload_type, EVENTS, send)


def recording(directory: Path, samples: Samples, name: str = "message.wav") -> Media:
    return Media(write_wav(directory / name, samples), len(samples) / RATE)


async def play(session: RtpSession, media: Media) -> None:
    with trio.fail_after(media.length_s + DEADLINE_S):
        await session.play(media)


async def quiet(peer: RtpPeer) -> None:
    """Wait until ten frames' time has passed without a packet."""
    with trio.fail_after(DEADLINE_S):
        while True:
            with trio.move_on_after(0.2) as scope:
                await peer.more(1)
            if scope.cancelled_caught:
                return


class Digits:
    """Collects, and lets a test wait."""

    def __init__(self) -> None:
        self.text = ""
        self._lot = trio.lowlevel.ParkingLot()

    def __call__(self, digit: str) -> None:
        self.text += digit
        self._lot.unpark_all()

    async def until(self, wanted: str) -> None:
        with trio.move_on_after(DEADLINE_S):
            while self.text != wanted:
                await self._lot.park()
            return
        raise AssertionError(f"{self.text!r} instead of {wanted!r}")


class Receiver:
    """Sequence numbers by SSRC, of many calls on one socket, as fast as Python goes."""

    def __init__(self, arrivals: trio.lowlevel.ParkingLot) -> None:
        self.streams: dict[int, list[int]] = {}
        self.count = 0
        self._arrivals = arrivals
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        self._socket.setblocking(False)
        self._socket.bind((LOCALHOST, 0))
        self.port: int = self._socket.getsockname()[1]

    async def run(self) -> None:
        with self._socket:
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                self._read_all()
                self._arrivals.unpark_all()

    def _read_all(self) -> None:
        while True:
            try:
                data = self._socket.recv(256)
            except BlockingIOError:
                return
            ssrc, sequence = int.from_bytes(data[8:12]), int.from_bytes(data[2:4])
            self.streams.setdefault(ssrc, []).append(sequence)
            self.count += 1
