"""What goes over the wire between the node and its RTP engine process, and the memory they share.

The numbers and layouts are those of ``native/rtp/shared.h``; they are read from the compiled
extension, so there is one definition only. Commands are packed here, once per call and command:
this is the hot path, hence precompiled structs and no classes.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
from typing import Any

import msgspec
from native.rtp._rtp import ffi, lib

from engine.errors import InvalidError

EVENT = struct.Struct("=BBHIII")  # struct rtp_event: kind, arg, -, index, generation, token
READY: int = lib.RTP_EV_READY
PLAYED: int = lib.RTP_EV_PLAYED
PLAY_FAILED: int = lib.RTP_EV_PLAY_FAILED
DIGIT: int = lib.RTP_EV_DIGIT
DTMF_SENT: int = lib.RTP_EV_DTMF_SENT
DEAD: int = lib.RTP_EV_DEAD
RECORDED: int = lib.RTP_EV_RECORDED
RECORD_FAILED: int = lib.RTP_EV_RECORD_FAILED
DONE = frozenset((PLAYED, DTMF_SENT, RECORDED))
FAILED = frozenset((PLAY_FAILED, RECORD_FAILED))

PLAY: int = lib.RTP_CMD_PLAY
STOP: int = lib.RTP_CMD_STOP
DTMF: int = lib.RTP_CMD_DTMF
RECORD: int = lib.RTP_CMD_RECORD
RELEASE: int = lib.RTP_CMD_RELEASE
_LEASE_KIND: int = lib.RTP_CMD_LEASE
_CONNECT_KIND: int = lib.RTP_CMD_CONNECT

MAX_THREADS: int = lib.RTP_MAX_THREADS
MAX_DTMF: int = lib.RTP_MAX_DTMF
SHARED_BYTES: int = ffi.sizeof("struct rtp_shared")

_HEAD = struct.Struct("=HBBII")
_LEASE = struct.Struct("=HBBIII")
_CONNECT = struct.Struct("=HBBII4sHBBBBH")
_TEXT = struct.Struct("=HBBIII")
_NO_PAYLOAD_TYPE: int = lib.RTP_NO_PAYLOAD_TYPE
_MIN_PORT = 1024
OFFERED_DTMF = 101  # what our own SDP names for telephone events (native/pjsua/sdp.py)
_DYNAMIC_TYPES = range(96, 128)  # RFC 3551 §6


class RemoteMedia(msgspec.Struct, frozen=True):
    """Where and how the far end wants its audio: what its SDP says.

    ``payload_type`` is 0 (PCMU) or 8 (PCMA). ``dtmf_payload_type`` is the one the far end named
    for telephone events (None = it takes none); ``offered_dtmf_payload_type`` the one our own SDP
    names: each side receives on what it named itself (RFC 3264 §6.1), so both are listened to.
    ``send`` False = hold: the clock runs on, nothing is sent.
    """

    host: str
    port: int
    payload_type: int
    dtmf_payload_type: int | None
    send: bool
    offered_dtmf_payload_type: int | None = OFFERED_DTMF


class RtpStats(msgspec.Struct, frozen=True):
    """What became of one session's packets. ``lost`` by RFC 3550 A.3, ``jitter_ms`` by A.8."""

    sent: int = 0
    received: int = 0
    lost: int = 0
    foreign: int = 0
    malformed: int = 0
    send_errors: int = 0
    digits: int = 0
    jitter_ms: float = 0.0
    late_max_ms: float = 0.0
    latched: bool = False


def unicast_address(host: str, port: int) -> bytes | None:
    """The four bytes of an address that audio may be sent to, else None.

    A far end chooses where our packets go; so never to "nowhere" (0.0.0.0 is the old hold, RFC
    3264 §8.4), to groups, or to the system ports, where other services would be the victims.
    """
    try:
        packed = socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return None
    multicast = 224  # and everything above it: RFC 1112, RFC 6890
    if packed[0] in (0, *range(multicast, 256)) or not _MIN_PORT <= port <= 0xFFFF:  # noqa: PLR2004
        return None
    return packed


def lease(index: int, generation: int, dead_after_ms: int) -> bytes:
    """Begin a session on a port; whatever was on it ends."""
    return _LEASE.pack(_LEASE.size, _LEASE_KIND, 0, index, generation, dead_after_ms)


