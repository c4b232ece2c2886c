"""The RTP engine and its client against a far end that shares no code with them."""

from __future__ import annotations

import itertools
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from engine.config import SipConfig
from engine.errors import InvalidError, NotReadyError, UnavailableError
from engine.model import Media
from gateways.sip.media import MediaLost, PlaybackError, RemoteMedia, RtpEngine, RtpSession
from tests.support import LOCALHOST
from tests.support.audio import RATE, Samples, chirp, compare, decode, encode, read_wav, write_wav
from tests.support.rtp_peer import DIGITS, FRAME, Packet, RtpPeer, gaps, open_peer

PCMU, PCMA, EVENTS = 0, 8, 101
SILENCE = {PCMU: b"\xff", PCMA: b"\xd5"}
DEADLINE_S = 30.0


def sip_config(ports: int, **changes: Any) -> SipConfig:
    """A range of that many even ports; those already taken on this machine are left out by it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOCALHOST, 0))
        first = min(probe.getsockname()[1], 65536 - 2 * ports) // 2 * 2
    return SipConfig(
        **{"rtp_port_min": first, "rtp_port_max": first + 2 * ports - 1, "rtp_threads": 2} | changes
    )


@asynccontextmanager
async def running(engine: RtpEngine) -> AsyncIterator[RtpEngine]:
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        yield engine
        nursery.cancel_scope.cancel()


@pytest.fixture
async def engine() -> AsyncIterator[RtpEngine]:
    async with running(RtpEngine(sip_config(64), quarantine_s=0.0)) as engine:
        yield engine


@pytest.fixture
async def peer() -> AsyncIterator[RtpPeer]:
    async with open_peer() as peer:
        yield peer


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


@pytest.mark.parametrize("payload_type", [PCMU, PCMA])
async def test_the_far_end_hears_all_of_a_recording(
    engine: RtpEngine, peer: RtpPeer, tmp_path: Path, payload_type: int
) -> None:
    sent = chirp(2.013)  # no whole number of frames: the last one is filled with silence
    session = engine.lease(ignore)
    session.connect(to(peer, payload_type))
    await peer.more(3)
    await play(session, recording(tmp_path, sent))
    await peer.more(3)
    session.release()

    data = peer.audio(payload_type)
    heard = decode(data, payload_type)
    match = compare(sent, heard)
    assert match.start % FRAME == 0
    assert match.correlation > 0.999
    assert match.worst > 0.999
    assert match.spectrum_db < 1.0
    silence = SILENCE[payload_type]
    assert data[: match.start] == silence * match.start, "silence before"
    after = data[match.start + len(sent) :]
    assert after == silence * len(after), "silence after, and nothing of the recording twice"


async def test_packets_are_well_formed_rtp(
    engine: RtpEngine, peer: RtpPeer, tmp_path: Path
) -> None:
    session = engine.lease(ignore)
    session.connect(to(peer))
    await play(session, recording(tmp_path, chirp(0.5)))
    stats = session.release()
    await peer.until(lambda packets: len(packets) >= stats.sent)

    packets = peer.packets
    assert {p.first_byte for p in packets} == {0x80}
    assert {len(p.payload) for p in packets} == {FRAME}
    assert {p.source for p in packets} == {session.address}
    assert len({p.ssrc for p in packets}) == 1
    assert gaps(packets) == []
    steps = [b.timestamp - a.timestamp for a, b in itertools.pairwise(packets)]
    assert {step & 0xFFFFFFFF for step in steps} == {FRAME}
    assert [p.marker for p in packets] == [True] + [False] * (len(packets) - 1)


async def test_each_session_has_its_own_ssrc_sequence_and_clock(
    engine: RtpEngine, peer: RtpPeer
) -> None:
    sessions = [engine.lease(ignore) for _ in range(8)]
    for session in sessions:
        session.connect(to(peer))
    await peer.until(lambda packets: len({p.source for p in packets}) == len(sessions))
    first = {p.source: p for p in reversed(peer.packets)}.values()
    assert len({p.ssrc for p in first}) == len(sessions)
    assert len({p.sequence for p in first}) > 1
    assert len({p.timestamp for p in first}) > 1


async def test_playback_waits_out_a_hold(engine: RtpEngine, peer: RtpPeer, tmp_path: Path) -> None:
    sent = chirp(1.0)
    session = engine.lease(ignore)
    session.connect(to(peer))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(play, session, recording(tmp_path, sent))
        await peer.more(20)
        session.connect(to(peer, send=False))
        await quiet(peer)
        before = len(peer.packets)
        session.connect(to(peer))
    held, resumed = peer.packets[before - 1], peer.packets[before]
    assert resumed.marker, "a talkspurt begins"
    assert resumed.sequence == (held.sequence + 1) & 0xFFFF
    assert (resumed.timestamp - held.timestamp) & 0xFFFFFFFF > FRAME, "the clock ran on"
    match = compare(sent, decode(peer.audio(PCMU), PCMU))
    assert match.worst > 0.999


async def quiet(peer: RtpPeer) -> None:
    """Wait until ten frames' time has passed without a packet."""
    with trio.fail_after(DEADLINE_S):
        while True:
            with trio.move_on_after(0.2) as scope:
                await peer.more(1)
            if scope.cancelled_caught:
                return


