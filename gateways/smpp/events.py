"""What a session tells whoever owns it; ``token`` is whatever was handed in with the request."""

from __future__ import annotations

from typing import Any

import msgspec

from gateways.smpp.pdu import ShortMessage


class Bound(msgspec.Struct, frozen=True):
    """The SMSC took the bind; there is room in the window from now on."""


class BindRefused(msgspec.Struct, frozen=True):
    """It refused the bind; the connection is of no more use."""

    status: int


class Answered(msgspec.Struct, frozen=True, gc=False):
    """The answer to a submit_sm. ``late``: it had been given up as ``Unanswered`` before."""

    token: Any
    status: int
    message_id: str = ""
    late: bool = False


class Unanswered(msgspec.Struct, frozen=True):
    """No answer within the time limit: the outcome is unknown, the place in the window is free."""

    token: Any


class Queried(msgspec.Struct, frozen=True):
    """The answer to a query_sm, or None for every field where there was none."""

    token: Any
    status: int | None = None
    message_id: str = ""
    state: int | None = None
    error: int = 0
    final_date: str = ""


class Delivered(msgspec.Struct, frozen=True):
    """A receipt or a message, by deliver_sm or data_sm.

    It waits for ``Session.answer(sequence, status)``.
    """

    sequence: int
    message: ShortMessage


class PeerUnbound(msgspec.Struct, frozen=True):
    """The SMSC sent unbind (answered): no room any more, answers still come until it closes."""


class Closed(msgspec.Struct, frozen=True):
    """The session is over. ``clean``: after an unbind, ours or the SMSC's.

    ``in_flight`` are tokens whose PDU may have left (their outcome is unknown), ``unsent`` those
    whose PDU certainly did not.
    """

    reason: str
    clean: bool
    in_flight: tuple[Any, ...] = ()
    unsent: tuple[Any, ...] = ()


Event = Bound | BindRefused | Answered | Unanswered | Queried | Delivered | PeerUnbound | Closed
