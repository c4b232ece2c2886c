"""What the engine asks of its memory, in domain words; specified by ``tests/suites``.

Every write returns after it is durable (group commit, fsync). A write is one non-abortable
operation: there is no cancel point between its begin and its commit. When the store cannot write
(disk full, read-only) writes raise ``UnavailableError`` and nothing of them is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

import msgspec

from engine.model import (
    CampaignStatus,
    Contact,
    Entity,
    Service,
    Transmission,
    TransmissionStatus,
)
from engine.results import Awaiting, Result, ResultRow
from engine.store.arrival import Doorkeeper
from engine.store.standing import Interrupted as Interrupted  # noqa: PLC0414 - for our readers
from engine.store.standing import Standing as Standing  # noqa: PLC0414

E = TypeVar("E", bound=Entity)


class Op(StrEnum):
    """How a ``Condition`` compares. LIKE forms ignore case and take the value literally."""

    EQ = "eq"
    IN = "in"  # value is a sequence
    CONTAINS = "contains"  # %value%
    ENDS_WITH = "ends_with"  # %value
    GE = "ge"
    LE = "le"
    HAS_BITS = "has_bits"  # column & value = value


class Condition(msgspec.Struct, frozen=True):
    """One filter. ``field`` is a field of the noun, or one the store joins for it.

    Contact: ``group_id``. Transmission: ``contact.phone``, ``contact.email``, ``account.phone``,
    ``account.email``, and of either of them ``party.phone``, ``party.email``. Campaign:
    ``program.type``. SpoolResult: none.
    """

    field: str
    op: Op
    value: Any


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Filters (all must hold), order, page.

    ``order`` is a comma list of fields; ``-`` before one: descending. ``counted``: the answer shall
    know how many rows match in all (see ``Found``), and ends before its texts come to more than
    ``octets`` (None: however long they are), but not before its first row.
    """

    conditions: tuple[Condition, ...] = ()
    order: str = "id"
    limit: int | None = None
    offset: int = 0
    counted: bool = False
    octets: int | None = None


class Found(list[E]):
    """A page of rows; ``total`` counts those that match beyond it too; ``cut``: ``octets`` did."""

    def __init__(self, rows: Iterable[E], total: int, *, cut: bool = False) -> None:
        super().__init__(rows)
        self.total = total
        self.cut = cut


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A store among others: 32 hexadecimal digits, and since when it is there, at the latest."""

    uid: str
    born_at: datetime


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A contact a campaign may try next: new (``transmission`` None) or due for a retry.

    ``link_id`` is the keyset position of a new one (0 for retries).
    """

    contact: Contact
    link_id: int = 0
    transmission: Transmission | None = None


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """A spool to be committed before anything leaves.

    With ``transmission_id`` 0 the transmission is created with it (campaigns) from the other
    fields; where the campaign already has one for this contact, nothing is written and None is
    answered.
    Otherwise the transmission moves by ``states``' CLAIM, its try counted where ``counts_try``;
    where its status does not take CLAIM, nothing is written and None is answered.
    """

    uid: UUID
    at: datetime
    service: Service
    destination: str
    provider_id: int | None
    account_id: int | None
    contact_id: int
    program_id: int
    owner_id: int | None
    transmission_id: int = 0
    campaign_id: int | None = None
    link_id: int = 0
    title: str = ""
    origin: str = ""
    try_allowed: int = 1
    counts_try: bool = True  # False for the next trunk within the same try
    node_id: int = 1


