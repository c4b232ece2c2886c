"""Seals: one bit makes all the difference, old keys still open, purposes do not mix."""

from __future__ import annotations

import base64
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from engine.config import SecretConfig
from engine.seals import Seals, seals
from engine.secrets import KeyRing
from tests.support.engine import config_in

OLD, NEW = b"o" * 32, b"n" * 32
SEALS = Seals(KeyRing(NEW, OLD).derived("a"))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(st.binary(max_size=300))
def test_what_is_hidden_is_revealed_and_says_nothing(data: bytes) -> None:
    token = SEALS.hide(data)
    assert set(token) <= set(ALPHABET)
    assert SEALS.reveal(token) == data
    assert SEALS.hide(data) == token
    if len(data) > 3:
        assert data not in base64.urlsafe_b64decode(token + "===")


@given(st.binary(max_size=100), st.data())
def test_one_character_changed_and_it_is_none(data: bytes, draw: st.DataObject) -> None:
    token = SEALS.hide(data)
    place = draw.draw(st.integers(0, len(token) - 1))
    other = draw.draw(st.sampled_from(ALPHABET).filter(lambda one: one != token[place]))
    assert SEALS.reveal(token[:place] + other + token[place + 1 :]) is None


@given(st.text(max_size=60))
def test_nothing_made_up_is_one(token: str) -> None:
    assert SEALS.reveal(token) is None
    assert SEALS.reveal(SEALS.hide(b"x") + token[:1]) in {None, b"x" if not token else None}


def test_old_keys_open_and_only_the_new_one_makes() -> None:
    old, new = Seals(KeyRing(OLD).derived("a")), Seals(KeyRing(NEW).derived("a"))
    assert SEALS.reveal(old.hide(b"x")) == b"x"
    assert SEALS.hide(b"x") == new.hide(b"x")
    assert old.reveal(new.hide(b"x")) is None
    assert SEALS.holds(b"x", old.mac(b"x", 8))
    assert SEALS.mac(b"x", 8) == new.mac(b"x", 8)
    assert not old.holds(b"x", new.mac(b"x", 8))


def test_purposes_do_not_mix() -> None:
    other = Seals(KeyRing(NEW, OLD).derived("b"))
    assert other.reveal(SEALS.hide(b"x")) is None
    assert not other.holds(b"x", SEALS.mac(b"x", 16))


@given(st.binary(max_size=40), st.integers(4, 32), st.data())
def test_a_mac_holds_for_its_data_only(data: bytes, size: int, draw: st.DataObject) -> None:
    mac = SEALS.mac(data, size)
    assert len(mac) == size
    assert SEALS.holds(data, mac)
    assert not SEALS.holds(data + b"x", mac)
    assert not SEALS.holds(data, b"")
    bit = draw.draw(st.integers(0, size * 8 - 1))
    flipped = bytearray(mac)
    flipped[bit // 8] ^= 1 << bit % 8
    assert not SEALS.holds(data, bytes(flipped))


async def test_they_are_of_the_nodes_key(tmp_path: Path) -> None:
    key = base64.b64encode(NEW).decode()
    config = config_in(tmp_path, secret=SecretConfig(key=key))
    assert (await seals(config, "a")).hide(b"x") == SEALS.hide(b"x")
    kept = config_in(tmp_path / "kept")
    one, again = await seals(kept, "a"), await seals(kept, "a")
    assert again.reveal(one.hide(b"x")) == b"x"
