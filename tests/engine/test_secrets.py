"""Passwords at rest: what stands in the database's bytes, what gateways get, keys old and new."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.app import Engine
from engine.auth import ROLES, Principal
from engine.config import Config, SecretConfig, load
from engine.errors import InvalidError
from engine.gateway import Order, Progress
from engine.model import Account, Entity, Provider
from engine.results import Fate
from engine.secrets import (
    FIELDS,
    KeyRing,
    Secrets,
    UnreadableSecretError,
    is_sealed,
    keeping_secrets,
    without_secrets,
)
from engine.store import open_store
from engine.store.base import Query
from gateways.loopback.gateway import LoopbackGateway
from tests.support.engine import DEADLINE_S, add_campaign, config_in, run_to_end

ROOT = Principal(user_id=1, username="root", permissions=ROLES["user"] | ROLES["admin"])
WORD = "correct-horse-battery"
PIN = "8461-0937"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def bytes_of(folder: Path) -> bytes:
    """Everything the database keeps in files."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("outspool.db*")))


class Listening(LoopbackGateway):
    """The loopback gateway, keeping the passwords it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[int, str] = {}
        self.dialled_with: set[str] = set()

    def check(self, provider: Provider) -> None:
        """Whatever is in the settings of these tests is no script."""

    async def providers(self, providers: Mapping[int, Provider]) -> None:
        self.told = {id_: provider.password for id_, provider in providers.items()}
        await super().providers(providers)

    async def deliver(self, order: Order, progress: Progress) -> Fate:
        self.dialled_with.add(order.provider.password)
        return await super().deliver(order, progress)


@asynccontextmanager
async def node(
    folder: Path, key: str = "", key_old: str = ""
) -> AsyncIterator[tuple[Engine, Listening]]:
    config = config_in(folder, secret=SecretConfig(key=key, key_old=key_old))
    gateway = Listening()
    async with open_store(config) as store:
        engine = Engine(config=config, store=store, gateways={"loopback": gateway})
        async with trio.open_nursery() as nursery:
            with trio.fail_after(DEADLINE_S):
                await nursery.start(engine.run)
            try:
                yield engine, gateway
            finally:
                engine.stop()


async def trunk(engine: Engine, **fields: Any) -> Provider:
    given_fields = {"name": "t", "type": "loopback", "password": WORD} | fields
    provider = await engine.catalog.create(ROOT, Provider(**given_fields))
    await engine.providers_changed()
    return provider


# --- at rest -------------------------------------------------------------------------------------
async def test_no_secret_stands_in_the_database(tmp_path: Path) -> None:
    async with node(tmp_path) as (engine, gateway):
        provider = await trunk(engine)
        await engine.catalog.update(ROOT, Provider, provider.id, {"password": WORD + "2"})
        await engine.providers_changed()
        await engine.catalog.create(ROOT, Account(username="a", passwd=WORD, passwd_pin=PIN))
        await trunk(engine, type="sip", host="h", settings={"smtp": {"api_key": WORD}, "x": 1})
        assert gateway.told == {provider.id: WORD + "2"}
        assert WORD.encode() not in bytes_of(tmp_path), "while it runs"
    stored = bytes_of(tmp_path)
    assert WORD.encode() not in stored
    assert PIN.encode() not in stored
    assert b"sealed:1:" in stored


async def test_a_campaign_dials_with_the_password(tmp_path: Path) -> None:
    async with node(tmp_path) as (engine, gateway):
        await trunk(engine)
        await run_to_end(engine, await add_campaign(engine, 3))
        assert gateway.dialled_with == {WORD}


async def test_what_was_stored_in_the_clear_is_sealed_at_start(tmp_path: Path) -> None:
    rows: list[Entity] = [
        Provider(name=f"t{n}", type="loopback", password=f"{WORD}{n}", settings={"token": WORD})
        for n in range(3)
    ]
    rows += [Account(username="a", passwd=WORD, passwd_pin=PIN), Account(username="none")]
    async with open_store(config_in(tmp_path)) as store:
        kept = [await store.insert(row) for row in rows]
    assert WORD.encode() in bytes_of(tmp_path)
    async with node(tmp_path) as (engine, gateway):
        assert gateway.told == {n + 1: f"{WORD}{n}" for n in range(3)}
        for row in kept:
            assert await engine.catalog.secrets.opened(await stored(engine, row)) == row
    assert WORD.encode() not in bytes_of(tmp_path)
    assert PIN.encode() not in bytes_of(tmp_path)


async def stored(engine: Engine, row: Entity) -> Any:
    found = await engine.store.get(type(row), row.id)
    assert found is not None
    return found


async def test_an_edit_leaves_the_secrets_it_does_not_name(tmp_path: Path) -> None:
    async with node(tmp_path) as (engine, gateway):
        provider = await trunk(engine, settings={"api_key": WORD, "answer": 1.0})
        before = await engine.catalog.update(ROOT, Provider, provider.id, {"name": "u"})
        after = await engine.catalog.update(
            ROOT, Provider, provider.id, {"settings": {"answer": 0.5}}
        )
        assert after.password == before.password == provider.password, "not even sealed anew"
        opened = await engine.catalog.secrets.opened(after)
        assert opened.settings == {"answer": 0.5, "api_key": WORD}
        gone = {"settings": {"api_key": "", "answer": 1.0}}
        await engine.catalog.update(ROOT, Provider, provider.id, gone)
        assert (await stored(engine, provider)).settings == {"answer": 1.0}
        await engine.providers_changed()
        assert gateway.told == {provider.id: WORD}


async def test_a_long_password_can_be_edited_around(tmp_path: Path) -> None:
    """Sealed it is longer than the column's limit, which is for what people type."""
    async with node(tmp_path) as (engine, _):
        provider = await trunk(engine, password="x" * 128)
        await engine.catalog.update(ROOT, Provider, provider.id, {"name": "v"})
        with pytest.raises(InvalidError, match="password"):
            await engine.catalog.update(ROOT, Provider, provider.id, {"password": "x" * 129})


