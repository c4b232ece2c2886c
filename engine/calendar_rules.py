"""Calendar rules: ICTCore's six cron-like fields and a time zone, and the moments they mean. Pure.

All six fields must match (specs/ictcore.md §4.4), unlike Unix cron, which takes day *or* weekday.
Where the clocks change:

- ``hour`` is ``*``: time that has passed counts. A run every hour goes on every hour, through a
  repeated hour as well, and a skipped hour has none.
- any other ``hour``: a minute of the wall clock counts once. In a repeated hour it is its first
  coming; what lies in a skipped hour happens in the first minute after it, once.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from engine.errors import InvalidError

LAST_YEAR = 2099
RANGES: dict[str, tuple[int, int]] = {
    "year": (1970, LAST_YEAR),
    "month": (1, 12),
    "day": (1, 31),
    "weekday": (1, 7),  # 1 = Sunday
    "hour": (0, 23),
    "minute": (0, 59),
}
"""The fields, coarsest first, and the numbers each may hold."""

EVERY = "*"
_MAX_LENGTH = 255
_TERM = re.compile(r"(?:(\*)|(\d{1,4})(?:-(\d{1,4}))?)(?:/(\d{1,4}))?", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)(?::(\d\d))?", re.ASCII)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
# How far back to look for the last run, nearest first: a rule that ran within the hour is not
# walked through for a year.
_LOOK_BACK = (timedelta(hours=1), _DAY, timedelta(days=32), timedelta(days=366))


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Which minutes are meant: ``*``, ``n``, ``a-b``, ``*/n``, ``a-b/n`` and lists of these."""

    year: str = EVERY
    month: str = EVERY
    day: str = EVERY
    weekday: str = EVERY
    hour: str = EVERY
    minute: str = EVERY


class _Walk(msgspec.Struct, frozen=True):
    """A rule as the library takes it. ``years`` None = every one."""

    years: tuple[int, ...] | None
    expression: str
    elapsed: bool


# --- zones ---------------------------------------------------------------------------------------
def zone(name: str) -> tzinfo:
    """The zone of an IANA name or of a fixed offset (``+05:30``); ``InvalidError`` if unknown."""
    fixed = _OFFSET.fullmatch(name)
    try:
        if fixed is None:
            return ZoneInfo(name)
        sign, hours, minutes, seconds = fixed.groups(default="0")
        east = timedelta(hours=int(hours), minutes=int(minutes), seconds=int(seconds))
        return timezone(-east if sign == "-" else east)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidError("timezone: not the name of a time zone", field="timezone") from None


def offset_name(east_s: int) -> str:
    """The name (for ``zone``) of a fixed offset in seconds, positive east of Greenwich."""
    minutes, seconds = divmod(abs(east_s), 60)
    name = f"{'-' if east_s < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"
    return f"{name}:{seconds:02}" if seconds else name


def moment(local: datetime, where: tzinfo) -> datetime:
    """The UTC moment of a wall clock's (naive) time.

    The first if it comes twice, the end of the gap if it never comes. Whole seconds only.
    """
    local = local.replace(microsecond=0)
    later = local.replace(tzinfo=where, fold=0).astimezone(UTC)
    if later.astimezone(where).replace(tzinfo=None) == local:
        return later
    # In a gap fold=0 counts with the offset before it, fold=1 with the one after (PEP 495).
    earlier = local.replace(tzinfo=where, fold=1).astimezone(UTC)
    return _change(where, earlier, later) or later


# --- rules ---------------------------------------------------------------------------------------
def check(rule: Rule) -> None:
    """Raise ``InvalidError`` naming the first field that cannot be read."""
    for name in RANGES:
        _numbers(name, getattr(rule, name))


def next_fire(rule: Rule, where: tzinfo, after: datetime) -> datetime | None:
    """The first moment (aware UTC) of the rule later than ``after``; None where there is none."""
    walk, after = _compiled(rule), after.astimezone(UTC).replace(microsecond=0)
    if walk.elapsed:
        return _next_elapsed(walk, where, after)
    for local in _minutes(walk, after.astimezone(where).replace(tzinfo=None)):
        found = moment(local, where)
        if found > after:
            return found
    return None


