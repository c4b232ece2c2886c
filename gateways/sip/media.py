"""The media half of the sip gateway: RTP by our own C engine in its own process.

``RtpEngine`` starts and supervises the process (``python -m native.rtp``); ``lease()`` gives a call
its own UDP port as an ``RtpSession``. Nothing here waits for the engine except ``play``,
``send_dtmf`` and ``recorded``: a command is a few bytes appended to one buffer that one task
writes, and events come back many to a read. Counters lie in shared memory: reading them costs no
message.

Where audio goes and comes from: to the address of the SDP, from the host of the SDP only. A far end
behind NAT that sends from another *port* of that host is answered there (symmetric RTP, RFC 4961)
unless the announced port has spoken; another *host* is never listened to nor sent to, whatever
arrives, because that is how calls are eavesdropped ("RTP bleed"). From ``connect`` to ``release``
packets flow without a gap: silence where nothing plays, nothing while on hold.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
import trio

from engine.config import SipConfig
from engine.errors import InvalidError, NotReadyError, UnavailableError
from engine.gateway import Media
from gateways.sip import media_protocol as protocol
from gateways.sip.media_process import EngineProcess, MediaLost, PlaybackError, Wait, start
from gateways.sip.media_protocol import RemoteMedia, RtpStats

__all__ = ["MediaLost", "PlaybackError", "RemoteMedia", "RtpEngine", "RtpSession", "RtpStats"]

QUARANTINE_S = 0.5  # of a freed port: the old far end may still send for a round trip or so
RESTART_DELAY_S = 0.1
RESTART_DELAY_MAX_S = 5.0
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - bound to, but in an SDP it would mean hold
STABLE_AFTER_S = 10.0  # a process that lived this long begins the back-off anew

log = structlog.get_logger(__name__)


class RtpSession:
    """One call's port. All methods but ``play``, ``send_dtmf`` and ``recorded`` return at once.

    ``address`` is what goes into our SDP.
    """

    __slots__ = (
        "_dtmf", "_index", "_on_dead", "_on_digit", "_play", "_process", "_recording", "_remote",
        "_stats", "address", "generation",
    )  # fmt: skip

    def __init__(
        self,
        process: EngineProcess,
        host: str,
        on_digit: Callable[[str], None],
        on_dead: Callable[[], None] | None,
        dead_after_s: float,
    ) -> None:
        self._process = process
        self._index, self.generation = process.take_port()
        self._on_digit = on_digit
        self._on_dead = on_dead
        self._remote: RemoteMedia | None = None
        self._play: Wait | None = None
        self._dtmf: Wait | None = None
        self._recording: Wait | None = None
        self._stats: RtpStats | None = None  # set = released
        self.address = host, process.ports[self._index]
        process.lessees[self._index] = self
        dead_after_ms = min(int(dead_after_s * 1000), 2**31)
        process.send(protocol.lease(self._index, self.generation, dead_after_ms))

    def connect(self, remote: RemoteMedia) -> None:
        """Send to and listen to ``remote`` from now on; for every 183, 200, re-INVITE and UPDATE.

        Idempotent. A playback under way goes on where it is, in the new law, to the new address;
        sequence numbers, timestamps and SSRC continue. An address nobody may send to (0.0.0.0,
        multicast, a system port, not IPv4) acts as a hold. Raises ``InvalidError`` for a payload
        type that is not G.711.
        """
        if remote == self._remote or self._stats is not None:
            return
        self._process.send(protocol.connect(self._index, self.generation, remote))
        self._remote = remote

    async def play(self, media: Media) -> None:
        """Play all of ``media``; returns when its last packet was sent, or on ``stop``.

        Time counts only while packets are sent: before ``connect``, on hold and while digits go
        out the position stays, so the whole recording is heard. A second ``play`` ends the first.
        The last packet sent is not yet the last one heard: far ends buffer 60-200 ms, so whoever
        hangs up next leaves silence running for that long.
        Cancelling stops it. Raises ``MediaLost``; ``PlaybackError`` if the file is not playable.
        """
        path = protocol.path_bytes(media.path)
        self._check()
        if self._play is not None:
            self._process.end_wait(self._play)
        self._play = wait = self._process.wait()
        self._command(protocol.PLAY, wait.token, path)
        try:
            await wait.result()
        finally:
            if self._play is wait:
                self.stop()

    def stop(self) -> None:
        """Stop the playback, if any; the waiting ``play`` returns."""
        wait, self._play = self._play, None
        if wait is not None and self._process.end_wait(wait):
            self._command(protocol.STOP)

    async def send_dtmf(self, digits: str) -> None:
        """Send telephone events (RFC 4733), 160 ms each; returns when the last one is out.

        Waits while on hold. Raises ``InvalidError`` for anything but ``0-9*#A-D``,
        ``NotReadyError`` where the far end takes no telephone events or digits are still going
        out, ``MediaLost``.
        """
        if not digits or set(digits) - set("0123456789*#ABCD"):
            raise InvalidError("digits are 0-9, *, #, A-D")
        self._check()
        if self._remote is None or self._remote.dtmf_payload_type is None:
            raise NotReadyError("the far end takes no telephone events")
        if self._dtmf is not None:
            raise NotReadyError("digits are being sent")
        for at in range(0, len(digits), protocol.MAX_DTMF):
            self._check()
            await self._send_some_dtmf(digits[at : at + protocol.MAX_DTMF].encode())

    async def _send_some_dtmf(self, digits: bytes) -> None:
        self._dtmf = wait = self._process.wait()
        self._command(protocol.DTMF, wait.token, digits)
        try:
            await wait.result()
        finally:
            self._dtmf = None
            if self._process.end_wait(wait):
                self._command(protocol.DTMF, wait.token, b"")  # cancelled: no more of them

    def record(self, path: Path) -> None:
        """Write the received audio to ``path`` (8 kHz mono 16-bit WAV) until ``release``.

        Silence stands for what is lost or not sent, so the file keeps the time of the call; it
        begins with this command. ``recorded`` tells when the file is complete. Raises
        ``MediaLost``, ``InvalidError`` for an impossible path.
        """
        data = protocol.path_bytes(path)
        self._check()
        self._recording = self._process.wait()
        self._command(protocol.RECORD, self._recording.token, data)

    async def recorded(self) -> None:
        """Wait until the recording, ended by ``release``, is complete on disk.

        Raises ``OSError`` where it could not be written, ``MediaLost`` where the engine died.
        """
        if self._recording is not None:
            await self._recording.result()

    def statistics(self) -> RtpStats:
        """The counters so far; after ``release``, the final ones."""
        return self._stats or self._process.shared.port_stats(self._index, self.generation)

    def release(self) -> RtpStats:
        """Free the port; idempotent. A waiting ``play`` or ``send_dtmf`` raises ``MediaLost``."""
        if self._stats is None:
            self._stats = self.statistics()
            self._command(protocol.RELEASE)
            self._process.free_port(self._index)
            for wait in (self._play, self._dtmf):
                if wait is not None:
                    self._process.end_wait(wait, MediaLost("the RTP session is over"))
            self._play = None
        return self._stats

    def heard_digit(self, digit: str) -> None:
        """For the engine's events only."""
        self._on_digit(digit)

    def heard_nothing(self) -> None:
        """For the engine's events only."""
        if self._on_dead is not None:
            self._on_dead()

    def _command(self, kind: int, token: int | None = None, data: bytes = b"") -> None:
        self._process.send(protocol.command(kind, self._index, self.generation, token, data))

    def _check(self) -> None:
        if self._stats is not None or self._process.lost.is_set():
            raise MediaLost("the RTP session is over")


