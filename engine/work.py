"""What a spool needs beside its contact, resolved once per campaign: program, media, caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from engine.config import Config, RetryConfig
from engine.errors import NotFoundError, NotReadyError
from engine.gateway import Media
from engine.gateway import Program as BoundProgram
from engine.letters import Letter, letter_of
from engine.model import Account, Program, Recording, Service
from engine.programs import PROGRAMS, Material, bound, function_of
from engine.retry import Policy, effective
from engine.store.base import Begun, Candidate, Intent, Store
from engine.uids import new_uid
from engine.unsubscribes import Links


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a spool that all contacts of a campaign share.

    ``policy`` is shared with the spools that are up: what changes it holds for their results too.
    """

    service: Service
    program: BoundProgram
    program_id: int
    origin: str
    title: str
    owner_id: int | None
    account_id: int | None = None
    caller_id: str = ""
    caller_name: str = ""
    campaign_id: int | None = None
    try_allowed: int = 1
    policy: Policy = msgspec.field(default_factory=Policy)
    letter: Letter | None = None

    def program_for(self, candidate: Candidate, begun: Begun) -> BoundProgram:
        """The program of one spool: the shared one, or with the words for its contact."""
        return self.program if self.letter is None else self.letter(candidate, begun)

    def intent(
        self,
        candidate: Candidate,
        at: datetime,
        *,
        destination: str = "",
        provider_id: int | None = None,
        counts_try: bool = True,
    ) -> Intent:
        """The intent of a spool: what the store commits before anything leaves."""
        return Intent(
            uid=new_uid(),
            at=at,
            service=self.service,
            destination=destination,
            provider_id=provider_id,
            account_id=self.account_id,
            contact_id=candidate.contact.id,
            program_id=self.program_id,
            owner_id=self.owner_id,
            transmission_id=candidate.transmission.id if candidate.transmission else 0,
            campaign_id=self.campaign_id,
            link_id=candidate.link_id,
            title=self.title,
            origin=self.origin,
            try_allowed=self.try_allowed,
            counts_try=counts_try,
        )


class Job:
    """One contact on its way to one spool.

    ``exclude`` holds the providers that already failed in this try. ``begun`` is called once the
    spool is durable (with its id) or when it never will be (None); ``ended`` once nothing of the
    job is left in the dispatcher, with the time of its retry where there is one.
    """

    __slots__ = (
        "begun",
        "candidate",
        "counts_try",
        "destination",
        "ended",
        "exclude",
        "work",
    )

    def __init__(
        self,
        work: Work,
        candidate: Candidate,
        destination: str,
        *,
        ended: Callable[[Job, datetime | None], None],
        begun: Callable[[int | None], None] | None = None,
        exclude: frozenset[int] = frozenset(),
        counts_try: bool = True,
    ) -> None:
        self.work = work
        self.candidate = candidate
        self.destination = destination
        self.ended = ended
        self.begun = begun
        self.exclude = exclude
        self.counts_try = counts_try

    @property
    def transmission_id(self) -> int:
        """The transmission, or 0 where the spool's intent will create it."""
        return self.candidate.transmission.id if self.candidate.transmission else 0

    @property
    def retry_policy(self) -> RetryConfig:
        """What holds for its result: the campaign's delays, over them the transmission's own."""
        policy, transmission = self.work.policy.config, self.candidate.transmission
        if transmission is None or not transmission.retry_delays:
            return policy
        return effective(policy, transmission.retry_delays)


async def prepare(
    store: Store,
    config: Config,
    program_id: int,
    account_id: int | None,
    *,
    links: Links | None = None,
    retry_delays: Mapping[str, float] | None = None,
    **fields: Any,
) -> Work:
    """Resolve program, media or words, and caller id. ``retry_delays`` are a campaign's.

    ``links`` are for whoever wants no more mail. Raises ``NotFoundError`` for a missing program,
    account, recording, text or template, ``NotReadyError`` where the program's type is none to be
    sent (here), its recording has no media yet or its template no text.
    """
    program = await store.get(Program, program_id)
    if program is None:
        raise NotFoundError("Program not found")
    function = function_of(program.type)
    material = Material(recording=await _recording(store, config, program))
    account = await _account(store, account_id)
    service = PROGRAMS[program.type].service
    shared = {"title": program.name, "owner_id": program.owner_id} | fields
    letter = await letter_of(
        store, config, program, function, account, links=links, owner_id=shared["owner_id"]
    )
    return Work(
        service=service,
        program=bound(function, material),
        letter=letter,
        program_id=program.id,
        origin=program.type,
        account_id=account_id,
        caller_id=_sender(account, service) if account else "",
        caller_name=f"{account.first_name} {account.last_name}".strip() if account else "",
        policy=Policy(effective(config.retry, retry_delays or {})),
        **shared,
    )


def _sender(account: Account, service: Service) -> str:
    """What the callee sees: a message may come from a name or a short code."""
    if service is Service.EMAIL:
        return account.email
    sender_id = account.settings.get("sender_id") if service is Service.SMS else None
    return str(sender_id or account.phone)


async def _recording(store: Store, config: Config, program: Program) -> Media | None:
    recording_id = program.data.get("recording_id")
    if recording_id is None:
        return None
    recording = await store.get(Recording, recording_id)
    if recording is None:
        raise NotFoundError("Recording not found")
    if not recording.media_path:
        raise NotReadyError(f"Recording {recording.id} has no media yet")
    path = (config.data_path / recording.media_path).resolve()
    return Media(path=path, length_s=recording.length_s)


async def _account(store: Store, account_id: int | None) -> Account | None:
    if account_id is None:
        return None
    account = await store.get(Account, account_id)
    if account is None:
        raise NotFoundError("Account not found")
    return account
