"""A running campaign: keeps its flow filled in keyset order, brings retries back, sees the end.

Memory does not grow with the group: at most ``PREFETCH_MAX`` contacts are held, whatever its size,
and contacts added after the start are dialled too.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

import msgspec
import structlog
import trio

from engine import screening
from engine.clock import Clock
from engine.config import Config
from engine.delivery import STORE_RETRY_S
from engine.dispatcher import Dispatcher
from engine.do_not_contact import REFUSED
from engine.errors import UnavailableError
from engine.model import Campaign, TransmissionStatus
from engine.results import Result, screened
from engine.store.base import Candidate, Intent, Store
from engine.work import Job, Work

log = structlog.get_logger("campaigns")

PREFETCH_MIN = 16
PREFETCH_MAX = 4096
PREFETCH_S = 0.25
"""Contacts held ready: a quarter of a second of the campaign's pace, within the bounds."""

POLL_S = 5.0
"""How often a campaign that waits for its last calls looks for contacts added meanwhile."""

RECHECK = timedelta(seconds=1)
"""While retries in the flow hide the next due time, how soon to look again."""


def prefetch(calls_per_minute: float) -> int:
    """How many contacts to hold ready for a pace."""
    return min(PREFETCH_MAX, max(PREFETCH_MIN, int(calls_per_minute / 60 * PREFETCH_S)))


