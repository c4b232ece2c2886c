"""The session as a pure machine: every message ends once, whatever the peer and the clock do."""

from __future__ import annotations

import math
import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gateways.smpp.deliveries import MAX_UNANSWERED_DELIVERIES
from gateways.smpp.events import (
    Answered,
    BindRefused,
    Bound,
    Closed,
    Delivered,
    Event,
    PeerUnbound,
    Queried,
    Unanswered,
)
from gateways.smpp.login import Login
from gateways.smpp.pdu import MAX_SEQUENCE, Command, Pdu, Tag
from gateways.smpp.session import Session
from gateways.smpp.settings import SmppSettings
from gateways.smpp.states import ALIVE, TABLE, State, Step
from gateways.smpp.window import LATE_KEPT, Sequences, Window
from tests.gateways.smpp.faulty import data_body, deliver_body, pdu, submit_resp
from tests.gateways.smpp.seat import fates

TIMEOUT_S = 10.0
LINK_S = 30.0
BODY = b"the body of a submit_sm"


def _session(command: Command = Command.BIND_TRANSCEIVER, **fields: Any) -> Session:
    defaults = {"window": 4, "response_timeout_s": TIMEOUT_S, "enquire_link_s": LINK_S}
    found = SmppSettings(**{**defaults, **fields})
    login = Login("esme", "secret")
    session = Session(login, found, command=command, max_pdu_bytes=70_000, now=0.0)
    session.open(0.0)
    return session


def _bound(command: Command = Command.BIND_TRANSCEIVER, **fields: Any) -> Session:
    session = _session(command, **fields)
    (bind,) = _read(session)
    answer = pdu(command | 0x80000000, 0, bind.sequence, b"smsc\0")
    assert session.feed(answer, 0.0) == [Bound()]
    return session


def _read(session: Session, now: float = 0.0) -> list[Pdu]:
    """What the peer reads of it."""
    data, found = session.take_output(now), []
    while data:
        length, command, status, sequence = struct.unpack_from(">IIII", data)
        found.append(Pdu(command, status, sequence, data[16:length]))
        data = data[length:]
    return found


def _submit(session: Session, *tokens: Any) -> list[int]:
    return list(session.submit_many([(BODY, token) for token in tokens]))


# --- any order of anything


