"""Whom we do not dial."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model import Contact, Service
from engine.screening import bare_number, bare_spelling, masked, normalise_number, screen


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("+49 (30) 123-456", "+4930123456"),
        ("030.123/456", "030123456"),
        ("*62#", "*62#"),
        ("", None),
        ("alice", None),
        ("1" * 33, None),
        ("12\r\nContact: x", None),
        ("1;2", None),
        ("sip:1@host", None),
        ("١٢٣", None),
        ("++1", None),
    ],
)
def test_normalise(written: str, number: str | None) -> None:
    assert normalise_number(written) == number


@given(written=st.text(max_size=40))
def test_nothing_but_digits_ever_leaves(written: str) -> None:
    number = normalise_number(written)
    assert number is None or set(number) <= set("+0123456789*#")


def test_causes() -> None:
    assert screen(Contact(phone="12 34"), Service.VOICE, ()) == ("1234", "")
    assert screen(Contact(), Service.VOICE, ()) == ("", "missing_number")
    assert screen(Contact(phone="x"), Service.SMS, ()) == ("", "invalid_number")
    assert screen(Contact(), Service.EMAIL, ()) == ("", "missing_email")
    assert screen(Contact(email="a@b"), Service.EMAIL, ()) == ("a@b", "")
    assert screen(Contact(email="  "), Service.EMAIL, ()) == ("", "missing_email")


@pytest.mark.parametrize(
    ("email", "destination"),
    [
        ("ada@example.org", "ada@example.org"), (" Ada@Example.org\t", "Ada@Example.org"),
        ("zoë@münchen.de", "zoë@münchen.de"), ("ada", ""), ("ada@", ""), ("a@b_c.de", ""),
        ("Ada <ada@example.org>", ""), ("ada@example.org,bob@example.org", ""),
        ("ada@example.org\r\nBcc: x@example.org", ""), ("ada@example.org\n", ""), ("a\0@b.de", ""),
        (f"{'x' * 64}@{'d' * 63}.{'d' * 63}.{'d' * 63}", ""), ("a@127.0.0.1", ""),
    ],
)  # fmt: skip
def test_only_addresses_are_mailed(email: str, destination: str) -> None:
    found = screen(Contact(email=email, phone="1"), Service.EMAIL, ("49",))
    assert found == (destination, "" if destination else "invalid_email")


@pytest.mark.parametrize("phone", ["+4930", "004930", "4930"])
def test_allow_list_ignores_how_international_is_written(phone: str) -> None:
    assert screen(Contact(phone=phone), Service.VOICE, ("+49",)) == (phone, "")
    assert screen(Contact(phone=phone), Service.VOICE, ("44",))[1] == "destination_not_allowed"


@pytest.mark.parametrize(
    ("written", "bare"),
    [
        ("+49 (30) 123-456", "4930123456"), ("004930123456", "4930123456"),
        ("4930123456", "4930123456"), ("030/123", "030123"), ("ACME", "ACME"), ("", ""),
        ("+0049 30", "4930"),
    ],
)  # fmt: skip
def test_lists_compare_bare_numbers(written: str, bare: str) -> None:
    assert bare_number(written) == bare
    assert bare_number(bare) == bare
    assert bare_spelling(Service.SMS)(written) == bare


@given(digits=st.from_regex(r"[1-9][0-9]{5,14}", fullmatch=True))
def test_all_spellings_of_a_number_are_one(digits: str) -> None:
    spelled = {f"+{digits}", f"00{digits}", digits, f"+{digits[:2]} ({digits[2:4]}) {digits[4:]}"}
    assert {bare_number(one) for one in spelled} == {digits}


def test_lists_hold_mail_in_small_letters() -> None:
    assert bare_spelling(Service.EMAIL)(" Ada@Example.COM ") == "ada@example.com"


@pytest.mark.parametrize(
    ("number", "masked_"),
    [("+4917012345", "+491701****"), ("12345", "1****"), ("123", "***"), ("", "")],
)
def test_a_log_names_nobody(number: str, masked_: str) -> None:
    assert masked(number) == masked_


@pytest.mark.parametrize(
    ("address", "line"),
    [
        (" Ann@Example.ORG ", "ann@example.org"),
        ("Ann@Bücher.Example", "ann@xn--bcher-kva.example"),
        ("ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"),
        ("Änn@BÜCHER.example", "änn@xn--bcher-kva.example"),
        ("no address ü", "no address ü"),
    ],
)
def test_lists_have_one_line_for_both_forms_of_a_domain(address: str, line: str) -> None:
    assert bare_spelling(Service.EMAIL)(address) == line