async def test_a_new_address_and_law_take_over_in_the_middle(
    engine: RtpEngine, peer: RtpPeer, tmp_path: Path
) -> None:
    sent = chirp(1.0)
    session = engine.lease(ignore)
    session.connect(to(peer))
    async with open_peer() as second, trio.open_nursery() as nursery:
        nursery.start_soon(play, session, recording(tmp_path, sent))
        await peer.more(20)
        session.connect(to(second, PCMA))
        session.connect(to(second, PCMA))  # idempotent
        await second.until(lambda packets: len(packets) >= 25)
        await second.more(10)
    old, new = peer.packets, second.packets
    assert gaps([*old, *new]) == []
    assert len({p.ssrc for p in [*old, *new]}) == 1
    assert {p.payload_type for p in new} == {PCMA}
    parts = decode(peer.audio(PCMU), PCMU), decode(second.audio(PCMA), PCMA)
    assert compare(sent, np.concatenate(parts)).worst > 0.999


async def test_stop_and_cancel_end_the_playback(
    engine: RtpEngine, peer: RtpPeer, tmp_path: Path
) -> None:
    media = recording(tmp_path, chirp(60))
    session = engine.lease(ignore)
    session.connect(to(peer))
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.play, media)
            await peer.more(10)
            session.stop()
        await peer.until(ends_silent)
        with trio.move_on_after(0.2):
            await session.play(media)
        await peer.more(5)
        await peer.until(ends_silent)
    session.stop()


def ends_silent(packets: list[Packet]) -> bool:
    return packets[-1].payload == SILENCE[PCMU] * FRAME


async def test_a_second_playback_ends_the_first(
    engine: RtpEngine, peer: RtpPeer, tmp_path: Path
) -> None:
    long, short = recording(tmp_path, chirp(60), "a.wav"), recording(tmp_path, chirp(0.4), "b.wav")
    session = engine.lease(ignore)
    session.connect(to(peer))
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.play, long)
            await peer.more(5)
            await session.play(short)
    await peer.more(2)
    assert compare(chirp(0.4), decode(peer.audio(PCMU), PCMU)).worst > 0.999


async def test_what_cannot_be_played_says_so(engine: RtpEngine, tmp_path: Path) -> None:
    session = engine.lease(ignore)
    with pytest.raises(PlaybackError, match="No such file"):
        await play(session, Media(tmp_path / "missing.wav", 1.0))
    (tmp_path / "junk.wav").write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(PlaybackError, match="Invalid argument"):
        await play(session, Media(tmp_path / "junk.wav", 1.0))