class RtpEngine:
    """The RTP engine of a node: one process, restarted when it dies."""

    def __init__(
        self, config: SipConfig, *, quarantine_s: float = QUARANTINE_S, realtime: bool = True
    ) -> None:
        self._config = config
        self._host = config.public_host or config.host
        self._quarantine_s = quarantine_s
        self._realtime = realtime
        self._process: EngineProcess | None = None
        self._restarts = 0
        self._up = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; ``started`` once ports can be leased.

        A process that dies takes its sessions with it (``MediaLost``) and is started again, at
        first at once, then after growing pauses. Raises ``UnavailableError`` where the very first
        one does not start: that is a wrong configuration, not an accident; ``InvalidError`` where
        we would have no address to announce.
        """
        if self._host == ANY_ADDRESS:
            raise InvalidError("an address for the SDP is needed: sip.public_host")
        delay_s = RESTART_DELAY_S
        await self._live(task_status)
        while True:
            self._restarts += 1
            log.error("rtp engine died", restarts=self._restarts, retry_in_s=delay_s)
            await trio.sleep(delay_s)
            begun = trio.current_time()
            await self._live(trio.TASK_STATUS_IGNORED)
            stable = trio.current_time() - begun > STABLE_AFTER_S
            delay_s = RESTART_DELAY_S if stable else min(delay_s * 2, RESTART_DELAY_MAX_S)

    async def _live(self, task_status: trio.TaskStatus[None]) -> None:
        """One life of the process, start to death."""
        served = False
        async with (
            start(
                self._config, quarantine_s=self._quarantine_s, realtime=self._realtime
            ) as process,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(process.serve)
            await process.wait_ready()
            if not process.lost.is_set():
                served = True
                await self._serve(process, task_status)
        if not served and self._restarts == 0:
            raise UnavailableError("the RTP engine does not start; its own message is above")

    async def _serve(self, process: EngineProcess, task_status: trio.TaskStatus[None]) -> None:
        self._process = process
        self._up.set()
        task_status.started()
        try:
            await process.lost.wait()
        finally:
            self._process = None
            self._up = trio.Event()

    async def wait_up(self) -> None:
        """Wait until ports can be leased: at once, except while the process is restarted."""
        while self._process is None or self._process.lost.is_set():
            await self._up.wait()
            await trio.lowlevel.checkpoint()

    def lease(
        self,
        on_digit: Callable[[str], None],
        *,
        on_dead: Callable[[], None] | None = None,
        dead_after_s: float = 0.0,
    ) -> RtpSession:
        """A port of its own for one call.

        ``on_digit`` is called with each digit received, ``on_dead`` once where nothing was
        received for ``dead_after_s`` (0 = never) while connected and not on hold; both on Trio's
        thread, and they must not raise. ``UnavailableError`` where no port is free or the engine
        is being restarted. The caller must ``release()`` the session.
        """
        if self._process is None or self._process.lost.is_set():
            raise UnavailableError("the RTP engine is not up")
        return RtpSession(self._process, self._host, on_digit, on_dead, dead_after_s)

    def statistics(self) -> dict[str, Any]:
        """Sessions, ports, packets and send lateness (ms) since the process began."""
        process = self._process
        if process is None or process.lost.is_set():
            return {"up": False, "restarts": self._restarts}
        totals = process.shared.totals()
        live = [lessee for lessee in process.lessees.values() if isinstance(lessee, RtpSession)]
        totals["lost"] += sum(session.statistics().lost for session in live)
        return {
            "up": True,
            "pid": process.process.pid,
            "restarts": self._restarts,
            "sessions": len(live),
            "ports": sum(1 for port in process.ports if port),
            "ports_free": process.ports_free,
            "queued_bytes": process.queued_bytes,
            **totals,
        }

    def late_histogram(self) -> list[int]:
        """Packets by send lateness since the process began (``media_protocol.percentile_ms``)."""
        return self._process.shared.late_histogram() if self._process is not None else []
