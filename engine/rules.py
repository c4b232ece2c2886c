"""Rules between nouns: what a row must refer to, what follows from that, what forbids its end.

``COMPLETE`` is asked before a row is stored: it checks references (which must be the caller's to
see) and fills in what follows from them. ``MERGES`` say what an edit changes of a row that is
there. ``GUARDS`` are asked before a row is deleted; they make way for its end or forbid it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from engine import retry
from engine.auth import Principal
from engine.errors import ConflictError, InvalidError, NotFoundError, NotReadyError
from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Contact,
    Document,
    Entity,
    Group,
    Program,
    Provider,
    Spool,
    SpoolStatus,
    Transmission,
    TransmissionStatus,
)
from engine.programs import MESSAGES, PROGRAMS, REFERENCES
from engine.results import screened
from engine.secrets import keeping_secrets
from engine.store.base import Condition, Intent, Op, Query
from engine.uids import new_uid
from engine.validation import RESOLUTIONS

if TYPE_CHECKING:
    from engine.catalog import Catalog


async def _program(catalog: Catalog, who: Principal, program: Program) -> Program:
    if program.id:
        await _program_rests(catalog, program)
    if program.parent_id is not None:
        await catalog.visible(who, Program, program.parent_id)
    for name, kind in REFERENCES.items():
        if name in program.data:
            await catalog.visible(who, kind, program.data[name])
    message_id = next((program.data[name] for name in MESSAGES if name in program.data), None)
    return msgspec.structs.replace(program, message_id=message_id)


async def _program_rests(catalog: Catalog, program: Program) -> None:
    """What a running campaign says is not changed under it."""
    before = await catalog.store.get(Program, program.id)
    if before is None or before.data == program.data:
        return
    if await _running(catalog, Condition("program_id", Op.EQ, program.id)):
        raise NotReadyError("Program is used by a running campaign")


async def _document(_catalog: Catalog, _who: Principal, document: Document) -> Document:
    across, down = RESOLUTIONS.get(document.quality, (0, 0))
    return msgspec.structs.replace(document, resolution_x=across, resolution_y=down)


async def _campaign(catalog: Catalog, who: Principal, campaign: Campaign) -> Campaign:
    if not campaign.program_id:
        raise InvalidError("program_id is missing", field="program_id")
    if not campaign.group_id:
        raise InvalidError("group_id is missing", field="group_id")
    await catalog.visible(who, Program, campaign.program_id)
    await catalog.visible(who, Group, campaign.group_id)
    return msgspec.structs.replace(
        campaign,
        account_id=await account_of(catalog, who, campaign.account_id),
        retry_delays=retry.delays(campaign.retry_delays),
    )


async def _transmission(
    catalog: Catalog, who: Principal, transmission: Transmission
) -> Transmission:
    if not transmission.program_id:
        raise InvalidError("program_id is missing", field="program_id")
    if not transmission.contact_id:
        raise InvalidError("contact is missing", field="contact_id")
    program = await catalog.visible(who, Program, transmission.program_id)
    await catalog.visible(who, Contact, transmission.contact_id)
    return msgspec.structs.replace(
        transmission,
        title=transmission.title or program.name,
        origin=transmission.origin or program.type,
        service=PROGRAMS[program.type].service,
        account_id=await account_of(catalog, who, transmission.account_id),
        retry_delays=retry.delays(transmission.retry_delays),
    )


async def account_of(catalog: Catalog, who: Principal, account_id: int | None) -> int:
    """The account asked for, or the caller's default one; ``NotFoundError`` where there is none."""
    if account_id is not None:
        return (await catalog.visible(who, Account, account_id)).id
    own = Query(
        conditions=(
            Condition("owner_id", Op.EQ, who.user_id),
            Condition("type", Op.EQ, "account"),
            Condition("active", Op.EQ, True),
        ),
        limit=1,
    )
    accounts = await catalog.store.find(Account, own)
    if not accounts:
        raise NotFoundError("Account not found")
    return accounts[0].id


async def _campaign_rests(_catalog: Catalog, campaign: Campaign) -> None:
    if campaign.status is CampaignStatus.RUNNING:
        raise NotReadyError("Campaign is running, stop it first")


