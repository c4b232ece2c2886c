"""The RTP engine's audio against a far end that shares no code with it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import trio

from engine.gateway import Media
from gateways.sip.media import PlaybackError, RtpEngine
from tests.support.audio import chirp, compare, decode, encode, read_wav
from tests.support.rtp import (
    DEADLINE_S,
    PCMA,
    PCMU,
    SILENCE,
    ignore,
    play,
    quiet,
    recording,
    running,
    sip_config,
    to,
)
from tests.support.rtp_peer import FRAME, Packet, RtpPeer, gaps, open_peer


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


async def test_a_recording_is_complete_when_the_engine_is_stopped(
    peer: RtpPeer, tmp_path: Path
) -> None:
    sent = chirp(0.5)
    async with running(RtpEngine(sip_config(4))) as engine:
        session = engine.lease(ignore)
        session.connect(to(peer))
        session.record(tmp_path / "heard.wav")
        await peer.more(1)
        await peer.send_audio(session.address, PCMA, encode(sent, PCMA))
    assert compare(sent, read_wav(tmp_path / "heard.wav")).worst > 0.99


async def test_an_impossible_recording_path_is_told(engine: RtpEngine, tmp_path: Path) -> None:
    session = engine.lease(ignore)
    session.record(tmp_path / "no" / "such" / "folder.wav")
    with pytest.raises(OSError, match="No such file"), trio.fail_after(DEADLINE_S):
        await session.recorded()
