"""The RTP engine as a whole: its ports, its death and return, its limits, its numbers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from engine.errors import InvalidError, UnavailableError
from gateways.sip.media import MediaLost, RemoteMedia, RtpEngine
from tests.support import LOCALHOST
from tests.support.audio import chirp
from tests.support.rtp import (
    DEADLINE_S,
    EVENTS,
    PCMA,
    PCMU,
    Digits,
    Receiver,
    ignore,
    quiet,
    recording,
    running,
    sip_config,
    to,
)
from tests.support.rtp_peer import RtpPeer, open_peer


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


async def test_an_event_of_an_old_lease_is_not_told_to_the_new_one() -> None:
    async with running(RtpEngine(sip_config(1), quarantine_s=0.0)) as engine, open_peer() as peer:
        old, new = Digits(), Digits()
        session = engine.lease(old)
        session.connect(to(peer))
        await peer.more(2)
        await peer.send_digit(session.address, EVENTS, "1", lose=lambda _: False)
        while session.statistics().digits == 0:
            pass  # no await: the event is on its way, and this task has not read it
        session.release()
        again = engine.lease(new)
        again.connect(to(peer))
        await peer.more(2)
        await peer.send_digit(again.address, EVENTS, "2", lose=lambda _: False)
        await new.until("2")
        assert old.text == ""


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


async def test_without_an_address_to_announce_it_does_not_start() -> None:
    with pytest.raises(InvalidError):
        await RtpEngine(sip_config(4, host="0.0.0.0")).run()  # noqa: S104 - that is the point


async def test_real_time_priority_is_not_needed(peer: RtpPeer) -> None:
    async with running(RtpEngine(sip_config(4), realtime=False)) as engine:
        session = engine.lease(ignore)
        session.connect(to(peer))
        await peer.more(3)
        assert engine.statistics()["realtime"] is False


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