async def test_a_replaced_recording_is_played_as_it_is_now(
    engine: RtpEngine, peer: RtpPeer, tmp_path: Path
) -> None:
    session = engine.lease(ignore)
    session.connect(to(peer))
    await play(session, recording(tmp_path, chirp(0.3)))
    new = chirp(0.5, low_hz=3000, high_hz=500)
    await play(session, recording(tmp_path, new))
    await peer.more(2)
    assert compare(new, decode(peer.audio(PCMU), PCMU)).worst > 0.999


async def test_received_audio_is_recorded_start_to_end(
    engine: RtpEngine, peer: RtpPeer, tmp_path: Path
) -> None:
    sent = chirp(2.0)
    session = engine.lease(ignore)
    session.connect(to(peer))
    session.record(tmp_path / "heard.wav")
    await peer.more(1)
    await peer.send_audio(session.address, PCMU, encode(sent, PCMU))
    stats = session.release()
    with trio.fail_after(DEADLINE_S):
        await session.recorded()
    assert stats.received >= 99
    assert stats.lost == 0
    assert compare(sent, read_wav(tmp_path / "heard.wav")).worst > 0.99


async def test_an_impossible_recording_path_is_told(engine: RtpEngine, tmp_path: Path) -> None:
    session = engine.lease(ignore)
    session.record(tmp_path / "no" / "such" / "folder.wav")
    with pytest.raises(OSError, match="No such file"), trio.fail_after(DEADLINE_S):
        await session.recorded()


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


@pytest.mark.parametrize(
    "lose",
    [
        pytest.param(lambda _: False, id="nothing-lost"),
        pytest.param(lambda number: number >= 5, id="all-ends-lost"),
        pytest.param(lambda number: number < 5, id="only-ends-left"),
        pytest.param(lambda number: number != 3, id="one-packet-left"),
    ],
)
async def test_every_digit_is_heard_once(
    engine: RtpEngine, peer: RtpPeer, lose: Callable[[int], bool]
) -> None:
    digits = Digits()
    session = engine.lease(digits)
    session.connect(to(peer))
    await peer.more(1)
    for digit in [*DIGITS, "5", "5"]:
        await peer.send_digit(session.address, EVENTS, digit, lose=lose)
    await digits.until(DIGITS + "55")
    assert session.release().digits == 18


async def test_every_digit_is_sent_as_rfc_4733_says(engine: RtpEngine, peer: RtpPeer) -> None:
    session = engine.lease(ignore)
    session.connect(to(peer))
    with trio.fail_after(DEADLINE_S):
        await session.send_dtmf(DIGITS)
    session.release()
    events = [p for p in peer.packets if p.payload_type == EVENTS]
    groups = [list(group) for _, group in itertools.groupby(events, lambda p: p.timestamp)]
    assert [DIGITS[group[0].payload[0]] for group in groups] == list(DIGITS)
    for group in groups:
        assert [p.marker for p in group] == [True] + [False] * (len(group) - 1)
        ends = [p.payload[1] >> 7 for p in group]
        assert ends == [0] * (len(group) - 3) + [1] * 3
        durations = [int.from_bytes(p.payload[2:]) for p in group]
        assert durations[:-3] == [FRAME * n for n in range(1, len(group) - 2)]
        assert len(set(durations[-4:])) == 1
    assert gaps(peer.packets) == [], "events and audio share one sequence"


async def test_digits_do_not_eat_the_recording(
    engine: RtpEngine, peer: RtpPeer, tmp_path: Path
) -> None:
    media = recording(tmp_path, chirp(1.0))
    session = engine.lease(ignore)
    session.connect(to(peer))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(play, session, media)
        await peer.more(10)
        await session.send_dtmf("42")
    await peer.more(2)
    data = peer.audio(PCMU).replace(SILENCE[PCMU] * FRAME, b"")
    assert len(data) == RATE
    assert compare(chirp(1.0), decode(data, PCMU)).worst > 0.999


async def test_digits_are_refused_where_they_cannot_go(engine: RtpEngine, peer: RtpPeer) -> None:
    session = engine.lease(ignore)
    with pytest.raises(NotReadyError):
        await session.send_dtmf("1")
    session.connect(RemoteMedia(*peer.address, PCMU, None, send=True))
    with pytest.raises(NotReadyError):
        await session.send_dtmf("1")
    with pytest.raises(InvalidError):
        await session.send_dtmf("1;2")


