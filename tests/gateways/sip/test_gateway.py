"""The sip gateway by the shared suite, against SIPp; and what only a SIP far end can tell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from engine.gateway import Stage
from engine.results import Disposition, Reached
from gateways.sip.gateway import SipGateway
from tests.gateways.sip.harness import SipHarness, config, running
from tests.suites.gateway_suite import Delivery, GatewaySuite, listen, play, rows_of
from tests.support import audio, wait_until
from tests.support.rtp_peer import open_peer


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[SipHarness]:
    async with running(SipGateway(config())) as gateway:
        yield SipHarness(gateway, tmp_path)


class TestSipGateway(GatewaySuite):
    """``tests.suites.gateway_suite``."""


async def test_the_callee_hears_the_whole_recording_and_then_bye(
    harness: SipHarness, tmp_path: Path
) -> None:
    sent = audio.chirp(3.0)
    media = harness.recording(tmp_path, 3.0)
    async with harness.hearing("answer") as (provider, peer):
        result = await Delivery(harness, provider, partial(play, media)).run()
        assert harness.sipp is not None
        await harness.sipp.wait_received("BYE")
        counted = await harness.sipp.finish()
    match = audio.compare(sent, audio.decode(peer.audio(0), 0))
    assert match.correlation >= 0.99
    assert match.worst >= 0.99  # of every half second: neither end is cut
    assert rows_of(result, "info", "played") == ["3.0"]
    assert rows_of(result, "info", "hangup") == ["us"]
    assert (counted["SuccessfulCall"], counted["FailedCall"]) == (1, 0)


async def test_no_answer_is_ended_by_cancel(harness: SipHarness) -> None:
    async with harness.scenario("no_answer") as provider:
        await Delivery(harness, provider, listen, ring_timeout_s=0.5).run()
        assert harness.sipp is not None
        await harness.sipp.wait_received("CANCEL")
        counted = await harness.sipp.finish()
    assert (counted["SuccessfulCall"], counted["FailedCall"]) == (1, 0)


@pytest.mark.parametrize("status", ["486 Busy Here", "503 Service Unavailable", "603 Decline"])
async def test_a_refusal_after_ringing_has_reached_the_network(
    harness: SipHarness, status: str
) -> None:
    async with harness.scenario("ring_refuse", status=status, more="X-A: b") as provider:
        delivery = Delivery(harness, provider, listen)
        result = await delivery.run()
    assert delivery.stages == [Stage.LEFT, Stage.RINGING]
    assert result.reached is not Reached.NOTHING
    assert result.code == status[:3]


async def test_early_media_is_no_answer(harness: SipHarness) -> None:
    async with harness.hearing("early_media") as (provider, _):
        delivery = Delivery(harness, provider, partial(play, harness.media))
        result = await delivery.run()
    assert delivery.stages == [Stage.LEFT, Stage.RINGING, Stage.CONNECTED]
    assert result.connected_at is not None
    assert result.started_at is not None
    assert (result.connected_at - result.started_at).total_seconds() >= 0.2


async def test_the_far_end_moves_its_rtp_by_reinvite(harness: SipHarness) -> None:
    async with open_peer() as elsewhere:
        again = {
            "again_host": elsewhere.address[0],
            "again_port": str(elsewhere.address[1]),
            "again_direction": "sendrecv",
        }
        async with harness.hearing("reinvite", "-d", "300", **again) as (provider, peer):
            result = await Delivery(harness, provider, partial(play, harness.media)).run()
            assert harness.sipp is not None
            counted = await harness.sipp.finish()
    assert result.disposition is Disposition.ANSWERED
    assert peer.packets
    assert elsewhere.packets
    assert counted["FailedCall"] == 0


async def test_a_hold_by_reinvite_stops_the_recording(harness: SipHarness) -> None:
    async with open_peer() as elsewhere:
        again = {
            "again_host": elsewhere.address[0],
            "again_port": str(elsewhere.address[1]),
            "again_direction": "sendonly",
        }
        async with harness.hearing("reinvite", "-d", "300", **again) as (provider, _):
            result = await Delivery(
                harness, provider, partial(play, harness.long_media), call_limit_s=1.5
            ).run()
    assert result.cause == "call_limit"
    assert not elsewhere.packets


async def test_everything_is_free_afterwards(harness: SipHarness) -> None:
    async with harness.scenario("answer") as provider, trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(Delivery(harness, provider, partial(play, harness.media)).run)

    async def slots_free() -> bool:  # the workers' own word, a moment after the last call
        return bool(harness.gateway.statistics()["slots_used"] == 0)

    await wait_until(slots_free, "all slots free")
    statistics = harness.gateway.statistics()
    assert statistics["calls_up"] == 0
    assert statistics["rtp"]["sessions"] == 0
