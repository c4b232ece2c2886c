"""Messages to our accounts: whose they are, what they ask for, what is kept of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from engine.bus import Bus
from engine.catalog import Catalog
from engine.config import Config, SmsConfig
from engine.do_not_contact import DoNotContacts
from engine.errors import InvalidError, UnavailableError
from engine.events import SpoolChanged, TransmissionEnded
from engine.gateway import InboundText, Reception, TextKind
from engine.inbound import ANONYMOUS, Inbound, keyword_of
from engine.model import (
    Account,
    Contact,
    Direction,
    DoNotContact,
    Program,
    Provider,
    Service,
    Spool,
    SpoolResult,
    SpoolStatus,
    Text,
    Transmission,
    TransmissionStatus,
)
from engine.results import ResultRow
from engine.store import open_store
from engine.store.base import Query, Store
from tests.support.engine import config_in

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OURS, ADA = "4930111", "4917012345"
SMS = Service.SMS


class Scene(msgspec.Struct, frozen=True):
    """An engine's inbound side on a real store."""

    store: Store
    inbound: Inbound
    list: DoNotContacts
    bus: Bus
    provider: Provider

    async def receive(self, text: str = "Hello", **fields: Any) -> Reception:
        given: dict[str, Any] = {
            "provider": self.provider, "source": ADA, "destination": OURS, "text": text,
            "kind": TextKind.PLAIN, "at": NOON, "key": text,
        }  # fmt: skip
        return await self.inbound.receive(InboundText(**(given | fields)))

    async def account(self, *, served: bool = True, **fields: Any) -> Account:
        given: dict[str, Any] = {"phone": f"+{OURS}", "active": True, "owner_id": 7}
        account = await self.store.insert(Account(**(given | fields)))
        if served:
            data = {"account_id": account.id}
            await self.store.insert(Program(name="in", type="receivesms", data=data))
        return account

    async def closed(self, owner_id: int | None = 7) -> bool:
        """Whether Ada is closed for an owner's messages, in the store and in memory."""
        stored = await self.list.among(owner_id, SMS, [f"+{ADA}"])
        lately = self.list.closed_lately(owner_id, SMS, f"00{ADA}")
        assert bool(stored) == lately
        return lately

    async def kept(self) -> tuple[int, int, int]:
        return (
            len(await self.store.find(Transmission, Query())),
            len(await self.store.find(Text, Query())),
            len(await self.store.find(DoNotContact, Query())),
        )


def inbound_of(store: Store, config: Config, bus: Bus, closed: DoNotContacts) -> Inbound:
    return Inbound(store=store, config=config, clock=lambda: NOON, bus=bus, do_not_contact=closed)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    config = config_in(tmp_path)
    async with open_store(config) as store:
        closed, bus = DoNotContacts(Catalog(store, lambda: NOON, config)), Bus()
        provider = await store.insert(Provider(name="smsc", type="smpp", service=SMS, node_id=4))
        yield Scene(store, inbound_of(store, config, bus, closed), closed, bus, provider)