class Conversation(RuleBasedStateMachine):
    """A session and a peer that does what it likes; ``fates`` are checked against a model."""

    sequences: Bundle[int] = Bundle("sequences")

    @initialize(window=st.integers(1, 8), last=st.sampled_from([0, MAX_SEQUENCE - 3, MAX_SEQUENCE]))
    def bind(self, window: int, last: int) -> None:
        self.session = _bound(window=window)
        if last:
            self.session._out._sequences = Sequences(self.session._out._in_use, last=last)
        self.window = window
        self.now = 0.0
        self.tokens = 0
        self.left: dict[int, int] = {}  # token by sequence, what the peer has read
        self.taken: set[int] = set()
        self.by_sequence: dict[int, int] = {}
        self.events: list[Event] = []
        self.unbound = False

    def _tell(self, events: list[Event]) -> None:
        self.events += events

    @rule(count=st.integers(0, 8))
    def submit(self, count: int) -> None:
        count = min(count, self.session.room)
        found = _submit(self.session, *range(self.tokens, self.tokens + count))
        assert len(set(found)) == count
        assert all(1 <= one <= MAX_SEQUENCE for one in found)
        self.by_sequence.update(zip(found, range(self.tokens, self.tokens + count), strict=True))
        self.tokens += count

    @rule(target=sequences)
    def write(self) -> int:
        """The peer reads all; nothing is submitted after its unbind."""
        submits = [one for one in _read(self.session, self.now) if one.command == 4]
        assert not (submits and self.unbound)
        for one in submits:
            assert one.body == BODY
            self.left[one.sequence] = self.by_sequence[one.sequence]
            self.taken.add(self.left[one.sequence])
        return submits[0].sequence if submits else 1

    @rule(data=st.data(), status=st.sampled_from([0, 0x58]), cut=st.integers(0, 40))
    def answer(self, data: st.DataObject, status: int, cut: int) -> None:
        if not self.left:
            return
        sequence = data.draw(st.sampled_from(sorted(self.left)))
        octets = submit_resp(Pdu(4, 0, sequence), status)
        self._tell(self.session.feed(octets[:cut], self.now))
        self._tell(self.session.feed(octets[cut:], self.now))

    @rule(sequence=sequences)
    def answer_again_or_from_nowhere(self, sequence: int) -> None:
        self._tell(self.session.feed(submit_resp(Pdu(4, 0, sequence)), self.now))

    @rule(sequence=sequences)
    def nack(self, sequence: int) -> None:
        self._tell(self.session.feed(pdu(Command.GENERIC_NACK, 3, sequence), self.now))

    @rule(wait=st.sampled_from([0.0, 1.0, 5.0, TIMEOUT_S]))
    def pass_time(self, wait: float) -> None:
        self.now += wait
        if self.session.deadline() <= self.now:
            self._tell(self.session.tick(self.now))
        assert self.session.deadline() > self.now

    @rule()
    def peer_enquires(self) -> None:
        self._tell(self.session.feed(pdu(Command.ENQUIRE_LINK, 0, 3), self.now))

    @rule()
    def peer_delivers(self) -> None:
        for delivery in (
            pdu(Command.DELIVER_SM, 0, 4, deliver_body()), pdu(Command.DATA_SM, 0, 5, data_body())
        ):  # fmt: skip
            self._tell(self.session.feed(delivery, self.now))

    @precondition(lambda self: self.tokens > 5)
    @rule()
    def peer_unbinds(self) -> None:
        self._tell(self.session.feed(pdu(Command.UNBIND, 0, 9), self.now))
        self.unbound = True

    @precondition(lambda self: self.tokens > 5)
    @rule()
    def we_unbind(self) -> None:
        self.session.drain()
        assert self.session.room == 0
        self._tell(self.session.unbind(self.now))

    @precondition(lambda self: self.tokens > 5)
    @rule(octets=st.sampled_from([b"", b"\0\0\0\7", b"HTTP"]))
    def end(self, octets: bytes) -> None:
        self._tell(self.session.feed(octets, self.now) if octets else self.session.eof())

    @invariant()
    def each_token_ends_at_most_once(self) -> None:
        for token, told in fates(self.events).items():
            first, *more = [word.split()[0] for word in told]
            assert first in {"answered", "unanswered", "in", "unsent"}
            assert more == [] or (first == "unanswered" and more == ["late"])
            assert (first == "unsent") == (token not in self.taken)

    @invariant()
    def room_is_what_is_left_of_the_window(self) -> None:
        if self.session.state is State.BOUND_TRX:
            assert self.session.room == self.window - (self.tokens - len(fates(self.events)))

    @invariant()
    def closed_is_the_last_event(self) -> None:
        ends = [one for one in self.events if isinstance(one, Closed)]
        assert len(ends) == (1 if self.session.closed else 0)
        assert not ends or self.events[-1] is ends[0]
        assert not ends or len(fates(self.events)) == self.tokens

    def teardown(self) -> None:
        if hasattr(self, "session"):
            self._tell(self.session.eof())
            self.each_token_ends_at_most_once()
            self.closed_is_the_last_event()


Conversation.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestConversation = Conversation.TestCase


@given(octets=st.lists(st.binary(max_size=60), max_size=10), bound=st.booleans())
def test_no_octets_raise(octets: list[bytes], bound: bool) -> None:  # noqa: FBT001
    session = _bound() if bound else _session()
    if bound:
        _submit(session, "a", "b")
    events = [event for piece in octets for event in session.feed(piece, 1.0)]
    events += session.eof()
    assert isinstance(events[-1], Closed)


