"""What an SMSC delivers to one session, and our answers to it (SMPP 3.4 §4.6, §4.7). Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateways.smpp import codec, data_sm
from gateways.smpp.events import Delivered
from gateways.smpp.framer import RawPdu
from gateways.smpp.outbox import Outbox
from gateways.smpp.pdu import Command, ProtocolError, ShortMessage
from gateways.smpp.states import Counts

MAX_UNANSWERED_DELIVERIES = 20_000
"""Deliveries handed out and not answered yet; more are answered "later"."""

RX_T_APPN = 0x64
"""ESME_RX_T_APPN, §5.1.3: it shall come again."""

_NO_ID = b"\0"
"""message_id of a deliver_sm_resp is not used and empty (§4.6.2), ours of a data_sm_resp too."""

_RESPONSE = 0x80000000
_DELIVER, _DATA = Command.DELIVER_SM.value, Command.DATA_SM.value
_READ: Mapping[int, Callable[[bytes], ShortMessage]] = {
    _DELIVER: codec.decode_short_message,
    _DATA: data_sm.decode,
}


class Deliveries:
    """Those of one session. ``unanswered``: handed out, and waiting for ``answer``."""

    def __init__(self, out: Outbox, counts: Counts) -> None:
        self.unanswered = 0
        self._out = out
        self._counts = counts
        self._by_data: set[int] = set()  # sequences of data_sm that wait; each names its answer

    def take(self, pdu: RawPdu, *, listening: bool) -> list[Delivered]:
        """One deliver_sm or data_sm; none where it was answered already, with a status saying why.

        Not ``listening``: before the bind's answer, or after our unbind.
        """
        command, _, sequence, body = pdu
        if not listening or self.unanswered >= MAX_UNANSWERED_DELIVERIES:
            self._refuse(command, RX_T_APPN, sequence)
            return []
        try:
            message = _READ[command](body)
        except ProtocolError as error:
            self._refuse(command, error.status, sequence)
            return []
        self._counts.deliveries += 1
        self.unanswered += 1
        if command == _DATA:
            self._by_data.add(sequence)
        return [Delivered(sequence, message)]

    def answer(self, sequence: int, status: int) -> None:
        """What became of one that was handed out."""
        self.unanswered -= 1
        command = _DATA if sequence in self._by_data else _DELIVER
        self._by_data.discard(sequence)
        self._respond(command, status, sequence)

    def _refuse(self, command: int, status: int, sequence: int) -> None:
        self._counts.deliveries_refused += 1
        self._respond(command, status, sequence)

    def _respond(self, command: int, status: int, sequence: int) -> None:
        self._out.respond(command | _RESPONSE, status, sequence, _NO_ID)
