"""What a noun's row is made of when read: stored columns, and the few that are computed."""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy import ColumnElement, func, literal_column, select

from engine.model import Campaign, Entity, TransmissionStatus
from engine.store import schema

FINAL = tuple(
    status.value
    for status in (
        TransmissionStatus.COMPLETED,
        TransmissionStatus.FAILED,
        TransmissionStatus.INVALID,
    )
)


def _contact_total() -> ColumnElement[Any]:
    """The live size of the group, kept there by every link and unlink."""
    group = schema.contact_group
    return (
        select(group.c.contact_total)
        .where(group.c.id == schema.campaign.c.group_id)
        .scalar_subquery()
    )


def _contact_done() -> ColumnElement[Any]:
    """Transmissions with a final status: three rows of the tally by primary key."""
    tally = schema.campaign_tally
    return (
        select(func.coalesce(func.sum(tally.c.value), 0))
        .where(
            tally.c.campaign_id == schema.campaign.c.id,
            tally.c.name.in_([literal_column(f"'{status}'") for status in FINAL]),
        )
        .scalar_subquery()
    )


@functools.cache
def columns(kind: type[Entity]) -> dict[str, ColumnElement[Any]]:
    """A noun's fields, in the struct's order, as expressions of a select over its table."""
    table = schema.TABLES[kind]
    computed: dict[str, ColumnElement[Any]] = {}
    if kind is Campaign:
        computed = {"contact_total": _contact_total(), "contact_done": _contact_done()}
    return {
        name: computed[name] if name in computed else table.c[name]
        for name in kind.__struct_fields__
    }


@functools.cache
def stored(kind: type[Entity]) -> tuple[str, ...]:
    """The fields that are columns."""
    table = schema.TABLES[kind]
    return tuple(name for name in kind.__struct_fields__ if name in table.c)
