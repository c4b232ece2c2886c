"""What comes in, and who wants nothing; see store_suite.py."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidError
from engine.model import (
    Account,
    Contact,
    Direction,
    DoNotContact,
    Entity,
    Program,
    Provider,
    Service,
    Spool,
    SpoolResult,
    SpoolStatus,
    Subscription,
    Text,
    Transmission,
    TransmissionStatus,
)
from engine.results import ResultRow
from engine.store.arrival import Arrival
from engine.store.base import Query, Store
from tests.suites.store_scene import AT, Scene, set_scene

SMS, VOICE = Service.SMS, Service.VOICE
OURS, THEIRS = "4930111", "4917012345"
STOP = DoNotContact(address=THEIRS, service=SMS, reason="STOP")


def arrival(scene: Scene, key: str = "k", **fields: Any) -> Arrival:
    """A message to the scene's account."""
    given = Arrival(
        at=AT,
        key=key,
        provider_id=scene.provider.id,
        repeat_since=None,
        owner_id=scene.owner.id,
        account_id=scene.account.id,
        program_id=scene.program.id,
        phone=THEIRS,
        destination=OURS,
        title="in",
        origin="receivesms",
        message=Text(name="from somebody", type="unicode", data="Grüße 😀"),
        rows=(ResultRow("application", "sms_receive", "success"),),
    )
    return msgspec.structs.replace(given, **fields)


async def everything(store: Store) -> dict[str, int]:
    """How many rows there are of each kind that an arrival makes."""
    kinds: tuple[type[Entity], ...] = (
        Contact, Text, Transmission, Spool, SpoolResult, DoNotContact,
    )  # fmt: skip
    return {kind.__name__: len(await store.find(kind, Query())) for kind in kinds}


