"""Parts of a text: the limits of 23.040, whole characters, and no part too many."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import gsm
from engine.errors import InvalidError
from engine.gateway import TextKind
from engine.segments import (
    Alphabet,
    Concatenation,
    alphabet_of,
    decoded,
    encoded,
    kind_of,
    measure,
    split,
    texts,
)

GSM_CHARS = "aZ 0@é\nΩ{}[]~^|\\€\f"
UCS_CHARS = "aé`漢Ж€😀👩🏽\u200d"
UDH8, UDH16, SAR, PAYLOAD = Concatenation
# One message; a part with a reference of 8 bits, of 16: 23.040 §9.2.3.24.
LIMITS = {
    Alphabet.GSM: (160, 153, 152),
    Alphabet.LATIN1: (140, 134, 133),
    Alphabet.UCS2: (70, 67, 66),
    Alphabet.BINARY: (140, 134, 133),
}
PLACE = {UDH8: 1, UDH16: 2, SAR: 2, PAYLOAD: 1}

long_texts = st.one_of(
    st.text(st.sampled_from(GSM_CHARS), max_size=700),
    st.text(st.sampled_from(UCS_CHARS), max_size=400),
    st.text(max_size=400),
)
concatenations = st.sampled_from(Concatenation)


def cost(char: str, alphabet: Alphabet) -> int:
    if alphabet is Alphabet.UCS2:
        return 2 if ord(char) > 0xFFFF else 1
    return 2 if alphabet is Alphabet.GSM and char in gsm.EXTENDED else 1


def counted(text: str, alphabet: Alphabet, concatenation: Concatenation) -> int:
    """Parts where each takes whole characters as long as there is room: no way takes fewer."""
    single, joined = LIMITS[alphabet][0], LIMITS[alphabet][PLACE[concatenation]]
    costs = [cost(char, alphabet) for char in text]
    if sum(costs) <= single:
        return 1
    parts, used = 1, 0
    for one in costs:
        parts, used = (parts, used + one) if used + one <= joined else (parts + 1, one)
    return parts


@given(long_texts, st.sampled_from(TextKind), concatenations)
def test_parts_are_whole_fit_and_are_as_few_as_can_be(
    text: str, kind: TextKind, concatenation: Concatenation
) -> None:
    if kind is TextKind.BINARY:
        text = text.encode().hex()
    alphabet = alphabet_of(text, kind)
    octets = encoded(text, alphabet)
    parts = split(octets, alphabet, concatenation)
    single, joined = LIMITS[alphabet][0], LIMITS[alphabet][PLACE[concatenation]]
    limit = (single if len(parts) == 1 else joined) * (2 if alphabet is Alphabet.UCS2 else 1)
    assert b"".join(parts) == octets
    assert all(len(part) <= limit for part in parts)
    assert all(parts) or parts == (b"",)
    if kind is not TextKind.BINARY:
        assert "".join(decoded(part, alphabet) for part in parts) == text
        assert len(parts) == counted(text, alphabet, concatenation)


@given(long_texts, st.sampled_from(TextKind), concatenations)
def test_what_is_measured_is_what_is_cut(
    text: str, kind: TextKind, concatenation: Concatenation
) -> None:
    if kind is TextKind.BINARY:
        text = text.encode().hex().upper()
    size = measure(text, kind, concatenation)
    shown = texts(text, kind, concatenation)
    assert "".join(shown) == text
    assert (size.alphabet, size.parts) == (alphabet_of(text, kind), len(shown))
    assert size.units <= size.parts * size.per_part
    assert size.per_part == LIMITS[size.alphabet][0 if size.parts == 1 else PLACE[concatenation]]


@pytest.mark.parametrize(
    ("alphabet", "char"),
    [(Alphabet.GSM, "a"), (Alphabet.LATIN1, "ç"), (Alphabet.UCS2, "Ж")],
)
@pytest.mark.parametrize("concatenation", Concatenation)
def test_the_limits_to_the_character(
    alphabet: Alphabet, char: str, concatenation: Concatenation
) -> None:
    kind = TextKind.LATIN1 if alphabet is Alphabet.LATIN1 else TextKind.PLAIN
    single, joined = LIMITS[alphabet][0], LIMITS[alphabet][PLACE[concatenation]]
    for size, parts in ((0, 1), (single, 1), (single + 1, 2), (2 * joined, 2), (2 * joined + 1, 3)):
        assert measure(char * size, kind, concatenation).parts == parts, size


def test_no_escape_pair_is_cut() -> None:
    first, second = texts("a" * 152 + "€" + "b" * 20, TextKind.PLAIN, UDH8)
    assert (first, second) == ("a" * 152, "€" + "b" * 20)


def test_no_surrogate_pair_is_cut() -> None:
    first, second = texts("ж" * 66 + "😀" + "b" * 20, TextKind.PLAIN, UDH8)
    assert (first, second) == ("ж" * 66, "😀" + "b" * 20)


def test_a_character_whose_second_octet_looks_like_a_surrogate_is_cut_after() -> None:
    # U+4FD8: only the first octet of a unit tells.
    assert measure("\u4fd8" * 134, TextKind.PLAIN).parts == 2


@pytest.mark.parametrize(
    ("text", "kind", "alphabet"),
    [
        ("hello", TextKind.PLAIN, Alphabet.GSM),
        ("hello `", TextKind.PLAIN, Alphabet.UCS2),
        ("hello", TextKind.UNICODE, Alphabet.UCS2),
        ("ça va", TextKind.PLAIN, Alphabet.UCS2),
        ("ça va", TextKind.LATIN1, Alphabet.LATIN1),
        ("5 €", TextKind.LATIN1, Alphabet.UCS2),
        ("", TextKind.LATIN1, Alphabet.LATIN1),
        ("00ff", TextKind.BINARY, Alphabet.BINARY),
    ],
)
def test_the_alphabet_is_the_smallest_that_says_it(
    text: str, kind: TextKind, alphabet: Alphabet
) -> None:
    assert alphabet_of(text, kind) is alphabet


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("plain", TextKind.PLAIN), ("UTF-8", TextKind.PLAIN), ("klingon", TextKind.PLAIN),
        ("", TextKind.PLAIN), ("a\x00b", TextKind.PLAIN), ("Unicode", TextKind.UNICODE),
        ("UCS-2", TextKind.UNICODE), ("utf-16", TextKind.UNICODE), ("binary", TextKind.BINARY),
        ("latin1", TextKind.LATIN1), ("ISO-8859-1", TextKind.LATIN1),
        ("iso-8859-15", TextKind.PLAIN),
    ],
)  # fmt: skip
def test_what_a_type_asks_for(type_: str, kind: TextKind) -> None:
    assert kind_of(type_) is kind


@pytest.mark.parametrize("digits", ["0", "xy", "00 f", "[contact:custom1]", "０0"])  # noqa: RUF001
def test_what_is_not_hexadecimal_is_no_binary_text(digits: str) -> None:
    with pytest.raises(InvalidError) as raised:
        measure(digits, TextKind.BINARY)
    assert raised.value.field == "data"


def test_blanks_between_octets_are_not_sent() -> None:
    assert encoded("06 05\n04", Alphabet.BINARY) == b"\x06\x05\x04"


def test_half_a_surrogate_pair_is_no_character() -> None:
    assert encoded("a\ud83d", Alphabet.UCS2) == b"\x00a\x00?"


@given(st.binary(), st.sampled_from(Alphabet))
def test_any_octets_are_read_as_something(octets: bytes, alphabet: Alphabet) -> None:
    decoded(octets, alphabet).encode()  # no half of a surrogate pair is in it


def test_kinds_and_concatenations_have_all_limits() -> None:
    for alphabet, concatenation in itertools.product(Alphabet, Concatenation):
        single, joined = LIMITS[alphabet][0], LIMITS[alphabet][PLACE[concatenation]]
        unit = 2 if alphabet is Alphabet.UCS2 else 1
        assert [
            len(part) for part in split(bytes(unit * (single + 1)), alphabet, concatenation)
        ] == [unit * joined, unit * (single + 1 - joined)]