async def test_cancelled_digits_are_called_off(engine: RtpEngine, peer: RtpPeer) -> None:
    session = engine.lease(ignore)
    session.connect(to(peer))
    await peer.more(1)
    with trio.move_on_after(0.1):
        await session.send_dtmf("0" * 32)
    await peer.until(lambda packets: [p.payload_type for p in packets[-5:]] == [PCMU] * 5)
    with trio.fail_after(DEADLINE_S):
        await session.send_dtmf("9")
    assert {p.payload[0] for p in peer.packets if p.payload_type == EVENTS} <= {0, 9}


async def test_audio_goes_where_the_far_end_sends_from(engine: RtpEngine, peer: RtpPeer) -> None:
    session = engine.lease(ignore)
    session.connect(to(peer))
    await peer.more(1)
    async with open_peer() as behind_nat:
        await behind_nat.send(session.address, PCMU, SILENCE[PCMU] * FRAME)
        await behind_nat.more(2)
        assert session.statistics().latched
        # The announced port has the last word.
        await peer.send(session.address, PCMU, SILENCE[PCMU] * FRAME)
        await peer.more(2)
        await behind_nat.send(session.address, PCMU, SILENCE[PCMU] * FRAME)
        await peer.more(5)
        assert not session.statistics().latched
        assert session.release().foreign == 1


async def test_another_host_is_neither_heard_nor_followed(engine: RtpEngine, peer: RtpPeer) -> None:
    digits = Digits()
    session = engine.lease(digits)
    session.connect(to(peer))
    async with open_peer("127.0.0.2") as stranger:
        await peer.more(1)
        await stranger.send(session.address, PCMU, SILENCE[PCMU] * FRAME)
        await stranger.send_digit(session.address, EVENTS, "6", lose=lambda _: False)
        await peer.send_digit(session.address, EVENTS, "7", lose=lambda _: False)
        await digits.until("7")
        await peer.more(5)
        assert stranger.packets == []
    stats = session.release()
    assert (stats.foreign, stats.received, stats.latched) == (9, 8, False)


async def test_what_is_no_rtp_is_counted_and_dropped(engine: RtpEngine, peer: RtpPeer) -> None:
    session = engine.lease(ignore)
    session.connect(to(peer))
    await peer.more(1)
    for data in (b"", b"\x80", b"\x00" * 172, b"\xbf" + b"\xff" * 60, os.urandom(40)[:11]):
        await peer.send_raw(session.address, data)
    await peer.send(session.address, 34, b"video")  # well-formed, not agreed on
    await peer.send(session.address, EVENTS, b"12")  # too short for an event
    await peer.send(session.address, PCMU, SILENCE[PCMU] * FRAME)
    await peer.more(3)
    stats = session.release()
    assert (stats.malformed, stats.received) == (7, 1)


@pytest.mark.parametrize(
    ("host", "port"),
    [("0.0.0.0", 4000), ("239.1.1.1", 4000), ("255.255.255.255", 4000), ("::1", 4000),  # noqa: S104
     ("pbx.example", 4000), (LOCALHOST, 53), (LOCALHOST, 0), (LOCALHOST, 70000)],
)  # fmt: skip
async def test_nothing_is_sent_where_nothing_may_go(
    engine: RtpEngine, peer: RtpPeer, host: str, port: int
) -> None:
    session, other = engine.lease(ignore), engine.lease(ignore)
    session.connect(RemoteMedia(host, port, PCMU, EVENTS, send=True))
    other.connect(to(peer))
    await peer.more(5)
    assert other.release().sent >= 5
    assert session.release().sent == 0


async def test_a_codec_we_do_not_have_is_refused(engine: RtpEngine) -> None:
    with pytest.raises(InvalidError):
        engine.lease(ignore).connect(RemoteMedia(LOCALHOST, 4000, 18, None, send=True))