class Begun(msgspec.Struct, frozen=True):
    """The durable ids of a committed intent, and the tries done including this one."""

    spool_id: int
    transmission_id: int
    try_done: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a spool, committed in one transaction with everything that follows from it.

    ``transmission_status`` PENDING means another spool at ``due_at``: a retry, or at once through
    the next trunk.
    """

    spool_id: int
    transmission_id: int
    campaign_id: int | None
    result: Result
    transmission_status: TransmissionStatus
    due_at: datetime | None
    at: datetime


class ContactRow(msgspec.Struct, frozen=True, gc=False):
    """One line of an import, already validated; texts only, so nothing for the collector."""

    phone: str = ""
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    address: str = ""
    custom1: str = ""
    custom2: str = ""
    custom3: str = ""
    description: str = ""


class Address(NamedTuple):
    """Where a member of a group can be reached; ``link_id`` is its keyset position."""

    link_id: int
    contact_id: int
    phone: str
    email: str


class Store(Doorkeeper, Protocol):
    """The engine's memory. One implementation per backend, one suite for all."""

    async def aclose(self) -> None:
        """Commit what is queued and close; later calls raise ``UnavailableError``."""
        ...

    # --- plain nouns ---------------------------------------------------------------------------
    async def insert(self, entity: E, *, guarded: bool = False) -> E:
        """Store a new row; returns it with its ``id``. ``ConflictError``: a unique key clashes.

        ``guarded`` (here and below): or an account would come to answer for another user's address
        (``engine.store.claims``).
        """
        ...

    async def update(self, entity: E, *, guarded: bool = False) -> E:
        """Replace the row with the entity's ``id``; ``NotFoundError`` where there is none.

        Columns the hot path keeps (Group.contact_total; Campaign.status, cursor, contact_total,
        contact_done, last_run; Transmission.status, response, try_done, due_at, last_run) are left
        as they are, so that an edit and a running campaign cannot overwrite each other.
        """
        ...

    async def overwrite(self, entity: E) -> E:
        """``update``, and nothing of what stood in the row before is left in the table's file."""
        ...

    async def save_all(
        self, rows: Sequence[Entity], *, owned: bool = False, guarded: bool = False
    ) -> list[Entity]:
        """Insert rows (``id`` 0) and replace others, in one transaction: all or none of them.

        With ``owned``, those after the first belong to the first: a new user and its account.
        """
        ...

    async def delete(self, kind: type[Entity], entity_id: int) -> bool:
        """Delete a row; True where there was one. Contact and Group take their links with them.

        ``ConflictError`` where another row that needs it forbids (a provider with spools is only
        detached; a program used by a campaign is refused).
        """
        ...

    async def get(self, kind: type[E], entity_id: int) -> E | None:
        """The row, or None."""
        ...

    async def find(self, kind: type[E], query: Query) -> list[E]:
        """The rows that match, in a stable order (ties by id); a ``Found`` where ``counted``."""
        ...

    async def count(self, kind: type[Entity], query: Query) -> int:
        """How many rows match (limit and offset ignored)."""
        ...

    async def unnamed(self, paths: Sequence[str]) -> list[str]:
        """Those of the paths (relative, as rows have them) that no row has as its media."""
        ...

    async def identity(self) -> Identity:
        """Which store this is; the same for ever, and a copy's too."""
        ...

    # --- contacts and groups -------------------------------------------------------------------
    async def link(self, contact_id: int, group_id: int) -> bool:
        """Put a contact into a group; False where it was there already."""
        ...

    async def unlink(self, contact_id: int, group_id: int) -> bool:
        """Take it out; False where it was not there."""
        ...

    async def import_contacts(
        self, group_id: int, owner_id: int | None, rows: Sequence[ContactRow], at: datetime
    ) -> int:
        """Create the contacts and link them, in one transaction; returns how many."""
        ...

    async def export_contacts(
        self, group_id: int, after_link_id: int, limit: int
    ) -> list[Candidate]:
        """Members of a group in the order they joined, keyset-paged by ``link_id``."""
        ...

    # --- the hot path --------------------------------------------------------------------------
    async def new_candidates(
        self, campaign_id: int, group_id: int, after_link_id: int, limit: int
    ) -> list[Candidate]:
        """Members after the keyset position, oldest first, that the campaign has not taken."""
        ...

    async def untried_addresses(
        self, campaign_id: int, group_id: int, after_link_id: int, limit: int
    ) -> list[Address]:
        """``new_candidates`` in short, for counting many."""
        ...

    async def due_candidates(
        self, campaign_id: int, now: datetime, exclude: Sequence[int], limit: int
    ) -> list[Candidate]:
        """Pending transmissions due by ``now``, earliest first, without the ``exclude``d ids.

        ``campaign_id`` 0 = those of no campaign. A pending one without ``due_at`` was never asked
        to be sent and is not due.
        """
        ...

    async def next_due_at(self, campaign_id: int) -> datetime | None:
        """The earliest ``due_at`` of a pending transmission of the campaign (0: of none)."""
        ...

    async def begin_spools(self, intents: Sequence[Intent]) -> list[Begun | None]:
        """Commit the intents in order, in one group commit; one answer each (see ``Intent``).

        Moves the campaign's cursor to the highest ``link_id`` given.
        """
        ...

    async def await_report(self, spool_id: int, fate: Awaiting, at: datetime) -> None:
        """Leave an open spool waiting for its report, connected where it was accepted.

        Its result rows are added. A spool that has a result already keeps it.
        """
        ...

    async def annotate(self, spool_id: int, rows: Sequence[ResultRow], at: datetime) -> None:
        """Add rows to a spool that has its result; those it has are not added twice."""
        ...

    async def open_spools(self, spool_ids: Sequence[int]) -> list[Standing]:
        """Those of the spools that have no result yet."""
        ...

    async def unreported_spools(
        self, node_id: int, closed_by: datetime, limit: int
    ) -> list[Interrupted]:
        """Spools whose ``closes_at`` has passed without a report, earliest first."""
        ...

    def connected(self, spool_id: int, at: datetime) -> None:
        """Mark a spool connected with the next commit; losing it is harmless, nobody waits."""
        ...

    async def finish_spool(self, outcome: Outcome) -> None:
        """Close the spool, move the transmission, add the result rows, count: one transaction.

        A spool that has a result already keeps it (the second call changes nothing).
        """
        ...

    async def finish_spools(self, outcomes: Sequence[Outcome]) -> None:
        """``finish_spool`` of many, in one transaction."""
        ...

    async def screen_out(self, intents: Sequence[Intent], results: Sequence[Result]) -> None:
        """Record contacts we chose not to try.

        A transmission (status ``invalid``) whose ``response`` is the cause, and no spool; moves the
        cursor like ``begin_spools``.
        """
        ...

    # --- campaigns -----------------------------------------------------------------------------
    async def set_campaign_status(
        self, campaign_id: int, status: CampaignStatus, at: datetime
    ) -> None:
        """Move a campaign (``last_run`` = ``at`` when it becomes running); ``NotFoundError``."""
        ...

    async def running_campaigns(self) -> list[int]:
        """Ids of campaigns that are to go on after a start."""
        ...

    async def campaign_tally(self, campaign_id: int) -> dict[str, int]:
        """Counts kept by the writer, O(1) to read.

        ``dialled`` (spools begun), ``retries``, ``transmissions``, one per transmission status, one
        per disposition and one per ``response`` (``disposition:busy``, ``response:busy``).
        """
        ...

    # --- recovery and reports ------------------------------------------------------------------
    async def interrupted_spools(self, node_id: int, limit: int) -> list[Interrupted]:
        """Spools of this node without a result that do not wait for a report.

        Call before dispatching, until it is empty.
        """
        ...

    async def first_spool_since(self, since: datetime, after_id: int) -> int:
        """The id of the first spool after ``after_id`` begun after ``since``.

        Where there is none, the id that the next spool will get at least. O(spools before it).
        """
        ...

    async def overdue_spools(
        self, node_id: int, after_id: int, before_id: int, limit: int
    ) -> list[Interrupted]:
        """Spools of this node without a result, by id, between these ids.

        Without those that wait for a report. Whether somebody still works on them the caller knows.
        """
        ...

    async def orphaned_transmissions(self, idle_since: datetime, limit: int) -> list[Transmission]:
        """Transmissions in process since then at least that have no open spool.

        There should never be one: as long as there is none, only counters are looked at.
        """
        ...

    async def finish_transmission(self, outcome: Outcome) -> None:
        """End a transmission in process that has no open spool (``spool_id`` means nothing).

        One that is not in process, or whose spool is open, keeps its life.
        """
        ...

    async def counts(self, owner_id: int | None) -> dict[str, int]:
        """The statistics keys of the guide and of its clients, of one owner or of all; quick."""
        ...

    def statistics(self) -> Mapping[str, Any]:
        """Queue length, batch sizes, commits, readers busy, ``writable`` and else its ``cause``."""
        ...
