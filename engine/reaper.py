"""Nothing stays in process for ever: what outlived every deadline and no job holds is closed.

A call has a ring time-out and a limit, a gateway that forgets them is cancelled by the courier. The
reaper is for what is left when one of us is wrong: an open spool, or a transmission in process
without one, that is older than any call may be and that nobody works on. It may have reached a
person, so it fails with its reason and is redialled only where ``retry.interrupted`` says so.
Messages that were handed over and whose report never came end the same way (``no_receipt``).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import structlog
import trio

from engine import recovery
from engine.bus import Bus
from engine.clock import Clock
from engine.config import Config
from engine.errors import UnavailableError
from engine.events import of_outcome
from engine.results import STUCK, Reached, Result, no_receipt, node_failure
from engine.store.base import Interrupted, Outcome, Standing, Store

log = structlog.get_logger("reaper")

BATCH = 500


class Reaper:
    """Looks through what is in process every ``reaper.interval_s``.

    ``holds`` says whether a spool (by id) is in the hands of a job; ``ended`` is told what was
    closed, so that its campaign goes on from there.
    """

    def __init__(
        self,
        *,
        config: Config,
        store: Store,
        bus: Bus,
        clock: Clock,
        holds: Callable[[int], bool],
        ended: Callable[[Outcome], None],
        node_id: int = 1,
    ) -> None:
        self._config = config
        self._store = store
        self._bus = bus
        self._clock = clock
        self._holds = holds
        self._ended = ended
        self._node_id = node_id
        self._seen = 0  # no spool up to this id can be stuck any more
        self._counts = {"rounds": 0, "spools": 0, "unreported": 0, "transmissions": 0}

    async def run(self) -> None:
        """Reap until cancelled."""
        while True:
            await trio.sleep(self._config.reaper.interval_s)
            try:
                await self._round()
            except UnavailableError as error:
                log.warning("reaper_waits_for_store", cause=str(error))

    def statistics(self) -> dict[str, Any]:
        """Rounds made; closed: spools, those without a report, transmissions."""
        return dict(self._counts)

    async def _round(self) -> None:
        dial = self._config.dial
        age_s = dial.ring_timeout_s + dial.call_limit_s + self._config.reaper.grace_s
        before = self._clock() - timedelta(seconds=age_s)
        await self._reap_spools(before)
        await self._reap_unreported()
        await self._reap_transmissions(before)
        self._counts["rounds"] += 1

    async def _reap_spools(self, before: datetime) -> None:
        """Look once at every spool that is old enough, and again at those that are still held."""
        end = await self._store.first_spool_since(before, self._seen)
        after, held = self._seen, end
        while batch := await self._store.overdue_spools(self._node_id, after, end, BATCH):
            after = batch[-1].spool.id
            stuck = [one for one in batch if not self._holds(one.spool.id)]
            held = min([held, *({one.spool.id for one in batch} - {s.spool.id for s in stuck})])
            await self._close_spools(stuck, _stuck(), "spools")
        self._seen = held - 1

    async def _reap_unreported(self) -> None:
        """End what waited for its report in vain; its gateway had its own grace before us."""
        by = self._clock() - timedelta(seconds=self._config.reaper.grace_s)
        while batch := await self._store.unreported_spools(self._node_id, by, BATCH):
            await self._close_spools(batch, no_receipt(), "unreported")

    async def _close_spools(self, ends: list[Interrupted], result: Result, count: str) -> None:
        results = {one.spool.id: result for one in ends}
        outcomes = await recovery.conclude(
            self._store, self._config.retry, self._clock, [one.standing for one in ends], results
        )
        await self._store.finish_spools(outcomes)
        self._counts[count] += len(outcomes)
        for outcome in outcomes:
            self._tell(outcome)

    async def _reap_transmissions(self, before: datetime) -> None:
        orphans = await self._store.orphaned_transmissions(before, BATCH)
        rows = [Standing.of(orphan) for orphan in orphans]
        policies = await recovery.effective_policies(self._store, self._config.retry, rows)
        for row in rows:
            policy = policies[row.transmission_id]
            outcome = recovery.closing(row, _stuck(), policy, self._clock())
            await self._store.finish_transmission(outcome)
            self._counts["transmissions"] += 1
            self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        log.error(
            "reaped",
            transmission_id=outcome.transmission_id,
            spool_id=outcome.spool_id or None,
            campaign_id=outcome.campaign_id,
            retry_at=outcome.due_at,
        )
        self._ended(outcome)
        for event in of_outcome(outcome):
            self._bus.publish(event)


def _stuck() -> Result:
    return node_failure(STUCK, Reached.PERSON)
