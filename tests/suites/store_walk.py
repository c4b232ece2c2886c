"""Random operations on a campaign, and the recount that its counters must equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

import msgspec

from engine.model import Spool, SpoolStatus, Transmission, TransmissionStatus
from engine.results import Awaiting, screened
from engine.store.base import Begun, Candidate, Query
from tests.suites.store_scene import AT, BUSY, Scene

PENDING = TransmissionStatus.PENDING
SOON = AT + timedelta(minutes=1)
SCREENED = screened("invalid_number")


class Walk:
    """Random operations on a dozen contacts, legal or not."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.members: list[Candidate] = []
        self.begun: list[Begun] = []
        self.screened: Counter[int] = Counter()
        self.steps: list[Callable[[int], Awaitable[None]]] = [
            self.begin, self.end, self.busy, self.again, self.screen, self.remove, self.single,
            self.note, self.edit, self.wait, self.resend,
        ]  # fmt: skip

    async def start(self) -> None:
        self.members = await self.scene.members(12)

    async def begin(self, pick: int) -> None:
        chosen = self.members[pick : pick + 3]
        answers = await self.scene.store.begin_spools([self.scene.intent(one) for one in chosen])
        self.begun += [one for one in answers if one]

    async def end(self, pick: int) -> None:
        if self.begun:
            await self.scene.finish(self.begun[pick % len(self.begun)], at=SOON)

    async def busy(self, pick: int) -> None:
        if self.begun:
            status = PENDING if pick % 2 else None
            await self.scene.finish(self.begun[pick % len(self.begun)], BUSY, status, SOON)

    async def again(self, pick: int) -> None:
        rows = await self.scene.store.find(Transmission, Query())
        if rows:
            begun = await self.scene.again(rows[pick % len(rows)].id, counts_try=pick % 3 > 0)
            self.begun += [begun] if begun else []

    async def screen(self, pick: int) -> None:
        due = await self.scene.store.due_candidates(self.scene.campaign.id, SOON, (), 1)
        chosen = [self.members[pick], *due]
        before = {row.id for row in await self._invalid()}
        intents = [self.scene.intent(one) for one in chosen]
        await self.scene.store.screen_out(intents, [SCREENED] * len(chosen))
        self.screened.update({row.id for row in await self._invalid()} - before)

    async def remove(self, pick: int) -> None:
        rows = await self.scene.store.find(Transmission, Query())
        asked = [one.spool_id for one in self.begun]
        open_ones = {one.transmission_id for one in await self.scene.store.open_spools(asked)}
        closed = [row.id for row in rows if row.id not in open_ones]
        if closed and pick % 3 == 0:
            await self.scene.store.delete(Transmission, closed[pick % len(closed)])
            del self.screened[closed[pick % len(closed)]]

    async def single(self, _: int) -> None:
        await self.scene.alone()

    async def note(self, pick: int) -> None:
        if self.begun:
            self.scene.store.connected(self.begun[pick % len(self.begun)].spool_id, SOON)

    async def wait(self, pick: int) -> None:
        if self.begun:
            accepted_at = SOON if pick % 2 else None
            fate = Awaiting(accepted_at=accepted_at, closes_at=SOON)
            key = self.begun[pick % len(self.begun)].spool_id
            await self.scene.store.await_report(key, fate, SOON)

    async def resend(self, pick: int) -> None:
        if self.begun:
            again = msgspec.structs.replace(BUSY, again=True)
            await self.scene.finish(self.begun[pick % len(self.begun)], again, PENDING, SOON)

    async def edit(self, pick: int) -> None:
        rows = await self.scene.store.find(Transmission, Query())
        if rows:
            row, owner_id = rows[pick % len(rows)], self.scene.owner.id if pick % 2 else None
            stale = msgspec.structs.replace(row, owner_id=owner_id, status=PENDING, try_done=7)
            await self.scene.store.update(stale)

    async def _invalid(self) -> list[Transmission]:
        rows = await self.scene.store.find(Transmission, Query())
        return [row for row in rows if row.status is TransmissionStatus.INVALID]

    async def check(self) -> None:
        store, campaign_id = self.scene.store, self.scene.campaign.id
        rows = await store.find(Transmission, Query())
        spools = await store.find(Spool, Query())
        tally = await store.campaign_tally(campaign_id)
        ours = [row for row in rows if row.campaign_id == campaign_id]
        tries = [spool for spool in spools if spool.campaign_id == campaign_id]
        assert {name: value for name, value in tally.items() if value} == _recount(
            ours, tries, len(self.screened)
        )
        final = [row for row in ours if row.status.value in ("completed", "failed", "invalid")]
        assert (await self.scene.progress()).contact_done == len(final)
        await self._check_counts(None, rows, spools)
        await self._check_counts(
            self.scene.owner.id,
            [row for row in rows if row.owner_id is not None],
            [row for row in spools if row.owner_id is not None],
        )

    async def _check_counts(
        self, owner_id: int | None, rows: list[Transmission], spools: list[Spool]
    ) -> None:
        counts = await self.scene.store.counts(owner_id)
        assert counts["transmission_total"] == counts["transmission_outbound"] == len(rows)
        processing = [row for row in rows if row.status is TransmissionStatus.PROCESSING]
        assert counts["transmission_active"] == len(processing)
        assert counts["spool_total"] == len(spools)
        for key, status in (
            ("spool_success", SpoolStatus.COMPLETED),
            ("spool_failed", SpoolStatus.FAILED),
        ):
            assert counts[key] == len([spool for spool in spools if spool.status is status])


def _recount(rows: list[Transmission], spools: list[Spool], out: int) -> dict[str, int]:
    """The tally the naive way. ``out`` of the rows were screened out."""
    count = Counter(row.status.value for row in rows)
    count.update(f"disposition:{spool.disposition}" for spool in spools if spool.disposition)
    count.update(f"response:{spool.response}" for spool in spools if spool.response)
    count["transmissions"] = len(rows)
    count["dialled"] = len(spools)
    count["retries"] = sum(max(row.try_done - 1, 0) for row in rows)
    count["disposition:screened"] = count[f"response:{SCREENED.cause}"] = out
    return {name: value for name, value in count.items() if value}
