"""Single transmissions: sent when asked, retried when due; the same dispatcher, no campaign."""

from __future__ import annotations

from datetime import datetime

import msgspec
import structlog
import trio

from engine import do_not_contact, screening, states
from engine.campaigns import RECHECK
from engine.clock import Clock
from engine.config import Config
from engine.dispatcher import Dispatcher
from engine.errors import (
    NoProviderError,
    NotFoundError,
    NotReadyError,
    OutspoolError,
    UnavailableError,
)
from engine.model import Contact, Transmission, TransmissionStatus
from engine.results import screened
from engine.store.base import Candidate, Store
from engine.unsubscribes import Links
from engine.work import Job, Work, prepare

log = structlog.get_logger("sends")

SENDS_FLOW = 0
"""Flow key, and the store's campaign id of transmissions of no campaign."""

SEND_WAIT_S = 10.0
"""How long a send waits for a free channel before it is refused."""

BATCH = 64
"""How many that fell due may wait in the flow for a channel."""

Works = dict[tuple[int, int | None, int | None], Work]
"""By program, account and owner."""

_REFUSALS = {
    TransmissionStatus.PROCESSING: "Transmission already in process",
    TransmissionStatus.COMPLETED: "Transmission completed, request denied",
    TransmissionStatus.INVALID: "Invalid transmission, unable to process",
}


