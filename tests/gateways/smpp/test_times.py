from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidError
from gateways.smpp import times

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
FORM = re.compile(r"\d\d(0\d|1[0-2])([0-2]\d|3[01])([01]\d|2[0-3])[0-5]\d[0-5]\d000R")
moments = st.datetimes(
    datetime(2000, 1, 2),  # noqa: DTZ001 - the strategy adds the zone
    datetime(2099, 12, 30),  # noqa: DTZ001
    timezones=st.integers(-48, 48).map(lambda quarter: timezone(timedelta(minutes=15 * quarter))),
)


@given(st.integers(0, times.MAX_SPAN_S))
def test_a_span_is_read_as_it_was_written(seconds: int) -> None:
    written = times.relative(seconds)
    if not seconds:
        assert written == ""
        return
    assert FORM.fullmatch(written)
    assert times.parse(written, NOW) == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.2, "000000000001000R"),
        (90, "000000000130000R"),
        (86_399, "000000235959000R"),
        (31 * 86_400, "000031000000000R"),
        (32 * 86_400, "000102000000000R"),
        (63 * 86_400, "000203000000000R"),
    ],
)
def test_spans_by_hand(seconds: float, written: str) -> None:
    assert times.relative(seconds) == written


@pytest.mark.parametrize("seconds", [-1, times.MAX_SPAN_S + 1, float("nan"), float("inf")])
def test_a_span_that_cannot_be_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidError) as raised:
        times.relative(seconds)
    assert raised.value.field == "validity"


@given(moments)
def test_a_moment_is_read_as_it_was_written(at: datetime) -> None:
    written = times.absolute(at)
    assert len(written) == 16
    read = times.parse(written, NOW)
    assert read == at.replace(microsecond=at.microsecond // 100_000 * 100_000)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("260301120000000+", NOW),
        ("260301140000008+", NOW),
        ("260301070000020-", NOW),
        ("260301120000500+", NOW + timedelta(milliseconds=500)),
        ("020610233429000R", NOW + timedelta(days=2 * 365 + 6 * 30 + 10, hours=23, minutes=34,
                                             seconds=29)),  # the example of §7.1.1.2
    ],
)  # fmt: skip
def test_times_by_hand(text: str, at: datetime) -> None:
    assert times.parse(text, NOW) == at


@pytest.mark.parametrize(
    "text",
    ["", "260301", "260231120000000+", "261301120000000+", "260301120000099+", "26030112000000x+",
     "260301120000000Z", "260301120000000+\n", "２60301120000000+", "000000250000000-"],  # noqa: RUF001
)  # fmt: skip
def test_what_is_no_time_is_none(text: str) -> None:
    assert times.parse(text, NOW) is None


@given(st.text(st.sampled_from("0123456789+-R"), min_size=15, max_size=17))
def test_nothing_from_outside_fails(text: str) -> None:
    read = times.parse(text, NOW)
    assert read is None or read.tzinfo is not None