@given(
    command=st.sampled_from(list(Command)),
    status=st.integers(0, 0xFF),
    sequence=st.integers(0, 5),
    body=st.binary(max_size=60),
    bound=st.booleans(),
)
def test_no_pdu_raises(
    command: Command,
    status: int,
    sequence: int,
    body: bytes,
    bound: bool,  # noqa: FBT001
) -> None:
    session = _bound() if bound else _session()
    if bound:
        _submit(session, "a")
        session.query(b"id\0\0\0\0", "q")
        _read(session)
    events = session.feed(pdu(command, status, sequence, body), 1.0) + session.eof()
    assert isinstance(events[-1], Closed)
    assert len([one for one in events if isinstance(one, Queried)]) <= 1


@given(cuts=st.lists(st.integers(0, 400), max_size=12))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    def talk() -> tuple[Session, bytes]:
        session = _bound()
        _submit(session, "a", "b", "c")
        submits = [one for one in _read(session) if one.command == 4]
        return session, b"".join(
            (*map(submit_resp, submits), pdu(Command.DELIVER_SM, 0, 5, deliver_body()))
        )

    whole, octets = talk()
    pieces, _ = talk()
    expected = whole.feed(octets, 1.0)
    edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    found = [
        event for start, end in pairwise(edges) for event in pieces.feed(octets[start:end], 1.0)
    ]
    assert found == expected
    assert len(found) == 4


# --- sequence numbers


def test_sequence_wraps_and_skips_what_waits() -> None:
    session = _bound(window=10)
    first = _submit(session, "old")
    session._out._sequences = Sequences(session._out._in_use, last=MAX_SEQUENCE - 1)
    assert first == [2]
    assert _submit(session, *"abcd") == [MAX_SEQUENCE, 1, 3, 4]
    assert len(_read(session)) == 5


def test_sequence_skips_what_may_still_be_answered_late() -> None:
    session = _bound(window=10)
    _submit(session, "old")
    _read(session)
    session.tick(TIMEOUT_S)
    session._out._sequences = Sequences(session._out._in_use, last=1)
    assert _submit(session, "new") == [3]


@given(count=st.integers(1, 50), last=st.integers(1, MAX_SEQUENCE), used=st.sets(st.integers(1, 9)))
def test_sequences_are_free_and_in_range(count: int, last: int, used: set[int]) -> None:
    sequences = Sequences(used.__contains__, last=last)
    found = sequences.take(count)
    assert len(set(found)) == count
    assert not used & set(found)
    assert all(1 <= one <= MAX_SEQUENCE for one in found)


# --- the window


def test_late_answers_are_remembered_so_many() -> None:
    window = Window(TIMEOUT_S)
    for number in range(LATE_KEPT + 10):
        window.reserve([number], [f"token {number}"])
        window.leave(0.0)
    assert len(window.expire(TIMEOUT_S)) == LATE_KEPT + 10
    assert window.answered(10) == ("token 10", True)
    with pytest.raises(KeyError):
        window.answered(9)
    with pytest.raises(KeyError):
        window.answered(10)


def test_answer_to_what_never_left_is_none() -> None:
    session = _bound()
    (sequence,) = _submit(session, "a")
    assert session.feed(submit_resp(Pdu(4, 0, sequence)), 0.0) == []
    assert session.counts.unknown_sequence == 1
    assert session.eof()[-1].unsent == ("a",)  # type: ignore[union-attr]


def test_time_to_answer_runs_from_the_writing() -> None:
    session = _bound()
    _submit(session, "a")
    assert session.tick(20.0) == []
    _read(session, 20.0)
    assert session.deadline() == 20.0 + TIMEOUT_S
    assert session.tick(20.0 + TIMEOUT_S) == [Unanswered("a")]
    assert session.room == 4


# --- time


def test_bind_timeout() -> None:
    session = _session(bind_timeout_s=5.0)
    assert session.deadline() == 5.0
    assert session.tick(4.999) == []
    assert session.tick(5.0) == [Closed("no answer to the bind", clean=False)]
    assert session.deadline() == math.inf


