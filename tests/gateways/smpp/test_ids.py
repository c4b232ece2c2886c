"""Ids of answers and receipts: spellings, learning, numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.smpp.ids import (
    FORGET,
    UNANIMOUS,
    IdMode,
    Learned,
    answer_key,
    fixed,
    key,
    receipt_key,
    same_number,
)

NUMBERS = st.integers(min_value=0, max_value=16**32)


@pytest.mark.parametrize(
    ("answer", "receipt", "mode"),
    [
        ("1a2B", "1A2b", IdMode.EXACT),
        ("000123", "123", IdMode.EXACT),
        ("123", "0000000123", IdMode.EXACT),
        ("a:b-c", "A:B-C", IdMode.EXACT),
        ("4D2", "1234", IdMode.HEX_TO_DECIMAL),
        ("000004d2", "0000001234", IdMode.HEX_TO_DECIMAL),
        ("1234", "4D2", IdMode.DECIMAL_TO_HEX),
        ("0001234", "000004d2", IdMode.DECIMAL_TO_HEX),
        ("0", "0", IdMode.HEX_TO_DECIMAL),
    ],
)
def test_a_receipt_finds_its_answer(answer: str, receipt: str, mode: IdMode) -> None:
    assert answer_key(receipt, mode) == key(answer)
    assert receipt_key(answer, mode) == key(receipt)


@pytest.mark.parametrize("text", ["", "12g", "1_0", " 1", "-1", "0x10", "٣"])
def test_what_is_no_number_of_its_kind_matches_nothing(text: str) -> None:
    assert answer_key(text, IdMode.HEX_TO_DECIMAL) is None
    assert answer_key(text, IdMode.DECIMAL_TO_HEX) is None
    assert answer_key(text, IdMode.EXACT) == key(text)


@given(NUMBERS, st.integers(0, 8), st.integers(0, 8), st.sampled_from([str.lower, str.upper]))
def test_every_number_is_found_in_any_spelling(
    number: int, zeros: int, more_zeros: int, case: Callable[[str], str]
) -> None:
    hexadecimal = "0" * zeros + case(f"{number:x}")
    decimal = "0" * more_zeros + str(number)
    assert answer_key(decimal, IdMode.HEX_TO_DECIMAL) == key(hexadecimal)
    assert answer_key(hexadecimal, IdMode.DECIMAL_TO_HEX) == key(decimal)
    assert receipt_key(hexadecimal, IdMode.HEX_TO_DECIMAL) == key(decimal)
    assert receipt_key(decimal, IdMode.DECIMAL_TO_HEX) == key(hexadecimal)


@given(st.text(max_size=65))
def test_no_id_is_too_strange_for_a_key(text: str) -> None:
    assert key(key(text)) == key(text)
    assert bool(key(text)) == bool(text)
    for mode in IdMode:
        answer_key(text, mode)
        receipt_key(text, mode)


# --- learning ------------------------------------------------------------------------------------


def test_a_mode_is_certain_after_enough_of_one_voice() -> None:
    learned = Learned()
    for _ in range(UNANIMOUS - 1):
        learned = learned.voted(IdMode.HEX_TO_DECIMAL)
    assert not learned.certain
    assert learned.modes()[0] is IdMode.HEX_TO_DECIMAL
    assert set(learned.modes()) == set(IdMode)
    learned = learned.voted(IdMode.HEX_TO_DECIMAL)
    assert learned.modes() == (IdMode.HEX_TO_DECIMAL,)


def test_one_voice_against_it_starts_over() -> None:
    learned = Learned(IdMode.EXACT, UNANIMOUS - 1).voted(IdMode.DECIMAL_TO_HEX)
    assert (learned.mode, learned.votes) == (IdMode.DECIMAL_TO_HEX, 1)


def test_a_mode_that_matches_nothing_any_more_is_given_up() -> None:
    learned = fixed("hex_to_decimal")
    for _ in range(FORGET - 1):
        learned = learned.missed()
    assert learned.certain
    assert not learned.missed().certain


def test_a_match_forgets_the_misses() -> None:
    learned = fixed("exact")
    for _ in range(FORGET - 1):
        learned = learned.missed()
    learned = learned.voted(IdMode.EXACT)
    assert learned.missed().certain


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("4917012345678", "+4917012345678"),
        ("4917012345678", "004917012345678"),
        ("4917012345678", "017012345678"),
        ("4917012345678", ""),
        ("12345", "12345"),
    ],
)
def test_one_number_in_two_spellings(one: str, other: str) -> None:
    assert same_number(one, other)
    assert same_number(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("4917012345678", "4917012345679"),
        ("12345678912345", "12345"),  # a short code ends many numbers
        ("Acme", "4917012345678"),
        ("Acme", "Ajax"),
        ("49170é", "49170è"),
    ],
)
def test_two_numbers(one: str, other: str) -> None:
    assert not same_number(one, other)
    assert not same_number(other, one)


@given(st.text(max_size=20), st.text(max_size=20))
def test_numbers_compare_both_ways(one: str, other: str) -> None:
    assert same_number(one, other) == same_number(other, one)
    assert same_number(one, one)
