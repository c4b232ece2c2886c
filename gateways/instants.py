"""Times as the columns of a gateway's journal have them: milliseconds since 1970. Pure."""

from __future__ import annotations

from datetime import UTC, datetime


def milliseconds(at: datetime) -> int:
    """A time as a column has it."""
    return int(at.timestamp() * 1000)


def moment(milliseconds: int) -> datetime:
    """The time of a column, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