async def test_a_silent_far_end_is_reported_once_if_asked(engine: RtpEngine, peer: RtpPeer) -> None:
    dead: list[str] = []
    told = trio.Event()

    def on_dead() -> None:
        dead.append("dead")
        told.set()

    listening = engine.lease(ignore, on_dead=on_dead, dead_after_s=0.2)
    unasked = engine.lease(ignore, on_dead=lambda: dead.append("not asked for"))
    held = engine.lease(ignore, on_dead=lambda: dead.append("on hold"), dead_after_s=0.2)
    for session in (listening, unasked):
        session.connect(to(peer))
    held.connect(to(peer, send=False))
    with trio.fail_after(DEADLINE_S):
        await told.wait()
    await peer.more(40)
    assert dead == ["dead"]


async def test_ports_run_out_and_come_back() -> None:
    async with running(RtpEngine(sip_config(4), quarantine_s=0.0)) as engine:
        ports = engine.statistics()["ports"]
        sessions = [engine.lease(ignore) for _ in range(ports)]
        assert len({session.address for session in sessions}) == ports
        with pytest.raises(UnavailableError):
            engine.lease(ignore)
        sessions[0].release()
        assert engine.lease(ignore).address == sessions[0].address


async def test_a_freed_port_rests() -> None:
    async with running(RtpEngine(sip_config(4), quarantine_s=0.1)) as engine:
        sessions = [engine.lease(ignore) for _ in range(engine.statistics()["ports"])]
        freed_at = trio.current_time()
        sessions[1].release()
        with pytest.raises(UnavailableError):
            engine.lease(ignore)
        await trio.sleep_until(freed_at + 0.2)
        assert engine.lease(ignore).address == sessions[1].address


async def test_the_longest_free_port_is_taken_first(engine: RtpEngine) -> None:
    first = engine.lease(ignore)
    first.release()
    others = [engine.lease(ignore).address for _ in range(engine.statistics()["ports"] - 1)]
    assert first.address not in others


async def test_what_the_last_call_left_behind_is_not_heard() -> None:
    """Packets that came between two leases of a port are neither audio nor digits of the new."""
    async with running(RtpEngine(sip_config(1), quarantine_s=0.0)) as engine, open_peer() as peer:
        session = engine.lease(ignore)
        session.connect(to(peer))
        await peer.more(2)
        session.release()
        await quiet(peer)
        await peer.send_digit(session.address, EVENTS, "1", lose=lambda _: False)
        digits = Digits()
        again = engine.lease(digits)
        assert again.address == session.address
        again.connect(to(peer))
        await peer.more(2)
        await peer.send_digit(session.address, EVENTS, "2", lose=lambda _: False)
        await digits.until("2")
        assert again.release().received == 8


async def test_release_is_final_and_idempotent(
    engine: RtpEngine, peer: RtpPeer, tmp_path: Path
) -> None:
    media = recording(tmp_path, chirp(60))
    session = engine.lease(ignore)
    session.connect(to(peer))
    lost: list[MediaLost] = []

    async def play_until_lost() -> None:
        try:
            await session.play(media)
        except MediaLost as error:
            lost.append(error)

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play_until_lost)
            await peer.more(5)
            stats = session.release()
    assert len(lost) == 1
    assert session.release() == stats
    assert stats.sent >= 5
    session.connect(to(peer, PCMA))
    session.stop()
    with pytest.raises(MediaLost):
        await session.play(media)
    with pytest.raises(MediaLost):
        session.record(tmp_path / "late.wav")
    assert engine.statistics()["sessions"] == 0


