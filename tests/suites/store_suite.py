"""What every store does, whatever its backend: subclass ``StoreSuite`` and say how to open one.

The property at the end compares the counters with a recount of the tables.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConflictError, NotFoundError, UnavailableError
from engine.model import (
    Account,
    CampaignStatus,
    Contact,
    Spool,
    SpoolResult,
    SpoolStatus,
    Transmission,
    TransmissionStatus,
)
from engine.results import interrupted, screened
from engine.store.base import Begun, Candidate, Query, Store
from tests.suites.store_arrivals_suite import ArrivalsSuite
from tests.suites.store_awaiting_suite import AwaitingSuite
from tests.suites.store_mail_suite import MailStoreSuite
from tests.suites.store_nouns_suite import NounSuite
from tests.suites.store_recovery_suite import RecoverySuite
from tests.suites.store_scene import ANSWERED, AT, BUSY, Scene, set_scene
from tests.suites.store_walk import Walk

PENDING = TransmissionStatus.PENDING
SOON = AT + timedelta(minutes=1)
SCREENED = screened("invalid_number")


class StoreSuite(RecoverySuite, AwaitingSuite, ArrivalsSuite, MailStoreSuite, NounSuite):
    """The hot path, campaigns and counters."""

    def fresh(self) -> AbstractAsyncContextManager[Store]:
        """An empty store, open."""
        raise NotImplementedError

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with self.fresh() as store:
            yield store

    @pytest.fixture
    async def scene(self, store: Store) -> Scene:
        return await set_scene(store)

    # --- candidates ------------------------------------------------------------------------------

    async def test_new_candidates_in_keyset_order(self, scene: Scene) -> None:
        members = await scene.members(10)
        found = await self._new(scene, 0, 4)
        assert found == members[:4]
        assert await self._new(scene, found[-1].link_id, 100) == members[4:]
        assert await self._new(scene, members[-1].link_id, 1) == []

    async def test_contacts_added_later_are_candidates_too(self, scene: Scene) -> None:
        members = await scene.members(2)
        contact = await scene.contact()
        await scene.store.link(contact.id, scene.group.id)
        [late] = await self._new(scene, members[-1].link_id, 10)
        assert late.contact == contact

    async def test_who_was_tried_is_no_candidate(self, scene: Scene) -> None:
        members = await scene.members(5)
        await scene.begin(members[1:3])
        # Leaving and joining again gives a new place in the order, and no second call.
        contact = members[1].contact
        await scene.store.unlink(contact.id, scene.group.id)
        await scene.store.link(contact.id, scene.group.id)
        assert await self._new(scene, 0, 10) == [members[0], *members[3:]]

    async def test_due_candidates(self, scene: Scene) -> None:
        begun = await scene.begin(await scene.members(4))
        for place, minutes in enumerate((3, 1, 2)):
            due_at = AT + timedelta(minutes=minutes)
            await scene.finish(begun[place], BUSY, PENDING, due_at)
        third, first, second = (one.transmission_id for one in begun[:3])
        store, key = scene.store, scene.campaign.id
        assert await store.next_due_at(key) == SOON
        assert await store.due_candidates(key, SOON - timedelta(microseconds=1), (), 10) == []
        late = AT + timedelta(hours=1)
        assert await self._due(scene, late, (), 10) == [first, second, third]
        assert await self._due(scene, late, (), 1) == [first]
        assert await self._due(scene, late, (first,), 1) == [second]
        assert await self._due(scene, SOON, (), 10) == [first]
        [one] = await store.due_candidates(key, SOON, (), 10)
        assert one.transmission == await scene.transmission(begun[1])
        assert one.link_id == 0
        assert one.transmission is not None
        assert one.contact.id == one.transmission.contact_id

    async def test_singles_are_due_by_themselves(self, scene: Scene) -> None:
        store = scene.store
        asked = await scene.alone()
        assert await store.next_due_at(0) is None  # never asked to be sent
        begun = await scene.again(asked.id)
        assert begun is not None
        await scene.finish(begun, BUSY, PENDING, SOON)
        assert await store.next_due_at(0) == SOON
        [one] = await store.due_candidates(0, SOON, (), 10)
        assert one.transmission is not None
        assert one.transmission.id == asked.id
        assert await store.next_due_at(scene.campaign.id) is None
        assert await store.due_candidates(scene.campaign.id, SOON, (), 10) == []

    # --- beginning -------------------------------------------------------------------------------

    async def test_begin_commits_transmission_spool_and_cursor(self, scene: Scene) -> None:
        members = await scene.members(3)
        intents = [scene.intent(one) for one in members[:2]]
        begun = await scene.store.begin_spools(intents)
        assert [one.try_done for one in begun if one] == [1, 1]
        assert begun[0] is not None
        spool = await scene.store.get(Spool, begun[0].spool_id)
        assert spool == Spool(
            id=begun[0].spool_id, uid=intents[0].uid, owner_id=scene.owner.id, created_at=AT,
            updated_at=AT, transmission_id=begun[0].transmission_id,
            campaign_id=scene.campaign.id, account_id=scene.account.id,
            provider_id=scene.provider.id, destination=members[0].contact.phone, spooled_at=AT,
        )  # fmt: skip
        transmission = await scene.transmission(begun[0])
        assert transmission == Transmission(
            id=transmission.id, uid=transmission.uid, owner_id=scene.owner.id, created_at=AT,
            updated_at=AT, title="spring", program_id=scene.program.id,
            account_id=scene.account.id, contact_id=members[0].contact.id,
            campaign_id=scene.campaign.id, origin="campaign",
            status=TransmissionStatus.PROCESSING, try_allowed=3, try_done=1, last_run=AT,
        )  # fmt: skip
        assert (await scene.progress()).cursor == members[1].link_id
        assert await scene.store.begin_spools([]) == []

    async def test_nobody_is_begun_twice(self, scene: Scene) -> None:
        members = await scene.members(2)
        [begun] = await scene.begin(members[:1])
        twice = [scene.intent(members[0]), scene.intent(members[1]), scene.intent(members[1])]
        answers = await scene.store.begin_spools(twice)
        assert [answer is None for answer in answers] == [True, False, True]
        assert await scene.store.count(Spool, Query()) == 2
        assert (await scene.progress()).cursor == members[1].link_id
        await scene.finish(begun)
        assert await scene.store.begin_spools([scene.intent(members[0])]) == [None]

    async def test_of_many_at_once_one_wins(self, scene: Scene) -> None:
        [member] = await scene.members(1)
        answers: list[Begun | None] = []

        async def begin() -> None:
            answers.extend(await scene.store.begin_spools([scene.intent(member)]))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(begin)
        assert len([answer for answer in answers if answer]) == 1
        assert await scene.store.count(Spool, Query()) == 1

    async def test_cursor_never_goes_back(self, scene: Scene) -> None:
        members = await scene.members(3)
        await scene.begin(members[2:])
        await scene.begin(members[:1])
        assert (await scene.progress()).cursor == members[2].link_id

    async def test_claim_moves_and_counts_tries(self, scene: Scene) -> None:
        [first] = await scene.begin(await scene.members(1))
        key = first.transmission_id
        assert await scene.again(key) is None  # its spool is open
        await scene.finish(first, BUSY, PENDING, SOON)
        second = await scene.again(key)
        assert second is not None
        assert second.try_done == 2
        assert (await scene.transmission(second)).due_at is None
        await scene.finish(second, BUSY, PENDING, SOON)
        other_trunk = await scene.again(key, counts_try=False)
        assert other_trunk is not None
        assert other_trunk.try_done == 2
        await scene.finish(other_trunk)
        assert await scene.again(key) is None  # completed
        assert (await scene.store.campaign_tally(scene.campaign.id))["retries"] == 1

    async def test_two_claims_in_one_call_open_one_spool(self, scene: Scene) -> None:
        transmission = await scene.alone()
        contact = await scene.store.get(Contact, transmission.contact_id or 0)
        assert contact is not None
        candidate = Candidate(contact=contact, transmission=transmission)
        answers = await scene.store.begin_spools([scene.intent(candidate), scene.intent(candidate)])
        assert [answer is None for answer in answers] == [False, True]

    async def test_a_contact_deleted_meanwhile_is_not_dialled(self, scene: Scene) -> None:
        members = await scene.members(3)
        await scene.store.delete(Contact, members[1].contact.id)
        answers = await scene.store.begin_spools([scene.intent(one) for one in members])
        assert [answer is None for answer in answers] == [False, True, False]
        assert (await scene.progress()).cursor == members[2].link_id

    async def test_a_trunk_deleted_meanwhile_is_detached(self, scene: Scene) -> None:
        [member] = await scene.members(1)
        intent = msgspec.structs.replace(scene.intent(member), account_id=4711, provider_id=4711)
        [begun] = await scene.store.begin_spools([intent])
        assert begun is not None
        spool = await scene.store.get(Spool, begun.spool_id)
        assert spool is not None
        assert (spool.provider_id, spool.account_id) == (None, None)

    async def test_screened_out(self, scene: Scene) -> None:
        members = await scene.members(3)
        await scene.begin(members[:1])
        intents = [scene.intent(one) for one in members[:2]]
        await scene.store.screen_out(intents, [SCREENED, SCREENED])
        rows = await scene.store.find(Transmission, Query())
        assert [row.status.value for row in rows] == ["processing", "invalid"]
        assert (rows[1].response, rows[1].try_done) == ("invalid_number", 0)
        assert await scene.store.count(Spool, Query()) == 1
        progress = await scene.progress()
        assert (progress.cursor, progress.contact_done) == (members[1].link_id, 1)
        tally = await scene.store.campaign_tally(scene.campaign.id)
        assert tally["disposition:screened"] == tally["response:invalid_number"] == 1
        assert tally["dialled"] == 1

    async def test_a_pending_one_can_be_screened_out(self, scene: Scene) -> None:
        [begun] = await scene.begin(await scene.members(1))
        await scene.finish(begun, BUSY, PENDING, SOON)
        [candidate] = await scene.store.due_candidates(scene.campaign.id, SOON, (), 1)
        await scene.store.screen_out([scene.intent(candidate)], [SCREENED])
        row = await scene.transmission(begun)
        assert (row.status, row.due_at) == (TransmissionStatus.INVALID, None)
        tally = await scene.store.campaign_tally(scene.campaign.id)
        assert tally["disposition:screened"] == tally["response:invalid_number"] == 1
        assert (tally["pending"], tally["invalid"], tally["dialled"]) == (0, 1, 1)
        assert await scene.store.next_due_at(scene.campaign.id) is None

    async def test_while_a_spool_is_open_nothing_else_happens(self, scene: Scene) -> None:
        [begun] = await scene.begin(await scene.members(1))
        contact = (await scene.store.export_contacts(scene.group.id, 0, 1))[0].contact
        candidate = Candidate(contact=contact, transmission=await scene.transmission(begun))
        await scene.store.screen_out([scene.intent(candidate)], [SCREENED])
        assert (await scene.transmission(begun)).status is TransmissionStatus.PROCESSING
        # Even one that should not be there: whoever is being called is not called again.
        single = await scene.alone()
        await scene.store.insert(Spool(transmission_id=single.id))
        assert await scene.again(single.id) is None
        with pytest.raises(ConflictError):
            await scene.store.insert(Spool(transmission_id=single.id))

    # --- ending ----------------------------------------------------------------------------------

    async def test_finish_closes_everything_at_once(self, scene: Scene) -> None:
        [begun] = await scene.begin(await scene.members(1))
        await scene.finish(begun, at=SOON)
        spool = await scene.store.get(Spool, begun.spool_id)
        assert spool is not None
        assert spool.status is SpoolStatus.COMPLETED
        assert (spool.response, spool.disposition, spool.code) == ("answered", "answered", "200")
        times = (spool.started_at, spool.connected_at, spool.ended_at)
        assert times == (ANSWERED.started_at, ANSWERED.connected_at, ANSWERED.ended_at)
        assert (spool.amount_s, spool.updated_at) == (5.0, SOON)
        row = await scene.transmission(begun)
        assert (row.status, row.response) == (TransmissionStatus.COMPLETED, "answered")
        results = await scene.store.find(SpoolResult, Query())
        assert [(one.type, one.name, one.data) for one in results] == [
            ("dtmf", "key", "5"),
            ("info", "played", "1"),
        ]
        assert {one.spool_id for one in results} == {begun.spool_id}
        assert (await scene.progress()).contact_done == 1

    async def test_the_first_result_stays(self, scene: Scene) -> None:
        [begun] = await scene.begin(await scene.members(1))
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(scene.finish, begun)
        before = await scene.store.get(Spool, begun.spool_id)
        await scene.finish(begun, BUSY)
        assert await scene.store.get(Spool, begun.spool_id) == before
        assert await scene.store.count(SpoolResult, Query()) == 2
        tally = await scene.store.campaign_tally(scene.campaign.id)
        assert (tally["completed"], tally["failed"], tally["disposition:answered"]) == (1, 0, 1)

    async def test_connected_is_noted_and_never_reopens(self, scene: Scene) -> None:
        begun = await scene.begin(await scene.members(2))
        scene.store.connected(begun[0].spool_id, SOON)
        await scene.finish(begun[1], BUSY)
        spool = await scene.store.get(Spool, begun[0].spool_id)
        assert spool is not None
        assert (spool.status, spool.connected_at) == (SpoolStatus.CONNECTED, SOON)
        scene.store.connected(begun[1].spool_id, SOON)
        await scene.finish(begun[0], interrupted())
        for one, connected_at in zip(begun, (SOON, None), strict=True):
            spool = await scene.store.get(Spool, one.spool_id)
            assert spool is not None
            assert (spool.status, spool.connected_at) == (SpoolStatus.FAILED, connected_at)

    async def test_manual_retry_of_a_final_one_keeps_the_counters_right(self, scene: Scene) -> None:
        [begun] = await scene.begin(await scene.members(1))
        await scene.finish(begun, BUSY)
        assert (await scene.progress()).contact_done == 1
        again = await scene.again(begun.transmission_id)
        assert again is not None
        assert (await scene.progress()).contact_done == 0
        await scene.finish(again)
        assert (await scene.progress()).contact_done == 1
        tally = await scene.store.campaign_tally(scene.campaign.id)
        assert (tally["dialled"], tally["transmissions"], tally["retries"]) == (2, 1, 1)
        assert (tally["completed"], tally["failed"], tally["disposition:busy"]) == (1, 0, 1)

    async def test_finish_of_nothing_changes_nothing(self, scene: Scene) -> None:
        await scene.finish(Begun(4711, 4712, 1))
        assert await scene.store.count(Transmission, Query()) == 0

    # --- campaigns, reports ------------------------------------------------------------

    async def test_campaign_status(self, scene: Scene) -> None:
        store, key = scene.store, scene.campaign.id
        assert await store.running_campaigns() == []
        await store.set_campaign_status(key, CampaignStatus.RUNNING, AT)
        assert await store.running_campaigns() == [key]
        await store.set_campaign_status(key, CampaignStatus.PAUSED, SOON)
        assert await store.running_campaigns() == []
        row = await scene.progress()
        assert (row.status, row.last_run, row.updated_at) == (CampaignStatus.PAUSED, AT, SOON)
        with pytest.raises(NotFoundError):
            await store.set_campaign_status(4711, CampaignStatus.RUNNING, AT)

    async def test_untried_addresses_are_the_new_candidates_in_short(self, scene: Scene) -> None:
        members = await scene.members(5)
        contact = await scene.store.insert(Contact(email="ada@example.com"))
        await scene.store.link(contact.id, scene.group.id)
        await scene.begin(members[1:2])
        for after, limit in ((0, 10), (0, 2), (members[1].link_id, 10), (10**6, 10)):
            found = await self._new(scene, after, limit)
            short = await scene.store.untried_addresses(
                scene.campaign.id, scene.group.id, after, limit
            )
            assert short == [
                (one.link_id, one.contact.id, one.contact.phone, one.contact.email) for one in found
            ]

    async def test_counts(self, scene: Scene) -> None:
        begun = await scene.begin(await scene.members(3))
        await scene.finish(begun[0])
        await scene.finish(begun[1], BUSY)
        await scene.store.set_campaign_status(scene.campaign.id, CampaignStatus.RUNNING, AT)
        await scene.store.insert(Account(phone="another's", type="did", owner_id=4711))
        expected = {
            "campaign_total": 1, "campaign_active": 1, "group_total": 1, "contact_total": 3,
            "transmission_total": 3, "transmission_active": 1, "transmission_inbound": 0,
            "transmission_outbound": 3, "spool_total": 3, "spool_success": 1, "spool_failed": 1,
            "user_total": 1, "account_total": 2, "provider_total": 1, "did_total": 1,
        }  # fmt: skip
        assert await scene.store.counts(None) == expected
        own = {"account_total": 1, "did_total": 0, "user_total": 0, "provider_total": 0}
        assert await scene.store.counts(scene.owner.id) == expected | own
        assert set((await scene.store.counts(4712)).values()) == {0}

    async def test_a_closed_store_is_unavailable(self, store: Store) -> None:
        await store.aclose()
        await store.aclose()
        store.connected(1, AT)
        for use in (store.insert(Contact()), store.get(Contact, 1)):
            with pytest.raises(UnavailableError):
                await use

    # --- the counters equal a recount ------------------------------------------------------------

    @settings(max_examples=30)
    @given(steps=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 11)), max_size=40))
    async def test_tallies_equal_a_recount(self, steps: list[tuple[int, int]]) -> None:
        async with self.fresh() as store:
            walk = Walk(await set_scene(store))
            await walk.start()
            for step, pick in steps:
                await walk.steps[step](pick)
            await walk.check()

    async def _new(self, scene: Scene, after: int, limit: int) -> list[Candidate]:
        return await scene.store.new_candidates(scene.campaign.id, scene.group.id, after, limit)

    async def _due(self, scene: Scene, now: Any, exclude: Any, limit: int) -> list[int]:
        found = await scene.store.due_candidates(scene.campaign.id, now, exclude, limit)
        return [one.transmission.id for one in found if one.transmission]
