"""A stream cut into PDUs: any pieces, wrong lengths, bounded memory."""

from __future__ import annotations

import struct
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.smpp.framer import Framer, RawPdu
from gateways.smpp.pdu import Pdu, ProtocolError

LONGEST = 200
WORD = st.integers(0, 0xFFFFFFFF)
PDUS = st.lists(
    st.builds(Pdu, WORD, WORD, WORD, st.binary(max_size=LONGEST - 16)), min_size=1, max_size=8
)


def octets(pdu: Pdu) -> bytes:
    length = 16 + len(pdu.body)
    return struct.pack(">IIII", length, pdu.command, pdu.status, pdu.sequence) + pdu.body


def wrong(length: int) -> bytes:
    return struct.pack(">IIII", length, 4, 0, 1)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


@given(PDUS, st.lists(st.integers(0, 5000), max_size=30))
def test_any_pieces_give_the_same_pdus(pdus: list[Pdu], cuts: list[int]) -> None:
    framer = Framer(LONGEST)
    found: list[Pdu] = []
    for piece in pieces(b"".join(map(octets, pdus)), cuts):
        found += framer.feed(piece)
        assert framer.kept_bytes < LONGEST
    assert found == pdus
    assert framer.kept_bytes == 0
    assert framer.error is None


@given(PDUS)
def test_octet_by_octet(pdus: list[Pdu]) -> None:
    framer = Framer(LONGEST)
    stream = b"".join(map(octets, pdus))
    found = [pdu for octet in stream for pdu in framer.feed(bytes((octet,)))]
    assert found == pdus


def test_a_pdu_is_handed_out_with_its_last_octet() -> None:
    framer = Framer(LONGEST)
    stream = octets(Pdu(4, 0, 1, b"abc"))
    assert framer.feed(stream[:-1]) == []
    assert framer.kept_bytes == len(stream) - 1
    assert framer.feed_raw(stream[-1:]) == [(4, 0, 1, b"abc")]


def test_the_longest_is_taken() -> None:
    pdu = Pdu(4, 0, 1, bytes(LONGEST - 16))
    framer = Framer(LONGEST)
    assert framer.feed(octets(pdu)) == [pdu]
    assert framer.error is None


@pytest.mark.parametrize("length", [0, 1, 15, LONGEST + 1, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("bytewise", [False, True], ids=["at_once", "bytewise"])
def test_a_wrong_length_ends_the_stream(length: int, bytewise: bool) -> None:  # noqa: FBT001
    framer = Framer(LONGEST)
    before = Pdu(0x80000004, 0, 7, b"id\0")
    stream = octets(before) + wrong(length)[: 4 if bytewise else 16]
    cut = range(len(stream) + 1) if bytewise else [0, len(stream)]
    found: list[Pdu] = []
    for a, b in pairwise(cut):
        assert framer.error is None
        found += framer.feed(stream[a:b])
    assert found == [before]  # what came whole before it is not lost
    assert framer.error is not None
    assert (framer.error.status, framer.error.fatal) == (0x02, True)
    with pytest.raises(ProtocolError) as raised:
        framer.feed(b"more")
    assert raised.value is framer.error


def test_the_length_is_judged_by_its_four_octets() -> None:
    framer = Framer(LONGEST)
    assert framer.feed(b"\xff\xff\xff") == []
    assert framer.error is None
    assert framer.feed(b"\xff") == []
    assert framer.error is not None


def test_what_a_wrong_length_announces_is_not_kept() -> None:
    framer = Framer(LONGEST)
    assert framer.feed(wrong(0x7FFFFFFF) + bytes(1_000_000)) == []
    assert framer.kept_bytes == 0


class Counting(Framer):
    """Counts the octets that are looked at: the work, whatever the clock says."""

    looked_at = 0

    def _cut(self, data: bytes) -> list[RawPdu]:
        self.looked_at += len(data)
        return super()._cut(data)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_the_work_is_linear_however_small_the_pieces(step: int) -> None:
    pdu = Pdu(4, 0, 1, bytes(100_000))
    framer = Counting(100_016)
    stream = octets(pdu)
    found = [
        pdu for at in range(0, len(stream), step) for pdu in framer.feed(stream[at : at + step])
    ]
    assert found == [pdu]
    assert framer.looked_at <= len(stream) + 2 * step + 4  # once for its length, once whole


def test_one_too_long_is_not_taken_even_if_it_is_there() -> None:
    framer = Framer(LONGEST)
    assert framer.feed(octets(Pdu(4, 0, 1, bytes(LONGEST - 15)))) == []
    assert framer.error is not None
    assert framer.kept_bytes == 0


def test_many_in_one_piece() -> None:
    pdus = [Pdu(0x80000004, 0, number, b"%x\0" % number) for number in range(1, 5001)]
    framer = Framer(LONGEST)
    assert framer.feed(b"".join(map(octets, pdus)) + b"\0") == pdus
    assert framer.kept_bytes == 1


def test_memory_is_that_of_one_piece_however_long_the_stream() -> None:
    piece = b"".join(octets(Pdu(5, 0, number, bytes(180))) for number in range(50)) + wrong(150)
    framer = Framer(LONGEST)
    tracemalloc.start()
    try:
        for _ in range(2000):  # 20 MB
            framer.feed_raw(piece[:-16])
            framer.feed_raw(piece[-16:] + bytes(134))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert framer.error is None
    assert peak < 10 * len(piece)
