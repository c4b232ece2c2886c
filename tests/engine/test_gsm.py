"""The GSM alphabet against smpplib's table where that is right, and where it is not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smpplib.gsm import GSM_CHARACTER_TABLE, gsm_encode

from engine import gsm

ALPHABET = sorted(char for char in map(chr, range(0x3000)) if gsm.is_gsm(char))
WRONG_THERE = "§\f"  # smpplib has ` for the one and not the other


def test_it_has_every_character_once() -> None:
    assert len(ALPHABET) == 127 + 10
    assert len({gsm.encode(char) for char in ALPHABET}) == len(ALPHABET)


@pytest.mark.parametrize("char", ALPHABET)
def test_every_character_is_where_smpplib_has_it(char: str) -> None:
    if char in WRONG_THERE:
        assert char not in GSM_CHARACTER_TABLE
    else:
        assert gsm.encode(char) == gsm_encode(char)


@pytest.mark.parametrize(("char", "septets"), [("§", b"\x5f"), ("\f", b"\x1b\x0a")])
def test_what_smpplib_has_wrong_is_by_the_standard(char: str, septets: bytes) -> None:
    assert gsm.encode(char) == septets
    assert gsm.decode(septets) == char


@pytest.mark.parametrize("char", ["`", "\x1b", "\x00", "\x80", "ç", "😀", "\t"])
def test_what_is_not_in_it_is_refused(char: str) -> None:
    assert not gsm.is_gsm(char)
    assert gsm.foreign(f"a{char}b{char}") == (char,)
    with pytest.raises(UnicodeEncodeError):
        gsm.encode(f"a{char}")


@given(st.text(st.sampled_from(ALPHABET)))
def test_what_is_written_is_read_again(text: str) -> None:
    septets = gsm.encode(text)
    assert gsm.decode(septets) == text
    assert all(septet < 0x80 for septet in septets)
    assert len(septets) == len(text) + sum(char in gsm.EXTENDED for char in text)


@given(st.text())
def test_it_encodes_what_it_says_it_can(text: str) -> None:
    assert gsm.is_gsm(text) is not bool(gsm.foreign(text))
    if gsm.is_gsm(text):
        assert gsm.decode(gsm.encode(text)) == text
    else:
        with pytest.raises(UnicodeEncodeError):
            gsm.encode(text)


@given(st.binary())
def test_any_octets_are_read_as_something(octets: bytes) -> None:
    text = gsm.decode(octets)
    assert "\x1b" not in text
    assert text.count("\ufffd") == sum(octet >= 0x80 for octet in octets)
    # An escape and what it takes along are one character.
    assert len(text) == len(re.sub(rb"\x1b.?", b"x", octets, flags=re.DOTALL))


@pytest.mark.parametrize(
    ("septets", "text"),
    [
        (b"\x1b\x65", "€"),
        (b"\x1b\x41", "A"),  # §6.2.1.1: the character of the main table
        (b"\x1b\x1b\x65", " e"),  # an escape to a further table, which nobody made
        (b"\x41\x1b", "A "),
        (b"\x1b\x0a", "\f"),
        (b"\x1b\x80", "\ufffd"),
        (b"\x00\x11\x7f", "@_à"),
    ],
)
def test_escapes_nobody_knows(septets: bytes, text: str) -> None:
    assert gsm.decode(septets) == text
