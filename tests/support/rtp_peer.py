"""A far end of plain sockets that speaks RTP by itself: none of our C code is in it."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

FRAME = 160
DIGITS = "0123456789*#ABCD"
DEADLINE_S = 20.0


class Packet(NamedTuple):
    """One RTP packet as received (RFC 3550 §5.1)."""

    first_byte: int
    marker: bool
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    source: tuple[str, int]


def parse(data: bytes, source: tuple[str, int]) -> Packet:
    """What our engine sends has neither CSRC nor extension nor padding: the header is 12 bytes."""
    first, second, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data)
    return Packet(
        first, bool(second & 0x80), second & 0x7F, sequence, timestamp, ssrc, data[12:], source
    )


class RtpPeer:
    """Receives into ``packets`` from the start; sends what it is told."""

    def __init__(self, udp: trio.socket.SocketType) -> None:
        self.packets: list[Packet] = []
        self.address: tuple[str, int] = udp.getsockname()
        self.sequence = 1000
        self.timestamp = 4_000_000_000  # wraps within the test
        self.ssrc = 0x5EED
        self._udp = udp
        self._changed = trio.Condition()

    async def receive(self) -> None:
        """Serve until cancelled."""
        while True:
            data, source = await self._udp.recvfrom(2048)
            async with self._changed:
                self.packets.append(parse(data, source))
                self._changed.notify_all()

    async def until(self, condition: Callable[[list[Packet]], bool]) -> None:
        """Wait until what was received satisfies ``condition``."""
        with trio.fail_after(DEADLINE_S):
            async with self._changed:
                while not condition(self.packets):
                    await self._changed.wait()

    async def more(self, count: int) -> None:
        """Wait for so many packets more than there are now."""
        wanted = len(self.packets) + count
        await self.until(lambda packets: len(packets) >= wanted)

    def audio(self, payload_type: int) -> bytes:
        """All audio in sequence order, in one piece."""
        packets = [p for p in self.packets if p.payload_type == payload_type]
        first = packets[0].sequence
        packets.sort(key=lambda p: (p.sequence - first + 0x8000) & 0xFFFF)
        return b"".join(p.payload for p in packets)

    async def send(
        self, to: tuple[str, int], payload_type: int, payload: bytes, *, marker: bool = False,
        timestamp: int | None = None,
    ) -> None:  # fmt: skip
        """One packet with the next sequence number."""
        stamp = self.timestamp if timestamp is None else timestamp
        header = struct.pack(
            "!BBHII", 0x80, payload_type | 0x80 * marker, self.sequence, stamp & 0xFFFFFFFF,
            self.ssrc,
        )  # fmt: skip
        self.sequence = (self.sequence + 1) & 0xFFFF
        await self._udp.sendto(header + payload, to)

    async def send_raw(self, to: tuple[str, int], data: bytes) -> None:
        """Any bytes."""
        await self._udp.sendto(data, to)

    async def send_audio(self, to: tuple[str, int], payload_type: int, data: bytes) -> None:
        """G.711 in 20 ms packets, at the pace of a telephone."""
        begun = trio.current_time()
        for number, at in enumerate(range(0, len(data), FRAME)):
            await trio.sleep_until(begun + number * 0.02)
            await self.send(to, payload_type, data[at : at + FRAME], marker=number == 0)
            self.timestamp += FRAME

    async def send_digit(
        self, to: tuple[str, int], payload_type: int, digit: str, *, lose: Callable[[int], bool]
    ) -> None:
        """A telephone event of five updates and three ends (RFC 4733 §2.5.1), some of them lost."""
        event = DIGITS.index(digit)
        durations = [(n + 1) * FRAME for n in range(5)]
        packets = [(d, False) for d in durations] + [(durations[-1], True)] * 3
        for number, (duration, last) in enumerate(packets):
            payload = struct.pack("!BBH", event, 10 | 0x80 * last, duration)
            if lose(number):
                self.sequence = (self.sequence + 1) & 0xFFFF
            else:
                await self.send(to, payload_type, payload, marker=number == 0)
        self.timestamp += FRAME * 10


@asynccontextmanager
async def open_peer(host: str = "127.0.0.1") -> AsyncIterator[RtpPeer]:
    """A peer on a free port that receives for as long as the block lasts."""
    udp = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        await udp.bind((host, 0))
        peer = RtpPeer(udp)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.receive)
            yield peer
            nursery.cancel_scope.cancel()


def gaps(packets: list[Packet]) -> list[tuple[int, int]]:
    """Pairs of neighbours (in order of arrival) whose sequence numbers do not follow."""
    pairs = itertools.pairwise(packet.sequence for packet in packets)
    return [(a, b) for a, b in pairs if (a + 1) & 0xFFFF != b]
