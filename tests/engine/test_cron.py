"""Calendar rules against every minute of the calendar: fields, zones, and where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.calendar_rules import (
    RANGES,
    Rule,
    check,
    last_fire,
    moment,
    next_fire,
    offset_name,
    zone,
)
from engine.errors import InvalidError

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE = timedelta(minutes=1)

# Changes at 01:00 UTC, at midnight, of half an hour, of two hours, of a whole day, southern, none.
ZONES = (
    "Europe/Berlin", "America/New_York", "Africa/Cairo", "Australia/Lord_Howe",
    "Antarctica/Troll", "Pacific/Apia", "America/Santiago", "Asia/Kolkata", "UTC",
)  # fmt: skip


def at(text: str, where: tzinfo = UTC) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=where).astimezone(UTC)


def runs(rule: Rule, where: tzinfo, after: datetime, count: int) -> list[str]:
    """The next runs as the wall clock shows them."""
    found = []
    for _ in range(count):
        following = next_fire(rule, where, after)
        assert following is not None
        after = following
        found.append(after.astimezone(where).strftime("%Y-%m-%d %H:%M %z"))
    return found


# --- fields --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "2026-03-10 08:31"),
        ({"minute": "0"}, "2026-03-10 09:00"),
        ({"minute": "*/20"}, "2026-03-10 08:40"),
        ({"hour": "9", "minute": "05"}, "2026-03-10 09:05"),
        ({"hour": "8", "minute": "30"}, "2026-03-11 08:30"),
        ({"hour": "6-7, 20", "minute": "15,45"}, "2026-03-10 20:15"),
        ({"hour": "8-18/4", "minute": "0"}, "2026-03-10 12:00"),
        # 10 March 2026 is a Tuesday: ICTCore's 3.
        ({"weekday": "1", "hour": "0", "minute": "0"}, "2026-03-15 00:00"),
        ({"weekday": "3", "hour": "0", "minute": "0"}, "2026-03-17 00:00"),
        ({"weekday": "7", "hour": "0", "minute": "0"}, "2026-03-14 00:00"),
        # All fields must match: Friday the 13th, not every Friday and every 13th.
        ({"day": "13", "weekday": "6", "hour": "0", "minute": "0"}, "2026-03-13 00:00"),
        ({"day": "14", "weekday": "6", "hour": "0", "minute": "0"}, "2026-08-14 00:00"),
        ({"month": "2", "day": "29", "hour": "0", "minute": "0"}, "2028-02-29 00:00"),
        ({"year": "2030", "hour": "0", "minute": "0"}, "2030-01-01 00:00"),
        ({"year": "2027,2029", "month": "2", "day": "1", "hour": "*"}, "2027-02-01 00:00"),
    ],
)
def test_the_next_run_in_utc(fields: dict[str, str], expected: str) -> None:
    rule = Rule(**fields)
    check(rule)
    assert next_fire(rule, UTC, at("2026-03-10 08:30")) == at(expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hour", "25"), ("hour", "24"), ("hour", "-1"), ("minute", "60"), ("day", "0"),
        ("day", "32"), ("month", "13"), ("weekday", "0"), ("weekday", "8"), ("year", "1969"),
        ("year", "2100"), ("minute", "*/0"), ("minute", "5/10"), ("hour", "17-9"), ("hour", ""),
        ("hour", "9,"), ("hour", "nine"), ("weekday", "MON"), ("day", "L"), ("hour", "1.5"),
        ("minute", "٣"), ("minute", ",".join(["1"] * 200)),
    ],
)  # fmt: skip
def test_nonsense_is_refused_by_its_field(field: str, value: str) -> None:
    with pytest.raises(InvalidError) as refused:
        check(Rule(**{field: value}))
    assert refused.value.field == field


@pytest.mark.parametrize(
    "rule",
    [
        Rule(month="2", day="31"),
        Rule(month="2,4", day="31", weekday="2"),
        Rule(year="2027", month="2", day="29"),
        Rule(year="2020"),
    ],
)
def test_what_never_comes_has_no_next_run(rule: Rule) -> None:
    assert next_fire(rule, BERLIN, at("2026-03-10 08:30")) is None


# --- where clocks change (Berlin: 29 March 2026 02:00 to 03:00, 25 October 03:00 to 02:00) --------
def test_a_daily_run_in_the_skipped_hour_happens_once_just_after_it() -> None:
    daily = Rule(hour="2", minute="30")
    assert runs(daily, BERLIN, at("2026-03-27 12:00"), 4) == [
        "2026-03-28 02:30 +0100",
        "2026-03-29 03:00 +0200",
        "2026-03-30 02:30 +0200",
        "2026-03-31 02:30 +0200",
    ]


def test_a_daily_run_in_the_repeated_hour_happens_once() -> None:
    daily = Rule(hour="2", minute="30")
    assert runs(daily, BERLIN, at("2026-10-23 12:00"), 4) == [
        "2026-10-24 02:30 +0200",
        "2026-10-25 02:30 +0200",
        "2026-10-26 02:30 +0100",
        "2026-10-27 02:30 +0100",
    ]


def test_asked_within_the_second_pass_the_run_was_already() -> None:
    second_pass = at("2026-10-25 01:10")  # 02:10 for the second time
    assert runs(Rule(hour="2", minute="30"), BERLIN, second_pass, 1) == ["2026-10-26 02:30 +0100"]


def test_several_runs_of_a_skipped_hour_are_one() -> None:
    rule = Rule(hour="2,3", minute="0,30")
    assert runs(rule, BERLIN, at("2026-03-29 00:00"), 3) == [
        "2026-03-29 03:00 +0200",
        "2026-03-29 03:30 +0200",
        "2026-03-30 02:00 +0200",
    ]


def test_every_hour_is_every_sixty_minutes() -> None:
    hourly = Rule(minute="15")
    spring = runs(hourly, BERLIN, at("2026-03-29 00:00"), 3)
    assert spring == ["2026-03-29 01:15 +0100", "2026-03-29 03:15 +0200", "2026-03-29 04:15 +0200"]
    autumn = runs(hourly, BERLIN, at("2026-10-25 00:00"), 3)
    assert autumn == ["2026-10-25 02:15 +0200", "2026-10-25 02:15 +0100", "2026-10-25 03:15 +0100"]


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("year", [2026, 2037])
def test_a_daily_run_is_neither_doubled_nor_lost_in_a_year(name: str, year: int) -> None:
    where = zone(name)
    for hour, minute in ((0, 0), (1, 45), (2, 30)):
        rule = Rule(hour=str(hour), minute=str(minute))
        before = datetime(year, 1, 1, tzinfo=where) - MINUTE
        dates = [text[:10] for text in runs(rule, where, before, 365)]
        first = datetime(year, 1, 1, tzinfo=where)
        assert dates == [f"{first + timedelta(days=n):%Y-%m-%d}" for n in range(365)]


# --- against all minutes -------------------------------------------------------------------------
def _matches(rule: Rule, local: datetime) -> bool:
    numbers = {
        "year": local.year, "month": local.month, "day": local.day,
        "weekday": local.isoweekday() % 7 + 1, "hour": local.hour, "minute": local.minute,
    }  # fmt: skip
    return all(_holds(getattr(rule, name), n, RANGES[name][0]) for name, n in numbers.items())


def _holds(text: str, number: int, low: int) -> bool:
    for term in text.split(","):
        span, _, step = term.partition("/")
        first, _, last = span.partition("-")
        start = low if first == "*" else int(first)
        end = 10_000 if first == "*" else int(last or first)
        if start <= number <= end and (number - start) % int(step or 1) == 0:
            return True
    return False


def _is_run(rule: Rule, where: tzinfo, minute: datetime) -> bool:
    """The module's own words, minute by minute."""
    local = minute.astimezone(where)
    if rule.hour == "*":
        return _matches(rule, local)
    if _matches(rule, local) and local.fold == 0:
        return True
    before, now = (minute - MINUTE).astimezone(where).utcoffset(), local.utcoffset()
    assert before is not None
    assert now is not None
    skipped = int((now - before) / MINUTE)
    wall = local.replace(tzinfo=None)
    return any(_matches(rule, wall - n * MINUTE) for n in range(1, skipped + 1))