# --- keeping --------------------------------------------------------------------------------------
async def test_a_message_is_kept_as_ictcore_keeps_it(scene: Scene) -> None:
    account = await scene.account()
    row = ResultRow("sms", "parts", "2")
    with scene.bus.subscribe() as events:
        assert await scene.receive("Grüße", rows=(row,)) is Reception.TAKEN
        spool_told, told = await events.get(), await events.get()
    [transmission] = await scene.store.find(Transmission, Query())
    assert (transmission.direction, transmission.status) == (
        Direction.INBOUND,
        TransmissionStatus.COMPLETED,
    )
    assert (transmission.account_id, transmission.owner_id) == (account.id, 7)
    assert (transmission.service, transmission.origin) == (SMS, "receivesms")
    [contact] = await scene.store.find(Contact, Query())
    assert (contact.id, contact.phone, contact.owner_id) == (transmission.contact_id, ADA, 7)
    [text] = await scene.store.find(Text, Query())
    assert (text.data, text.type, text.owner_id) == ("Grüße", "plain", 7)
    [spool] = await scene.store.find(Spool, Query())
    assert (spool.status, spool.ended_at, spool.node_id) == (SpoolStatus.COMPLETED, NOON, 4)
    rows = await scene.store.find(SpoolResult, Query())
    assert [(one.type, one.name, one.data) for one in rows] == [
        ("application", "sms_receive", "success"),
        ("sms", "parts", "2"),
        ("contact", "contact_new", str(contact.id)),
        ("message", "text", str(text.id)),
    ]
    assert isinstance(spool_told, SpoolChanged)
    assert (spool_told.spool_id, spool_told.status) == (spool.id, SpoolStatus.COMPLETED)
    assert isinstance(told, TransmissionEnded)
    assert told.transmission_id == transmission.id


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        (TextKind.PLAIN, "plain"), (TextKind.LATIN1, "plain"), (TextKind.UNICODE, "unicode"),
        (TextKind.BINARY, "binary"),
    ],
)  # fmt: skip
async def test_kinds_of_text(scene: Scene, kind: TextKind, type_: str) -> None:
    await scene.account()
    await scene.receive("00FF", kind=kind)
    [text] = await scene.store.find(Text, Query())
    assert text.type == type_


async def test_a_repeat_within_the_time_is_told_so(scene: Scene) -> None:
    await scene.account()
    assert await scene.receive("Yes") is Reception.TAKEN
    assert await scene.receive("Yes") is Reception.TAKEN
    assert await scene.receive("Yes", repeat_within_s=60) is Reception.REPEATED
    assert await scene.kept() == (2, 2, 0)


async def test_who_sends_no_number_has_a_name(scene: Scene) -> None:
    await scene.account()
    await scene.store.insert(Contact(email="a@example.com", owner_id=7))
    for source, phone in (("", ANONYMOUS), ("ACME", "ACME")):
        await scene.receive(f"from {phone}", source=source)
        last = (await scene.store.find(Contact, Query(order="-id")))[0]
        assert last.phone == phone
    assert await scene.receive("STOP", source="") is Reception.TAKEN
    assert (await scene.kept())[2] == 0


# --- whose ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("destination", [OURS, f"+{OURS}", f"00{OURS}"])
async def test_the_account_is_the_numbers(scene: Scene, destination: str) -> None:
    await scene.account(phone="4930112")
    account = await scene.account()
    assert await scene.receive(destination=destination) is Reception.TAKEN
    [transmission] = await scene.store.find(Transmission, Query())
    assert transmission.account_id == account.id


async def test_an_account_with_a_program_comes_before_one_without(scene: Scene) -> None:
    await scene.account(type="did", served=False)
    served = await scene.account(owner_id=8)
    assert await scene.receive() is Reception.TAKEN
    [transmission] = await scene.store.find(Transmission, Query())
    assert (transmission.account_id, transmission.owner_id) == (served.id, 8)


@pytest.mark.parametrize("fields", [{"active": False}, {"phone": "1"}, {"served": False}])
async def test_nobody_wants_it(scene: Scene, fields: dict[str, Any]) -> None:
    await scene.account(**fields)
    with capture_logs() as logs:
        assert await scene.receive("my secret") is Reception.UNWANTED
    assert await scene.kept() == (0, 0, 0)
    assert [one["event"] for one in logs] == ["unwanted"]
    assert "secret" not in str(logs)
    assert OURS not in str(logs)
    assert ADA not in str(logs)


class Changing:
    """A store whose program is deleted between the look and the deed."""

    def __init__(self, store: Store, times: int) -> None:
        self._store = store
        self._times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def served(self, number: str, program_type: str) -> Any:
        found = await self._store.served(number, program_type)
        if self._times:
            self._times -= 1
            return [msgspec.structs.replace(one, program_id=999) for one in found]
        return found