def last_fire(rule: Rule, where: tzinfo, since: datetime, until: datetime) -> datetime:
    """The last moment of the rule up to ``until``, where ``since`` is one of them."""
    for reach in _LOOK_BACK:
        start = max(since, until - reach)
        last = since if start == since else None
        found = next_fire(rule, where, start)
        while found is not None and found <= until:
            last, found = found, next_fire(rule, where, found)
        if last is not None:
            return last
    return since


def _next_elapsed(walk: _Walk, where: tzinfo, after: datetime) -> datetime | None:
    """As ``next_fire``, from one change of the offset to the next: in between, clocks just run."""
    start = since = after
    offset = _offset(where, after)
    while True:
        local = next(_minutes(walk, (start + offset).replace(tzinfo=None)), None)
        if local is None:
            return None
        found = (local - offset).replace(tzinfo=UTC)
        change = _first_change(where, since, found)
        if change is None:
            return found
        # The library looks strictly after; the moment of the change itself may be one.
        start, since, offset = change - _SECOND, change, _offset(where, change)


def _minutes(walk: _Walk, start: datetime) -> Iterator[datetime]:
    """The rule's minutes of the wall clock after ``start``, all naive."""
    if walk.years is None:
        for found in _sim(walk.expression, start):
            if found.year > LAST_YEAR:
                return
            yield found
        return
    for year in walk.years:
        if year < start.year:
            continue
        for found in _sim(walk.expression, max(start, datetime(year, 1, 1) - _SECOND)):  # noqa: DTZ001 - a wall clock
            if found.year != year:
                break
            yield found
        else:
            return


def _sim(expression: str, start: datetime) -> CronSim:
    sim = CronSim(expression, start)
    sim.day_and = True  # day and weekday both, whatever they begin with
    return sim


@functools.lru_cache(1024)
def _compiled(rule: Rule) -> _Walk:
    numbers = {name: _numbers(name, getattr(rule, name)) for name in RANGES}
    numbers["weekday"] = [number - 1 for number in numbers["weekday"]]
    fields = (numbers[name] for name in ("minute", "hour", "day", "month", "weekday"))
    expression = " ".join(",".join(map(str, field)) for field in fields)
    try:
        CronSim(expression, datetime(2000, 1, 1))  # noqa: DTZ001 - a wall clock
    except CronSimError:  # a day that none of the months has
        return _Walk((), "* * * * *", elapsed=False)
    years = None if rule.year == EVERY else tuple(numbers["year"])
    return _Walk(years, expression, elapsed=rule.hour == EVERY)


def _numbers(name: str, text: str) -> list[int]:
    """The numbers a field means, ascending."""
    if len(text) > _MAX_LENGTH:
        raise InvalidError(f"{name}: longer than {_MAX_LENGTH} characters", field=name)
    low, high = RANGES[name]
    found: set[int] = set()
    for term in text.split(","):
        match = _TERM.fullmatch(term.strip())
        if match is None or (match[4] and match[2] and not match[3]):
            raise InvalidError(f"{name}: must be *, n, a-b, */n or a list of these", field=name)
        first, last = (low, high) if match[1] else (int(match[2]), int(match[3] or match[2]))
        step = int(match[4] or 1)
        if not low <= first <= last <= high or not step:
            raise InvalidError(f"{name}: must be from {low} to {high}", field=name)
        found.update(range(first, last + 1, step))
    return sorted(found)


# --- changes of the offset -----------------------------------------------------------------------
def _offset(where: tzinfo, at: datetime) -> timedelta:
    return at.astimezone(where).utcoffset() or timedelta()


def _first_change(where: tzinfo, after: datetime, until: datetime) -> datetime | None:
    """The first moment in (after, until] from which another offset holds.

    Day by day: no zone changes there and back within one.
    """
    while after < until:
        step = min(after + _DAY, until)
        change = _change(where, after, step)
        if change is not None:
            return change
        after = step
    return None


def _change(where: tzinfo, low: datetime, high: datetime) -> datetime | None:
    """The moment in (low, high], whole seconds, at which the offset changed; None if it did not."""
    before = _offset(where, low)
    if _offset(where, high) == before:
        return None
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        if _offset(where, middle) == before:
            low = middle
        else:
            high = middle
    return high
