"""What an SMSC delivers to one session, and our answers to it (SMPP 3.4 §4.6). Pure."""

from __future__ import annotations

from gateways.smpp import codec
from gateways.smpp.events import Delivered
from gateways.smpp.framer import RawPdu
from gateways.smpp.outbox import Outbox
from gateways.smpp.pdu import Command, ProtocolError
from gateways.smpp.states import Counts

MAX_UNANSWERED_DELIVERIES = 20_000
"""Deliveries handed out and not answered yet; more are answered "later"."""

RX_T_APPN = 0x64
"""ESME_RX_T_APPN, §5.1.3: it shall come again."""

_NO_ID = b"\0"
"""message_id of a deliver_sm_resp is not used and empty (§4.6.2)."""


class Deliveries:
    """Those of one session. ``unanswered``: handed out, and waiting for ``answer``."""

    def __init__(self, out: Outbox, counts: Counts) -> None:
        self.unanswered = 0
        self._out = out
        self._counts = counts

    def take(self, pdu: RawPdu, *, listening: bool) -> Delivered | None:
        """One deliver_sm; None where it was answered already, with a status that says why.

        Not ``listening``: before the bind's answer, or after our unbind.
        """
        _, _, sequence, body = pdu
        if not listening or self.unanswered >= MAX_UNANSWERED_DELIVERIES:
            self._refuse(sequence, RX_T_APPN)
            return None
        try:
            message = codec.decode_short_message(body)
        except ProtocolError as error:
            self._refuse(sequence, error.status)
            return None
        self._counts.deliveries += 1
        self.unanswered += 1
        return Delivered(sequence, message)

    def answer(self, sequence: int, status: int) -> None:
        """What became of one that was handed out."""
        self.unanswered -= 1
        self._out.respond(Command.DELIVER_SM_RESP, status, sequence, _NO_ID)

    def _refuse(self, sequence: int, status: int) -> None:
        self._counts.deliveries_refused += 1
        self._out.respond(Command.DELIVER_SM_RESP, status, sequence, _NO_ID)