async def _call_off(catalog: Catalog, contact: Contact) -> None:
    """Nothing more is sent to who is deleted; what was sent stays on record without a name."""
    own = Condition("contact_id", Op.EQ, contact.id)
    processing = Condition("status", Op.EQ, TransmissionStatus.PROCESSING)
    up = await catalog.store.find(Transmission, Query(conditions=(own, processing)))
    if up and not await _handed_over(catalog, up):
        raise NotReadyError("A transmission to this contact is in process")
    pending = Condition("status", Op.EQ, TransmissionStatus.PENDING)
    waiting = await catalog.store.find(Transmission, Query(conditions=(own, pending)))
    intents = [_nothing_of(transmission, catalog) for transmission in waiting]
    await catalog.store.screen_out(intents, [screened("contact_deleted")] * len(intents))


async def _handed_over(catalog: Catalog, rows: Sequence[Transmission]) -> bool:
    """Whether all of them only wait for their reports: nothing can be called off any more."""
    mine = Condition("transmission_id", Op.IN, tuple(row.id for row in rows))
    up = Condition("status", Op.IN, (SpoolStatus.INITIATED, SpoolStatus.CONNECTED))
    spools = await catalog.store.find(Spool, Query(conditions=(mine, up)))
    waiting = {spool.transmission_id for spool in spools if spool.closes_at is not None}
    return waiting == {row.id for row in rows}


def _nothing_of(transmission: Transmission, catalog: Catalog) -> Intent:
    return Intent(
        uid=new_uid(),
        at=catalog.clock(),
        service=transmission.service,
        destination="",
        provider_id=None,
        account_id=transmission.account_id,
        contact_id=transmission.contact_id or 0,
        program_id=transmission.program_id,
        owner_id=transmission.owner_id,
        transmission_id=transmission.id,
        campaign_id=transmission.campaign_id,
    )


async def _transmission_rests(_catalog: Catalog, transmission: Transmission) -> None:
    if transmission.status is TransmissionStatus.PROCESSING:
        raise NotReadyError("Transmission already in process")


async def _no_campaign_runs(catalog: Catalog, group: Group) -> None:
    if await _running(catalog, Condition("group_id", Op.EQ, group.id)):
        raise NotReadyError("Group is used by a running campaign")


async def _running(catalog: Catalog, condition: Condition) -> bool:
    status = Condition("status", Op.EQ, CampaignStatus.RUNNING)
    query = Query(conditions=(condition, status), limit=1)
    return bool(await catalog.store.find(Campaign, query))


async def _no_program_needs(catalog: Catalog, message: Entity) -> None:
    parameter = next(name for name, kind in MESSAGES.items() if isinstance(message, kind))
    types = tuple(kind.name for kind in PROGRAMS.values() if parameter in kind.parameters)
    query = Query(
        conditions=(
            Condition("message_id", Op.EQ, message.id),
            Condition("type", Op.IN, types),
        ),
        limit=1,
    )
    for program in await catalog.store.find(Program, query):
        raise ConflictError(f"{type(message).__name__} is used by program {program.id}")


def _merged_account(account: Account, given: dict[str, Any]) -> dict[str, Any]:
    """Settings are added to those there are; what an account is, and its name, are for good."""
    if account.username and given.get("username", account.username) != account.username:
        raise InvalidError("username: cannot change once it is set", field="username")
    merged = {name: value for name, value in given.items() if name != "type"}
    if "settings" in merged:
        merged["settings"] = {**account.settings, **merged["settings"]}
    return merged


def _merged_provider(provider: Provider, given: dict[str, Any]) -> dict[str, Any]:
    """Settings replace those there are, but for secrets, which who writes them never saw."""
    if "settings" not in given:
        return given
    return {**given, "settings": keeping_secrets(provider.settings, given["settings"])}


Complete = Callable[["Catalog", Principal, Any], Awaitable[Any]]
Guard = Callable[["Catalog", Any], Awaitable[None]]
Merge = Callable[[Any, dict[str, Any]], dict[str, Any]]

COMPLETE: dict[type[Entity], Complete] = {
    Program: _program,
    Document: _document,
    Campaign: _campaign,
    Transmission: _transmission,
}

GUARDS: dict[type[Entity], Guard] = {
    Contact: _call_off,
    Campaign: _campaign_rests,
    Transmission: _transmission_rests,
    Group: _no_campaign_runs,
    **dict.fromkeys(MESSAGES.values(), _no_program_needs),
}

MERGES: dict[type[Entity], Merge] = {
    Account: _merged_account,
    Provider: _merged_provider,
}
