"""Nothing from outside leaves its place in a SIP message."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidError
from engine.model import Provider
from gateways.sip import addresses

# RFC 3261 §25.1: user = 1*( unreserved / escaped / user-unreserved )
USER = re.compile(r"(?:[A-Za-z0-9\-_.!~*'()&=+$,;?/]|%[0-9A-F]{2})+\Z")
QUOTED = re.compile(r'"[^"\\\x00-\x1f\x7f]+"\Z')


@given(st.text(max_size=200), st.text(max_size=40))
def test_any_number_becomes_a_user_part_or_is_refused(number: str, around: str) -> None:
    with suppress(InvalidError):
        assert USER.match(addresses.user_part(number, around + "{number}"))


@given(st.text(max_size=200))
def test_any_name_is_a_quoted_string_or_nothing(name: str) -> None:
    quoted = addresses.display_name(name)
    assert not quoted or QUOTED.match(quoted)


@given(st.text(max_size=300))
def test_any_host_is_one_or_is_refused(name: str) -> None:
    with suppress(InvalidError):
        assert re.match(r"[A-Za-z0-9_.-]+\Z", addresses.host(name))


@pytest.mark.parametrize("name", ["sip.example.org", "10.0.0.1", "a_b.example", "x."])
def test_good_hosts(name: str) -> None:
    assert addresses.host(name) == name


@pytest.mark.parametrize("name", ["", "a b", "a;b", "[::1]", "a@b", "a\n", "-a", "a>", "a..b"])
def test_bad_hosts(name: str) -> None:
    with pytest.raises(InvalidError):
        addresses.host(name)


@pytest.mark.parametrize(
    ("number", "dialstring", "user"),
    [
        ("+49 30 123", "", "+4930123"),
        ("100#", "", "100%23"),
        ("1;x=2", "", "1%3Bx%3D2"),
        ("123", "9{number};phone-context=+1", "9123;phone-context=+1"),
        ("123", "fixed", "123"),
    ],
)
def test_user_parts(number: str, dialstring: str, user: str) -> None:
    assert addresses.user_part(number, dialstring) == user


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_credentials_fit_a_header_or_are_refused(username: str, password: str) -> None:
    found = None
    with suppress(InvalidError):
        found = addresses.credentials(Provider(name="x", username=username, password=password))
    assert found is None or not set('"\\\r\n\0') & set(found.username)


def test_the_password_is_in_no_error() -> None:
    with pytest.raises(InvalidError) as caught:
        addresses.credentials(Provider(name="x", username="u", password="secret\n"))  # noqa: S106
    assert "secret" not in str(caught.value)