def test_idle_session_enquires_and_ends_without_an_answer() -> None:
    session = _bound()
    assert session.deadline() == LINK_S
    assert session.tick(LINK_S) == []
    assert [one.command for one in _read(session)] == [Command.ENQUIRE_LINK]
    assert session.deadline() == LINK_S + TIMEOUT_S
    # Requests of its own do not show that the peer reads ours.
    session.feed(pdu(Command.ENQUIRE_LINK, 0, 1), LINK_S + 1)
    assert session.tick(LINK_S + TIMEOUT_S) == [Closed("no answer to enquire_link", clean=False)]


@pytest.mark.parametrize("command", [Command.ENQUIRE_LINK_RESP, Command.GENERIC_NACK])
def test_idle_session_lives_on_with_an_answer(command: Command) -> None:
    session = _bound()
    session.tick(LINK_S)
    (link,) = _read(session)
    assert session.feed(pdu(command, 0, link.sequence), LINK_S + 1) == []
    assert session.deadline() == 2 * LINK_S + 1


def test_busy_session_does_not_enquire() -> None:
    session = _bound()
    (sequence,) = _submit(session, "a")
    _read(session, 20.0)
    session.feed(submit_resp(Pdu(4, 0, sequence)), 29.0)
    assert session.tick(LINK_S) == []
    assert not session.has_output


def test_unbind_timeout_is_clean() -> None:
    session = _bound()
    assert session.unbind(1.0) == []
    assert session.tick(1.0 + TIMEOUT_S) == [Closed("no answer to the unbind", clean=True)]


# --- binding


@pytest.mark.parametrize(
    ("command", "state", "room"),
    [
        (Command.BIND_TRANSMITTER, State.BOUND_TX, 4),
        (Command.BIND_RECEIVER, State.BOUND_RX, 0),
        (Command.BIND_TRANSCEIVER, State.BOUND_TRX, 4),
    ],
)
def test_kinds_of_bind(command: Command, state: State, room: int) -> None:
    session = _bound(command)
    assert (session.state, session.room, session.peer) == (state, room, "smsc")


def test_nothing_is_submitted_before_the_bind() -> None:
    session = _session()
    assert session.room == 0
    with pytest.raises(ValueError, match="room for 0 in state OPEN"):
        session.submit_many([(BODY, "a")])


def test_bind_with_an_unreadable_name_stands() -> None:
    session = _session()
    assert session.feed(pdu(Command.BIND_TRANSCEIVER_RESP, 0, 1, b"no end"), 0.0) == [Bound()]
    assert session.counts.malformed == 1


def test_refused_bind_ends_the_session() -> None:
    session = _session()
    assert session.feed(pdu(Command.BIND_TRANSCEIVER_RESP, 0x0D, 1), 0.0) == [
        BindRefused(0x0D),
        Closed("bind refused: 0x0000000d ESME_RBINDFAIL", clean=False),
    ]


# --- deliveries

RESPONSE = 0x80000000
BODIES = {Command.DELIVER_SM: deliver_body(), Command.DATA_SM: data_body()}
EITHER = pytest.mark.parametrize("command", BODIES)


@EITHER
@pytest.mark.parametrize(
    "bind", [Command.BIND_TRANSMITTER, Command.BIND_RECEIVER, Command.BIND_TRANSCEIVER]
)
def test_deliveries_are_taken_on_every_kind_of_bind(bind: Command, command: Command) -> None:
    """Some SMSCs send receipts wherever they find us, on a transmitter too."""
    session = _bound(bind)
    (event,) = session.feed(pdu(command, 0, 5, BODIES[command]), 0.0)
    assert isinstance(event, Delivered)
    text = event.message.octets or event.message.tlv(Tag.MESSAGE_PAYLOAD)
    assert (event.sequence, event.message.source.digits, text) == (5, "491701", b"hello")
    assert not session.has_output
    assert session.statistics()["unanswered_deliveries"] == 1
    session.answer(5, 0)
    assert _read(session) == [Pdu(command | RESPONSE, 0, 5, b"\0")]
    assert session.statistics()["unanswered_deliveries"] == 0
    assert (session.counts.deliveries, session.counts.nacked) == (1, 0)