@pytest.mark.parametrize(("times", "kept"), [(1, True), (2, False)])
async def test_what_is_changed_meanwhile(
    scene: Scene, tmp_path: Path, times: int, *, kept: bool
) -> None:
    await scene.account()
    store: Any = Changing(scene.store, times)
    inbound = inbound_of(store, config_in(tmp_path), scene.bus, scene.list)
    asked = msgspec.structs.replace(scene, inbound=inbound)
    if kept:
        assert await asked.receive() is Reception.TAKEN
    else:
        with pytest.raises(UnavailableError):
            await asked.receive()
    assert (await scene.kept())[0] == int(kept)


async def test_what_no_store_can_hold_is_said(scene: Scene) -> None:
    await scene.account()
    with pytest.raises(InvalidError):
        await scene.receive("\ud800")


# --- keywords -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("STOP", "stop"), ("stop", "stop"), ("  Stop \r\n", "stop"), ("Stop!", "stop"),
        ('"STOP".', "stop"), ("stop\u200b", "stop"), ("stop 👍", "stop"),
        ("\uff33\uff34\uff2f\uff30", "stop"),
        ("UNSUBSCRIBE", "stop"), ("start", "start"), ("Unstop.", "start"),
        ("stop it", ""), ("please stop", ""), ("don't stop", ""), ("", ""), ("!?", ""),
        ("stopp", ""), ("S.T.O.P", ""),
    ],
)  # fmt: skip
def test_a_keyword_is_the_whole_message(text: str, word: str) -> None:
    assert keyword_of(text, SmsConfig()) == word


def test_words_are_the_configurations() -> None:
    words = SmsConfig(stop_words=("Straße", "NIE WIEDER!", ""), start_words=("straße", "ja"))
    said = ("STRASSE", "nie  wieder", "JA", "stop", "")
    assert [keyword_of(text, words) for text in said] == ["stop", "stop", "start", "", ""]


@given(st.text(max_size=40))
def test_any_text_can_be_looked_at(text: str) -> None:
    assert keyword_of(text, SmsConfig()) in ("", "stop", "start")


async def test_stop_closes_and_start_opens(scene: Scene) -> None:
    await scene.account()
    assert await scene.receive("STOP") is Reception.TAKEN
    assert await scene.closed()
    assert not await scene.closed(8)
    [entry] = await scene.store.find(DoNotContact, Query())
    assert (entry.address, entry.owner_id, entry.service) == (ADA, 7, SMS)
    assert not scene.list.closed_lately(7, Service.VOICE, ADA)
    assert await scene.receive("start") is Reception.TAKEN
    assert not await scene.closed()
    assert await scene.kept() == (2, 2, 0)
    rows = await scene.store.find(SpoolResult, Query())
    assert [one.data for one in rows if one.name == "keyword"] == ["stop", "start"]


async def test_a_keyword_needs_no_program(scene: Scene) -> None:
    await scene.account(served=False)
    assert await scene.receive("STOP") is Reception.TAKEN
    assert await scene.closed()
    assert not await scene.closed(None)
    assert await scene.kept() == (0, 0, 1)


async def test_without_an_account_it_holds_for_everybody(scene: Scene) -> None:
    assert await scene.receive("STOP") is Reception.TAKEN
    assert await scene.closed(None)
    assert await scene.closed(8)
    assert await scene.receive("START") is Reception.TAKEN
    assert not await scene.closed(8)


async def test_a_stop_delivered_again_does_not_undo_a_start(scene: Scene) -> None:
    await scene.account()
    await scene.receive("STOP")
    await scene.receive("START")
    assert await scene.receive("STOP", repeat_within_s=60) is Reception.REPEATED
    assert not await scene.closed()


async def test_octets_are_no_words(scene: Scene) -> None:
    await scene.account()
    await scene.receive("STOP", kind=TextKind.BINARY)
    assert not await scene.closed()
