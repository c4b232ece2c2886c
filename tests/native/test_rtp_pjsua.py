"""The RTP engine against pjmedia: another implementation of everything it does."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import trio

from engine.gateway import Media
from gateways.sip.media import RemoteMedia, RtpEngine, RtpSession
from tests.support import wait_for_line
from tests.support.audio import RATE, chirp, compare, read_wav, write_wav
from tests.support.rtp import DEADLINE_S, Digits, running, sip_config

CODECS = {"PCMU": 0, "PCMA": 8}
DIGITS = "0123456789*#ABCD"


class Answering(msgspec.Struct):
    """The few lines of SIP that answer one call with a session's address, and end it."""

    udp: trio.socket.SocketType
    invite: str = ""
    caller: tuple[str, int] = ("", 0)

    async def answer(self, session: RtpSession, payload_type: int) -> RemoteMedia:
        data, self.caller = await self.udp.recvfrom(65536)
        self.invite = data.decode()
        assert self.invite.startswith("INVITE ")
        host, port = session.address
        sdp = (
            f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP {payload_type} 120\r\na=rtpmap:120 telephone-event/8000\r\n"
            "a=fmtp:120 0-16\r\n"
        )
        await self.udp.sendto(self._response(sdp).encode(), self.caller)
        remote_host = re.findall(r"^c=IN IP4 (\S+)", self.invite, re.MULTILINE)[0]
        remote_port = int(re.findall(r"^m=audio (\d+)", self.invite, re.MULTILINE)[0])
        events = int(
            re.findall(r"^a=rtpmap:(\d+) telephone-event/8000", self.invite, re.MULTILINE)[0]
        )
        return RemoteMedia(remote_host, remote_port, payload_type, events, True, 120)

    def _response(self, sdp: str) -> str:
        kept = [line for line in self._headers() if re.match(r"(Via|From|Call-ID|CSeq):", line)]
        contact = f"Contact: <sip:uas@127.0.0.1:{self.udp.getsockname()[1]}>"
        head = ["SIP/2.0 200 OK", *kept, self._to() + ";tag=uas", contact]
        body = ["Content-Type: application/sdp", f"Content-Length: {len(sdp)}", "", sdp]
        return "\r\n".join(head + body)

    def _headers(self) -> list[str]:
        return self.invite.split("\r\n\r\n")[0].split("\r\n")

    def _to(self) -> str:
        return next(line for line in self._headers() if line.startswith("To:"))

    async def hang_up(self) -> None:
        """BYE: From and To change sides (RFC 3261 §12.2.1.1)."""
        headers = self._headers()
        origin = next(line for line in headers if line.startswith("From:"))
        call_id = next(line for line in headers if line.startswith("Call-ID:"))
        port = self.udp.getsockname()[1]
        bye = [
            f"BYE sip:test@127.0.0.1:{self.caller[1]} SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKbye;rport",
            "Max-Forwards: 70", self._to().replace("To:", "From:") + ";tag=uas",
            origin.replace("From:", "To:"), call_id, "CSeq: 1 BYE", "Content-Length: 0", "", "",
        ]  # fmt: skip
        await self.udp.sendto("\r\n".join(bye).encode(), self.caller)


@asynccontextmanager
async def calling(
    directory: Path, codec: str, *digits: str
) -> AsyncIterator[tuple[Answering, trio.Process]]:
    """A pjsua2 process that is calling us."""
    udp = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    await udp.bind(("127.0.0.1", 0))
    target = f"sip:uas@127.0.0.1:{udp.getsockname()[1]}"
    files = str(directory / "theirs.wav"), str(directory / "heard.wav")
    with udp:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tests.support.pjsua_endpoint", target, *files, codec, *digits],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            with trio.fail_after(DEADLINE_S):
                yield Answering(udp), process
                await process.wait()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stdout.aclose()


async def drain(udp: trio.socket.SocketType) -> None:
    """ACK and whatever else: SIP is not what is tested here."""
    while True:
        await udp.recvfrom(65536)


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
async def test_audio_both_ways(tmp_path: Path, codec: str) -> None:
    ours, theirs = chirp(3.0), chirp(2.0, low_hz=3300, high_hz=400)
    media = Media(write_wav(tmp_path / "ours.wav", ours), len(ours) / RATE)
    write_wav(tmp_path / "theirs.wav", theirs)
    # The far end's jitter buffer fills before and still holds the last of it after.
    pause = Media(write_wav(tmp_path / "pause.wav", np.zeros(RATE // 2, np.int16)), 0.5)
    async with (
        running(RtpEngine(sip_config(4))) as engine,
        calling(tmp_path, codec) as (sip, _),
        trio.open_nursery() as nursery,
    ):
        session = engine.lease(lambda _: None)
        remote = await sip.answer(session, CODECS[codec])
        nursery.start_soon(drain, sip.udp)
        session.record(tmp_path / "recorded.wav")
        session.connect(remote)
        await session.play(pause)
        await session.play(media)
        await session.play(pause)
        stats = session.release()
        await session.recorded()
        await hang_up(sip, nursery)
    assert (stats.lost, stats.foreign, stats.malformed) == (0, 0, 0)
    for sent, heard in ((ours, "heard.wav"), (theirs, "recorded.wav")):
        match = compare(sent, read_wav(tmp_path / heard))
        assert match.correlation > 0.99, heard
        assert match.spectrum_db < 1.5, heard


@pytest.mark.slow
async def test_digits_both_ways(tmp_path: Path) -> None:
    write_wav(tmp_path / "theirs.wav", chirp(1.0))
    digits = Digits()
    async with (
        running(RtpEngine(sip_config(4))) as engine,
        calling(tmp_path, "PCMU", DIGITS) as (sip, process),
        trio.open_nursery() as nursery,
    ):
        assert process.stdout is not None
        session = engine.lease(digits)
        session.connect(await sip.answer(session, CODECS["PCMU"]))
        nursery.start_soon(drain, sip.udp)
        await digits.until(DIGITS)
        await session.send_dtmf(DIGITS)
        heard = await wait_for_line(process.stdout, "digit D")
        session.release()
        await hang_up(sip, nursery)
    assert re.findall("digit (.)", heard) == list(DIGITS)


async def hang_up(sip: Answering, nursery: trio.Nursery) -> None:
    await sip.hang_up()
    nursery.cancel_scope.cancel()
