"""Every plain noun: create, read, update, delete, find, with validation, ownership and permission.

Every method is told who asks. A permission that is missing is a ``ForbiddenError``; a row that does
not exist or belongs to somebody else is a ``NotFoundError`` either way, so ids tell nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import trio

from engine.auth import Principal
from engine.clock import Clock
from engine.config import Config
from engine.errors import ConflictError, NotFoundError, NotReadyError
from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Contact,
    Document,
    DoNotContact,
    Entity,
    Group,
    Permission,
    Program,
    Provider,
    Recording,
    Role,
    Spool,
    SpoolResult,
    Subscription,
    Task,
    Template,
    Text,
    Transmission,
    TransmissionStatus,
    User,
)
from engine.rules import COMPLETE, GUARDS, MERGES
from engine.secrets import Secrets, hidden, refuse_sealed
from engine.store.base import Candidate, Condition, ContactRow, Op, Query, Store
from engine.validation import check

E = TypeVar("E", bound=Entity)

FAMILY: dict[type[Entity], str] = {
    Account: "account",
    Campaign: "campaign",
    Contact: "contact",
    Document: "document",
    DoNotContact: "contact",
    Group: "group",
    Permission: "permission",
    Program: "program",
    Provider: "provider",
    Recording: "recording",
    Role: "role",
    Spool: "spool",
    SpoolResult: "result",
    Subscription: "account",
    Task: "task",
    Template: "template",
    Text: "text",
    Transmission: "transmission",
    User: "user",
}

# What must never change once a row is stored, whatever an edit says.
_FIXED = frozenset({"id", "uid", "owner_id", "created_at", "updated_at", "status"})

AfterDelete = Callable[[Any], Awaitable[None]]
Check = Callable[[Any], None]

_EDITABLE = frozenset({TransmissionStatus.PENDING, TransmissionStatus.FAILED})


class Catalog:
    """The plain nouns of one node."""

    def __init__(self, store: Store, clock: Clock, config: Config) -> None:
        self.store = store
        self.clock = clock
        self.config = config
        self.secrets = Secrets(config)
        # An edit reads, merges and writes; two of one kind at a time would lose one of them.
        self.edits: defaultdict[type[Entity], trio.Lock] = defaultdict(trio.Lock)
        self._after_delete: defaultdict[type[Entity], list[AfterDelete]] = defaultdict(list)
        self._checks: defaultdict[type[Entity], list[Check]] = defaultdict(list)

    def also_check(self, kind: type[Entity], refuse: Check) -> None:
        """``refuse`` is asked before a row of this kind is stored; it raises ``InvalidError``."""
        self._checks[kind].append(refuse)

    def _check(self, entity: Entity) -> None:
        check(entity)
        for refuse in self._checks[type(entity)]:
            refuse(entity)

    def after_delete(self, kind: type[Entity], follow: AfterDelete) -> None:
        """``follow`` is awaited with every row of this kind that was deleted."""
        self._after_delete[kind].append(follow)

    # --- any noun --------------------------------------------------------------------------
    async def create(self, who: Principal, entity: E) -> E:
        """Store a new row owned by the caller; rows it names must be the caller's to see."""
        who.require(f"{FAMILY[type(entity)]}_create")
        refuse_sealed(type(entity), msgspec.structs.asdict(entity))
        at = self.clock()
        entity = _replace(entity, owner_id=who.user_id, created_at=at, updated_at=at)
        entity = await self._complete(who, entity)
        self._check(entity)
        return await self.store.insert(await self.secrets.sealed(entity), guarded=guarded(who))

    async def read(self, who: Principal, kind: type[E], entity_id: int) -> E:
        """The row."""
        who.require(f"{FAMILY[kind]}_read")
        return await self.visible(who, kind, entity_id)

    async def visible(self, who: Principal, kind: type[E], entity_id: int) -> E:
        """The row, without asking for a permission: for what a verb of another family needs."""
        row = await self.store.get(kind, entity_id) if 0 < entity_id < 2**63 else None
        if row is None or not who.sees(FAMILY[kind], row):
            raise NotFoundError(f"{kind.__name__} not found")
        return row

    async def find(self, who: Principal, kind: type[E], query: Query) -> list[E]:
        """The caller's rows (everybody's with ``<family>_admin``) that match."""
        who.require(f"{FAMILY[kind]}_list")
        return await self.store.find(kind, self.scoped(who, kind, query))

    async def update(
        self, who: Principal, kind: type[E], entity_id: int, changes: Mapping[str, Any]
    ) -> E:
        """The row after ``changes``; ids, owner, times and status are not among what may change."""
        who.require(f"{FAMILY[kind]}_update")
        async with self.edits[kind]:
            row = await self.visible(who, kind, entity_id)
            allowed = {name: value for name, value in changes.items() if name not in _FIXED}
            _check_editable(row, allowed)
            refuse_sealed(kind, allowed)
            merge = MERGES.get(kind)
            allowed = allowed if merge is None else merge(row, allowed)
            row = _replace(row, **allowed, updated_at=self.clock())
            row = await self._complete(who, row)
            self._check(hidden(row))
            return await self.store.update(await self.secrets.sealed(row), guarded=guarded(who))

    async def delete(self, who: Principal, kind: type[Entity], entity_id: int) -> None:
        """Delete the row; ``NotReadyError`` while it is at work, ``ConflictError`` while used."""
        who.require(f"{FAMILY[kind]}_delete")
        async with self.edits[kind]:
            await self.remove(await self.visible(who, kind, entity_id))

    async def remove(self, row: Entity) -> None:
        """Delete a row with all that follows, for whoever holds ``edits`` of its kind."""
        kind = type(row)
        guard = GUARDS.get(kind)
        if guard is not None:
            await guard(self, row)
        await self.store.delete(kind, row.id)
        for follow in self._after_delete[kind]:
            await follow(row)

    # --- contacts and groups ---------------------------------------------------------------
    async def link(self, who: Principal, contact_id: int, group_id: int) -> Contact:
        """Put a contact into a group; ``ConflictError`` where it is there already."""
        who.require("contact_create", "group_create")
        contact = await self.visible(who, Contact, contact_id)
        group = await self.visible(who, Group, group_id)
        if not await self.store.link(contact.id, group.id):
            raise ConflictError("Contact is in this group already")
        return contact

    async def unlink(self, who: Principal, contact_id: int, group_id: int) -> Contact:
        """Take a contact out of a group; ``NotFoundError`` where it is not in it."""
        who.require("contact_delete", "group_delete")
        contact = await self.visible(who, Contact, contact_id)
        group = await self.visible(who, Group, group_id)
        if not await self.store.unlink(contact.id, group.id):
            raise NotFoundError("Contact is not in this group")
        return contact

    async def members(self, who: Principal, group_id: int, query: Query) -> list[Contact]:
        """The contacts of a group."""
        who.require("group_read", "contact_list")
        group = await self.visible(who, Group, group_id)
        condition = Condition("group_id", Op.EQ, group.id)
        query = msgspec.structs.replace(query, conditions=(*query.conditions, condition))
        return await self.store.find(Contact, self.scoped(who, Contact, query))

    async def import_contacts(
        self, who: Principal, group: Group, rows: Sequence[ContactRow]
    ) -> int:
        """Store validated rows as contacts of ``group``; durable when it returns how many.

        They belong to whom the group belongs: an administrator may import for somebody else.
        """
        who.require("contact_create")
        return await self.store.import_contacts(group.id, group.owner_id, rows, self.clock())

    async def export_page(
        self, who: Principal, group: Group, after_link_id: int, limit: int
    ) -> list[Candidate]:
        """The next members of ``group`` in the order they joined."""
        who.require("contact_list")
        return await self.store.export_contacts(group.id, after_link_id, limit)

    async def by_id(self, kind: type[E], ids: set[int]) -> dict[int, E]:
        """Rows that rows already shown refer to, by id: to print a phone beside a contact id."""
        if not ids:
            return {}
        condition = Condition("id", Op.IN, tuple(sorted(ids)))
        return {row.id: row for row in await self.store.find(kind, Query(conditions=(condition,)))}

    def scoped(self, who: Principal, kind: type[Entity], query: Query) -> Query:
        """``query`` for the caller's rows only, unless everybody's are the caller's to see."""
        if who.may(f"{FAMILY[kind]}_admin"):
            return query
        own = Condition("owner_id", Op.EQ, who.user_id)
        return msgspec.structs.replace(query, conditions=(*query.conditions, own))

    async def _complete(self, who: Principal, entity: Any) -> Any:
        """Check what ``entity`` refers to, and fill in what follows from it."""
        complete = COMPLETE.get(type(entity))
        return entity if complete is None else await complete(self, who, entity)


def guarded(who: Principal) -> bool:
    """Whether the store refuses it where an edit would lead another user's mail or SMS away.

    Who may edit everybody's accounts decides who gets what.
    """
    return not who.may(f"{FAMILY[Account]}_admin")


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