def _field(name: str) -> st.SearchStrategy[str]:
    low, high = RANGES[name]
    numbers = st.integers(low, high)
    spans = st.tuples(numbers, numbers).map(lambda pair: f"{min(pair)}-{max(pair)}")
    steps = st.integers(1, 20).map(lambda step: f"*/{step}")
    term = st.one_of(numbers.map(str), spans, steps)
    return st.one_of(st.just("*"), term, st.lists(term, min_size=2, max_size=3).map(",".join))


RULES = st.builds(
    Rule,
    day=st.sampled_from(["*", "1-15", "*/2", "28,29,30,31"]),
    weekday=st.sampled_from(["*", "2-6", "1", "1,7"]),
    hour=st.one_of(st.sampled_from(["*", "*/1", "0", "1", "2", "1-3"]), _field("hour")),
    minute=_field("minute"),
)
# Days around changes, and any days.
MOMENTS = st.one_of(
    st.sampled_from([
        at("2026-03-28 20:00"), at("2026-10-24 20:00"), at("2026-03-07 20:00"),
        at("2026-10-31 20:00"), at("2026-04-23 12:00"), at("2026-10-29 12:00"),
        at("2026-04-04 06:00"), at("2026-10-03 06:00"), at("2011-12-29 12:00"),
        at("2026-04-04 20:00"), at("2026-09-05 20:00"),
    ]),
    st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)).map(lambda d: d.replace(tzinfo=UTC)),  # noqa: DTZ001 - made aware there
)  # fmt: skip


