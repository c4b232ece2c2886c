"""The parts of a message and what they come to."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from engine.results import Awaiting, Disposition, Reached
from gateways.instants import milliseconds, moment
from gateways.smpp.aggregate import (
    Flag,
    Part,
    Slip,
    State,
    awaiting,
    closes_at,
    final,
    flags_of,
    id_rows,
    incomplete,
    key_of,
    lifetime_s,
    slip_of,
    verdict,
)
from gateways.smpp.records import ReceiptState
from gateways.smpp.settings import SmppSettings
from tests.gateways.smpp.books import NOON, PHONE

FINAL = [state for state in ReceiptState if state.final]
BAD = [state for state in FINAL if state is not ReceiptState.DELIVERED]
NOW = milliseconds(NOON)


def part(number: int, total: int, state: State, **fields: Any) -> Part:
    known: dict[str, Any] = {
        "key": key_of(9, number),
        "provider_id": 1,
        "state": int(state),
        "progress": 0,
        "flags": 0,
        "total": total,
        "destination": PHONE,
        "reference": number,
        "source": "",
        "id_key": "" if state in (State.UNKNOWN, State.REFUSED) else f"id{number}",
        "message_id": "",
        "status": 0x0B if state is State.REFUSED else 0,
        "answered_at": NOW + number,
        "closes_at": NOW + 1000 * number,
        "due_at": NOW,
    }
    return Part(**{**known, **fields})


def received(number: int, total: int, state: ReceiptState, flags: int = 0) -> Part:
    slip = Slip(state, "069", "1", "2", NOW + 5000 + number)
    reached = State.DELIVERED if state is ReceiptState.DELIVERED else State.FAILED
    return part(number, total, reached, flags=flags, receipt=msgspec.json.encode(slip).decode())


def any_part(number: int, total: int, flags: int) -> st.SearchStrategy[Part]:
    return st.one_of(
        st.sampled_from(FINAL).map(lambda state: received(number, total, state, flags)),
        st.sampled_from([State.ACCEPTED, State.UNKNOWN, State.REFUSED]).map(
            lambda state: part(number, total, state, flags=flags)
        ),
    )


@st.composite
def any_message(draw: st.DrawFn) -> list[Part]:
    total = draw(st.integers(1, 4))
    flags = draw(st.integers(0, 15))
    numbers = draw(st.sets(st.integers(1, total), min_size=1))
    return [draw(any_part(number, total, flags)) for number in sorted(numbers)]


@given(any_message())
def test_every_message_has_an_end(message: list[Part]) -> None:
    result = final(message)
    known = verdict(message)
    assert known is None or known == result
    delivered = all(it.state == State.DELIVERED for it in message) and not incomplete(message)
    assert delivered == (result.cause == "delivered")


@given(any_message())
def test_what_a_person_may_have_is_never_sent_again_unasked(message: list[Part]) -> None:
    result = final(message)
    perhaps_there = {State.ACCEPTED, State.UNKNOWN, State.DELIVERED}
    slips = [slip for it in message if (slip := slip_of(it))]
    if any(it.state in perhaps_there for it in message) or any(
        slip.state is ReceiptState.UNKNOWN for slip in slips
    ):
        assert result.reached is Reached.PERSON
        assert result.disposition is not Disposition.NO_ANSWER
    assert not result.again or message[0].flags & Flag.AT_LEAST_ONCE


@given(any_message())
def test_a_message_waits_while_a_receipt_can_come(message: list[Part]) -> None:
    if verdict(message) is None:
        awaited = awaiting(message)
        doubt = incomplete(message) or any(it.state == State.UNKNOWN for it in message)
        assert (awaited.accepted_at is None) == doubt
        assert awaited.closes_at == moment(max(it.closes_at for it in message))
        assert awaited.rows == id_rows(message)


@given(st.lists(st.sampled_from(FINAL), min_size=1, max_size=4))
def test_the_worst_receipt_decides_wherever_it_is(states: list[ReceiptState]) -> None:
    causes = set()
    for order in set(permutations(states)):
        message = [received(n, len(order), state) for n, state in enumerate(order, start=1)]
        result = verdict(message)
        assert result is not None
        assert result.ended_at == moment(NOW + 5000 + len(order))
        causes.add((result.cause, result.disposition, result.reached))
    assert len(causes) == 1


def test_part_of_it_arrived() -> None:
    for state in BAD:
        result = verdict([received(1, 2, ReceiptState.DELIVERED), received(2, 2, state)])
        assert result is not None
        assert result.disposition is Disposition.FAILED
        assert result.reached is Reached.PERSON


def test_a_refused_part_ends_it_whatever_the_others_do() -> None:
    alone = verdict([part(1, 1, State.REFUSED)])
    assert alone is not None
    assert (alone.cause, alone.reached) == ("invalid_number", Reached.NOTHING)
    for other in (State.ACCEPTED, State.UNKNOWN):
        result = verdict([part(1, 3, State.REFUSED), part(2, 3, other)])
        assert result is not None
        assert (result.cause, result.reached) == ("invalid_number", Reached.PERSON)


def test_a_message_of_the_longest_kind_has_a_key_of_its_own_per_part() -> None:
    keys = {key_of(spool_id, number) for spool_id in (1, 2) for number in range(1, 256)}
    assert len(keys) == 510
    assert {part(number, 255, State.ACCEPTED).spool_id for number in (1, 255)} == {9}


def test_times_and_lifetimes() -> None:
    settings = SmppSettings(receipt_wait_s=100, receipt_grace_s=10)
    assert lifetime_s(0, settings) == 110
    assert lifetime_s(50, settings) == 60
    assert (closes_at(NOON, 50, settings) - NOON).total_seconds() == 60
    assert moment(milliseconds(NOON)) == NOON


def test_settings_as_flags() -> None:
    assert flags_of(SmppSettings()) == Flag.QUERY
    assert flags_of(SmppSettings(receipts="none", query=False)) == Flag.UNRECEIPTED
    assert flags_of(SmppSettings(receipts="failure", query=False)) == Flag.QUIET
    assert Flag.AT_LEAST_ONCE in flags_of(SmppSettings(unknown="at_least_once"))


def test_a_spool_that_waits_shows_its_ids_in_order() -> None:
    message = [part(number, 2, State.ACCEPTED) for number in (1, 2)]
    assert isinstance(awaiting(message), Awaiting)
    assert [(row.name, row.data) for row in id_rows(message)] == [
        ("message_id", "id1"),
        ("message_id", "id2"),
        ("parts", "2"),
    ]
