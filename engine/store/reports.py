"""What is read for start-up, dashboards and recovery."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import ColumnElement, bindparam, func, literal_column, select

from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Contact,
    Entity,
    Group,
    Provider,
    Spool,
    Transmission,
    TransmissionStatus,
    User,
)
from engine.store import queries, schema
from engine.store.base import Condition, Interrupted, Op, Query
from engine.store.codec import struct
from engine.store.rows import columns
from engine.store.statements import Statement

_spool, _transmission, _campaign = schema.spool, schema.transmission, schema.campaign

_OPEN: ColumnElement[bool] = literal_column(f"spool.{schema.OPEN}")
_ALWAYS = ("dialled", "retries", "transmissions", *(status.value for status in TransmissionStatus))
_OWNED = (
    "transmission_total", "transmission_active", "transmission_inbound", "transmission_outbound",
    "spool_total", "spool_success", "spool_failed",
)  # fmt: skip
_COUNTED: dict[str, type[Entity]] = {
    "user_total": User,
    "account_total": Account,
    "provider_total": Provider,
    "campaign_total": Campaign,
    "group_total": Group,
    "contact_total": Contact,
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
    """Open spools of a node with their transmissions."""
    split = len(Spool.__struct_fields__)
    return [
        Interrupted(
            spool=struct(Spool, row[:split]), transmission=struct(Transmission, row[split:])
        )
        for row in _INTERRUPTED.run(connection, node_id=node_id, limit=limit)
    ]


def counts(connection: sqlite3.Connection, owner_id: int | None) -> dict[str, int]:
    """The statistics keys: big tables from the tallies, small ones and contacts by index."""
    result = dict.fromkeys(_OWNED, 0)
    tallies = _OWNER_TALLY if owner_id is not None else _ALL_TALLY
    result.update(tallies.run(connection, id=owner_id).fetchall())
    owned = () if owner_id is None else (Condition("owner_id", Op.EQ, owner_id),)
    for key, kind in _COUNTED.items():
        result[key] = queries.count(connection, kind, Query(conditions=owned))
    running = Condition("status", Op.EQ, CampaignStatus.RUNNING)
    result["campaign_active"] = queries.count(
        connection, Campaign, Query(conditions=(*owned, running))
    )
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
_INTERRUPTED = Statement(
    select(*columns(Spool).values(), *columns(Transmission).values())
    .select_from(_spool.join(_transmission, _transmission.c.id == _spool.c.transmission_id))
    .where(_OPEN, _spool.c.node_id == bindparam("node_id"))
    .limit(bindparam("limit"))
)