class ArrivalsSuite:
    """``Doorkeeper``."""

    def fresh(self) -> AbstractAsyncContextManager[Store]:
        """An empty store, open."""
        raise NotImplementedError

    # --- receive ---------------------------------------------------------------------------------
    async def test_an_arrival_is_kept_whole(self, scene: Scene) -> None:
        store = scene.store
        kept = await store.receive(arrival(scene))
        assert kept is not None
        transmission = await store.get(Transmission, kept.transmission_id)
        assert transmission is not None
        assert transmission.direction is Direction.INBOUND
        assert transmission.status is TransmissionStatus.COMPLETED
        assert (transmission.service, transmission.origin) == (SMS, "receivesms")
        assert transmission.contact_id == kept.contact_id
        assert (transmission.account_id, transmission.program_id) == (
            scene.account.id,
            scene.program.id,
        )
        spool = await store.get(Spool, kept.spool_id)
        assert spool is not None
        assert spool.status is SpoolStatus.COMPLETED
        assert spool.spooled_at == spool.connected_at == spool.ended_at == AT
        assert (spool.destination, spool.provider_id) == (OURS, scene.provider.id)
        text = await store.get(Text, kept.message_id)
        assert text is not None
        assert (text.data, text.owner_id) == ("Grüße 😀", scene.owner.id)
        rows = {(r.type, r.name): r.data for r in await store.find(SpoolResult, Query())}
        assert rows == {
            ("application", "sms_receive"): "success",
            ("contact", "contact_new"): str(kept.contact_id),
            ("message", "text"): str(kept.message_id),
        }
        assert await store.interrupted_spools(1, 10) == []

    @pytest.mark.parametrize("phone", [THEIRS, f"+{THEIRS}", f"00{THEIRS}"])
    async def test_who_is_known_is_found(self, scene: Scene, phone: str) -> None:
        store = scene.store
        await store.insert(Contact(phone=THEIRS))  # somebody else's
        await store.insert(Contact(phone="", email="a@example.com", owner_id=scene.owner.id))
        known = await store.insert(Contact(phone=phone, owner_id=scene.owner.id))
        await store.insert(Contact(phone=phone, owner_id=scene.owner.id))
        kept = await store.receive(arrival(scene))
        assert kept is not None
        assert kept.contact_id == known.id
        assert not [r for r in await store.find(SpoolResult, Query()) if r.type == "contact"]

    async def test_a_new_contact_is_the_owners(self, scene: Scene) -> None:
        kept = await scene.store.receive(arrival(scene))
        again = await scene.store.receive(arrival(scene, "k2"))
        assert kept is not None
        assert again is not None
        assert again.contact_id == kept.contact_id
        contact = await scene.store.get(Contact, kept.contact_id)
        assert contact is not None
        assert (contact.phone, contact.owner_id) == (THEIRS, scene.owner.id)

    async def test_a_repeat_is_kept_once(self, scene: Scene) -> None:
        store = scene.store
        assert await store.receive(arrival(scene))
        before = await everything(store)
        later = AT + timedelta(minutes=10)
        asked = arrival(scene, at=later, repeat_since=AT, forbids=STOP)
        assert await store.receive(asked) is None
        assert await everything(store) == before
        # Nobody asks, the time is over, another provider, another message: each a new one.
        for fresh in (
            arrival(scene, at=later),
            arrival(scene, at=later, repeat_since=later + timedelta(microseconds=1)),
            arrival(scene, at=later, repeat_since=AT, provider_id=scene.provider.id + 7),
            arrival(scene, "other", at=later, repeat_since=AT),
        ):
            assert await store.receive(fresh) is not None

    async def test_of_two_at_once_one_is_kept(self, scene: Scene) -> None:
        kept = []

        async def hand_in() -> None:
            kept.append(await scene.store.receive(arrival(scene, repeat_since=AT)))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(hand_in)
        assert [one is None for one in kept].count(False) == 1
        assert (await everything(scene.store))["Transmission"] == 1

    async def test_old_keys_are_forgotten(self, scene: Scene) -> None:
        store = scene.store
        for number in range(30):
            assert await store.receive(arrival(scene, f"k{number}"))
        much_later = AT + timedelta(days=9)
        assert await store.receive(arrival(scene, "new", at=much_later))
        since = AT - timedelta(days=1)
        assert await store.receive(arrival(scene, "k3", at=much_later, repeat_since=since))
        assert not await store.receive(arrival(scene, "new", at=much_later, repeat_since=AT))

    async def test_what_it_asks_for_is_done_with_it(self, scene: Scene) -> None:
        store = scene.store
        assert await store.receive(arrival(scene, forbids=STOP))
        assert await store.forbidden(None, SMS, [THEIRS]) == {THEIRS}
        assert await store.receive(arrival(scene, "k2", allows=STOP))
        assert await store.forbidden(None, SMS, [THEIRS]) == set()

    async def test_without_its_program_nothing_is_kept(self, scene: Scene) -> None:
        before = await everything(scene.store)
        for field in ("program_id", "account_id"):
            gone: dict[str, Any] = {field: 999}
            with pytest.raises(InvalidError) as caught:
                await scene.store.receive(arrival(scene, forbids=STOP, **gone))
            assert caught.value.field == field
        assert await everything(scene.store) == before
        assert await scene.store.receive(arrival(scene, repeat_since=AT))

    async def test_a_deleted_provider_is_detached(self, scene: Scene) -> None:
        kept = await scene.store.receive(arrival(scene, provider_id=999))
        assert kept is not None
        spool = await scene.store.get(Spool, kept.spool_id)
        assert spool is not None
        assert spool.provider_id is None

    @settings(max_examples=20, deadline=None)
    @given(picks=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.booleans())))
    async def test_the_counters_equal_a_recount(self, picks: list[tuple[int, int, bool]]) -> None:
        async with self.fresh() as store:
            scene = await set_scene(store)
            for step, (key, sender, asks) in enumerate(picks):
                await store.receive(
                    arrival(
                        scene, f"k{key}", phone=f"49170{sender}",
                        owner_id=scene.owner.id if step % 3 else None,
                        repeat_since=AT if asks else None,
                    )
                )  # fmt: skip
            await _recount(store, scene)

    # --- served ----------------------------------------------------------------------------------
    async def test_an_account_is_found_however_its_number_is_written(self, store: Store) -> None:
        for phone in ("4930555", "+4930555", "004930555", "+49 (30) 55-5", "0049.30/555"):
            account = await store.insert(Account(phone=phone, active=True))
            [served] = await store.served("4930555", "receivesms")
            assert (served.account_id, served.program_id) == (account.id, None)
            assert await store.served("930555", "receivesms") == []
            assert await store.delete(Account, account.id)

    async def test_dids_come_first_and_then_the_oldest(self, store: Store) -> None:
        ids = [
            (await store.insert(Account(phone="1555", type=kind, active=active))).id
            for kind, active in (
                ("account", True), ("extension", True), ("did", False), ("did", True),
                ("eaddress", True), ("did", True),
            )
        ]  # fmt: skip
        found = [one.account_id for one in await store.served("1555", "receivesms")]
        assert found == [ids[3], ids[5], ids[0], ids[1]]

    async def test_its_program_is_subscribed_or_made_for_it(self, store: Store) -> None:
        account = await store.insert(Account(phone="1555", active=True))
        for name, kind, data in (
            ("other", "receivefax", {"account_id": account.id}),
            ("another's", "receivesms", {"account_id": account.id + 1}),
            ("nobody's", "receivesms", {}),
        ):
            await store.insert(Program(name=name, type=kind, data=data))
        [served] = await store.served("1555", "receivesms")
        assert served.program_id is None
        made = await store.insert(
            Program(name="made", type="receivesms", data={"account_id": account.id})
        )
        [served] = await store.served("1555", "receivesms")
        assert served.program_id == made.id
        chosen = await store.insert(Program(name="chosen", type="receivesms", data={}))
        await store.insert(Subscription(account_id=account.id, program_id=chosen.id))
        [served] = await store.served("1555", "receivesms")
        assert served.program_id == chosen.id

    async def test_nobody_has_no_number(self, store: Store) -> None:
        await store.insert(Account(phone="", active=True))
        for number in ("", "+", "00"):
            assert await store.served(number, "receivesms") == []

    # --- who wants nothing -----------------------------------------------------------------------
    async def test_closed_for_an_owner_and_a_service(self, store: Store) -> None:
        await store.forbid(DoNotContact(address="1", service=SMS, owner_id=7))
        await store.forbid(DoNotContact(address="2", service=SMS | VOICE))
        asked = ["1", "2", "3"]
        assert await store.forbidden(7, SMS, asked) == {"1", "2"}
        assert await store.forbidden(7, VOICE, asked) == {"2"}
        assert await store.forbidden(8, SMS, asked) == {"2"}
        assert await store.forbidden(None, SMS, asked) == {"2"}
        assert await store.forbidden(7, SMS, []) == set()

    async def test_many_are_asked_for_at_once(self, store: Store) -> None:
        closed = {str(number) for number in range(0, 5000, 50)}
        for address in closed:
            await store.forbid(DoNotContact(address=address, service=SMS, owner_id=7))
        found = await store.forbidden(7, SMS, [str(number) for number in range(5000)])
        assert found == closed

    @pytest.mark.parametrize("owner_id", [7, None])
    async def test_a_second_line_is_merged(self, store: Store, owner_id: int | None) -> None:
        one = await store.forbid(
            DoNotContact(address="1", service=SMS, reason="STOP", owner_id=owner_id)
        )
        two = await store.forbid(DoNotContact(address="1", service=VOICE, owner_id=owner_id))
        assert two.id == one.id
        assert (two.service, two.reason) == (SMS | VOICE, "STOP")
        assert len(await store.find(DoNotContact, Query())) == 1

    async def test_opened_service_by_service(self, store: Store) -> None:
        await store.forbid(DoNotContact(address="1", service=SMS | VOICE, owner_id=7))
        assert not await store.allow(7, Service.EMAIL, "1")
        assert not await store.allow(None, SMS, "1")
        assert await store.allow(7, SMS, "1")
        assert await store.forbidden(7, SMS, ["1"]) == set()
        assert await store.forbidden(7, VOICE, ["1"]) == {"1"}
        assert not await store.allow(7, SMS, "1")
        assert await store.allow(7, SMS | VOICE, "1")
        assert await store.find(DoNotContact, Query()) == []


async def _recount(store: Store, scene: Scene) -> None:
    transmissions = await store.find(Transmission, Query())
    spools = await store.find(Spool, Query())
    for owner_id in (None, scene.owner.id):
        owned: Counter[str] = Counter()
        kinds: tuple[type[Entity], ...] = (Contact, Transmission, Spool)
        for kind in kinds:
            rows = await store.find(kind, Query())
            owned[kind.__name__] = sum(owner_id in (None, row.owner_id) for row in rows)
        counts = await store.counts(owner_id)
        assert counts["contact_total"] == owned["Contact"]
        assert counts["transmission_total"] == owned["Transmission"]
        assert counts["transmission_inbound"] == owned["Transmission"]
        assert counts["transmission_active"] == counts["transmission_outbound"] == 0
        assert counts["spool_total"] == counts["spool_success"] == owned["Spool"]
    assert len(spools) == len(transmissions)
    assert await store.find(Provider, Query()) == [scene.provider]