def connect(index: int, generation: int, remote: RemoteMedia) -> bytes:
    """(Re)key a session. An address that may not be sent to makes it a hold."""
    if remote.payload_type not in (0, 8):
        raise InvalidError(f"payload type {remote.payload_type} is neither PCMU nor PCMA")
    address = unicast_address(remote.host, remote.port)
    return _CONNECT.pack(
        _CONNECT.size,
        _CONNECT_KIND,
        0,
        index,
        generation,
        address or b"\0\0\0\0",
        remote.port if address else 0,
        remote.payload_type,
        _dtmf_type(remote.dtmf_payload_type),
        _dtmf_type(remote.offered_dtmf_payload_type),
        remote.send and address is not None,
        0,
    )


def _dtmf_type(number: int | None) -> int:
    return number if number in _DYNAMIC_TYPES else _NO_PAYLOAD_TYPE  # type: ignore[return-value]


def command(kind: int, index: int, generation: int, token: int | None, data: bytes) -> bytes:
    """Any other command: with a token those that carry a path or digits, bare the rest."""
    if token is None:
        return _HEAD.pack(_HEAD.size, kind, 0, index, generation)
    return _TEXT.pack(_TEXT.size + len(data), kind, 0, index, generation, token) + data


def path_bytes(path: os.PathLike[str]) -> bytes:
    """A path as the engine takes it; raises ``InvalidError`` where it cannot."""
    data = os.fsencode(path)
    if not data or len(data) >= lib.RTP_MAX_PATH or b"\0" in data:
        raise InvalidError("not a path the RTP engine can open")
    return data


class SharedMemory:
    """The counters of one engine process: written there, read here at any time."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("outspool-rtp", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, SHARED_BYTES)
        self._map = mmap.mmap(self.fd, SHARED_BYTES)
        self._shared: Any = ffi.from_buffer("struct rtp_shared *", self._map)
        self._port: Any = self._shared.port

    def close_fd(self) -> None:
        """The mapping stays; the child has the descriptor now."""
        os.close(self.fd)

    @property
    def heartbeat(self) -> int:
        """Counts up a few times a second while the engine's control loop lives."""
        return int(self._shared.heartbeat)

    def clocks(self) -> list[tuple[int, int]]:
        """Milliseconds and sessions of each thread; it keeps time only while it has sessions."""
        threads = [self._shared.thread[i] for i in range(self._shared.threads)]
        return [(int(thread.ticks), int(thread.sessions)) for thread in threads]

    def ports(self) -> list[int]:
        """The UDP port of each index, 0 where it could not be bound."""
        return [int(self._port[i].port) for i in range(self._shared.ports)]

    def port_stats(self, index: int, generation: int) -> RtpStats:
        """The counters of one lease; zeros where the engine has not begun it yet."""
        port = self._port[index]
        if port.generation != generation:
            return RtpStats()
        return RtpStats(
            port.sent,
            port.received,
            port.lost,
            port.foreign,
            port.malformed,
            port.send_errors,
            port.digits,
            port.jitter / 8,
            port.late_max_us / 1000,
            bool(port.latched),
        )

    def totals(self) -> dict[str, Any]:
        """All threads together, since the process began."""
        threads = [self._shared.thread[i] for i in range(self._shared.threads)]
        names = ("sent", "received", "lost", "foreign", "malformed", "send_errors", "stalls")
        totals: dict[str, Any] = {name: sum(getattr(t, name) for t in threads) for name in names}
        totals["digits_dropped"] = sum(t.digits_dropped for t in threads)
        totals["threads"] = len(threads)
        totals["realtime"] = bool(threads) and all(t.realtime for t in threads)
        totals["late_p99_ms"] = self._late_percentile(0.99)
        totals["late_max_ms"] = max((t.late_max_us for t in threads), default=0) / 1000
        return totals

    def late_histogram(self) -> list[int]:
        """Packets by send lateness, in bins of 0.1 ms; the last bin holds everything beyond."""
        bins = [0] * int(lib.RTP_LATE_BINS)
        for i in range(self._shared.threads):
            late = ffi.unpack(self._shared.thread[i].late, len(bins))
            bins = [a + b for a, b in zip(bins, late, strict=True)]
        return bins

    def _late_percentile(self, share: float) -> float:
        return percentile_ms(self.late_histogram(), share)


def percentile_ms(histogram: list[int], share: float) -> float:
    """Upper edge, in ms, of the bin that holds the given share of the packets."""
    wanted = sum(histogram) * share
    seen = 0
    for number, count in enumerate(histogram):
        seen += count
        if count and seen >= wanted:
            return (number + 1) * int(lib.RTP_LATE_BIN_US) / 1000
    return 0.0
