"""Signalling pitfalls of engineering/pjsua2.md and media-split.md, one dialog each, on the wire."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.results import Disposition, Reached
from gateways.sip.gateway import SipGateway
from tests.gateways.sip.dialogs import place, talking
from tests.gateways.sip.harness import SipHarness, config, running, trunk
from tests.suites.gateway_suite import Delivery, listen, play, rows_of
from tests.support.rtp_peer import open_peer
from tests.support.uas import Dialog, run_uas, sdp

T38 = "\r\n".join(  # noqa: FLY002 - one line of SDP a line
    [
        "v=0",
        "o=far 1 9 IN IP4 127.0.0.1",
        "s=-",
        "c=IN IP4 127.0.0.1",
        "t=0 0",
        "m=image 49170 udptl t38",
        "",
    ]
)


async def test_our_offer_is_g711_with_the_engines_address_and_the_spools_call_id(
    harness: SipHarness,
) -> None:
    offers: list[Any] = []

    async def script(dialog: Dialog) -> None:
        offers.append(dialog.invite)
        await dialog.respond(dialog.invite, "486 Busy Here")
        await dialog.expect("ACK")

    async with talking(script, harness) as delivery:
        pass
    invite = offers[0]
    assert invite.header("Call-ID") == str(delivery.order.uid)
    media = [line for line in invite.body.splitlines() if line.startswith("m=")]
    assert [line.split()[3:] for line in media] == [["0", "8", "101"]]
    assert invite.rtp[1] in harness.rtp_ports
    assert "a=rtcp" not in invite.body
    assert "telephone-event/8000" in invite.body
    assert '"Suite" <sip:4930123@' in invite.header("From")


async def test_call_ids_differ_between_workers_forked_from_one_zygote(tmp_path: Path) -> None:
    """Pitfall 2: libCreate before fork gives all workers the same random tags and branches."""
    async with running(SipGateway(config(workers_min=3))) as gateway:
        harness = SipHarness(gateway, tmp_path)
        seen: set[tuple[str, str]] = set()

        async def script(dialog: Dialog) -> None:
            via, sender = dialog.invite.header("Via"), dialog.invite.header("From")
            seen.add((via.split("branch=")[1], sender.split("tag=")[1]))
            await trio.sleep(0.5)
            await dialog.respond(dialog.invite, "486 Busy Here")
            await dialog.expect("ACK")

        async with run_uas(script) as uas, trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(Delivery(harness, trunk(uas), listen).run)
    assert len({branch for branch, _ in seen}) == 12
    assert len({tag for _, tag in seen}) == 12


async def test_early_media_then_answer_elsewhere_then_moved_then_held(harness: SipHarness) -> None:
    """183 at B, 200 at A, re-INVITE to B with PCMA and telephone-event 96, hold, resume."""
    async with open_peer() as a, open_peer() as b:

        async def script(dialog: Dialog) -> None:
            await dialog.respond(dialog.invite, "183 Progress", sdp(port=b.address[1]))
            await b.more(5)
            await dialog.answer(sdp(port=a.address[1]))
            await a.more(5)
            moved = await dialog.reinvite(sdp(port=b.address[1], formats="8 96", te=96))
            assert moved.status == 200
            assert moved.rtp == dialog.invite.rtp
            await b.until(lambda packets: packets[-1].payload_type == 8)
            await b.send_digit(moved.rtp, 96, "7", lose=lambda _: False)
            await b.more(3)
            held = await dialog.reinvite(
                sdp(port=b.address[1], formats="8 96", te=96, direction="sendonly")
            )
            assert held.status == 200
            assert "a=recvonly" in held.body
            quiet = len(b.packets)
            resumed = await dialog.reinvite(sdp(port=a.address[1]))
            assert resumed.status == 200
            heard = len(a.packets)
            await a.more(5)
            assert len(b.packets) <= quiet + 3  # what was on its way when the hold came
            assert len(a.packets) > heard
            await dialog.request("BYE")
            await dialog.expect("SIP/2.0 200")

        result = await place(script, harness)
    assert result.disposition is Disposition.ANSWERED
    assert rows_of(result, "dtmf", "key") == ["7"]
    assert rows_of(result, "info", "hangup") == ["callee"]


@pytest.mark.parametrize("kind", ["zero", "inactive", "sendonly"])
async def test_a_hold_of_any_kind_stops_rtp_and_the_recording_goes_on_after_it(
    harness: SipHarness, kind: str
) -> None:
    async with open_peer() as peer:
        port = peer.address[1]
        hold = (
            sdp(port=port, connection="IN IP4 0.0.0.0")
            if kind == "zero"
            else sdp(port=port, direction=kind)
        )

        async def script(dialog: Dialog) -> None:
            await dialog.answer(sdp(port=port))
            await peer.more(5)
            assert (await dialog.reinvite(hold)).status == 200
            await trio.sleep(0.2)
            quiet = len(peer.packets)
            await trio.sleep(0.3)
            assert len(peer.packets) == quiet
            assert (await dialog.reinvite(sdp(port=port))).status == 200
            await dialog.until_bye()

        async with run_uas(script) as uas:
            delivery = Delivery(harness, trunk(uas), partial(play, harness.media))
            result = await delivery.run()
    assert rows_of(result, "info", "hangup") == ["us"]
    assert len(peer.audio(0)) >= harness.media.length_s * 8000


async def test_a_first_answer_on_hold_sends_nothing_until_it_is_lifted(harness: SipHarness) -> None:
    """getStreamInfo raises where the first answer is inactive: that means "do not send"."""
    async with open_peer() as peer:

        async def script(dialog: Dialog) -> None:
            await dialog.answer(sdp(port=peer.address[1], direction="inactive"))
            await trio.sleep(0.2)
            assert not peer.packets
            assert (await dialog.reinvite(sdp(port=peer.address[1]))).status == 200
            await peer.more(5)
            await dialog.request("BYE")
            await dialog.expect("SIP/2.0 200")

        result = await place(script, harness)
    assert result.disposition is Disposition.ANSWERED


async def test_offerless_reinvite_and_update_are_followed(harness: SipHarness) -> None:
    async with open_peer() as a, open_peer() as b:

        async def script(dialog: Dialog) -> None:
            await dialog.answer(sdp(port=a.address[1]))
            await a.more(3)
            await dialog.request("INVITE")
            message = await dialog.expect("SIP/2.0 ")
            while message.status < 200:
                message = await dialog.expect("SIP/2.0 ")
            assert message.rtp == dialog.invite.rtp
            await dialog.request("ACK", sdp(port=b.address[1]), cseq=1)
            await b.more(3)
            await dialog.request("UPDATE", sdp(port=a.address[1]))
            assert (await dialog.expect("SIP/2.0 200")).rtp == dialog.invite.rtp
            await a.more(5)
            await dialog.request("BYE")
            await dialog.expect("SIP/2.0 200")

        result = await place(script, harness)
    assert result.disposition is Disposition.ANSWERED


@pytest.mark.parametrize(
    "body",
    [
        sdp(formats="18"),
        sdp(port=0),
        sdp(proto="RTP/SAVP"),  # pjsua alone would take it for plain RTP
        sdp(connection="IN IP4 media.example"),
        sdp(connection="IN IP6 ::1"),
        "v=0\r\njunk\r\n",
        "",
    ],
    ids=["g729", "port0", "savp", "hostname", "ipv6", "junk", "none"],
)
async def test_an_answer_without_usable_media_is_ended_with_bye(
    harness: SipHarness, body: str
) -> None:
    async def script(dialog: Dialog) -> None:
        await dialog.respond(dialog.invite, "200 OK", body)
        both = [await dialog.expect(""), await dialog.expect("")]  # in either order on UDP
        assert {message.method for message in both} == {"ACK", "BYE"}
        bye = next(message for message in both if message.method == "BYE")
        await dialog.respond(bye, "200 OK")

    result = await place(script, harness)
    assert (result.disposition, result.cause) == (Disposition.FAILED, "incompatible_media")
    assert result.reached is Reached.PERSON  # somebody did lift the receiver
    assert not result.trunk_failed


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (T38, 488),
        (sdp(port=0), 488),
        (sdp(proto="RTP/SAVP"), 488),
    ],
    ids=["t38", "port0", "savp"],
)  # fmt: skip
async def test_a_reinvite_we_cannot_take_is_refused_and_the_call_stays(
    harness: SipHarness, body: str, status: int
) -> None:
    async with open_peer() as peer:

        async def script(dialog: Dialog) -> None:
            await dialog.answer(sdp(port=peer.address[1]))
            await peer.more(3)
            assert (await dialog.reinvite(body)).status == status
            await peer.more(5)
            await dialog.request("BYE")
            await dialog.expect("SIP/2.0 200")

        result = await place(script, harness)
    assert result.disposition is Disposition.ANSWERED


async def test_a_reinvite_to_a_host_name_stops_rtp_until_a_good_one(harness: SipHarness) -> None:
    """pjsua answers 200 and drops the media: nothing may be sent anywhere meanwhile."""
    async with open_peer() as peer:

        async def script(dialog: Dialog) -> None:
            await dialog.answer(sdp(port=peer.address[1]))
            await peer.more(3)
            await dialog.reinvite(sdp(connection="IN IP4 media.example"))
            assert (await dialog.reinvite(sdp(port=peer.address[1]))).status == 200
            await peer.more(5)
            await dialog.request("BYE")
            await dialog.expect("SIP/2.0 200")

        result = await place(script, harness)
    assert result.disposition is Disposition.ANSWERED
