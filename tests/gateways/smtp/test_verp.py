from __future__ import annotations

import hmac
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateways.smtp.verp import TOKEN_CHARACTERS, Verp

PATTERN = "b+{token}@bounces.example.org"
IDS = st.integers(0, 2**56 - 1)
CHARACTERS = st.sampled_from(string.ascii_letters + string.digits + ".-+=@<> ß\0")


class Keys:
    """HMAC-SHA256 of one key, for tests without a node's."""

    def __init__(self, key: bytes = b"k") -> None:
        self._key = key

    def mac(self, data: bytes, size: int) -> bytes:
        return hmac.digest(self._key, data, "sha256")[:size]

    def holds(self, data: bytes, mac: bytes) -> bool:
        return hmac.compare_digest(self.mac(data, len(mac)), mac)


VERP = Verp(Keys())


@given(IDS)
def test_a_token_comes_back_as_its_spool(spool_id: int) -> None:
    token = VERP.token(spool_id)

    assert len(token) == TOKEN_CHARACTERS
    assert set(token) <= set(string.ascii_lowercase + "234567")
    assert VERP.spool_id(token) == VERP.spool_id(token.upper()) == spool_id


@given(IDS, st.integers(0, TOKEN_CHARACTERS - 1), CHARACTERS)
def test_one_changed_character_is_no_token(spool_id: int, at: int, character: str) -> None:
    token = VERP.token(spool_id)
    assume(character.lower() != token[at])

    assert VERP.spool_id(token[:at] + character + token[at + 1 :]) is None


@given(IDS, st.data())
def test_one_changed_character_is_no_message_id(number: int, data: st.DataObject) -> None:
    local = VERP.message_id(number, "example.org").strip("<>").partition("@")[0]
    at = data.draw(st.integers(0, len(local) - 1))
    character = data.draw(CHARACTERS)
    assume(character.lower() != local[at])

    changed = f"<{local[:at]}{character}{local[at + 1 :]}@example.org>"

    assert VERP.transmission_id(changed) is None


@given(IDS)
def test_a_message_id_comes_back_as_its_transmission(number: int) -> None:
    message_id = VERP.message_id(number, "example.org")

    assert VERP.transmission_id(message_id) == number
    assert VERP.transmission_id(f" {message_id.upper()}\r\n") == number
    assert VERP.transmission_id(message_id.strip("<>")) == number


@given(st.text(max_size=80))
def test_what_is_not_ours_is_nobodys(text: str) -> None:
    assert VERP.spool_id(text) is None
    assert VERP.transmission_id(text) is None
    assert VERP.find([PATTERN], text) is None


def test_an_address_is_found_by_its_pattern_in_any_case() -> None:
    address = VERP.address(PATTERN, 7)
    patterns = ["x.{token}@example.org", "fixed@example.org", PATTERN]

    assert VERP.find(patterns, address) == VERP.find(patterns, address.upper()) == 7
    assert VERP.find(patterns[:2], address) is None
    assert VERP.find(patterns, f"a{address}") is None
    assert VERP.find(patterns, f"{address}.example") is None


def test_the_local_part_fits_the_limit_of_rfc_5321() -> None:
    address = VERP.address("x" * 40 + "{token}@example.org", 2**56 - 1)

    assert len(address.partition("@")[0]) == 64


def test_a_token_of_another_key_or_purpose_is_not_ours() -> None:
    assert Verp(Keys(b"other")).spool_id(VERP.token(7)) is None
    assert Verp(Keys(b"other")).transmission_id(VERP.message_id(7, "example.org")) is None
    assert VERP.message_id(7, "example.org") != VERP.message_id(8, "example.org")
    assert VERP.spool_id(VERP.message_id(7, "e").strip("<>").partition("@")[0]) is None


@pytest.mark.parametrize("spool_id", [-1, 2**56])
def test_an_id_that_no_store_gives_is_refused(spool_id: int) -> None:
    with pytest.raises(OverflowError):
        VERP.token(spool_id)


def test_numbers_that_only_python_reads_are_not_ours() -> None:
    mac = VERP.message_id(0x1F, "e").partition(".")[2]

    assert VERP.transmission_id(f"<o1f.{mac}") == 0x1F
    for number in ("0x1f", "01f", "1_f", "+1f", " 1f", "-1f"):
        assert VERP.transmission_id(f"<o{number}.{mac}") is None
