"""What the far end may do to the RTP engine: dial, move, be silent, be somebody else, send junk."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from engine.errors import InvalidError, NotReadyError
from gateways.sip.media import RemoteMedia, RtpEngine
from tests.support import LOCALHOST
from tests.support.audio import RATE, chirp, compare, decode
from tests.support.rtp import (
    DEADLINE_S,
    EVENTS,
    PCMU,
    SILENCE,
    Digits,
    ignore,
    play,
    recording,
    to,
)
from tests.support.rtp_peer import DIGITS, FRAME, RtpPeer, gaps, open_peer


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


async def test_a_flood_of_digits_is_cut_off(engine: RtpEngine, peer: RtpPeer) -> None:
    digits = Digits()
    session = engine.lease(digits)
    session.connect(to(peer))
    for number in range(1100):
        if number % 25 == 0:
            await peer.more(2)  # keeps pace with the engine, which takes 32 packets a turn
        await peer.send(session.address, EVENTS, b"\1\12\0\240", timestamp=number * 400)
    await digits.until("1" * 1024)
    await peer.more(5)
    assert session.release().digits == 1024
    assert len(digits.text) == 1024


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


async def test_each_side_gets_events_in_the_type_it_named(engine: RtpEngine, peer: RtpPeer) -> None:
    digits = Digits()
    session = engine.lease(digits)
    session.connect(RemoteMedia(*peer.address, PCMU, 96, send=True))
    await peer.more(1)
    await peer.send_digit(session.address, EVENTS, "1", lose=lambda _: False)
    await peer.send_digit(session.address, 96, "2", lose=lambda _: False)
    await digits.until("12")
    await session.send_dtmf("3")
    assert {p.payload_type for p in peer.packets} == {PCMU, 96}


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
