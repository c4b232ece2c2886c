"""RTP packets and telephone events of the C engine."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from native.rtp._rtp import ffi, lib

WORD = st.integers(0, 2**32 - 1)
DIGITS = "0123456789*#ABCD"
FRAME = 160


def parse(data: bytes) -> Any:
    """The packet, whose payload pointer lives as long as ``data``; None where it is none."""
    packet = ffi.new("struct rtp_packet *")
    kept = ffi.from_buffer("uint8_t[]", data)
    if lib.rtp_parse(kept, len(data), packet) != 0:
        return None
    assert packet.payload_length <= len(data)
    payload = bytes(ffi.buffer(packet.payload, packet.payload_length))
    return packet, payload


def header(first: int, second: int, sequence: int, timestamp: int, ssrc: int) -> bytes:
    return struct.pack("!BBHII", first, second, sequence, timestamp, ssrc)


@given(st.binary(max_size=100))
@example(b"\x8f" + bytes(11))  # CSRCs beyond the end
@example(b"\x90" + bytes(13))  # an extension header cut in two
@example(b"\x90" + bytes(13) + b"\xff\xff")  # an extension beyond the end
@example(b"\xa0" + bytes(11))  # padding of length 0
@example(b"\xa0" + bytes(11) + b"\xff")  # padding longer than the packet
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    found = parse(data)
    if found is not None:
        assert data[0] >> 6 == 2
        assert found[1] in data


@given(st.sampled_from((0, 1)), st.integers(0, 127), st.integers(0, 0xFFFF), WORD, WORD)
def test_a_header_survives(
    marker: int,
    payload_type: int,
    sequence: int,
    timestamp: int,
    ssrc: int,
) -> None:
    written = ffi.new("struct rtp_packet *")
    written.marker, written.payload_type, written.sequence = marker, payload_type, sequence
    written.timestamp, written.ssrc = timestamp, ssrc
    out = ffi.new("uint8_t[12]")
    lib.rtp_write_header(out, written)
    second = payload_type | 0x80 * marker
    assert bytes(out) == header(0x80, second, sequence, timestamp, ssrc)
    packet, payload = parse(bytes(out))
    assert (packet.marker, packet.payload_type, packet.sequence) == (marker, payload_type, sequence)
    assert (packet.timestamp, packet.ssrc, payload) == (timestamp, ssrc, b"")


@given(st.integers(0, 15), st.none() | st.binary(max_size=5), st.integers(0, 4), st.binary())
def test_the_payload_is_what_is_left_of_csrc_extension_and_padding(
    sources: int, extension: bytes | None, padding: int, payload: bytes
) -> None:
    first = 0x80 | 0x10 * (extension is not None) | 0x20 * (padding > 0) | sources
    data = header(first, 8, 1, 2, 3) + bytes(4 * sources)
    if extension is not None:
        data += struct.pack("!HH", 0xBEDE, len(extension)) + bytes(4 * len(extension))
    data += payload + bytes(max(padding - 1, 0)) + bytes([padding] * (padding > 0))
    assert parse(data)[1] == payload


class Source:
    """The C side's count of one session's packets."""

    def __init__(self) -> None:
        self.state = ffi.new("struct rtp_source *")
        self._packet = ffi.new("struct rtp_packet *")

    def hear(self, sequence: int, *, ssrc: int = 1, timestamp: int = 0, now: int = 0) -> None:
        self._packet.sequence, self._packet.ssrc = sequence & 0xFFFF, ssrc
        self._packet.timestamp = timestamp
        lib.rtp_source_update(self.state, self._packet, now)

    @property
    def lost(self) -> int:
        return int(lib.rtp_source_lost(self.state))


@given(st.integers(0, 0xFFFF), st.lists(st.booleans(), min_size=1, max_size=400))
def test_loss_is_what_is_missing_between_first_and_last(first: int, kept: list[bool]) -> None:
    source = Source()
    heard = [0, *(n + 1 for n, keep in enumerate(kept) if keep)]
    for number in heard:
        source.hear(first + number)
    assert source.lost == heard[-1] + 1 - len(heard)


@given(st.integers(0, 0xFFFF), st.permutations(range(1, 20)))
def test_reordering_and_duplicates_are_no_loss(first: int, order: list[int]) -> None:
    source = Source()
    for number in [0, *order, *order[:3], 20]:
        source.hear(first + number)
    assert source.lost == 0


def test_a_new_source_does_not_look_like_loss() -> None:
    source = Source()
    for number in (10, 12):
        source.hear(number)
    for number in (60000, 60001):
        source.hear(number, ssrc=2)
    source.hear(20000, ssrc=2)  # a jump that large is a sender begun anew
    assert source.lost == 1


def test_jitter_is_that_of_rfc_3550() -> None:
    source, jitter, transit = Source(), 0.0, 0
    for number in range(200):
        late = (number * 37) % 50
        source.hear(number, timestamp=number * FRAME, now=number * FRAME + late)
        if number:
            jitter += (abs(late - transit) - jitter) / 16
        transit = late
    assert source.state.jitter_x16 / 16 == pytest.approx(jitter, abs=1.5)


class Receiver:
    """The C side's reader of telephone events."""

    def __init__(self) -> None:
        self._state = ffi.new("struct dtmf_receiver *")

    def hear(
        self, payload: bytes, timestamp: int, *, marker: bool = False, ssrc: int = 1
    ) -> str | None:
        packet = ffi.new("struct rtp_packet *")
        kept = ffi.from_buffer("uint8_t[]", payload)
        packet.payload, packet.payload_length = kept, len(payload)
        packet.timestamp, packet.marker, packet.ssrc = timestamp & 0xFFFFFFFF, marker, ssrc
        digit = lib.dtmf_receive(self._state, packet)
        return None if digit < 0 else chr(digit) if digit else ""