def test_each_delivery_is_answered_by_its_own_command() -> None:
    session = _bound()
    commands = [*BODIES, *BODIES]
    for sequence, command in enumerate(commands, 1):
        session.feed(pdu(command, 0, sequence, BODIES[command]), 0.0)
    for sequence in (4, 1, 3, 2):
        session.answer(sequence, 0x64 if sequence == 1 else 0)
    session.feed(pdu(Command.DELIVER_SM, 0, 2, deliver_body()), 0.0)  # a number used before
    session.answer(2, 0)
    answered = [(one.command, one.sequence, one.status) for one in _read(session)]
    assert answered == [
        (Command.DATA_SM_RESP, 4, 0),
        (Command.DELIVER_SM_RESP, 1, 0x64),
        (Command.DELIVER_SM_RESP, 3, 0),
        (Command.DATA_SM_RESP, 2, 0),
        (Command.DELIVER_SM_RESP, 2, 0),
    ]


@EITHER
def test_what_is_no_delivery_is_refused_and_not_told(command: Command) -> None:
    session = _bound()
    body = BODIES[command]
    assert session.feed(pdu(command, 0, 5, body[:6]), 0.0) == []
    assert session.feed(pdu(command, 0, 6, body + b"\0\x1e\0\x09id"), 0.0) == []
    assert _read(session) == [
        Pdu(command | RESPONSE, 0x02, 5, b"\0"),
        Pdu(command | RESPONSE, 0xC0, 6, b"\0"),
    ]
    assert (session.counts.deliveries_refused, session.counts.nacked) == (2, 0)


@EITHER
def test_deliveries_without_our_answer_are_bounded(command: Command) -> None:
    session = _bound()
    both = [pdu(Command.DELIVER_SM, 0, 5, deliver_body()), pdu(Command.DATA_SM, 0, 6, data_body())]
    events = session.feed(b"".join(both) * (MAX_UNANSWERED_DELIVERIES // 2), 0.0)
    assert len(events) == MAX_UNANSWERED_DELIVERIES
    one = pdu(command, 0, 7, BODIES[command])
    assert session.feed(one, 0.0) == []
    assert [(pdu.command, pdu.status) for pdu in _read(session)] == [(command | RESPONSE, 0x64)]
    session.answer(5, 0)
    assert len(session.feed(one, 0.0)) == 1


@EITHER
def test_delivery_before_the_bind_or_after_our_unbind_shall_come_again(command: Command) -> None:
    one = pdu(command, 0, 5, BODIES[command])
    early, late = _session(), _bound()
    late.unbind(0.0)
    for session in (early, late):
        _read(session)
        assert session.feed(one, 0.0) == []
        assert _read(session) == [Pdu(command | RESPONSE, 0x64, 5, b"\0")]


@EITHER
def test_answer_after_the_end_is_nothing(command: Command) -> None:
    session = _bound()
    session.feed(pdu(command, 0, 5, BODIES[command]), 0.0)
    session.eof()
    session.answer(5, 0)
    assert not session.has_output


def test_an_answer_to_a_data_sm_we_never_sent_is_counted() -> None:
    session = _bound()
    assert session.feed(pdu(Command.DATA_SM_RESP, 0, 5, b"id\0"), 0.0) == []
    assert session.counts.unknown_sequence == 1
    assert not session.has_output


# --- queries


def _queried(session: Session) -> Pdu:
    session.query(b"id\0\0\0\0", "q")
    return next(one for one in _read(session) if one.command == Command.QUERY_SM)


def test_query_is_answered() -> None:
    session = _bound()
    query = _queried(session)
    assert session.room == 3
    answer = pdu(Command.QUERY_SM_RESP, 0, query.sequence, b"id\0\0\2\7")
    assert session.feed(answer, 0.0) == [Queried("q", 0, "id", 2, 7, "")]
    assert session.feed(answer, 0.0) == []
    assert session.counts.unknown_sequence == 1


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ((Command.QUERY_SM_RESP, 0x67, b""), 0x67),  # ESME_RQUERYFAIL
        ((Command.GENERIC_NACK, 0x03, b""), 0x03),
        ((Command.GENERIC_NACK, 0x00, b""), 0x03),
        ((Command.QUERY_SM_RESP, 0, b"no end"), None),
    ],
)
def test_query_fails(answer: tuple[int, int, bytes], status: int | None) -> None:
    session = _bound()
    command, code, body = answer
    assert session.feed(pdu(command, code, _queried(session).sequence, body), 0.0) == [
        Queried("q", status)
    ]