async def test_nobody_may_plant_a_sealed_value(tmp_path: Path) -> None:
    async with node(tmp_path) as (engine, _):
        stolen = (await trunk(engine)).password
        assert is_sealed(stolen)
        for fields in ({"password": stolen}, {"settings": {"deep": [{"token": stolen}]}}):
            with pytest.raises(InvalidError, match=next(iter(fields))[:2] + "|token"):
                await trunk(engine, **fields)
        with pytest.raises(InvalidError, match="passwd"):
            await engine.catalog.create(ROOT, Account(username="a", passwd=stolen))


# --- keys ----------------------------------------------------------------------------------------
async def test_another_key_takes_the_provider_out_of_use(tmp_path: Path) -> None:
    async with node(tmp_path, new_key()) as (engine, _):
        locked = await trunk(engine)
        free = await trunk(engine, password="")
    with structlog.testing.capture_logs() as lines:
        async with node(tmp_path, new_key()) as (engine, gateway):
            assert gateway.told == {free.id: ""}, "the sealed text is never taken for the password"
            assert engine.health()["ready"] is True
            assert f"provider {locked.id}: sealed with the key" in engine.health()["secrets"]
            await engine.catalog.update(ROOT, Provider, locked.id, {"password": "new"})
            await engine.providers_changed()
            assert gateway.told == {free.id: "", locked.id: "new"}
            assert engine.health()["secrets"] == "ok"
    refused = [line for line in lines if line["event"] == "provider_out_of_use"]
    assert [line["provider_id"] for line in refused] == [locked.id]
    assert refused[0]["log_level"] == "error"


async def test_a_new_key_takes_over_from_the_old_one(tmp_path: Path) -> None:
    first, second = new_key(), new_key()
    async with node(tmp_path, first) as (engine, _):
        provider = await trunk(engine)
    async with node(tmp_path, second, f"{new_key()},{first}") as (_, gateway):
        assert gateway.told == {provider.id: WORD}
    async with node(tmp_path, second) as (_, gateway):
        assert gateway.told == {provider.id: WORD}, "the old key is not needed any more"
    assert not (tmp_path / "keys" / "secrets.key").exists()


async def test_from_the_key_file_to_the_environment(tmp_path: Path) -> None:
    async with node(tmp_path) as (engine, _):
        provider = await trunk(engine)
    file = tmp_path / "keys" / "secrets.key"
    assert file.stat().st_mode & 0o777 == 0o600
    key = new_key()
    async with node(tmp_path, key) as (_, gateway):
        assert gateway.told == {provider.id: WORD}
    file.unlink()
    async with node(tmp_path, key) as (_, gateway):
        assert gateway.told == {provider.id: WORD}


