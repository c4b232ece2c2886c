"""The call's state machine: every pair of state and event, and whole lives of calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.sip.session import (
    TABLE,
    Action,
    Event,
    ProtocolViolationError,
    Session,
    State,
    Why,
)

IMPOSSIBLE = {
    *((State.IDLE, event) for event in (Event.RING, Event.ANSWER, Event.MEDIA, Event.END)),
    *((state, Event.PLACE) for state in (State.CALLING, State.RINGING, State.UP, State.LEAVING)),
    (State.UP, Event.RING),
    (State.UP, Event.ANSWER),
}


def test_the_table_has_every_pair_but_the_impossible() -> None:
    assert {(s, e) for s in State for e in Event} - set(TABLE) == IMPOSSIBLE


def test_an_impossible_event_is_a_bug_and_changes_nothing() -> None:
    session = Session()
    with pytest.raises(ProtocolViolationError, match="RING in IDLE"):
        session.advance(Event.RING)
    assert session.state is State.IDLE


def test_an_answered_call() -> None:
    session = Session()
    assert session.advance(Event.PLACE) == (Action.SEND_CALL,)
    assert session.advance(Event.RING) == (Action.TELL_RINGING,)
    assert session.advance(Event.MEDIA) == (Action.CONNECT_MEDIA,)
    assert session.advance(Event.RING) == ()
    assert session.advance(Event.ANSWER) == (Action.TELL_CONNECTED,)
    assert session.advance(Event.HANG_UP, Why.PROGRAM) == (Action.SEND_HANG_UP,)
    assert session.advance(Event.END) == (Action.FINISH,)
    assert (session.connected, session.rang, session.why) == (True, True, Why.PROGRAM)


def test_a_200_that_crosses_our_cancel_is_remembered_and_not_told() -> None:
    session = Session()
    session.advance(Event.PLACE)
    session.advance(Event.HANG_UP, Why.RING_TIMEOUT)
    assert session.advance(Event.ANSWER) == ()
    assert (session.answered_late, session.connected) == (True, False)


def test_the_first_reason_stands() -> None:
    session = Session()
    session.advance(Event.PLACE)
    session.advance(Event.HANG_UP, Why.RING_TIMEOUT)
    session.advance(Event.HANG_UP, Why.CANCELLED)
    session.advance(Event.LOST, Why.WORKER_DIED)
    assert session.why is Why.RING_TIMEOUT


def test_nothing_happens_after_the_end() -> None:
    session = Session()
    session.advance(Event.HANG_UP, Why.CANCELLED)
    for event in Event:
        assert session.advance(event, Why.SHUTDOWN) == ()
    assert (session.state, session.why, session.placed) == (State.OVER, Why.CANCELLED, False)


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_any_life_finishes_once_and_hangs_up_at_most_once(events: list[Event]) -> None:
    session = Session()
    done: list[Action] = []
    for event in events:
        if (session.state, event) not in IMPOSSIBLE:
            done += session.advance(event, Why.PROGRAM if event is Event.HANG_UP else Why.NONE)
    assert done.count(Action.FINISH) == (session.state is State.OVER)
    assert done.count(Action.SEND_HANG_UP) <= 1
    assert done.count(Action.SEND_CALL) == session.placed
    assert done.count(Action.TELL_RINGING) <= 1
    assert done.count(Action.TELL_CONNECTED) == session.connected
