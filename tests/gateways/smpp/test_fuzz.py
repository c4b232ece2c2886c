"""Octets nobody would send: nothing but ``ProtocolError``, bounded memory, and no two readings."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.smpp import codec, data_sm, receipts, text
from gateways.smpp.framer import Framer, RawPdu
from gateways.smpp.pdu import Command, ProtocolError, ShortMessage
from gateways.smpp.settings import SmppSettings
from tests.gateways.smpp.spoilt import LONGEST, stream, valid_bodies
from tests.gateways.smpp.strategies import data_messages, data_octets, short_messages

SETTINGS = SmppSettings(receipts_without_class=True)
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def _sane_message(body: bytes) -> None:
    message = codec.decode_short_message(body)
    assert codec.encode_short_message(message) == body
    _sane_words(message)


def _sane_data(body: bytes) -> None:
    message = data_sm.decode(body)
    assert data_octets(message) == body
    _sane_words(message)


def _sane_words(message: ShortMessage) -> None:
    # What is made of it is written into the store, as UTF-8.
    text.decode(message, SETTINGS).text.encode()
    receipt = receipts.parse(message, SETTINGS, at=NOW)
    if receipt is not None:
        f"{receipt.message_id} {receipt.error} {receipt.submitted} {receipt.done}".encode()


def _sane_id(body: bytes) -> None:
    found = codec.message_id(body)
    assert len(found) <= codec.MAX_MESSAGE_ID
    assert body.startswith(found.encode() + b"\0") or not body


def _sane_bind(body: bytes) -> None:
    name, tlvs = codec.bind_response(body)
    assert len(name) + 1 + sum(4 + len(value) for _, value in tlvs) == len(body) or not body


def _sane_query(body: bytes) -> None:
    found, date, state, error = codec.query_response(body)
    if state is not None:
        assert body.startswith(f"{found}\0{date}\0".encode() + bytes((state, error)))


def _sane_tlvs(body: bytes) -> None:
    codec.decode_tlvs(body)


CHECKS: tuple[Callable[[bytes], None], ...] = (
    _sane_message, _sane_data, _sane_id, _sane_bind, _sane_query, _sane_tlvs,
)  # fmt: skip
BY_COMMAND: dict[int, Callable[[bytes], None]] = {
    Command.SUBMIT_SM: _sane_message,
    Command.DELIVER_SM: _sane_message,
    Command.DATA_SM: _sane_data,
    Command.SUBMIT_SM_RESP: _sane_id,
    Command.DELIVER_SM_RESP: _sane_id,
    Command.DATA_SM_RESP: _sane_id,
    Command.BIND_TRANSCEIVER_RESP: _sane_bind,
    Command.BIND_TRANSMITTER_RESP: _sane_bind,
    Command.QUERY_SM_RESP: _sane_query,
}


@given(st.binary(max_size=400))
def test_any_octets_as_any_body(body: bytes) -> None:
    for check in CHECKS:
        _refused(check, body)


@given(st.data(), short_messages())
def test_a_message_with_some_octets_changed(data: st.DataObject, message: ShortMessage) -> None:
    _refused(_sane_message, _changed(data, codec.encode_short_message(message)))


@given(st.data(), data_messages())
def test_a_data_sm_with_some_octets_changed(data: st.DataObject, message: ShortMessage) -> None:
    _refused(_sane_data, _changed(data, data_octets(message)))


def _changed(data: st.DataObject, octets: bytes) -> bytes:
    body = bytearray(octets)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    return bytes(body)


def _refused(check: Callable[[bytes], None], body: bytes) -> bool:
    """Whether ``check`` refused ``body`` as it should; anything else that is raised, passes."""
    try:
        check(body)
    except ProtocolError as error:
        fault = error
    else:
        return False
    assert not fault.fatal
    assert 0 < fault.status <= 0xFF
    return True


BODIES = (
    st.binary(max_size=60)
    | short_messages().map(codec.encode_short_message)
    | data_messages().map(data_octets)
)
FRAMES = st.builds(
    codec.frame, st.sampled_from(Command), st.integers(0, 255), st.integers(0, 9), BODIES
)


@given(st.lists(FRAMES | st.binary(max_size=60), max_size=8), st.lists(st.integers(0, 3000)))
def test_any_pieces_of_any_octets(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(parts)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    found = _through([stream[a:b] for a, b in pairwise(edges)])
    assert found == _through([stream])  # how a stream is cut changes nothing


def _through(pieces: list[bytes]) -> tuple[list[RawPdu], bool]:
    framer = Framer(LONGEST)
    pdus: list[RawPdu] = []
    for piece in pieces:
        if framer.error is None:
            pdus += framer.feed_raw(piece)
            assert framer.kept_bytes < LONGEST
    for command, _, _, body in pdus:
        _refused(BY_COMMAND.get(command, _sane_message), body)
    return pdus, framer.error is not None


MILLION = 1_000_000


@pytest.mark.slow
def test_a_million_random_pdus() -> None:
    # Seeded: what fails once, fails always. Each stream dies of its last PDU or ends within one.
    dice = random.Random(3_4)
    valid = list(valid_bodies(dice))
    seen: Counter[tuple[int, bool]] = Counter()
    broken = 0
    while seen.total() < MILLION:
        framer = Framer(LONGEST)
        octets = stream(dice, valid, 100)
        at = 0
        while at < len(octets) and framer.error is None:
            step = dice.choice((1, 16, 100, 1460, 65536))
            for command, _, _, body in framer.feed_raw(octets[at : at + step]):
                seen[command, _refused(BY_COMMAND.get(command, _sane_message), body)] += 1
            assert framer.kept_bytes < LONGEST
            at += step
        broken += framer.error is not None
    # The generator does its work: of every kind some were read and some were refused.
    for command in (1 << 31 | 4, 1 << 31 | 3, 1 << 31 | 9, 4, 5, 0x103):
        assert min(seen[command, True], seen[command, False]) > MILLION / 1000
    assert broken > MILLION / 1000