@given(rule=RULES, name=st.sampled_from(ZONES), start=MOMENTS, ahead=st.integers(0, 14 * 3600))
@settings(max_examples=300)
def test_next_is_the_first_minute_that_is_a_run(
    rule: Rule, name: str, start: datetime, ahead: int
) -> None:
    where, after = zone(name), start + timedelta(seconds=ahead)
    found = next_fire(rule, where, after)
    minute = after.replace(second=0, microsecond=0) + MINUTE
    for _ in range(36 * 60):
        if _is_run(rule, where, minute):
            assert found == minute
            return
        minute += MINUTE
    assert found is None or found >= minute


@given(
    rule=st.builds(Rule, **{name: _field(name) for name in RANGES if name != "year"}),
    name=st.sampled_from(ZONES),
    after=MOMENTS,
)
def test_runs_follow_one_another(rule: Rule, name: str, after: datetime) -> None:
    where = zone(name)
    first = next_fire(rule, where, after)
    if first is None:
        return
    assert first > after
    assert (first.second, first.microsecond) == (0, 0)
    assert _is_run(rule, where, first)
    second = next_fire(rule, where, first)
    if second is None:
        return
    assert second > first
    assert next_fire(rule, where, second - MINUTE) == second
    assert last_fire(rule, where, first, second) == second
    assert last_fire(rule, where, first, second - MINUTE) == first


# --- zones and wall clocks -----------------------------------------------------------------------
def test_a_wall_clocks_time_as_a_moment() -> None:
    def berlin(text: str) -> datetime:
        return moment(datetime.fromisoformat(text), BERLIN)

    assert berlin("2026-07-01 12:00") == at("2026-07-01 10:00")
    assert berlin("2026-03-29 02:59:59") == at("2026-03-29 01:00")  # skipped
    assert berlin("2026-10-25 02:30") == at("2026-10-25 00:30")  # the first of two


@given(st.integers(-86_399, 86_399))
def test_a_fixed_offset_has_a_name(east_s: int) -> None:
    name = offset_name(east_s)
    assert zone(name).utcoffset(None) == timedelta(seconds=east_s)


@pytest.mark.parametrize(
    "name", ["", "Nowhere/City", "../../etc/passwd", "/etc/localtime", "America", "+25:00", "A\0B"]
)
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidError) as refused:
        zone(name)
    assert refused.value.field == "timezone"
