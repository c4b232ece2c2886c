"""Transfer encodings: the library's decoder gets back what went in, DKIM what is on the wire."""

from __future__ import annotations

import base64
import quopri
import re

from dkim.canonicalization import Relaxed
from hypothesis import example, given
from hypothesis import strategies as st

from gateways.smtp.encoding import mostly_foreign, quoted, utf8, wrapped
from tests.gateways.smtp.strategies import PIECES, TEXT

LONGEST = 76  # RFC 2045 §6.7 (5), §6.8


def crlf(text: str) -> bytes:
    return re.sub("\r\n|\r|\n", "\r\n", text).encode()


@given(PIECES)
@example(["Dear ", "", "From ", ".", "\n"])
@example(["x" * 72 + ".y", "x" * 74 + "From me"])
@example(["\u4f60" * 60])
def test_pieces_come_back_as_they_were(pieces: list[str]) -> None:
    wire = b"".join(map(quoted, pieces))
    assert quopri.decodestring(wire) == b"".join(map(crlf, pieces))


@given(PIECES)
@example([" " * 200])
@example(["x" * 73 + ".", "." * 100])
def test_no_line_is_long_or_begins_or_ends_badly(pieces: list[str]) -> None:
    wire = b"".join(map(quoted, pieces))
    assert wire == b"" or wire.endswith(b"\r\n")
    for line in wire.split(b"\r\n"):
        assert len(line) <= LONGEST
        assert not line.startswith((b".", b"From "))
        assert not line.endswith((b" ", b"\t"))
        assert re.fullmatch(rb"[ -~]*", line)
        assert b"=_" not in line  # what our boundaries begin with


@given(PIECES)
def test_what_is_on_the_wire_is_canonical(pieces: list[str]) -> None:
    wire = b"".join(map(quoted, pieces)) + b"=\r\n"  # as the body of a mail ends
    assert relaxed(wire) == wire
    assert Relaxed.canonicalize_body(wire) == wire


def relaxed(body: bytes) -> bytes:
    """RFC 6376 §3.4.4, written down once more."""
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


def test_the_oracle_knows_blank_lines_and_nothing() -> None:
    assert relaxed(b"a \t b \r\n\r\n\r\n") == b"a b\r\n"
    assert relaxed(b"\r\n") == b""


@given(st.binary(max_size=500))
def test_base64_is_wrapped(octets: bytes) -> None:
    wire = wrapped(octets)
    assert base64.b64decode(wire) == octets
    assert all(len(line) <= LONGEST for line in wire.split(b"\r\n"))
    assert wire == b"" or wire.endswith(b"\r\n")
    assert b"\n" not in wire.replace(b"\r\n", b"")


@given(TEXT)
def test_base64_is_chosen_where_it_is_shorter(text: str) -> None:
    short = text[:500]
    octets = short.encode()
    foreign = sum(octet > 0x7F for octet in octets)
    assert mostly_foreign([short]) == (foreign * 6 > len(octets))


def test_half_a_pair_of_surrogates_is_a_question_mark() -> None:
    assert utf8("a\ud800b") == b"a?b"
    assert quoted("a\ud800") == b"a?=\r\n"
