"""SIP status and Q.850 cause → result, row by row; and what our own reasons make of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.results import Blame as B  # noqa: N817 - three columns of a wide table
from engine.results import Disposition as D  # noqa: N817
from engine.results import Reached as R  # noqa: N817
from engine.results import Result
from gateways.sip import results
from gateways.sip.session import Event, Session, Why
from native.pjsua.wire import Final, Origin

# status, text, disposition, cause, blame, reached at once, reached after a 18x
ROWS = [
    (302, "Moved", D.FAILED, "redirected", B.NETWORK, R.NETWORK, R.NETWORK),
    (400, "Bad", D.FAILED, "request_refused", B.NODE, R.NOTHING, R.NETWORK),
    (401, "", D.FAILED, "trunk_authentication", B.PROVIDER, R.NOTHING, R.NETWORK),
    (403, "Forbidden", D.FAILED, "trunk_forbidden", B.PROVIDER, R.NOTHING, R.NETWORK),
    (404, "Not Found", D.INVALID, "invalid_number", B.REQUEST, R.NETWORK, R.NETWORK),
    (407, "", D.FAILED, "trunk_authentication", B.PROVIDER, R.NOTHING, R.NETWORK),
    (410, "Gone", D.INVALID, "invalid_number", B.REQUEST, R.NETWORK, R.NETWORK),
    (415, "", D.FAILED, "incompatible_media", B.PROVIDER, R.NOTHING, R.NETWORK),
    (484, "Incomplete", D.INVALID, "invalid_number", B.REQUEST, R.NETWORK, R.NETWORK),
    (486, "Busy Here", D.BUSY, "busy", B.CALLEE, R.NETWORK, R.NETWORK),
    (488, "", D.FAILED, "incompatible_media", B.PROVIDER, R.NOTHING, R.NETWORK),
    (500, "Server Error", D.FAILED, "trunk_unavailable", B.PROVIDER, R.NOTHING, R.NETWORK),
    (502, "Bad Gateway", D.FAILED, "trunk_unavailable", B.PROVIDER, R.NOTHING, R.NETWORK),
    (503, "Unavailable", D.FAILED, "trunk_unavailable", B.PROVIDER, R.NOTHING, R.NETWORK),
    (503, "CPS limit exceeded", D.FAILED, "trunk_congested", B.PROVIDER, R.NOTHING, R.NETWORK),
    (480, "Rate limit reached", D.FAILED, "trunk_congested", B.PROVIDER, R.NOTHING, R.NETWORK),
    (500, "too many calls", D.FAILED, "trunk_congested", B.PROVIDER, R.NOTHING, R.NETWORK),
    (504, "Time-out", D.FAILED, "network_timeout", B.NETWORK, R.NETWORK, R.NETWORK),
    (599, "?", D.FAILED, "trunk_unavailable", B.PROVIDER, R.NOTHING, R.NETWORK),
    (600, "Busy Everywhere", D.BUSY, "busy", B.CALLEE, R.NETWORK, R.NETWORK),
    (603, "Decline", D.REJECTED, "rejected", B.CALLEE, R.PERSON, R.PERSON),
    (604, "", D.INVALID, "invalid_number", B.REQUEST, R.NETWORK, R.NETWORK),
    (607, "Unwanted", D.REJECTED, "unwanted", B.CALLEE, R.PERSON, R.PERSON),
    (608, "Rejected", D.REJECTED, "blocked", B.PROVIDER, R.NETWORK, R.NETWORK),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[3]}")
def test_status(row: tuple[int, str, D, str, B, R, R]) -> None:
    code, text, disposition, cause, blame, once, rang = row
    found = results.verdict_of(Final(code, text))
    assert (found.disposition, found.cause, found.blame) == (disposition, cause, blame)
    assert found.reached is once
    assert results.verdict_of(Final(code, text, rang=True)).reached is rang


@pytest.mark.parametrize("code", [408, 480, 487])
def test_a_telephone_that_rang_was_not_answered(code: int) -> None:
    assert results.verdict_of(Final(code, rang=True)).cause == "no_answer"
    assert results.verdict_of(Final(code)).cause != "no_answer"


@pytest.mark.parametrize(
    ("q850", "disposition", "cause"),
    [
        (1, D.INVALID, "invalid_number"),
        (17, D.BUSY, "busy"),
        (18, D.NO_ANSWER, "unreachable"),
        (19, D.NO_ANSWER, "no_answer"),
        (20, D.NO_ANSWER, "unavailable"),
        (21, D.REJECTED, "rejected"),
        (28, D.INVALID, "invalid_number"),
        (34, D.FAILED, "trunk_congested"),
        (41, D.FAILED, "trunk_unavailable"),
        (102, D.FAILED, "network_timeout"),
    ],
)
def test_q850_is_more_exact_than_the_status(q850: int, disposition: D, cause: str) -> None:
    found = results.verdict_of(Final(503, "Service Unavailable", q850))
    assert (found.disposition, found.cause) == (disposition, cause)


def test_normal_clearing_leaves_the_status_alone() -> None:
    assert results.verdict_of(Final(486, "Busy", 16)).cause == "busy"


@pytest.mark.parametrize(
    ("reason", "cause", "reached"),
    [
        ("Connection refused", "trunk_unreachable", R.NOTHING),
        ("SSL certificate verification error", "trunk_certificate", R.NOTHING),
        ("Connection reset by peer", "trunk_connection_lost", R.NETWORK),
    ],
)
def test_what_could_not_be_delivered(reason: str, cause: str, reached: R) -> None:
    found = results.verdict_of(Final(503, reason, origin=Origin.TRANSPORT))
    assert (found.cause, found.reached) == (cause, reached)


def test_silence_is_not_nothing() -> None:
    found = results.verdict_of(Final(408, "Request Timeout", origin=Origin.TIMER))
    assert (found.cause, found.blame, found.reached) == ("network_timeout", B.NETWORK, R.NETWORK)


def test_a_200_nobody_can_talk_by_has_reached_a_person() -> None:
    found = results.verdict_of(Final(488, "", origin=Origin.LOCAL, answered=True))
    assert (found.cause, found.reached) == ("incompatible_media", R.PERSON)


def test_every_row_names_its_clause() -> None:
    for verdict in [*results.STATUS.values(), *results.Q850.values()]:
        assert verdict.clause.startswith(("RFC ", "Q.850 "))
        assert verdict.cause == verdict.cause.lower().replace(" ", "_")


def session(*events: Event, why: Why = Why.NONE) -> Session:
    made = Session()
    for event in events:
        made.advance(event, why if event in (Event.HANG_UP, Event.LOST) else Why.NONE)
    return made


P, RING, UP, BYE, END = Event.PLACE, Event.RING, Event.ANSWER, Event.HANG_UP, Event.END


@pytest.mark.parametrize(
    ("events", "why", "disposition", "cause", "reached"),
    [
        ([P, RING, BYE, END], Why.RING_TIMEOUT, D.NO_ANSWER, "no_answer", R.NETWORK),
        ([P, BYE, UP, END], Why.RING_TIMEOUT, D.NO_ANSWER, "no_answer", R.PERSON),
        ([P, RING, BYE, END], Why.CANCELLED, D.CANCELLED, "cancelled", R.NETWORK),
        ([BYE], Why.PROGRAM, D.CANCELLED, "cancelled", R.NOTHING),
        ([P, UP, BYE, END], Why.PROGRAM, D.ANSWERED, "answered", R.PERSON),
        ([P, UP, END], Why.NONE, D.ANSWERED, "answered", R.PERSON),
        ([P, UP, BYE, END], Why.CALL_LIMIT, D.ANSWERED, "call_limit", R.PERSON),
        ([P, UP, BYE, END], Why.DEAD_MEDIA, D.ANSWERED, "media_timeout", R.PERSON),
        ([P, UP, BYE, END], Why.MEDIA_LOST, D.INTERRUPTED, "media_lost", R.PERSON),
        ([P, UP, BYE, END], Why.PLAYBACK_FAILED, D.FAILED, "playback_failed", R.PERSON),
        ([P, UP, BYE, END], Why.PROGRAM_FAILED, D.FAILED, "program_failed", R.PERSON),
        ([P, RING, Event.LOST], Why.WORKER_DIED, D.INTERRUPTED, "worker_died", R.PERSON),
        ([P, UP, Event.LOST], Why.SHUTDOWN, D.CANCELLED, "shutdown", R.PERSON),
    ],
)
def test_our_own_reason_wins(
    events: list[Event], why: Why, disposition: D, cause: str, reached: R
) -> None:
    found = results.conclude(session(*events, why=why), Final(487, "Request Terminated"))
    assert (found.disposition, found.cause, found.reached) == (disposition, cause, reached)


@given(
    st.builds(
        Final,
        code=st.integers(0, 799),
        reason=st.text(max_size=40),
        q850=st.integers(0, 127),
        origin=st.sampled_from(Origin),
        answered=st.booleans(),
        rang=st.booleans(),
    )
)
def test_whatever_comes_is_classified_and_doubt_goes_upwards(final: Final) -> None:
    found = results.verdict_of(final)
    made: Result = results.result(found, final)
    assert made.cause
    assert found.disposition is not D.ANSWERED
    if final.answered:
        assert found.reached is R.PERSON
    if final.rang:
        assert found.reached is not R.NOTHING
        assert not made.trunk_failed
