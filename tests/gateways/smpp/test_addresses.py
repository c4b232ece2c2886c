from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidError
from gateways.smpp import addresses, codec
from gateways.smpp.pdu import Address, ShortMessage
from gateways.smpp.settings import SmppSettings

AS_GIVEN = SmppSettings(international=False)
OWN = SmppSettings(source_ton=0, source_npi=8, destination_ton=6, destination_npi=0)


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("", Address("", 0, 0)),
        ("  ", Address("", 0, 0)),
        ("+4930123456", Address("4930123456", 1, 1)),
        ("00 49 (30) 12-34/56", Address("4930123456", 1, 1)),
        ("4930123456", Address("4930123456", 1, 1)),
        ("030123456", Address("030123456", 2, 1)),
        ("12345", Address("12345", 3, 0)),
        ("+12345", Address("12345", 1, 1)),
        ("12345678901234567890", Address("12345678901234567890", 0, 1)),
        ("Outspool", Address("Outspool", 5, 0)),
        ("4 you & me!", Address("4 you & me!", 5, 0)),
        ("[me] {you}", None),  # 14 septets
        ("Shop@home", Address("Shop@home", 5, 0)),
    ],
)
def test_the_type_of_a_sender_is_how_it_looks(sender: str, expected: Address | None) -> None:
    if expected is None:
        with pytest.raises(InvalidError):
            addresses.source(sender, SmppSettings())
    else:
        assert addresses.source(sender, SmppSettings()) == expected


@pytest.mark.parametrize(
    "sender",
    ["a\x00b", "Bäckerei", "Twelve chars", "a`b", "+1234567890123456", "1" * 21, "*100#\x7f", "é"],
)
def test_a_sender_that_smpp_cannot_hold_is_refused(sender: str) -> None:
    with pytest.raises(InvalidError) as raised:
        addresses.source(sender, SmppSettings())
    assert raised.value.field == "source"


@pytest.mark.parametrize(
    ("number", "settings", "expected"),
    [
        ("+4930123456", SmppSettings(), Address("4930123456", 1, 1)),
        ("004930123456", SmppSettings(), Address("4930123456", 1, 1)),
        ("4930123456", SmppSettings(), Address("4930123456", 1, 1)),
        ("017012345678", SmppSettings(), Address("017012345678", 2, 1)),
        ("80800", SmppSettings(), Address("80800", 3, 0)),
        ("+4930123456", AS_GIVEN, Address("+4930123456", 1, 1)),
        ("004930123456", AS_GIVEN, Address("004930123456", 0, 1)),
        ("+4930123456", OWN, Address("4930123456", 6, 0)),
    ],
)
def test_destinations(number: str, settings: SmppSettings, expected: Address) -> None:
    assert addresses.destination(number, settings) == expected


@pytest.mark.parametrize(
    "number", ["", "+", "Shop", "*100#", "+49\x00301", "+1234567890123456", "1" * 21, "+49 x"]
)
def test_a_destination_that_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(InvalidError) as raised:
        addresses.destination(number, SmppSettings())
    assert raised.value.field == "destination"


def test_settings_of_the_provider_come_first() -> None:
    assert addresses.source("Shop", OWN) == Address("Shop", 0, 8)
    assert addresses.source("", OWN) == Address("", 0, 8)


def allowed(make: Callable[[str, SmppSettings], Address], text: str) -> Address | None:
    try:
        return make(text, SmppSettings())
    except InvalidError:
        return None


@given(st.text(max_size=25) | st.from_regex(r"(\+|00)?[0-9]{1,22}", fullmatch=True))
def test_whatever_is_let_through_fits_a_pdu(text: str) -> None:
    source = allowed(addresses.source, text)
    destination = allowed(addresses.destination, text)
    message = ShortMessage(source=source or Address(), destination=destination or Address())
    assert codec.decode_short_message(codec.encode_short_message(message)) == message
