"""What is read for start-up, dashboards and recovery."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, func, literal_column, select

from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Entity,
    Group,
    Provider,
    Transmission,
    TransmissionStatus,
    User,
)
from engine.store import queries, schema
from engine.store.awaiting import both, with_transmission
from engine.store.base import Condition, Interrupted, Op, Query
from engine.store.codec import micros, structs
from engine.store.rows import columns
from engine.store.statements import Statement

PORTION = 100_000
"""Ids looked through in one read: some tens of milliseconds."""

_spool, _transmission, _campaign = schema.spool, schema.transmission, schema.campaign

_OPEN: ColumnElement[bool] = literal_column(f"spool.{schema.OPEN}")
_ALWAYS = ("dialled", "retries", "transmissions", *(status.value for status in TransmissionStatus))
_OWNED = (
    "contact_total", "transmission_total", "transmission_active", "transmission_inbound",
    "transmission_outbound", "spool_total", "spool_success", "spool_failed",
)  # fmt: skip
_COUNTED: dict[str, type[Entity]] = {
    "user_total": User,
    "account_total": Account,
    "provider_total": Provider,
    "campaign_total": Campaign,
    "group_total": Group,
}

_SPECIAL: dict[str, tuple[type[Entity], Condition]] = {
    "campaign_active": (Campaign, Condition("status", Op.EQ, CampaignStatus.RUNNING)),
    "did_total": (Account, Condition("type", Op.EQ, "did")),
}


def running_campaigns(connection: sqlite3.Connection) -> list[int]:
    """Ids of campaigns that are to go on after a start."""
    return [row[0] for row in _RUNNING.run(connection)]


def campaign_tally(connection: sqlite3.Connection, campaign_id: int) -> dict[str, int]:
    """The counters; the fixed ones are always there."""
    tally = dict.fromkeys(_ALWAYS, 0)
    tally.update(_CAMPAIGN_TALLY.run(connection, id=campaign_id).fetchall())
    return tally


def interrupted_spools(
    connection: sqlite3.Connection, node_id: int, limit: int
) -> list[Interrupted]:
    """Open spools of a node that wait for no report, with their transmissions."""
    return both(_INTERRUPTED.run(connection, node_id=node_id, limit=limit))


def first_spool_since(connection: sqlite3.Connection, since: datetime, after_id: int) -> int:
    """The id of the first spool younger than that, or the one that the next spool will get."""
    found = _FIRST_SINCE.run(connection, since=micros(since), after=after_id).fetchone()
    if found is None:
        found = _LAST_SPOOL.run(connection).fetchone()
        return max(int(found[0] or 0), after_id) + 1
    return int(found[0])


def overdue_spools(
    connection: sqlite3.Connection, node_id: int, after_id: int, before_id: int, limit: int
) -> list[Interrupted]:
    """Open spools of a node between these ids that wait for no report, with transmissions."""
    values = {"node_id": node_id, "after": after_id, "before": before_id, "limit": limit}
    return both(_OVERDUE.run_with(connection, values))


def last_if_orphans(connection: sqlite3.Connection) -> int:
    """The highest id of a transmission; 0 where all those in process have their spool.

    Told by the counters, of one snapshot: the table itself may be long.
    """
    active, carried, last_id = _ACTIVE.run(connection).fetchone()
    return int(last_id or 0) if active > carried else 0


def orphans(
    connection: sqlite3.Connection, idle_since: datetime, first_id: int, limit: int
) -> list[Transmission]:
    """Transmissions in process without an open spool among ``PORTION`` ids."""
    values = {
        "since": micros(idle_since),
        "first": first_id,
        "last": first_id + PORTION - 1,
        "limit": limit,
    }
    return structs(Transmission, _ORPHANS.run_with(connection, values))


def counts(connection: sqlite3.Connection, owner_id: int | None) -> dict[str, int]:
    """The statistics keys: big tables from the tallies, small ones by index."""
    result = dict.fromkeys(_OWNED, 0)
    tallies = _OWNER_TALLY if owner_id is not None else _ALL_TALLY
    result.update(tallies.run(connection, id=owner_id).fetchall())
    owned = () if owner_id is None else (Condition("owner_id", Op.EQ, owner_id),)
    for key, kind in _COUNTED.items():
        result[key] = queries.count(connection, kind, Query(conditions=owned))
    for key, (kind, special) in _SPECIAL.items():
        result[key] = queries.count(connection, kind, Query(conditions=(*owned, special)))
    return result


def _tally_sum(*where: Any) -> Statement:
    tally = schema.owner_tally
    return Statement(
        select(tally.c.name, func.sum(tally.c.value)).where(*where).group_by(tally.c.name)
    )


_OWNER_TALLY = _tally_sum(schema.owner_tally.c.owner_id == bindparam("id"))
_ALL_TALLY = _tally_sum()
_RUNNING = Statement(
    select(_campaign.c.id)
    .where(literal_column(f"status = '{CampaignStatus.RUNNING}'"))
    .order_by(_campaign.c.id)
)
_CAMPAIGN_TALLY = Statement(
    select(schema.campaign_tally.c.name, schema.campaign_tally.c.value).where(
        schema.campaign_tally.c.campaign_id == bindparam("id")
    )
)
_open_of_node = (
    with_transmission()
    .where(_OPEN, _spool.c.closes_at.is_(None), _spool.c.node_id == bindparam("node_id"))
    .limit(bindparam("limit"))
)
_INTERRUPTED = Statement(_open_of_node)
_OVERDUE = Statement(
    _open_of_node.where(
        _spool.c.id > bindparam("after"), _spool.c.id < bindparam("before")
    ).order_by(_spool.c.id)
)
_FIRST_SINCE = Statement(
    select(_spool.c.id)
    .where(_spool.c.id > bindparam("after"), _spool.c.spooled_at > bindparam("since"))
    .order_by(_spool.c.id)
    .limit(literal_column("1"))
)
_LAST_SPOOL = Statement(select(func.max(_spool.c.id)))
_PROCESSING: ColumnElement[bool] = literal_column(
    f"transmission.status = '{TransmissionStatus.PROCESSING}'"
)


def _sum_of(*names: str) -> Any:
    tally = schema.owner_tally
    chosen = tally.c.name.in_([literal_column(f"'{name}'") for name in names])
    return select(func.coalesce(func.sum(tally.c.value), 0)).where(chosen).scalar_subquery()


# Out of the counters: there may be a million spools that wait for their reports.
_ACTIVE = Statement(
    select(
        _sum_of("transmission_active"),
        _sum_of("spool_total") - _sum_of("spool_success", "spool_failed"),
        select(func.max(_transmission.c.id)).scalar_subquery(),
    )
)
_ORPHANS = Statement(
    select(*columns(Transmission).values())
    .where(
        _transmission.c.id.between(bindparam("first"), bindparam("last")),
        _PROCESSING,
        func.coalesce(_transmission.c.last_run, _transmission.c.updated_at) <= bindparam("since"),
        ~select(_spool.c.id).where(_spool.c.transmission_id == _transmission.c.id, _OPEN).exists(),
    )
    .order_by(_transmission.c.id)
    .limit(bindparam("limit"))
)