async def test_a_killed_engine_loses_its_calls_and_comes_back(
    engine: RtpEngine, peer: RtpPeer, tmp_path: Path
) -> None:
    media = recording(tmp_path, chirp(60))
    session, idle = engine.lease(ignore), engine.lease(ignore)
    session.connect(to(peer))
    idle.connect(to(peer))
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:

            async def kill() -> None:
                await peer.more(5)
                os.kill(engine.statistics()["pid"], signal.SIGKILL)

            nursery.start_soon(kill)
            with pytest.raises(MediaLost):
                await session.play(media)
        with pytest.raises(UnavailableError):
            engine.lease(ignore)
        with pytest.raises(MediaLost):
            await idle.play(media)
        session.release()
        idle.release()
        await engine.wait_up()
        again = engine.lease(ignore)
        again.connect(to(peer))
        await again.play(recording(tmp_path, chirp(0.1), "short.wav"))
        again.release()
    assert engine.statistics()["restarts"] == 1
    assert engine.statistics()["sessions"] == 0


@pytest.mark.slow
async def test_an_engine_that_stands_still_is_replaced(engine: RtpEngine, tmp_path: Path) -> None:
    session = engine.lease(ignore)
    pid = engine.statistics()["pid"]
    os.kill(pid, signal.SIGSTOP)
    with trio.fail_after(DEADLINE_S), pytest.raises(MediaLost):
        await session.play(recording(tmp_path, chirp(0.1)))
    with trio.fail_after(DEADLINE_S):
        await engine.wait_up()
    assert engine.statistics()["pid"] != pid


async def test_a_wrong_address_is_told_at_the_start() -> None:
    engine = RtpEngine(sip_config(4, host="192.0.2.1"))  # RFC 5737: nobody has it
    with pytest.raises(UnavailableError), trio.fail_after(DEADLINE_S):
        await engine.run()


async def test_the_public_address_goes_into_the_sdp() -> None:
    async with running(RtpEngine(sip_config(4, public_host="203.0.113.9"))) as engine:
        assert engine.lease(ignore).address[0] == "203.0.113.9"


async def test_cancelling_the_engine_ends_its_process() -> None:
    async with running(RtpEngine(sip_config(4))) as engine:
        pidfd = os.pidfd_open(engine.statistics()["pid"])
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, 0)
    os.close(pidfd)


async def test_no_command_and_no_event_is_lost_in_a_storm(peer: RtpPeer, tmp_path: Path) -> None:
    """Unix datagrams lost thousands here (media-split.md §3); and file descriptors go past 1024."""
    media = recording(tmp_path, chirp(0.02))
    async with running(RtpEngine(sip_config(1200))) as engine:
        sessions = [engine.lease(ignore) for _ in range(engine.statistics()["ports_free"])]
        assert len(sessions) > 1024
        with trio.fail_after(DEADLINE_S):
            async with trio.open_nursery() as nursery:
                for session in sessions:
                    session.connect(to(peer))
                    nursery.start_soon(session.play, media)
        for session in sessions:
            assert session.release().sent >= 1


@pytest.mark.slow
async def test_500_calls_lose_no_packet(tmp_path: Path) -> None:
    media = recording(tmp_path, chirp(2.0))
    async with running(RtpEngine(sip_config(500))) as engine, trio.open_nursery() as nursery:
        arrivals = trio.lowlevel.ParkingLot()
        receivers = [Receiver(arrivals) for _ in range(10)]
        for receiver in receivers:
            nursery.start_soon(receiver.run)
        sessions = [engine.lease(ignore) for _ in range(engine.statistics()["ports"])]
        with trio.fail_after(DEADLINE_S):
            async with trio.open_nursery() as plays:
                for number, session in enumerate(sessions):
                    receiver = receivers[number % len(receivers)]
                    session.connect(RemoteMedia(LOCALHOST, receiver.port, PCMU, None, send=True))
                    plays.start_soon(session.play, media)
            sent = sum(session.release().sent for session in sessions)
            assert sent >= 100 * len(sessions)
            while sum(receiver.count for receiver in receivers) < sent:
                await arrivals.park()
        nursery.cancel_scope.cancel()
    streams = {ssrc: seqs for receiver in receivers for ssrc, seqs in receiver.streams.items()}
    assert len(streams) == len(sessions)
    for sequences in streams.values():
        first = sequences[0]
        numbers = [(sequence - first) & 0xFFFF for sequence in sequences]
        assert numbers == list(range(len(numbers)))


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