async def test_a_value_is_of_use_in_its_own_row_only(tmp_path: Path) -> None:
    async with node(tmp_path) as (engine, _):
        rich = await trunk(engine)
        poor = await trunk(engine, password="little")  # noqa: S106
        await engine.store.update(msgspec.structs.replace(poor, password=rich.password))
        await engine.providers_changed()
        assert list(engine.catalog.secrets.unreadable) == [poor.id]
        moved = msgspec.structs.replace(rich, password="", settings={"token": rich.password})
        with pytest.raises(UnreadableSecretError):
            await engine.catalog.secrets.opened(moved)


async def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "secrets.key"
    file.parent.mkdir()
    file.write_text(new_key())
    file.chmod(0o640)
    with pytest.raises(InvalidError, match="0600"):
        await Secrets(config_in(tmp_path)).ring()


@pytest.mark.parametrize("key", ["short", base64.b64encode(b"x" * 16).decode(), "€" * 32])
async def test_a_key_that_is_none_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidError, match="OUTSPOOL_SECRET_KEY"):
        await Secrets(config_in(tmp_path, secret=SecretConfig(key=key))).ring()
    with pytest.raises(InvalidError, match="OUTSPOOL_SECRET_KEY_OLD"):
        await Secrets(config_in(tmp_path, secret=SecretConfig(key_old=key))).ring()


def test_the_key_comes_from_the_environment() -> None:
    key = new_key()
    config = load(None, {"OUTSPOOL_SECRET_KEY": key, "OUTSPOOL_SECRET_KEY_OLD": "b"}, {})
    assert (config.secret.key, config.secret.key_old) == (key, "b")
    assert key not in repr(config)


async def test_two_nodes_agree_on_a_new_key_file(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    rings: list[KeyRing] = []

    async def open_ring() -> None:
        rings.append(await Secrets(config).ring())

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(open_ring)
    sealed = rings[0].seal("x", "here")
    assert {ring.open(sealed, "here") for ring in rings} == {"x"}
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["secrets.key"]


# --- pure ----------------------------------------------------------------------------------------
RING = KeyRing(bytes(32), bytes(range(32)))


@given(JSON, st.text(max_size=20), st.text(max_size=20))
def test_a_sealed_value_opens_at_its_place_alone(value: Any, place: str, other: str) -> None:
    sealed = RING.seal(value, place)
    assert is_sealed(sealed)
    assert RING.seal(value, place) != sealed, "a nonce of its own every time"
    assert RING.open(sealed, place) == value
    if other != place:
        with pytest.raises(UnreadableSecretError):
            RING.open(sealed, other)


@given(st.text(max_size=60), st.integers(0, 200))
def test_damage_is_seen(text: str, at: int) -> None:
    sealed = RING.seal(WORD, "here")
    changed = sealed[:at] + text + sealed[at + 1 :]
    if changed == sealed:
        return
    outcome = ""
    try:
        outcome = RING.open(changed, "here")
    except UnreadableSecretError as error:
        assert WORD not in str(error)  # noqa: PT017 - either end is right
    # base64 has spare bits in its last character: other text may be the same bytes.
    assert outcome in ("", WORD)


@given(st.dictionaries(st.text(max_size=9), JSON), st.dictionaries(st.text(max_size=9), JSON))
def test_settings_without_secrets_are_what_was_given(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    old = {"api_key": 1, **old}
    merged = keeping_secrets(old, new)
    assert without_secrets(merged) == without_secrets(new)
    assert merged["api_key"] == new.get("api_key", 1) or new.get("api_key") in (None, "")


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("password", True), ("smtpPassword", True), ("API-Key", True), ("api_key", True),
        ("access_token", True), ("client_secret", True), ("codec", False), ("key", False),
        ("passive", False), ("transport", False),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret(key: str, *, secret: bool) -> None:
    assert (key not in without_secrets({key: "x"})) is secret


def test_rows_do_not_print_their_passwords() -> None:
    for kind, names in FIELDS.items():
        fields: dict[str, Any] = {"name": "n"} if kind is Provider else {}
        row = kind(**fields | dict.fromkeys(names, WORD))
        assert WORD not in repr(row)
        assert WORD not in f"{[row]}"


async def test_the_keys_of_a_node_are_read_once(tmp_path: Path) -> None:
    secrets = Secrets(Config(node=config_in(tmp_path).node))
    ring = await secrets.ring()
    (tmp_path / "keys" / "secrets.key").unlink()
    assert await secrets.ring() is ring
    async with open_store(config_in(tmp_path)) as store:
        await secrets.seal_stored(store)
        assert await store.find(Provider, Query()) == []
