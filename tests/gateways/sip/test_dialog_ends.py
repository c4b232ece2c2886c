"""How dialogs end that did not go well, and what the worker's slots are afterwards."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio

from engine.gateway import Stage
from engine.results import Blame, Disposition, Reached
from gateways.sip.gateway import SipGateway
from tests.gateways.sip.dialogs import place, silent
from tests.gateways.sip.harness import SipHarness, config, running, trunk
from tests.suites.gateway_suite import Delivery, listen, play
from tests.support.uas import Dialog, run_uas, sdp


async def test_silence_is_a_network_timeout_and_bounded(harness: SipHarness) -> None:
    """Timer B by config; the INVITE may have arrived, so it is not "nothing"."""

    async def script(dialog: Dialog) -> None:
        await trio.lowlevel.checkpoint()

    result = await place(script, harness)
    assert (result.disposition, result.cause) == (Disposition.FAILED, "network_timeout")
    assert (result.blame, result.reached) == (Blame.NETWORK, Reached.NETWORK)
    assert result.code == "timer_b"


async def test_a_slot_is_free_only_when_pjsua_says_so(tmp_path: Path) -> None:
    """Pitfall 4: after CANCEL to a silent peer the slot stays used until timer B."""
    async with running(SipGateway(config(workers_max=1, transaction_timeout_s=3.0))) as gateway:
        harness = SipHarness(gateway, tmp_path)

        async def script(dialog: Dialog) -> None:
            if dialog.invite.start.startswith("INVITE sip:100@"):
                return
            await dialog.answer(sdp())
            await dialog.until_bye()

        async with run_uas(script) as uas:
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    delivery = Delivery(harness, trunk(uas), listen, ring_timeout_s=0.3)
                    nursery.start_soon(delivery.run)
            assert gateway.statistics()["slots_used"] == 4
            late = Delivery(
                harness, trunk(uas, dialstring="9{number}"), partial(play, harness.media)
            )
            result = await late.run()
    assert result.disposition is Disposition.ANSWERED
    assert gateway.statistics()["slot_timeouts"] == 0


async def test_answering_while_we_cancel_is_acknowledged_and_cleared(harness: SipHarness) -> None:
    """200 crosses CANCEL: the stack must ACK and BYE, or the callee hears a dead line."""

    async def script(dialog: Dialog) -> None:
        await dialog.respond(dialog.invite, "180 Ringing")
        cancel = await dialog.expect("CANCEL")
        await dialog.respond(dialog.invite, "200 OK", sdp())
        await dialog.respond(cancel, "200 OK")
        await dialog.expect("ACK")
        await dialog.until_bye()

    result = await place(script, harness, ring_timeout_s=0.3)
    assert result.disposition is Disposition.NO_ANSWER


async def test_a_redirect_is_not_followed(harness: SipHarness) -> None:
    async with run_uas(silent) as elsewhere:

        async def script(dialog: Dialog) -> None:
            contact = f"Contact: <sip:900@{elsewhere.authority}>"
            await dialog.respond(dialog.invite, "302 Moved", "", contact)
            await dialog.expect("ACK")

        result = await place(script, harness)
        assert not elsewhere.messages
    assert (result.disposition, result.cause, result.code) == (
        Disposition.FAILED, "redirected", "302",
    )  # fmt: skip


async def test_the_reason_header_tells_more_than_the_status(harness: SipHarness) -> None:
    async def script(dialog: Dialog) -> None:
        reason = 'Reason: Q.850;cause=17;text="User busy"'
        await dialog.respond(dialog.invite, "503 Service Unavailable", "", reason)
        await dialog.expect("ACK")

    result = await place(script, harness)
    assert (result.disposition, result.code) == (Disposition.BUSY, "503 q850=17")


async def test_a_contact_of_another_transport_does_not_kill_the_worker(harness: SipHarness) -> None:
    """Pitfall 3: with transportId set, ;transport=tcp in the Contact aborts the process."""

    async def script(dialog: Dialog) -> None:
        dialog.uas.transport = "tcp"
        await dialog.respond(dialog.invite, "200 OK", sdp())

    async with run_uas(script) as uas:
        delivery = Delivery(harness, trunk(uas), partial(play, harness.media), call_limit_s=1.0)
        await delivery.run()
    assert harness.gateway.statistics()["worker_deaths"] == 0


async def test_a_host_name_in_the_contact_is_looked_up_by_the_node(harness: SipHarness) -> None:
    """Pitfall 9: a name that only DNS knows must not block the worker (RFC 3261 §12.2.1.1)."""

    async def script(dialog: Dialog) -> None:
        dialog.uas.name = "localhost"
        await dialog.answer(sdp())
        await dialog.until_bye()

    async with run_uas(script) as uas:
        delivery = Delivery(harness, trunk(uas), partial(play, harness.media))
        result = await delivery.run()
        with trio.fail_after(10):
            await uas.ended.wait()
    assert result.disposition is Disposition.ANSWERED


async def test_one_pooled_call_after_the_other_is_heard(tmp_path: Path) -> None:
    """Pitfall 1: a stale Call destroyed late silences the next call in its slot."""
    async with running(SipGateway(config(workers_max=1))) as gateway:
        harness = SipHarness(gateway, tmp_path)

        async def script(dialog: Dialog) -> None:
            await dialog.answer(sdp())
            await dialog.until_bye()

        async with run_uas(script) as uas:
            for _ in range(5):
                async with trio.open_nursery() as nursery:
                    calls = [
                        Delivery(harness, trunk(uas), partial(play, harness.media))
                        for _ in range(4)
                    ]
                    for call in calls:
                        nursery.start_soon(call.run)
                for call in calls:
                    assert call.stages == [Stage.LEFT, Stage.CONNECTED]
                    assert call.result is not None
                    assert call.result.disposition is Disposition.ANSWERED