class _Ticket:
    """Where a sender waits for its spool's id."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.spool_id: int | None = None

    def begun(self, spool_id: int | None) -> None:
        """The spool is durable, or never will be."""
        self.spool_id = spool_id
        self.done.set()


class SingleSends:
    """``send`` commits a spool and returns its id; ``run`` brings the retries."""

    def __init__(
        self,
        *,
        store: Store,
        dispatcher: Dispatcher,
        config: Config,
        clock: Clock,
        links: Links | None = None,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._config = config
        self._clock = clock
        self._links = links
        self._flow = dispatcher.open_flow(SENDS_FLOW, 0.0)
        self._open: set[int] = set()  # transmissions handed to the dispatcher and not ended
        self._next_due: datetime | None = None
        self._nudged = trio.Event()

    async def send(self, transmission_id: int) -> int:
        """Send now; returns the spool's id once it is durable, not waiting for the outcome.

        Raises ``NotFoundError``; ``NotReadyError`` where the transmission is processing, completed
        or invalid, its program cannot run, or no channel is free within ``SEND_WAIT_S``;
        ``NoProviderError``. A failed one may be sent again whatever its tries (specs §5.1).
        """
        transmission = await self._store.get(Transmission, transmission_id)
        if transmission is None:
            raise NotFoundError("Transmission not found")
        self._may_send(transmission)
        candidate = await self._candidate(transmission)
        work = await self._work(transmission)
        if not self._dispatcher.carries(work.service):
            raise NoProviderError("No provider available")
        ticket = _Ticket()
        job = await self._screened_job(work, candidate, ticket)
        if job is None:
            raise NotReadyError(_REFUSALS[TransmissionStatus.INVALID])
        self._may_send(transmission)  # another send may have come in while we looked things up
        self._hand_over(job)
        return await self._spool_id(job, ticket)

    def _may_send(self, transmission: Transmission) -> None:
        busy = transmission.id in self._open
        status = TransmissionStatus.PROCESSING if busy else transmission.status
        if not states.may(status, states.Event.CLAIM):
            raise NotReadyError(_REFUSALS[status])

    async def _candidate(self, transmission: Transmission) -> Candidate:
        contact_id = transmission.contact_id
        contact = None if contact_id is None else await self._store.get(Contact, contact_id)
        if contact is None:
            raise NotFoundError("Contact not found")
        return Candidate(contact=contact, transmission=transmission)

    async def _work(self, transmission: Transmission) -> Work:
        # Of a campaign's transmission only this one try is asked for: its campaign may be over.
        by_hand = transmission.campaign_id is not None
        return await prepare(
            self._store,
            self._config,
            transmission.program_id,
            transmission.account_id,
            links=self._links,
            title=transmission.title,
            owner_id=transmission.owner_id,
            campaign_id=transmission.campaign_id,
            try_allowed=0 if by_hand else transmission.try_allowed,
        )

    async def _screened_job(
        self, work: Work, candidate: Candidate, ticket: _Ticket | None
    ) -> Job | None:
        """The job, or None where the contact may not be dialled; that is recorded then."""
        destination, cause = screening.screen(
            candidate.contact, work.service, self._config.dial.allowed_prefixes
        )
        unwanted = self._dispatcher.unwanted
        if not cause and await unwanted.among(work.owner_id, work.service, [destination]):
            cause = do_not_contact.CAUSE
        if cause:
            intent = work.intent(candidate, self._clock())
            await self._store.screen_out([intent], [screened(cause)])
            self._dispatcher.counters.screened += 1
            return None
        begun = ticket.begun if ticket else None
        return Job(work, candidate, destination, ended=self._ended, begun=begun)

    def _hand_over(self, job: Job) -> None:
        self._open.add(job.transmission_id)
        self._dispatcher.feed(self._flow, [job])

    async def _spool_id(self, job: Job, ticket: _Ticket) -> int:
        try:
            with trio.move_on_after(SEND_WAIT_S):
                await ticket.done.wait()
        finally:
            withdrawn = not ticket.done.is_set() and self._dispatcher.withdraw(self._flow, job)
        if withdrawn:
            raise NotReadyError("No channel is free at present, try again later")
        await ticket.done.wait()
        if ticket.spool_id is None:
            raise NotReadyError(_REFUSALS[TransmissionStatus.PROCESSING])
        return ticket.spool_id

    def _ended(self, job: Job, due_at: datetime | None) -> None:
        self._open.discard(job.transmission_id)
        if due_at is not None:
            self.retry_at(due_at)

    def retry_at(self, due_at: datetime) -> None:
        """A transmission of no campaign is to be tried again then."""
        self._next_due = min(self._next_due or due_at, due_at)
        self._nudged.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Bring due retries back until cancelled."""
        self._next_due = await self._store.next_due_at(SENDS_FLOW)
        task_status.started()
        while True:
            await self._wait()
            try:
                await self._bring_due()
            except UnavailableError as error:
                log.warning("retries_wait_for_store", cause=str(error))
                self._next_due = self._clock() + RECHECK

    async def _wait(self) -> None:
        delay_s = float("inf")
        if self._next_due is not None:
            delay_s = max((self._next_due - self._clock()).total_seconds(), 0.0)
        with trio.move_on_after(delay_s):
            await self._nudged.wait()
        self._nudged = trio.Event()

    async def _bring_due(self) -> None:
        now = self._clock()
        if self._next_due is None or self._next_due > now:
            return
        room = BATCH - len(self._flow.items)
        due = await self._due(now, room) if room > 0 else []
        works: Works = {}
        for candidate in due:
            await self._bring(candidate, works)
        if due or self._open:  # still pending in the store, they hide the next due time
            self._next_due = now + RECHECK
            return
        self._next_due = None  # what falls due while we look puts itself here
        found = await self._store.next_due_at(SENDS_FLOW)
        if found is not None:
            self.retry_at(found)

    async def _due(self, now: datetime, room: int) -> list[Candidate]:
        return await self._store.due_candidates(SENDS_FLOW, now, list(self._open), room)

    async def _bring(self, candidate: Candidate, works: Works) -> None:
        transmission = candidate.transmission
        assert transmission is not None  # noqa: S101 - due candidates have one
        try:
            work = await self._shared(transmission, works)
            job = await self._screened_job(work, candidate, None)
        except UnavailableError:
            raise
        except Exception as error:
            # Its program, recording or account is gone: it can never be sent as it stands.
            bug = not isinstance(error, OutspoolError)
            cause = str(error)
            log.warning(
                "retry_impossible", transmission_id=transmission.id, cause=cause, exc_info=bug
            )
            await self._refuse(candidate, transmission)
            return
        if job is not None:
            self._hand_over(job)

    async def _shared(self, transmission: Transmission, works: Works) -> Work:
        """Its work; those of one program and sender share words and attachments."""
        key = (transmission.program_id, transmission.account_id, transmission.owner_id)
        if key not in works:
            works[key] = await self._work(transmission)
        return msgspec.structs.replace(
            works[key], title=transmission.title, try_allowed=transmission.try_allowed
        )

    async def _refuse(self, candidate: Candidate, transmission: Transmission) -> None:
        work = Work(
            service=transmission.service,
            program=_nothing,
            program_id=transmission.program_id,
            origin=transmission.origin,
            title=transmission.title,
            owner_id=transmission.owner_id,
        )
        intent = work.intent(candidate, self._clock())
        await self._store.screen_out([intent], [screened("program_unavailable")])


async def _nothing(call: object) -> None:
    """The program of a transmission that has none any more; never run."""
