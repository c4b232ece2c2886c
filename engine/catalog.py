"""Every plain noun: create, read, update, delete, find, with validation, ownership and permission.

Every method is told who asks. A permission that is missing is a ``ForbiddenError``; a row that does
not exist or belongs to somebody else is a ``NotFoundError`` either way, so ids tell nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio

from engine.auth import Principal
from engine.clock import Clock
from engine.config import Config
from engine.errors import ConflictError, InvalidError, NotFoundError, NotReadyError
from engine.media import MediaLibrary
from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Contact,
    Entity,
    Group,
    Program,
    Provider,
    Recording,
    Spool,
    SpoolResult,
    Transmission,
    TransmissionStatus,
)
from engine.programs import PROGRAMS
from engine.store.base import Candidate, Condition, ContactRow, Op, Query, Store
from engine.validation import check

E = TypeVar("E", bound=Entity)

FAMILY: dict[type[Entity], str] = {
    Account: "account",
    Campaign: "campaign",
    Contact: "contact",
    Group: "group",
    Program: "program",
    Provider: "provider",
    Recording: "recording",
    Spool: "spool",
    SpoolResult: "result",
    Transmission: "transmission",
}

# What must never change once a row is stored, whatever an edit says.
_FIXED = frozenset({"id", "uid", "owner_id", "created_at", "updated_at", "status"})

_EDITABLE = frozenset({TransmissionStatus.PENDING, TransmissionStatus.FAILED})


class Catalog:
    """The plain nouns of one node."""

    def __init__(self, store: Store, clock: Clock, config: Config) -> None:
        self._store = store
        self._clock = clock
        self._media = MediaLibrary(config)
        # An edit reads, merges and writes; two of one kind at a time would lose one of them.
        self._edits: defaultdict[type[Entity], trio.Lock] = defaultdict(trio.Lock)

    # --- any noun --------------------------------------------------------------------------
    async def create(self, who: Principal, entity: E) -> E:
        """Store a new row owned by the caller; rows it names must be the caller's to see."""
        who.require(f"{FAMILY[type(entity)]}_create")
        at = self._clock()
        entity = _replace(entity, owner_id=who.user_id, created_at=at, updated_at=at)
        entity = await self._complete(who, entity)
        check(entity)
        return await self._store.insert(entity)

    async def read(self, who: Principal, kind: type[E], entity_id: int) -> E:
        """The row."""
        who.require(f"{FAMILY[kind]}_read")
        return await self.visible(who, kind, entity_id)

    async def visible(self, who: Principal, kind: type[E], entity_id: int) -> E:
        """The row, without asking for a permission: for what a verb of another family needs."""
        row = await self._store.get(kind, entity_id) if 0 < entity_id < 2**63 else None
        if row is None or not who.sees(FAMILY[kind], row):
            raise NotFoundError(f"{kind.__name__} not found")
        return row

    async def find(self, who: Principal, kind: type[E], query: Query) -> list[E]:
        """The caller's rows (everybody's with ``<family>_admin``) that match."""
        who.require(f"{FAMILY[kind]}_list")
        return await self._store.find(kind, self._scoped(who, kind, query))

    async def update(
        self, who: Principal, kind: type[E], entity_id: int, changes: Mapping[str, Any]
    ) -> E:
        """The row after ``changes``; ids, owner, times and status are not among what may change."""
        who.require(f"{FAMILY[kind]}_update")
        async with self._edits[kind]:
            row = await self.visible(who, kind, entity_id)
            allowed = {name: value for name, value in changes.items() if name not in _FIXED}
            _check_editable(row, allowed)
            row = _replace(row, **allowed, updated_at=self._clock())
            row = await self._complete(who, row)
            check(row)
            return await self._store.update(row)

    async def delete(self, who: Principal, kind: type[Entity], entity_id: int) -> None:
        """Delete the row; ``NotReadyError`` while it is at work, ``ConflictError`` while used."""
        who.require(f"{FAMILY[kind]}_delete")
        async with self._edits[kind]:
            row = await self.visible(who, kind, entity_id)
            await self._check_unused(row)
            await self._store.delete(kind, row.id)
            if isinstance(row, Recording):
                await self._retire(row)

    # --- contacts and groups ---------------------------------------------------------------
    async def link(self, who: Principal, contact_id: int, group_id: int) -> Contact:
        """Put a contact into a group; ``ConflictError`` where it is there already."""
        who.require("contact_create", "group_create")
        contact = await self.visible(who, Contact, contact_id)
        group = await self.visible(who, Group, group_id)
        if not await self._store.link(contact.id, group.id):
            raise ConflictError("Contact is in this group already")
        return contact

    async def unlink(self, who: Principal, contact_id: int, group_id: int) -> Contact:
        """Take a contact out of a group; ``NotFoundError`` where it is not in it."""
        who.require("contact_delete", "group_delete")
        contact = await self.visible(who, Contact, contact_id)
        group = await self.visible(who, Group, group_id)
        if not await self._store.unlink(contact.id, group.id):
            raise NotFoundError("Contact is not in this group")
        return contact

    async def members(self, who: Principal, group_id: int, query: Query) -> list[Contact]:
        """The contacts of a group."""
        who.require("group_read", "contact_list")
        group = await self.visible(who, Group, group_id)
        condition = Condition("group_id", Op.EQ, group.id)
        query = msgspec.structs.replace(query, conditions=(*query.conditions, condition))
        return await self._store.find(Contact, self._scoped(who, Contact, query))

    async def import_contacts(
        self, who: Principal, group: Group, rows: Sequence[ContactRow]
    ) -> int:
        """Store validated rows as contacts of ``group``; durable when it returns how many.

        They belong to whom the group belongs: an administrator may import for somebody else.
        """
        who.require("contact_create")
        return await self._store.import_contacts(group.id, group.owner_id, rows, self._clock())

    async def export_page(
        self, who: Principal, group: Group, after_link_id: int, limit: int
    ) -> list[Candidate]:
        """The next members of ``group`` in the order they joined."""
        who.require("contact_list")
        return await self._store.export_contacts(group.id, after_link_id, limit)

    # --- recordings ------------------------------------------------------------------------
    async def set_media(
        self, who: Principal, recording_id: int, chunks: AsyncIterator[bytes]
    ) -> Recording:
        """Take in the media of a recording; safe while a campaign plays the one before.

        Raises what ``MediaLibrary.store`` raises.
        """
        who.require("recording_create")
        await self.visible(who, Recording, recording_id)
        media = await self._media.store(chunks)
        async with self._edits[Recording]:
            before = await self.visible(who, Recording, recording_id)
            after = await self._store.update(
                _replace(
                    before,
                    media_path=media.media_path,
                    original_path=media.original_path,
                    original_type=media.original_type,
                    length_s=media.length_s,
                    updated_at=self._clock(),
                )
            )
            await self._retire(before)
        return after

    async def media_path(self, who: Principal, recording_id: int) -> Path:
        """Where the WAV of a recording is; ``NotFoundError`` where none was uploaded."""
        recording = await self.read(who, Recording, recording_id)
        if not recording.media_path:
            raise NotFoundError("Recording media not found")
        return self._media.path(recording.media_path)

    async def _retire(self, recording: Recording) -> None:
        self._media.retire(recording.media_path, recording.original_path)
        rows = await self._store.find(Recording, Query())
        await self._media.sweep(
            frozenset(path for row in rows for path in (row.media_path, row.original_path))
        )

    # --- transmissions, spools, results ----------------------------------------------------
    async def spools(self, who: Principal, transmission_id: int, query: Query) -> list[Spool]:
        """The attempts of a transmission, oldest first."""
        who.require("transmission_read", "spool_read")
        transmission = await self.visible(who, Transmission, transmission_id)
        condition = Condition("transmission_id", Op.EQ, transmission.id)
        query = msgspec.structs.replace(query, conditions=(*query.conditions, condition))
        return await self._store.find(Spool, query)

    async def spool(self, who: Principal, spool_id: int) -> Spool:
        """One attempt, where its transmission is the caller's to see."""
        who.require("spool_read")
        spool = await self._store.get(Spool, spool_id) if 0 < spool_id < 2**63 else None
        if spool is None:
            raise NotFoundError("Spool not found")
        transmission = await self._store.get(Transmission, spool.transmission_id)
        owner = spool if transmission is None else transmission
        if not who.sees("transmission", owner) and not who.may("spool_admin"):
            raise NotFoundError("Spool not found")
        return spool

    async def results(
        self, who: Principal, spools: Sequence[Spool], query: Query
    ) -> list[SpoolResult]:
        """What was collected during ``spools`` (which the caller was shown)."""
        who.require("result_read")
        condition = Condition("spool_id", Op.IN, tuple(spool.id for spool in spools))
        query = msgspec.structs.replace(query, conditions=(*query.conditions, condition))
        return await self._store.find(SpoolResult, query) if spools else []

    async def counts(self, who: Principal) -> dict[str, int]:
        """The guide's statistics of the caller's rows, of everybody's with ``statistic_admin``."""
        who.require("statistic_read")
        everybody = who.may("statistic_admin")
        return await self._store.counts(None if everybody else who.user_id)

    async def by_id(self, kind: type[E], ids: set[int]) -> dict[int, E]:
        """Rows that rows already shown refer to, by id: to print a phone beside a contact id."""
        if not ids:
            return {}
        condition = Condition("id", Op.IN, tuple(sorted(ids)))
        return {row.id: row for row in await self._store.find(kind, Query(conditions=(condition,)))}

    async def tally(self, campaign: Campaign) -> dict[str, int]:
        """The live counts of a campaign the caller was shown."""
        return await self._store.campaign_tally(campaign.id)

    # --- rules between nouns ---------------------------------------------------------------
    def _scoped(self, who: Principal, kind: type[Entity], query: Query) -> Query:
        if who.may(f"{FAMILY[kind]}_admin"):
            return query
        own = Condition("owner_id", Op.EQ, who.user_id)
        return msgspec.structs.replace(query, conditions=(*query.conditions, own))

    async def _complete(self, who: Principal, entity: Any) -> Any:
        """Check what ``entity`` refers to, and fill in what follows from it."""
        if isinstance(entity, Program):
            await self._complete_program(who, entity)
        elif isinstance(entity, Campaign):
            return await self._complete_campaign(who, entity)
        elif isinstance(entity, Transmission):
            return await self._complete_transmission(who, entity)
        return entity

    async def _complete_program(self, who: Principal, program: Program) -> None:
        if program.parent_id is not None:
            await self.visible(who, Program, program.parent_id)
        recording_id = program.data.get("recording_id")
        if recording_id is not None:
            await self.visible(who, Recording, recording_id)

    async def _complete_campaign(self, who: Principal, campaign: Campaign) -> Campaign:
        if not campaign.program_id:
            raise InvalidError("program_id is missing", field="program_id")
        if not campaign.group_id:
            raise InvalidError("group_id is missing", field="group_id")
        await self.visible(who, Program, campaign.program_id)
        await self.visible(who, Group, campaign.group_id)
        return _replace(campaign, account_id=await self._account(who, campaign.account_id))

    async def _complete_transmission(
        self, who: Principal, transmission: Transmission
    ) -> Transmission:
        if not transmission.program_id:
            raise InvalidError("program_id is missing", field="program_id")
        if not transmission.contact_id:
            raise InvalidError("contact is missing", field="contact_id")
        program = await self.visible(who, Program, transmission.program_id)
        await self.visible(who, Contact, transmission.contact_id)
        return _replace(
            transmission,
            title=transmission.title or program.name,
            origin=transmission.origin or program.type,
            service=PROGRAMS[program.type].service,
            account_id=await self._account(who, transmission.account_id),
        )

    async def _account(self, who: Principal, account_id: int | None) -> int:
        if account_id is not None:
            return (await self.visible(who, Account, account_id)).id
        own = Query(
            conditions=(
                Condition("owner_id", Op.EQ, who.user_id),
                Condition("type", Op.EQ, "account"),
                Condition("active", Op.EQ, True),
            ),
            limit=1,
        )
        accounts = await self._store.find(Account, own)
        if not accounts:
            raise NotFoundError("Account not found")
        return accounts[0].id

    async def _check_unused(self, row: Entity) -> None:
        if isinstance(row, Campaign) and row.status is CampaignStatus.RUNNING:
            raise NotReadyError("Campaign is running, stop it first")
        if isinstance(row, Transmission) and row.status is TransmissionStatus.PROCESSING:
            raise NotReadyError("Transmission already in process")
        if isinstance(row, Group):
            await self._check_no_campaign_runs(row)
        if isinstance(row, Recording):
            await self._check_no_program_plays(row)

    async def _check_no_campaign_runs(self, group: Group) -> None:
        running = Query(
            conditions=(
                Condition("group_id", Op.EQ, group.id),
                Condition("status", Op.EQ, CampaignStatus.RUNNING),
            ),
            limit=1,
        )
        if await self._store.find(Campaign, running):
            raise NotReadyError("Group is used by a running campaign")

    async def _check_no_program_plays(self, recording: Recording) -> None:
        query = Query(conditions=(Condition("type", Op.EQ, "voicemessage"),))
        for program in await self._store.find(Program, query):
            if program.data.get("recording_id") == recording.id:
                raise ConflictError(f"Recording is used by program {program.id}")


def _check_editable(row: Entity, changes: Mapping[str, Any]) -> None:
    """What is at work, or done, keeps what it was about."""
    if isinstance(row, Campaign) and row.status is CampaignStatus.RUNNING:
        frozen: tuple[str, ...] = ("group_id",)
    elif isinstance(row, Transmission) and row.status not in _EDITABLE:
        frozen = ("program_id", "contact_id", "account_id")
    else:
        return
    for name in frozen:
        if name in changes and changes[name] != getattr(row, name):
            raise NotReadyError(f"{name} cannot change while {row.status.value}")


def _replace(entity: E, **changes: Any) -> E:
    return msgspec.structs.replace(entity, **changes)
