"""The states of a session and what moves it from one to the next (SMPP 3.4 §2.2). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, auto

import msgspec

from gateways.smpp.pdu import Command


class State(IntEnum):
    """How far the session is, with the two ways to its end."""

    OPEN = auto()  # connected; the bind is not answered
    BOUND_TX = auto()
    BOUND_RX = auto()
    BOUND_TRX = auto()
    DRAINING = auto()  # nothing new leaves, answers still come
    UNBINDING = auto()  # our unbind left
    CLOSED = auto()


class Step(IntEnum):
    """What happens to a session."""

    BOUND_AS_TX = auto()
    BOUND_AS_RX = auto()
    BOUND_AS_TRX = auto()
    DRAIN = auto()
    UNBIND = auto()
    CLOSE = auto()


BOUND_BY: Mapping[int, Step] = {
    Command.BIND_TRANSMITTER: Step.BOUND_AS_TX,
    Command.BIND_RECEIVER: Step.BOUND_AS_RX,
    Command.BIND_TRANSCEIVER: Step.BOUND_AS_TRX,
}
"""What the answer to each bind makes of the session."""

SENDING = frozenset({State.BOUND_TX, State.BOUND_TRX})
LISTENING = SENDING | {State.BOUND_RX, State.DRAINING}
ALIVE = LISTENING | {State.UNBINDING}

TABLE: Mapping[tuple[State, Step], State] = {
    (State.OPEN, Step.BOUND_AS_TX): State.BOUND_TX,
    (State.OPEN, Step.BOUND_AS_RX): State.BOUND_RX,
    (State.OPEN, Step.BOUND_AS_TRX): State.BOUND_TRX,
    **{(state, Step.DRAIN): State.DRAINING for state in LISTENING},
    **{(state, Step.UNBIND): State.UNBINDING for state in LISTENING},
    **{(state, Step.CLOSE): State.CLOSED for state in ALIVE | {State.OPEN}},
}
"""Every change there is; a pair that is missing changes nothing."""


class Counts(msgspec.Struct):
    """Totals since the session began."""

    submitted: int = 0
    unanswered: int = 0
    late: int = 0
    queried: int = 0
    deliveries: int = 0
    deliveries_refused: int = 0  # octets that are no delivery, or too many at once
    unknown_sequence: int = 0  # answers to nothing we asked
    malformed: int = 0  # answers whose body could not be read
    nacked: int = 0  # requests nobody here understands
    nacks: int = 0  # generic_nack from the peer
