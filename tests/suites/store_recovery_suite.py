"""What every store says of spools and transmissions whose job is gone, and how it ends them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from engine.model import Spool, Transmission, TransmissionStatus
from engine.store.base import Outcome
from tests.suites.store_scene import AT, BUSY, Scene

PENDING = TransmissionStatus.PENDING
SOON = AT + timedelta(minutes=1)


class RecoverySuite:
    """A part of ``StoreSuite``."""

    async def test_interrupted_spools(self, scene: Scene) -> None:
        begun = await scene.begin(await scene.members(4))
        await scene.finish(begun[0])
        scene.store.connected(begun[1].spool_id, SOON)
        await scene.finish(begun[2], BUSY, PENDING, SOON)
        open_ones = {begun[1].spool_id, begun[3].spool_id}
        found = await scene.store.interrupted_spools(1, 10)
        assert {one.spool.id for one in found} == open_ones
        assert all(one.transmission.id == one.spool.transmission_id for one in found)
        assert len(await scene.store.interrupted_spools(1, 1)) == 1
        assert await scene.store.interrupted_spools(2, 10) == []

    async def test_overdue_spools(self, scene: Scene) -> None:
        begun = await scene.begin(await scene.members(4))
        await scene.finish(begun[1])
        keys = [begun[place].spool_id for place in (0, 2, 3)]
        end = keys[-1] + 1
        found = await scene.store.overdue_spools(1, 0, end, 10)
        assert [one.spool.id for one in found] == keys
        assert all(one.transmission.id == one.spool.transmission_id for one in found)
        assert await scene.store.overdue_spools(1, 0, keys[0], 10) == []
        assert await scene.store.overdue_spools(2, 0, end, 10) == []
        page = await scene.store.overdue_spools(1, keys[0], end, 1)
        assert [one.spool.id for one in page] == keys[1:2]

    async def test_the_first_spool_since(self, scene: Scene) -> None:
        assert await scene.store.first_spool_since(AT, 0) == 1
        assert await scene.store.first_spool_since(AT, 7) == 8
        begun = await scene.begin(await scene.members(3))
        young = AT - timedelta(microseconds=1)
        assert await scene.store.first_spool_since(AT, 0) == begun[-1].spool_id + 1
        assert await scene.store.first_spool_since(young, 0) == begun[0].spool_id
        assert await scene.store.first_spool_since(young, begun[0].spool_id) == begun[1].spool_id

    async def test_orphans_are_in_process_without_a_spool(self, scene: Scene) -> None:
        await scene.begin(await scene.members(2))
        assert await scene.store.orphaned_transmissions(SOON, 10) == []
        contact_id = (await scene.alone()).contact_id
        assert contact_id is not None
        orphans = [await self._orphan(scene, contact_id, last_run=AT) for _ in range(3)]
        await scene.store.insert(Spool(transmission_id=orphans[1].id))
        never_run = await self._orphan(scene, contact_id, updated_at=AT)
        expected = [orphans[0], orphans[2], never_run]
        assert await scene.store.orphaned_transmissions(AT, 10) == expected
        assert await scene.store.orphaned_transmissions(AT, 2) == expected[:2]
        young = AT - timedelta(microseconds=1)
        assert await scene.store.orphaned_transmissions(young, 10) == []

    async def _orphan(self, scene: Scene, contact_id: int, **fields: Any) -> Transmission:
        return await scene.store.insert(
            Transmission(
                program_id=scene.program.id,
                contact_id=contact_id,
                owner_id=scene.owner.id,
                status=TransmissionStatus.PROCESSING,
                **fields,
            )
        )

    async def test_an_orphan_ends_without_a_spool(self, scene: Scene) -> None:
        contact = await scene.contact()
        orphan = await self._orphan(scene, contact.id, last_run=AT)
        await scene.store.finish_transmission(self._end(orphan))
        after = await scene.store.get(Transmission, orphan.id)
        assert after is not None
        assert (after.status, after.response) == (TransmissionStatus.FAILED, "busy")
        assert after.updated_at == SOON
        assert (await scene.store.counts(scene.owner.id))["transmission_active"] == 0
        assert await scene.store.orphaned_transmissions(SOON, 10) == []

    async def test_what_is_not_orphaned_keeps_its_life(self, scene: Scene) -> None:
        [begun] = await scene.begin(await scene.members(1))
        carried, waiting = await scene.transmission(begun), await scene.alone()
        for row in (carried, waiting):
            await scene.store.finish_transmission(self._end(row))
            assert await scene.store.get(Transmission, row.id) == row
        nobody = msgspec.structs.replace(carried, id=4711)
        await scene.store.finish_transmission(self._end(nobody))
        assert (await scene.store.campaign_tally(scene.campaign.id))["processing"] == 1

    def _end(self, transmission: Transmission) -> Outcome:
        return Outcome(
            spool_id=0,
            transmission_id=transmission.id,
            campaign_id=transmission.campaign_id,
            result=BUSY,
            transmission_status=TransmissionStatus.FAILED,
            due_at=None,
            at=SOON,
        )
