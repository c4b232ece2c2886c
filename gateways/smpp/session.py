"""One SMPP session as a state machine: octets in, events and octets out; no socket, no clock.

Time is handed in (seconds of any monotonic clock). Whoever owns a session feeds it what comes in,
writes what ``take_output`` gives, and calls ``tick`` when ``deadline`` is reached. ``Closed`` is
the last event of every session, and tells for each request whose end was not seen whether it may
have left. Clauses are SMPP 3.4's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from gateways.smpp import codec, names
from gateways.smpp.deliveries import Deliveries
from gateways.smpp.events import (
    Answered,
    BindRefused,
    Bound,
    Closed,
    Event,
    PeerUnbound,
    Unanswered,
)
from gateways.smpp.framer import Framer, RawPdu
from gateways.smpp.login import Login
from gateways.smpp.outbox import Outbox
from gateways.smpp.pdu import Command, ProtocolError
from gateways.smpp.pulse import Pulse
from gateways.smpp.settings import SmppSettings
from gateways.smpp.states import ALIVE, BOUND_BY, LISTENING, SENDING, TABLE, Counts, State, Step

MAX_WAITING_OCTETS = 1_000_000
"""Answers of ours that a peer may leave unread; one that leaves more is not reading at all."""

OK, RINVCMDID = 0x00, 0x03
"""Statuses we answer with, §5.1.3."""

_RESPONSE = 0x80000000
_SUBMIT_RESP = Command.SUBMIT_SM_RESP.value


class Session:
    """One connection's life, from the bind to the end.

    ``command`` is the kind of bind (§4.1). ``max_pdu_bytes`` ends the session of a peer that claims
    a longer PDU. Nothing here blocks or raises on anything a peer may send.
    """

    def __init__(
        self,
        login: Login,
        settings: SmppSettings,
        *,
        command: Command,
        max_pdu_bytes: int,
        now: float,
    ) -> None:
        self.counts = Counts()
        self.state = State.OPEN
        self.peer = ""  # system_id of the SMSC (§5.2.1), once bound
        self._login, self._settings, self._command = login, settings, command
        self._framer = Framer(max_pdu_bytes)
        self._out = Outbox(settings.response_timeout_s)
        self._unsent: list[Any] = []
        self._deliveries = Deliveries(self._out, self.counts)
        self._pulse = Pulse(settings.enquire_link_s, settings.response_timeout_s, now=now)
        self._step: int | None = None  # our bind or unbind that waits
        self._step_deadline = math.inf
        self._by_peer = False
        self._events: list[Event] = []

    # --- what the owner asks for

    def open(self, now: float) -> None:
        """Write the bind (§4.1); ``InvalidError`` where SMPP cannot hold the login."""
        login = self._login
        body = codec.bind(self._command, login.system_id, login.password, self._settings)
        self._step = self._out.request(self._command, body)
        self._step_deadline = now + self._settings.bind_timeout_s

    @property
    def room(self) -> int:
        """How many requests may be submitted now."""
        if self.state not in SENDING:
            return 0
        return self._settings.window - self._out.in_flight

    @property
    def in_flight(self) -> int:
        """Requests without an answer yet."""
        return self._out.in_flight

    @property
    def closed(self) -> bool:
        """Whether ``Closed`` was told."""
        return self.state is State.CLOSED

    @property
    def has_output(self) -> bool:
        """Whether ``take_output`` would give something."""
        return self._out.has_output

    @property
    def finished(self) -> bool:
        """Whether the peer unbound and nothing is left to wait for: the connection may go."""
        return self._by_peer and not self.in_flight and not self._deliveries.unanswered

    def submit_many(self, items: Sequence[tuple[bytes, Any]]) -> Sequence[int]:
        """Put bodies of submit_sm into the window, each with the token its events will bear.

        ``ValueError`` where there is not that much ``room``: nothing was taken then.
        """
        self._check_room(len(items))
        self.counts.submitted += len(items)
        return self._out.submit(items)

    def query(self, body: bytes, token: Any) -> int:
        """Put one query_sm (§4.8) into the window; it ends with exactly one ``Queried``."""
        self._check_room(1)
        self.counts.queried += 1
        return self._out.query(body, token)

    def _check_room(self, count: int) -> None:
        if count > self.room:
            raise ValueError(f"{count} requests, room for {self.room} in state {self.state.name}")

    def answer(self, sequence: int, status: int) -> None:
        """Answer a ``Delivered`` (§4.6.2, §4.7.2); without effect after the end."""
        if self.state in ALIVE:
            self._deliveries.answer(sequence, status)

    def drain(self) -> None:
        """From now on there is no room; what waits for its answer goes on waiting."""
        self._go(Step.DRAIN)

    def unbind(self, now: float) -> list[Event]:
        """Write unbind (§4.2), or close where there is no bind to undo.

        What never left is taken back and comes as ``unsent`` with ``Closed``.
        """
        if self.state is State.OPEN:
            self._close("unbound before the bind was answered", clean=True)
        elif self._go(Step.UNBIND):
            self._withdraw()
            self._step = self._out.request(Command.UNBIND)
            self._step_deadline = now + self._settings.response_timeout_s
        return self._told()

    # --- octets

    def take_output(self, now: float) -> bytes:
        """What is to be written now; from here on its requests count as possibly sent."""
        return self._out.take(now)

    def feed(self, data: bytes, now: float) -> list[Event]:
        """What the octets mean, in their order."""
        if self.closed:
            return []
        self._take(self._framer.feed_raw(data), now)
        error = self._framer.error
        if error is not None and not self.closed:
            self._out.respond(Command.GENERIC_NACK, error.status, 0)
            self._close(f"protocol error: {error}", clean=False)
        if self._out.answer_octets > MAX_WAITING_OCTETS:
            self._close("the peer does not read our answers", clean=False)
        return self._told()

    def eof(self, reason: str = "the peer closed the connection") -> list[Event]:
        """The connection is gone."""
        self._close(reason, clean=self.state is State.UNBINDING or self._by_peer)
        return self._told()

    # --- time

    def deadline(self) -> float:
        """When ``tick`` is due; infinite after the end."""
        if self.state is State.CLOSED:
            return math.inf
        return min(
            self._step_deadline,
            self._out.submits.next_deadline(),
            self._out.queries.window.next_deadline(),
            self._link_due(),
        )

    def tick(self, now: float) -> list[Event]:
        """What the passing of time brings; too early it brings nothing."""
        if self.state is State.CLOSED:
            return []
        unanswered = self._out.submits.expire(now)
        self.counts.unanswered += len(unanswered)
        self._events += [Unanswered(token) for token in unanswered]
        self._events += self._out.queries.expire(now)
        if now >= self._step_deadline:
            self._step_timed_out()
        elif now >= self._link_due():
            self._enquire(now)
        return self._told()

    def _step_timed_out(self) -> None:
        if self.state is State.OPEN:
            self._close("no answer to the bind", clean=False)
        elif self.state is State.UNBINDING:
            self._close("no answer to the unbind", clean=True)
        else:
            self._close("the peer unbound", clean=True)

    def _link_due(self) -> float:
        return math.inf if self.state is State.OPEN else self._pulse.due()

    def _enquire(self, now: float) -> None:
        if self._pulse.asked:
            self._close("no answer to enquire_link", clean=False)
            return
        self._pulse.ask(now)
        self._out.request(Command.ENQUIRE_LINK)

    # --- PDUs

    def _take(self, pdus: list[RawPdu], now: float) -> None:
        """Thousands of submit_sm_resp may come at once: what each costs is the speed of a bind."""
        append, longest = self._events.append, codec.MAX_MESSAGE_ID
        waiting, aboard = self._out.submits.waiting, self._out.submits.aboard
        take = waiting.pop
        for pdu in pdus:
            command, status, sequence, body = pdu
            if command != _SUBMIT_RESP:
                self._others(pdu, now)
                continue
            self._pulse.heard_at = now
            octets, nul, more = body.partition(b"\0")
            # Nearly all are an id and its NUL; a call for each would cost as much as the rest.
            if nul and not more and len(octets) <= longest and octets.isascii():
                found = octets.decode()
            else:
                found = self._message_id(body, status)
            entry = take(sequence, None)
            if entry is None:
                self._answered_otherwise(sequence, status, found)
            elif entry[1] is aboard:  # it has not left: the peer made the number up
                waiting[sequence] = entry
                self._answered_otherwise(sequence, status, found)
            else:
                append(Answered(entry[0], status, found))

    def _message_id(self, body: bytes, status: int) -> str:
        try:
            return codec.message_id(body)
        except ProtocolError:  # the status alone says what was decided
            self.counts.malformed += not status
            return ""

    def _answered_otherwise(self, sequence: int, status: int, message_id: str = "") -> None:
        """An answer that is late, or comes to nothing we know."""
        try:
            token, late = self._out.submits.answered(sequence)
        except KeyError:
            self.counts.unknown_sequence += 1
            return
        self.counts.late += late
        self._events.append(Answered(token, status, message_id, late))

    def _others(self, pdu: RawPdu, now: float) -> None:
        command, _, sequence, _ = pdu
        if self.closed:
            return
        if command & _RESPONSE:
            self._pulse.heard_at = now
        handler = self._HANDLERS.get(command)
        if handler is not None:
            handler(self, pdu, now)
        elif command & _RESPONSE:
            self.counts.unknown_sequence += 1  # an answer is never answered
        else:
            self.counts.nacked += 1
            self._out.respond(Command.GENERIC_NACK, RINVCMDID, sequence)

    def _bind_answered(self, pdu: RawPdu, _: float) -> None:
        command, status, sequence, body = pdu
        if sequence != self._step or command != self._command | _RESPONSE:
            self.counts.unknown_sequence += 1
        elif status:
            self._bind_refused(status)
        elif self._go(BOUND_BY[self._command]):
            self._step_deadline = math.inf
            self._step = None
            self._events.append(Bound())
            try:
                self.peer = codec.bind_response(body)[0]
            except ProtocolError:  # the status said yes; nothing hangs on the name
                self.counts.malformed += 1

    def _bind_refused(self, status: int) -> None:
        self._events.append(BindRefused(status))
        name = names.status_name(status)
        self._close(f"bind refused: 0x{status:08x} {name}".rstrip(), clean=False)

    def _deliver(self, pdu: RawPdu, _: float) -> None:
        self._events += self._deliveries.take(pdu, listening=self.state in LISTENING)

    def _query_answered(self, pdu: RawPdu, _: float) -> None:
        _, status, sequence, body = pdu
        queried = self._out.queries.answered(sequence, status, body)
        if queried is None:
            self.counts.unknown_sequence += 1
        else:
            self._events.append(queried)

    def _nacked(self, pdu: RawPdu, now: float) -> None:
        """§4.3: the answer to whatever had this sequence number."""
        _, status, sequence, body = pdu
        self.counts.nacks += 1
        if self.state is State.OPEN:
            self._bind_refused(status)
        elif sequence == self._step and self.state is State.UNBINDING:
            self._close("unbound", clean=True)
        elif sequence in self._out.queries.window:
            self._query_answered((0, status or RINVCMDID, sequence, body), now)
        else:
            self._answered_otherwise(sequence, status or RINVCMDID)

    def _enquired(self, pdu: RawPdu, _: float) -> None:
        self._out.respond(Command.ENQUIRE_LINK_RESP, OK, pdu[2])

    def _unbound_by_peer(self, pdu: RawPdu, now: float) -> None:
        self._out.respond(Command.UNBIND_RESP, OK, pdu[2])
        if self.state is State.OPEN:
            self._close("the peer unbound", clean=False)
            return
        first, self._by_peer = not self._by_peer, True
        if first and self._go(Step.DRAIN):
            self._withdraw()
            self._step_deadline = now + self._settings.response_timeout_s
            self._events.append(PeerUnbound())

    def _unbound(self, pdu: RawPdu, _: float) -> None:
        if self.state is State.UNBINDING and pdu[2] == self._step:
            self._close("unbound", clean=True)
        else:
            self.counts.unknown_sequence += 1

    def _ignored(self, _: RawPdu, __: float) -> None:
        """An enquire_link_resp was heard, which is all it is for; others ask for no answer."""

    _HANDLERS: ClassVar[Mapping[int, Callable[[Session, RawPdu, float], None]]] = {
        Command.BIND_RECEIVER_RESP: _bind_answered,
        Command.BIND_TRANSMITTER_RESP: _bind_answered,
        Command.BIND_TRANSCEIVER_RESP: _bind_answered,
        Command.DELIVER_SM: _deliver,
        Command.DATA_SM: _deliver,
        Command.QUERY_SM_RESP: _query_answered,
        Command.GENERIC_NACK: _nacked,
        Command.ENQUIRE_LINK: _enquired,
        Command.ENQUIRE_LINK_RESP: _ignored,
        Command.UNBIND: _unbound_by_peer,
        Command.UNBIND_RESP: _unbound,
        Command.ALERT_NOTIFICATION: _ignored,  # §4.12: has no response
        Command.OUTBIND: _ignored,  # §4.1.7: likewise; we are bound or binding already
    }

    def _close(self, reason: str, *, clean: bool) -> None:
        if not self._go(Step.CLOSE):
            return
        self._withdraw()
        self._events += self._out.queries.clear()
        in_flight = tuple(self._out.submits.clear())
        self._events.append(Closed(reason, clean, in_flight, tuple(self._unsent)))

    def _withdraw(self) -> None:
        unsent, queries = self._out.withdraw()
        self._unsent += unsent
        self._events += queries

    def _go(self, step: Step) -> bool:
        """Move on by the table; False where the step means nothing in this state."""
        state = TABLE.get((self.state, step))
        if state is None:
            return False
        self.state = state
        return True

    def _told(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def statistics(self) -> dict[str, Any]:
        """State, places and totals."""
        return {
            "state": self.state.name.lower(),
            "peer": self.peer,
            "window": self._settings.window,
            "in_flight": self.in_flight,
            "unanswered_deliveries": self._deliveries.unanswered,
            **msgspec.structs.asdict(self.counts),
        }
