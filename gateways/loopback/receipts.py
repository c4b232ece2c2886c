"""Receipts and bounces of messages that were accepted: each handed in when the script says so."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
import trio

from engine.clock import Clock
from engine.errors import UnavailableError
from engine.gateway import Inbox, Report
from engine.results import Result

log = structlog.get_logger(__name__)

MOST = 100_000
"""Receipts to come at once; who sends more waits."""

BATCH = 500

STORE_RETRY_S = 1.0

Told = Callable[[datetime], Result]
"""The result that a receipt reports, of when it comes."""


class Receipts:
    """Kept in memory: those of a node that went down never come."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: list[tuple[float, int, int, Told]] = []
        self._numbers = itertools.count()
        self._wake = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self.handed_in = 0

    async def promise(self, spool_id: int, in_s: float, told: Told) -> None:
        """A receipt of this spool is to come in that many seconds; ``told`` is what it says."""
        while len(self._due) >= MOST:
            await self._room.park()
        heapq.heappush(self._due, (trio.current_time() + in_s, next(self._numbers), spool_id, told))
        self._wake.set()

    async def run(self, inbox: Inbox) -> None:
        """Hand them in until cancelled."""
        while True:
            self._wake = trio.Event()
            reports = self._take()
            if reports:
                await self._hand_in(inbox, reports)
                continue
            with trio.move_on_at(self._due[0][0] if self._due else float("inf")):
                await self._wake.wait()

    def statistics(self) -> dict[str, Any]:
        """Receipts to come and come."""
        return {"receipts_due": len(self._due), "receipts": self.handed_in}

    def _take(self) -> list[Report]:
        now, at = trio.current_time(), self._clock()
        reports: list[Report] = []
        while self._due and self._due[0][0] <= now and len(reports) < BATCH:
            _, _, spool_id, told = heapq.heappop(self._due)
            reports.append(Report(spool_id=spool_id, result=told(at)))
        self._room.unpark(count=len(reports))
        return reports

    async def _hand_in(self, inbox: Inbox, reports: list[Report]) -> None:
        while True:
            try:
                await inbox.report(reports)
            except UnavailableError as error:
                log.warning("receipts_wait", cause=str(error))
                await trio.sleep(STORE_RETRY_S)
            else:
                self.handed_in += len(reports)
                return