def event(number: int, duration: int, *, end: bool = False) -> bytes:
    return struct.pack("!BBH", number, 10 | 0x80 * end, duration)


Stream = list[tuple[bytes, int, bool]]


def stream_of(digits: list[int], base: int) -> list[Stream]:
    """Each digit as its packets: four updates and three ends (RFC 4733 §2.5.1)."""
    streams = []
    for place, digit in enumerate(digits):
        updates = [event(digit, FRAME * (n + 1)) for n in range(4)]
        ends = [event(digit, FRAME * 4, end=True)] * 3
        start = base + place * 1600
        streams.append([(data, start, n == 0) for n, data in enumerate(updates + ends)])
    return streams


@given(st.lists(st.integers(0, 15), min_size=1, max_size=6), WORD, st.data())
def test_a_digit_counts_once_if_any_of_its_packets_arrives(
    digits: list[int], base: int, data: st.DataObject
) -> None:
    receiver, heard = Receiver(), ""
    for packets in stream_of(digits, base):
        arriving = data.draw(
            st.lists(st.sampled_from(range(len(packets))), min_size=1, max_size=10)
        )  # any of them, in any order, any number of times
        for number in arriving:
            payload, timestamp, marker = packets[number]
            heard += receiver.hear(payload, timestamp, marker=marker) or ""
    assert heard == "".join(DIGITS[digit] for digit in digits)


def test_a_late_packet_of_the_last_digit_is_no_new_one() -> None:
    receiver = Receiver()
    first, second = stream_of([1, 2], 0)
    heard = [receiver.hear(data, at, marker=mark) for data, at, mark in [*first[:5], *second[:2]]]
    heard += [receiver.hear(data, at, marker=mark) for data, at, mark in [first[6], second[5]]]
    assert "".join(digit or "" for digit in heard) == "12"


def test_a_key_held_beyond_eight_seconds_is_one_key() -> None:
    receiver = Receiver()
    heard = receiver.hear(event(5, 0xFFFF), 1000, marker=True)
    assert heard == "5"
    assert receiver.hear(event(5, FRAME), 1000 + 0xFFFF) == ""
    assert receiver.hear(event(5, FRAME * 2, end=True), 1000 + 0xFFFF) == ""
    assert receiver.hear(event(5, FRAME), 200_000, marker=True) == "5", "pressed again"


def test_a_restarted_sender_is_heard() -> None:
    receiver = Receiver()
    assert receiver.hear(event(1, FRAME), 10_000_000, marker=True) == "1"
    assert receiver.hear(event(2, FRAME), 50, marker=True, ssrc=2) == "2"
    assert receiver.hear(event(3, FRAME), 2**31, marker=True, ssrc=2) == "3"


@pytest.mark.parametrize("number", [16, 36, 255])
def test_events_that_are_no_keys_are_left_alone(number: int) -> None:
    assert Receiver().hear(event(number, FRAME), 0, marker=True) == ""


@given(st.lists(st.tuples(st.binary(max_size=6), WORD, st.booleans()), max_size=20))
def test_any_event_bytes_give_a_key_or_nothing(packets: list[tuple[bytes, int, bool]]) -> None:
    receiver = Receiver()
    for payload, timestamp, marker in packets:
        digit = receiver.hear(payload, timestamp, marker=marker)
        assert (digit is None) == (len(payload) < 4)
        assert digit in {None, "", *DIGITS}


def frames(digits: str, now: int = 0) -> list[tuple[str, int, bool, bool, int] | None]:
    """What is sent, frame by frame: (digit, timestamp, marker, end, duration), None = a pause."""
    sender, packet = ffi.new("struct dtmf_sender *"), ffi.new("struct rtp_packet *")
    payload, sent = ffi.new("uint8_t[4]"), []
    assert lib.dtmf_sender_load(sender, digits.encode(), len(digits), 1) == 0
    while lib.dtmf_sender_busy(sender):
        tone = lib.dtmf_sender_next(sender, now & 0xFFFFFFFF, payload, packet)
        number, flags, duration = struct.unpack("!BBH", bytes(payload))
        shown = DIGITS[number], int(packet.timestamp), bool(packet.marker), flags > 127, duration
        sent.append(shown if tone else None)
        now += FRAME
    return sent


@given(st.text(DIGITS, min_size=1, max_size=32), WORD)
def test_what_is_sent_is_heard(digits: str, base: int) -> None:
    receiver, heard = Receiver(), ""
    for frame in frames(digits, base):
        if frame is not None:
            digit, timestamp, marker, end, duration = frame
            data = event(DIGITS.index(digit), duration, end=end)
            heard += receiver.hear(data, timestamp, marker=marker) or ""
    assert heard == digits


def test_a_digit_on_the_wire() -> None:
    first = frames("7")
    updates = [("7", 0, n == 0, False, FRAME * (n + 1)) for n in range(8)]
    assert first == [*updates, *[("7", 0, False, True, 1280)] * 3, *[None] * 4]


@pytest.mark.parametrize("digits", [b"", b"x", b"1\0", b"1" * 33])
def test_what_is_no_digit_is_not_queued(digits: bytes) -> None:
    sender = ffi.new("struct dtmf_sender *")
    assert lib.dtmf_sender_load(sender, digits, len(digits), 1) == -1
    assert not lib.dtmf_sender_busy(sender)
