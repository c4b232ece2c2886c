"""Times as SMPP writes them (§7.1.1): sixteen characters, a moment or a span from now. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from engine.errors import InvalidError

# "YYMMDDhhmmss", a tenth of a second, quarters of an hour from UTC, which way.
_TIME = re.compile(r"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d)(\d\d)([+\-R])", re.ASCII)
_QUARTER = timedelta(minutes=15)
_MAX_DAYS = 31
_MONTH_DAYS = 30
_YEAR_DAYS = 365
_CENTURY = 2000

MAX_SPAN_S = 360 * 86_400
"""Beyond it a span would need the years, which no message lives."""


def relative(seconds: float) -> str:
    """A span (§7.1.1.2), rounded up to whole seconds; "" for 0, which leaves it to the SMSC.

    The field of days ends at 31, so longer ones are months, which this takes for 30 days.
    ``InvalidError`` for less than 0 or more than ``MAX_SPAN_S``.
    """
    if not 0 <= seconds <= MAX_SPAN_S:
        raise InvalidError(f"validity: must be from 0 to {MAX_SPAN_S} s", field="validity")
    whole = int(-(-seconds // 1))
    if not whole:
        return ""
    days, rest = divmod(whole, 86_400)
    months, days = divmod(days, _MONTH_DAYS) if days > _MAX_DAYS else (0, days)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    return f"00{months:02}{days:02}{hours:02}{minutes:02}{rest:02}000R"


def absolute(at: datetime) -> str:
    """A moment (§7.1.1.1), in UTC, to the tenth of a second."""
    utc = at.astimezone(UTC)
    return f"{utc:%y%m%d%H%M%S}{utc.microsecond // 100_000}00+"


def parse(text: str, now: datetime) -> datetime | None:
    """The moment ``text`` means, in UTC, of a span from ``now`` on; None where it is no time."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    fields = [int(part) for part in found.groups()[:8]]
    try:
        return now + _span(fields) if found[9] == "R" else _moment(fields, found[9])
    except (ValueError, OverflowError):  # the 31st of February
        return None


def _span(fields: list[int]) -> timedelta:
    years, months, days, hours, minutes, seconds, _, _ = fields
    days += years * _YEAR_DAYS + months * _MONTH_DAYS
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def _moment(fields: list[int], sign: str) -> datetime:
    year, month, day, hour, minute, second, tenth, quarters = fields
    offset = _QUARTER * (-quarters if sign == "-" else quarters)
    return datetime(
        _CENTURY + year, month, day, hour, minute, second, tenth * 100_000, timezone(offset)
    ).astimezone(UTC)