def test_query_without_an_answer() -> None:
    session = _bound()
    _queried(session)
    assert session.tick(TIMEOUT_S) == [Queried("q")]
    assert session.room == 4


def test_query_ends_with_the_session_whether_it_left_or_not() -> None:
    session = _bound()
    _queried(session)
    session.query(b"id\0\0\0\0", "not left")
    events = session.eof()
    assert {one.token for one in events if isinstance(one, Queried)} == {"q", "not left"}
    assert events[-1] == Closed("the peer closed the connection", clean=False)


# --- the end


@pytest.mark.parametrize(("status", "told"), [(0x02, 0x02), (0x00, 0x03)])
def test_nack_never_means_accepted(status: int, told: int) -> None:
    session = _bound()
    (sequence,) = _submit(session, "a")
    _read(session)
    nack = pdu(Command.GENERIC_NACK, status, sequence)
    assert session.feed(nack, 0.0) == [Answered("a", told)]


def test_peer_unbinds_what_was_not_written_never_is() -> None:
    session = _bound()
    _submit(session, "left")
    _read(session)
    _submit(session, "kept")
    assert session.feed(pdu(Command.UNBIND, 0, 9) * 2, 0.0) == [PeerUnbound()]
    assert [one.command for one in _read(session)] == [Command.UNBIND_RESP] * 2
    assert session.room == 0
    assert not session.finished
    assert session.tick(TIMEOUT_S) == [
        Unanswered("left"),
        Closed("the peer unbound", clean=True, unsent=("kept",)),
    ]


def test_peer_unbinds_and_the_last_answer_finishes_it() -> None:
    session = _bound()
    (sequence,) = _submit(session, "a")
    _read(session)
    session.feed(pdu(Command.UNBIND, 0, 9), 0.0)
    assert session.feed(submit_resp(Pdu(4, 0, sequence)), 0.0) == [Answered("a", 0, "id2")]
    assert session.finished


def test_unbind_before_the_bind_is_answered() -> None:
    session = _session()
    assert session.unbind(0.0) == [Closed("unbound before the bind was answered", clean=True)]


def test_unbind_response_of_another_request_is_ignored() -> None:
    session = _bound()
    session.unbind(0.0)
    (unbind,) = _read(session)
    assert session.feed(pdu(Command.UNBIND_RESP, 0, unbind.sequence + 1), 0.0) == []
    assert session.feed(pdu(Command.UNBIND_RESP, 0, unbind.sequence), 0.0) == [
        Closed("unbound", clean=True)
    ]


def test_answers_after_the_end_in_the_same_piece_are_not_told() -> None:
    session = _bound()
    (sequence,) = _submit(session, "a")
    _read(session)
    session.unbind(0.0)
    (unbind,) = _read(session)
    octets = pdu(Command.UNBIND_RESP, 0, unbind.sequence) + submit_resp(Pdu(4, 0, sequence))
    assert session.feed(octets, 0.0) == [Closed("unbound", clean=True, in_flight=("a",))]


def test_password_is_not_shown() -> None:
    assert "secret" not in repr(Login("esme", "secret"))


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", Step)
def test_table(state: State, step: Step) -> None:
    """Nothing comes after the end, and every living state can end."""
    after = TABLE.get((state, step))
    if state is State.CLOSED:
        assert after is None
    elif step is Step.CLOSE:
        assert after is State.CLOSED
    elif step in (Step.DRAIN, Step.UNBIND):
        assert (after is not None) == (state in ALIVE - {State.UNBINDING})
    else:
        assert (after is not None) == (state is State.OPEN)
