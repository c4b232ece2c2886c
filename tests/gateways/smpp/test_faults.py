"""What a bind makes of an SMSC that misbehaves: each fault, and what is told of each message.

Every row submits its messages as soon as the bind is up. ``expected`` counts the fates told of
them; ``saw`` is asserted on what the SMSC got.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio

from gateways.smpp.events import BindRefused, Bound, Delivered, PeerUnbound
from gateways.smpp.pdu import Command
from tests.gateways.smpp.faulty import (
    FaultySmsc,
    Peer,
    Script,
    deliver_body,
    faulty_smsc,
    pdu,
    silence,
    submit_resp,
)
from tests.gateways.smpp.seat import PATIENCE_S, Seat, seated, tally

_UNKNOWN_COMMAND = 0x150


class Fault(msgspec.Struct, kw_only=True):
    """One row."""

    name: str
    script: Script
    expected: dict[str, int]
    messages: int = 4
    reason: str = ""  # how the session ends by itself; "" = by our unbind
    clean: bool = False  # of what ends by itself
    ends: bool = True  # the script does, too
    settings: dict[str, Any] = {}
    saw: Callable[[FaultySmsc, Seat], None] = lambda _, __: None


# --- answers cut, joined, moved


async def _bytewise(peer: Peer) -> None:
    await peer.bind()
    answers = b"".join(submit_resp(one) for one in await peer.expect_submits(4))
    await peer.send(*[answers[i : i + 1] for i in range(len(answers))])
    await peer.serve()


async def _coalesced(peer: Peer) -> None:
    await peer.bind()
    answers = [submit_resp(one) for one in await peer.expect_submits(4)]
    others = pdu(Command.ENQUIRE_LINK, 0, 7), pdu(Command.DELIVER_SM, 0, 8, deliver_body())
    await peer.send(b"".join((*answers[:2], *others, *answers[2:])))
    await peer.serve()


def _saw_coalesced(smsc: FaultySmsc, seat: Seat) -> None:
    assert [one.sequence for one in seat.found(Delivered)] == [8]
    assert [one.sequence for one in _got(smsc, Command.ENQUIRE_LINK_RESP)] == [7]


async def _reordered(peer: Peer) -> None:
    await peer.bind()
    submits = await peer.expect_submits(4)
    await peer.send(*[submit_resp(one) for one in reversed(submits)])
    await peer.serve()


async def _doubled(peer: Peer) -> None:
    await peer.bind()
    for one in await peer.expect_submits(4):
        await peer.send(submit_resp(one), submit_resp(one, 0x45))
    await peer.serve()


async def _unknown_sequence(peer: Peer) -> None:
    await peer.bind()
    submits = await peer.expect_submits(4)
    await peer.send(pdu(Command.SUBMIT_SM_RESP, 0, 9999, b"x\0"))
    await peer.send(pdu(Command.QUERY_SM_RESP, 0, submits[0].sequence, b"x\0\0\2\0"))
    await peer.send(*[submit_resp(one) for one in submits])
    await peer.serve()


# --- PDUs that are none


async def _unknown_command(peer: Peer) -> None:
    await peer.bind()
    await peer.send(pdu(_UNKNOWN_COMMAND, 0, 42, b"what"), pdu(0x80000150, 0, 43))
    await peer.serve()


def _saw_unknown_command(smsc: FaultySmsc, seat: Seat) -> None:
    nacks = [(one.status, one.sequence) for one in _got(smsc, Command.GENERIC_NACK)]
    assert nacks == [(0x03, 42)]  # an answer, even an unknown one, is not answered


async def _broken_deliveries(peer: Peer) -> None:
    await peer.bind()
    whole = deliver_body()
    cut = pdu(Command.DELIVER_SM, 0, 51, whole[:6])
    bad_tlv = pdu(Command.DELIVER_SM, 0, 52, whole + b"\x04\x24\x00\xff" + b"short")
    await peer.send(cut, bad_tlv, pdu(Command.DELIVER_SM, 0, 53, b""))
    await peer.serve()


def _saw_broken_deliveries(smsc: FaultySmsc, seat: Seat) -> None:
    answers = {one.sequence: one.status for one in _got(smsc, Command.DELIVER_SM_RESP)}
    assert answers == {51: 0x02, 52: 0xC0, 53: 0x02}
    assert seat.found(Delivered) == []


def _ends_with(*octets: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.bind()
        submits = await peer.expect_submits(4)
        await peer.send(submit_resp(submits[0]) + octets[0], *octets[1:])
        await peer.expect(Command.GENERIC_NACK)

    return script


def _saw_length_nack(smsc: FaultySmsc, seat: Seat) -> None:
    assert [one.status for one in _got(smsc, Command.GENERIC_NACK)] == [0x02]


async def _unreadable_ids(peer: Peer) -> None:
    await peer.bind()
    one, two, three, four = await peer.expect_submits(4)
    await peer.send(
        pdu(Command.SUBMIT_SM_RESP, 0, one.sequence, b"no end"),
        pdu(Command.SUBMIT_SM_RESP, 0, two.sequence),
        pdu(Command.SUBMIT_SM_RESP, 0x58, three.sequence, b"no end"),
        pdu(Command.SUBMIT_SM_RESP, 0, four.sequence, b"x" * 66 + b"\0"),
    )
    await peer.serve()


# --- silence


async def _silent_after_bind(peer: Peer) -> None:
    await peer.bind()
    await peer.expect(Command.ENQUIRE_LINK)
    while await peer.read():
        pass


async def _late(peer: Peer) -> None:
    """It answers after our patience: each is told as unanswered, then as late."""
    await peer.bind()
    submits = await peer.expect_submits(4)
    link = await peer.expect(Command.ENQUIRE_LINK)  # sent when the answers were overdue
    await peer.send(pdu(Command.ENQUIRE_LINK_RESP, 0, link.sequence))
    await peer.send(*[submit_resp(one) for one in submits])
    await peer.serve()


async def _half_open(peer: Peer) -> None:
    await peer.bind()
    await silence(peer)


# --- the bind


async def _silent_before_bind(peer: Peer) -> None:
    while await peer.read():
        pass


def _bind_answered(command: int, status: int) -> Script:
    async def script(peer: Peer) -> None:
        request = await peer.expect(Command.BIND_TRANSCEIVER)
        await peer.send(pdu(command, status, request.sequence))
        while await peer.read():
            pass

    return script


async def _closed_at_bind(peer: Peer) -> None:
    await peer.expect(Command.BIND_TRANSCEIVER)


async def _closed_at_once(_: Peer) -> None:
    await trio.lowlevel.checkpoint()


async def _deliver_before_bind(peer: Peer) -> None:
    request = await peer.expect(Command.BIND_TRANSCEIVER)
    await peer.send(pdu(Command.DELIVER_SM, 0, request.sequence, deliver_body()))
    assert (await peer.expect(Command.DELIVER_SM_RESP)).status == 0x64
    await peer.send(pdu(Command.BIND_TRANSCEIVER_RESP, 0, request.sequence, b"faulty\0"))
    await peer.serve()


async def _unbind_before_bind(peer: Peer) -> None:
    await peer.expect(Command.BIND_TRANSCEIVER)
    await peer.send(pdu(Command.UNBIND, 0, 5))
    await peer.expect(Command.UNBIND_RESP)


def _refused_with(status: int) -> Callable[[FaultySmsc, Seat], None]:
    def saw(_: FaultySmsc, seat: Seat) -> None:
        assert seat.found(BindRefused) == [BindRefused(status)]

    return saw


# --- refusals and ends


async def _throttling(peer: Peer) -> None:
    await peer.bind()
    one, two, three, four = await peer.expect_submits(4)
    await peer.send(submit_resp(one), submit_resp(two, 0x58), submit_resp(three, 0x14))
    await peer.send(pdu(Command.GENERIC_NACK, 0x03, four.sequence))
    await peer.serve()


async def _unbind_mid_window(peer: Peer) -> None:
    await peer.bind()
    one, two, three, _ = await peer.expect_submits(4)
    await peer.send(submit_resp(one), submit_resp(two), pdu(Command.UNBIND, 0, 99))
    assert (await peer.expect(Command.UNBIND_RESP)).sequence == 99
    await peer.send(submit_resp(three))


def _saw_nothing_after_unbind(smsc: FaultySmsc, seat: Seat) -> None:
    assert seat.found(PeerUnbound) == [PeerUnbound()]
    assert seat.bind.session.room == 0
    assert len(smsc.peers[0].submits()) == 4
    assert smsc.got[-1].command == Command.UNBIND_RESP


async def _unbind_then_all_answers(peer: Peer) -> None:
    """It waits for us to close, as some do."""
    await peer.bind()
    submits = await peer.expect_submits(4)
    await peer.send(pdu(Command.UNBIND, 0, 99), *[submit_resp(one) for one in submits])
    while await peer.read():
        pass


async def _drop_mid_window(peer: Peer) -> None:
    """It read 7 of 10 and answered 6."""
    await peer.bind()
    submits = await peer.expect_submits(7)
    await peer.send(*[submit_resp(one) for one in submits[:6]])


async def _eof_after_unbind(peer: Peer) -> None:
    await peer.bind()
    await peer.send(*[submit_resp(one) for one in await peer.expect_submits(4)])
    await peer.expect(Command.UNBIND)


def _got(smsc: FaultySmsc, command: int) -> list[Any]:
    return [one for one in smsc.got if one.command == command]


_SHORT = {"response_timeout_s": 0.2, "enquire_link_s": 0.3}
_SHORT_BIND = {"bind_timeout_s": 0.2}
_PATIENT = {"response_timeout_s": 1.0, "enquire_link_s": 1.2}  # it does answer the enquire_link
_ACCEPTED = {"answered 0x0": 4}

FAULTS = [
    Fault(name="bytewise", script=_bytewise, expected=_ACCEPTED),
    Fault(name="coalesced", script=_coalesced, expected=_ACCEPTED, saw=_saw_coalesced),
    Fault(name="reordered", script=_reordered, expected=_ACCEPTED),
    Fault(name="doubled answers", script=_doubled, expected=_ACCEPTED),
    Fault(name="unknown sequence", script=_unknown_sequence, expected=_ACCEPTED),
    Fault(
        name="unknown command", script=_unknown_command, expected=_ACCEPTED,
        saw=_saw_unknown_command,
    ),
    Fault(
        name="truncated deliver, bad TLV", script=_broken_deliveries, expected=_ACCEPTED,
        saw=_saw_broken_deliveries,
    ),
    Fault(
        name="oversize length", script=_ends_with(b"\x7f\xff\xff\xff", b"\0\0\0\5" * 3),
        expected={"answered 0x0": 1, "in flight": 3}, reason="protocol error",
        saw=_saw_length_nack,
    ),
    Fault(
        name="tiny length", script=_ends_with(b"\0\0\0\x0f" + bytes(12)),
        expected={"answered 0x0": 1, "in flight": 3}, reason="protocol error",
        saw=_saw_length_nack,
    ),
    Fault(
        name="garbage", script=_ends_with(b"HTTP/1.1 400 Bad Request\r\n", b"\r\n"),
        expected={"answered 0x0": 1, "in flight": 3}, reason="protocol error",
        saw=_saw_length_nack,
    ),
    Fault(
        name="unreadable ids", script=_unreadable_ids,
        expected={"answered 0x0": 3, "answered 0x58": 1},
    ),
    Fault(
        name="silent after bind", script=_silent_after_bind, settings=_SHORT,
        expected={"unanswered": 4}, reason="no answer to enquire_link",
    ),
    Fault(
        name="late answers", script=_late, settings=_PATIENT,
        expected={"unanswered": 4, "late 0x0": 4},
    ),
    Fault(
        name="half-open", script=_half_open, settings=_SHORT, ends=False,
        expected={"unanswered": 4}, reason="no answer to enquire_link",
    ),
    Fault(
        name="silent before bind", script=_silent_before_bind, settings=_SHORT_BIND, messages=0,
        expected={}, reason="no answer to the bind",
    ),
    Fault(
        name="bind refused", script=_bind_answered(Command.BIND_TRANSCEIVER_RESP, 0x0E),
        messages=0, expected={}, reason="bind refused: 0x0000000e ESME_RINVPASWD",
        saw=_refused_with(0x0E),
    ),
    Fault(
        name="bind nacked", script=_bind_answered(Command.GENERIC_NACK, 0x03),
        messages=0, expected={}, reason="bind refused", saw=_refused_with(0x03),
    ),
    Fault(
        name="another bind's answer", script=_bind_answered(Command.BIND_RECEIVER_RESP, 0),
        settings=_SHORT_BIND, messages=0, expected={}, reason="no answer to the bind",
    ),
    Fault(
        name="closed at bind", script=_closed_at_bind, messages=0, expected={},
        reason="the peer closed the connection",
    ),
    Fault(name="closed at once", script=_closed_at_once, messages=0, expected={}, reason="conne"),
    Fault(name="deliver before bind", script=_deliver_before_bind, expected=_ACCEPTED),
    Fault(
        name="unbind before bind", script=_unbind_before_bind, messages=0, expected={},
        reason="the peer unbound",
    ),
    Fault(
        name="throttled, queue full, nacked", script=_throttling,
        expected={"answered 0x0": 1, "answered 0x58": 1, "answered 0x14": 1, "answered 0x3": 1},
    ),
    Fault(
        name="unbind mid-window", script=_unbind_mid_window,
        expected={"answered 0x0": 3, "in flight": 1}, reason="the peer closed the connection",
        clean=True, saw=_saw_nothing_after_unbind,
    ),
    Fault(
        name="unbind, then all answers", script=_unbind_then_all_answers, expected=_ACCEPTED,
        reason="the peer unbound", clean=True, saw=_saw_nothing_after_unbind,
    ),
    Fault(
        name="drop mid-window", script=_drop_mid_window, messages=10,
        expected={"answered 0x0": 6, "in flight": 4}, reason="conne",
    ),
    Fault(name="end after our unbind", script=_eof_after_unbind, expected=_ACCEPTED),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_fault(fault: Fault) -> None:
    async with faulty_smsc(fault.script) as smsc, seated(smsc.port, **fault.settings) as seat:
        if fault.messages:
            await seat.until_bound()
            seat.submit(range(fault.messages))
            await seat.until(lambda: _all_told(seat, fault))
        if not fault.reason:
            await seat.bind.unbind(PATIENCE_S)
        closed = await seat.until_over()
        if fault.ends:
            with trio.fail_after(PATIENCE_S):
                await smsc.ended.wait()
    assert tally(seat.events) == fault.expected
    assert fault.reason in closed.reason
    assert closed.clean == (fault.clean or not fault.reason)
    assert seat.events[-1] is closed
    assert len(seat.found(Bound)) == (1 if fault.messages else 0)
    fault.saw(smsc, seat)


def _all_told(seat: Seat, fault: Fault) -> bool:
    return sum(tally(seat.events).values()) >= sum(fault.expected.values())


@pytest.mark.parametrize("window", [1, 3, 16])
async def test_slow_smsc_sees_no_more_than_the_window(window: int) -> None:
    """Rate = window / latency, as a relation of counts: the SMSC answers one, it gets one more."""
    total, ahead = 40, list[int]()

    async def script(peer: Peer) -> None:
        await peer.bind()
        await peer.expect_submits(window)
        for done in range(total):
            await trio.testing.wait_all_tasks_blocked()
            ahead.append(len(peer.submits()) - done)
            await peer.send(submit_resp(peer.submits()[done]))
            if len(peer.submits()) < total:
                await peer.expect_submits(1)
        await peer.serve()

    async with faulty_smsc(script) as smsc, seated(smsc.port, window=window) as seat:
        await seat.until_bound()
        waiting = list(range(total))
        with trio.fail_after(PATIENCE_S):
            while waiting:
                room = seat.bind.session.room
                if room:
                    seat.submit(waiting[:room])
                    del waiting[:room]
                await seat.until(lambda: seat.bind.session.room > 0)
        await seat.until_told(total)
    assert ahead[: total - window + 1] == [window] * (total - window + 1)
    assert tally(seat.events) == {"answered 0x0": total}


async def test_more_than_the_window_is_refused_to_the_owner() -> None:
    async def script(peer: Peer) -> None:
        await peer.bind()
        await silence(peer)

    async with faulty_smsc(script) as smsc, seated(smsc.port, window=3) as seat:
        await seat.until_bound()
        with pytest.raises(ValueError, match="4 requests, room for 3"):
            seat.submit(range(4))
        assert seat.bind.session.room == 3


async def test_flood_of_requests_that_never_reads_our_answers() -> None:
    """Our answers are bounded: such a peer is left."""
    flood = b"".join(pdu(Command.ENQUIRE_LINK, 0, n) for n in range(1, 2000))

    async def script(peer: Peer) -> None:
        await peer.bind()
        while True:
            await peer.send(flood)

    async with faulty_smsc(script, receive_buffer=4096) as smsc, seated(smsc.port) as seat:
        closed = await seat.until_over()
    assert closed.reason == "the peer does not read our answers"


def test_the_table_has_every_mode() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 23