class CampaignRunner:
    """Feeds one campaign into the dispatcher until nothing of it is left to do."""

    def __init__(
        self,
        campaign: Campaign,
        work: Work,
        *,
        store: Store,
        dispatcher: Dispatcher,
        config: Config,
        clock: Clock,
    ) -> None:
        self._work = work
        self.scope = trio.CancelScope()
        self._id = campaign.id
        self._group_id = campaign.group_id
        self._position = campaign.cursor
        self._store = store
        self._dispatcher = dispatcher
        self._config = config
        self._clock = clock
        self._flow = dispatcher.open_flow(campaign.id, campaign.calls_per_minute / 60)
        self._flow.on_low = self._nudge
        self._size = 0
        self._resize(campaign.calls_per_minute)
        self._nudged = trio.Event()
        self._open = 0  # jobs handed to the dispatcher and not ended
        self._queued_retries: set[int] = set()
        self._next_due: datetime | None = None
        self._no_more_new = False
        self._awaiting = False  # nothing to do but to wait for reports of what was handed over

    def _resize(self, calls_per_minute: float) -> None:
        self._size = prefetch(calls_per_minute)
        self._flow.low_water = self._size // 2

    def change(self, work: Work, calls_per_minute: float) -> None:
        """The campaign was edited: retry delays hold for the next result, all else from now on."""
        self._work.policy.config = work.policy.config
        self._work = msgspec.structs.replace(work, policy=self._work.policy)
        self._resize(calls_per_minute)
        self._dispatcher.set_pace(self._flow, calls_per_minute / 60)

    def retry_at(self, due_at: datetime) -> None:
        """A transmission of the campaign is to be tried again then."""
        self._next_due = min(self._next_due or due_at, due_at)
        self._nudge()

    def reported(self) -> None:
        """A spool of the campaign that was handed over has its result."""
        if self._awaiting:
            self._nudge()

    async def run(self) -> bool:
        """Feed until every contact has its final result (True) or ``scope`` is cancelled (False).

        Calls that are up when it is cancelled go on to their end.
        """
        try:
            with self.scope:
                self._next_due = await self._store.next_due_at(self._id)
                while not await self._round():
                    await self._wait()
                return True
        finally:
            self._dispatcher.close_flow(self._flow)
        return False

    async def _round(self) -> bool:
        """Refill once; True when nothing is left.

        No candidate, no call up, no retry to come, no report of a message to come.
        """
        self._nudged = trio.Event()
        self._awaiting = False
        try:
            if not await self._refill() and not self._open and self._next_due is None:
                return await self._over()
        except UnavailableError as error:
            log.warning("campaign_waits_for_store", campaign_id=self._id, cause=str(error))
            await trio.sleep(STORE_RETRY_S)
        return False

    async def _over(self) -> bool:
        """Whether nothing that was handed over still waits for its report."""
        self._awaiting = True
        tally = await self._store.campaign_tally(self._id)
        if tally[TransmissionStatus.PENDING]:
            # A report brought another try, and who handed it in has not told us yet.
            self._next_due = await self._store.next_due_at(self._id)
        waits = tally[TransmissionStatus.PROCESSING] or self._next_due is not None
        return not waits and not self._nudged.is_set()

    def _nudge(self) -> None:
        self._nudged.set()

    async def _wait(self) -> None:
        """Until the prefetch runs low, a retry falls due, or the last call ended."""
        idle = not self._open and self._next_due is None and not self._awaiting
        if idle or (len(self._flow.items) < self._flow.low_water and not self._no_more_new):
            return
        delay_s = POLL_S if self._no_more_new else float("inf")
        if self._next_due is not None and len(self._queued_retries) < self._size:
            due_in_s = (self._next_due - self._clock()).total_seconds()
            delay_s = min(delay_s, max(due_in_s, 0.0))
        with trio.move_on_after(delay_s):
            await self._nudged.wait()

    async def _refill(self) -> int:
        """Bring due retries, then new contacts, up to the prefetch; returns how many were found."""
        due = await self._due(self._size - len(self._queued_retries))
        await self._hand_over(due, first=True)
        room = self._size - len(self._flow.items)
        if room <= 0:
            return len(due)
        new = await self._store.new_candidates(self._id, self._group_id, self._position, room)
        self._no_more_new = len(new) < room
        await self._hand_over(new, first=False)
        if new:
            self._position = new[-1].link_id
        return len(due) + len(new)

    async def _due(self, room: int) -> list[Candidate]:
        now = self._clock()
        if room <= 0 or self._next_due is None or self._next_due > now:
            return []
        due = await self._store.due_candidates(self._id, now, list(self._queued_retries), room)
        if len(due) < room:
            # Those in the flow are still pending in the store and hide the next due time.
            hidden = bool(due or self._queued_retries)
            later = now + RECHECK
            self._next_due = later if hidden else await self._store.next_due_at(self._id)
        return due

    async def _hand_over(self, candidates: Sequence[Candidate], *, first: bool) -> None:
        """Screen, record those we do not dial, queue the others."""
        refused: list[tuple[Intent, Result]] = []
        jobs = [job for c in candidates if (job := self._screen(c, refused)) is not None]
        jobs = await self._wanted(jobs, refused)
        if refused:
            intents, results = zip(*refused, strict=True)
            await self._store.screen_out(intents, results)
            self._dispatcher.counters.screened += len(refused)
        self._open += len(jobs)
        self._queued_retries.update(job.transmission_id for job in jobs if job.transmission_id)
        self._dispatcher.feed(self._flow, jobs, first=first)

    async def _wanted(self, jobs: list[Job], refused: list[tuple[Intent, Result]]) -> list[Job]:
        """Without those who asked for nothing more."""
        work = self._work
        numbers = [job.destination for job in jobs]
        closed = await self._dispatcher.unwanted.among(work.owner_id, work.service, numbers)
        if not closed:
            return jobs
        refused += (
            (work.intent(job.candidate, self._clock()), REFUSED)
            for job in jobs
            if job.destination in closed
        )
        return [job for job in jobs if job.destination not in closed]

    def _screen(self, candidate: Candidate, refused: list[tuple[Intent, Result]]) -> Job | None:
        destination, cause = screening.screen(
            candidate.contact, self._work.service, self._config.dial.allowed_prefixes
        )
        if cause:
            refused.append((self._work.intent(candidate, self._clock()), screened(cause)))
            return None
        transmission = candidate.transmission
        begun = partial(self._begun, transmission.id) if transmission else None
        return Job(self._work, candidate, destination, ended=self._ended, begun=begun)

    def _begun(self, transmission_id: int, _spool_id: int | None) -> None:
        """A retry left the flow: the store no longer shows it as pending, its place is free."""
        self._queued_retries.discard(transmission_id)
        if len(self._queued_retries) <= self._size // 2:
            self._nudge()

    def _ended(self, job: Job, due_at: datetime | None) -> None:
        self._open -= 1
        self._queued_retries.discard(job.transmission_id)
        if due_at is not None:
            self.retry_at(due_at)
        elif self._no_more_new and not self._open:
            self._nudge()
