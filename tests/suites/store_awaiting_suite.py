"""What every store says of spools that were handed over and wait for their reports."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import pytest

from engine.errors import ConflictError, UnavailableError
from engine.model import Contact, Spool, SpoolResult, SpoolStatus, TransmissionStatus
from engine.results import Awaiting, ResultRow
from engine.store.base import Begun, Condition, Op, Outcome, Query, Standing
from tests.suites.store_scene import ANSWERED, AT, BUSY, Scene

PENDING = TransmissionStatus.PENDING
SOON, LATER = AT + timedelta(minutes=1), AT + timedelta(hours=1)
FATE = Awaiting(
    accepted_at=SOON, closes_at=LATER, code="0", rows=(ResultRow("sms", "message_id", "m1"),)
)
AGAIN = msgspec.structs.replace(BUSY, again=True)


class AwaitingSuite:
    """A part of ``StoreSuite``."""

    async def test_a_spool_waits_for_its_report(self, scene: Scene) -> None:
        [begun, other] = await scene.begin(await scene.members(2))
        await scene.store.await_report(begun.spool_id, FATE, SOON)
        spool = await self._spool(scene, begun)
        assert (spool.status, spool.connected_at) == (SpoolStatus.CONNECTED, SOON)
        assert (spool.closes_at, spool.code, spool.updated_at) == (LATER, "0", SOON)
        assert (spool.response, spool.disposition, spool.ended_at) == ("", "", None)
        assert await self._rows(scene, begun) == [("sms", "message_id", "m1")]
        tally = await scene.store.campaign_tally(scene.campaign.id)
        assert (tally["processing"], tally["dialled"]) == (2, 2)
        open_ones = await scene.store.interrupted_spools(1, 10)
        assert [one.spool.id for one in open_ones] == [other.spool_id]
        overdue = await scene.store.overdue_spools(1, 0, other.spool_id + 1, 10)
        assert [one.spool.id for one in overdue] == [other.spool_id]
        assert await scene.store.orphaned_transmissions(LATER, 10) == []
        assert await scene.again(begun.transmission_id) is None

    async def test_nobody_may_have_seen_the_answer(self, scene: Scene) -> None:
        [begun] = await scene.begin(await scene.members(1))
        unseen = msgspec.structs.replace(FATE, accepted_at=None, rows=())
        await scene.store.await_report(begun.spool_id, unseen, SOON)
        spool = await self._spool(scene, begun)
        assert (spool.status, spool.connected_at) == (SpoolStatus.INITIATED, None)
        assert spool.closes_at == LATER
        # Its answer was found after all: the rows of a spool are added once.
        await scene.store.await_report(begun.spool_id, FATE, SOON)
        await scene.store.await_report(begun.spool_id, unseen, SOON)
        spool = await self._spool(scene, begun)
        assert (spool.status, spool.connected_at) == (SpoolStatus.CONNECTED, SOON)
        assert await self._rows(scene, begun) == []

    async def test_a_result_that_was_there_before_stays(self, scene: Scene) -> None:
        [begun] = await scene.begin(await scene.members(1))
        await scene.finish(begun)
        before, rows = await self._spool(scene, begun), await self._rows(scene, begun)
        await scene.store.await_report(begun.spool_id, FATE, SOON)
        await scene.store.await_report(4711, FATE, SOON)
        assert await self._spool(scene, begun) == before
        assert await self._rows(scene, begun) == rows

    async def test_a_report_ends_what_waits(self, scene: Scene) -> None:
        [begun] = await scene.begin(await scene.members(1))
        await scene.store.await_report(begun.spool_id, FATE, SOON)
        await scene.finish(begun, at=LATER)
        spool = await self._spool(scene, begun)
        assert (spool.status, spool.response) == (SpoolStatus.COMPLETED, "answered")
        assert len(await self._rows(scene, begun)) == 1 + len(ANSWERED.rows)
        assert (await scene.transmission(begun)).status is TransmissionStatus.COMPLETED
        assert await scene.store.unreported_spools(1, LATER, 10) == []

    async def test_a_report_that_repeats_rows_does_not_double_them(self, scene: Scene) -> None:
        [begun] = await scene.begin(await scene.members(1))
        await scene.store.await_report(begun.spool_id, FATE, SOON)
        told = (*FATE.rows, ResultRow("sms", "stat", "DELIVRD"))
        await scene.finish(begun, msgspec.structs.replace(ANSWERED, rows=told), at=LATER)
        assert await self._rows(scene, begun) == [(row.type, row.name, row.data) for row in told]

    async def test_many_end_at_once(self, scene: Scene) -> None:
        begun = await scene.begin(await scene.members(600))
        await scene.store.finish_spools([])
        await scene.store.finish_spools([self._failed(one) for one in begun[:-1]])
        tally = await scene.store.campaign_tally(scene.campaign.id)
        assert (tally["failed"], tally["processing"]) == (599, 1)

    async def test_open_spools(self, scene: Scene) -> None:
        begun = await scene.begin(await scene.members(3))
        await scene.store.await_report(begun[0].spool_id, FATE, SOON)
        await scene.finish(begun[1])
        asked = [one.spool_id for one in begun] + [4711]
        found = await scene.store.open_spools(asked)
        expected = [
            Standing.of(await scene.transmission(one), one.spool_id) for one in (begun[0], begun[2])
        ]
        assert sorted(found, key=lambda one: one.spool_id) == expected
        assert await scene.store.open_spools([]) == []

    async def test_unreported_spools_earliest_first(self, scene: Scene) -> None:
        begun = await scene.begin(await scene.members(4))
        for place, minutes in enumerate((30, 10, 20)):
            closes_at = AT + timedelta(minutes=minutes)
            fate = msgspec.structs.replace(FATE, closes_at=closes_at)
            await scene.store.await_report(begun[place].spool_id, fate, SOON)
        expected = [begun[place].spool_id for place in (1, 2, 0)]
        assert await self._unreported(scene, LATER) == expected
        assert await self._unreported(scene, AT + timedelta(minutes=20)) == expected[:2]
        assert await self._unreported(scene, LATER, limit=1) == expected[:1]
        assert await scene.store.unreported_spools(2, LATER, 10) == []
        await scene.finish(begun[1])
        assert await self._unreported(scene, LATER) == expected[1:]

    async def test_the_same_try_goes_on(self, scene: Scene) -> None:
        [begun] = await scene.begin(await scene.members(1))
        for _ in range(2):
            await scene.finish(begun, AGAIN, PENDING, SOON)
            assert (await scene.transmission(begun)).try_done == 0
            next_one = await scene.again(begun.transmission_id)
            assert next_one is not None
            assert next_one.try_done == 1
            begun = next_one
        await scene.finish(begun, BUSY, PENDING, SOON)
        second = await scene.again(begun.transmission_id)
        assert second is not None
        assert second.try_done == 2
        await scene.finish(second, AGAIN, PENDING, SOON)
        tally = await scene.store.campaign_tally(scene.campaign.id)
        assert (tally["retries"], tally["dialled"]) == (0, 4)
        # A result that ends the transmission takes nothing back.
        third = await scene.again(begun.transmission_id)
        assert third is not None
        await scene.finish(third, AGAIN)
        assert (await scene.transmission(third)).try_done == 2

    async def test_a_contact_is_needed_until_its_message_is_handed_over(self, scene: Scene) -> None:
        [member] = await scene.members(1)
        [begun] = await scene.begin([member])
        with pytest.raises(ConflictError):
            await scene.store.delete(Contact, member.contact.id)
        await scene.store.await_report(begun.spool_id, FATE, SOON)
        assert await scene.store.delete(Contact, member.contact.id)
        await scene.finish(begun, BUSY, PENDING, SOON)
        assert (await scene.transmission(begun)).contact_id is None
        assert await scene.store.next_due_at(scene.campaign.id) is None

    async def test_a_closed_store_keeps_nothing(self, scene: Scene) -> None:
        [begun] = await scene.begin(await scene.members(1))
        await scene.store.aclose()
        with pytest.raises(UnavailableError):
            await scene.store.await_report(begun.spool_id, FATE, SOON)

    async def _unreported(self, scene: Scene, by: datetime, limit: int = 10) -> list[int]:
        return [one.spool.id for one in await scene.store.unreported_spools(1, by, limit)]

    async def _spool(self, scene: Scene, begun: Begun) -> Spool:
        found = await scene.store.get(Spool, begun.spool_id)
        assert found is not None
        return found

    async def _rows(self, scene: Scene, begun: Begun) -> list[tuple[str, str, str]]:
        mine = Condition("spool_id", Op.EQ, begun.spool_id)
        rows = await scene.store.find(SpoolResult, Query(conditions=(mine,)))
        return [(row.type, row.name, row.data) for row in rows]

    def _failed(self, begun: Begun) -> Outcome:
        return Outcome(
            spool_id=begun.spool_id,
            transmission_id=begun.transmission_id,
            campaign_id=None,
            result=BUSY,
            transmission_status=TransmissionStatus.FAILED,
            due_at=None,
            at=SOON,
        )
