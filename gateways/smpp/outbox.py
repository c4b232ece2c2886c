"""What a session has to write, and the requests in it that wait for an answer. Pure.

Our answers and the session's own requests go first. Bodies of submit_sm and query_sm are kept
apart from them: as long as the writer has not taken them they can be withdrawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateways.smpp import codec
from gateways.smpp.events import Queried
from gateways.smpp.pdu import Command
from gateways.smpp.queries import Queries
from gateways.smpp.window import Sequences, Window

_OK = 0
_SUBMIT = Command.SUBMIT_SM.value


class Outbox:
    """Octets on their way out, by the order they have to leave in."""

    def __init__(self, timeout_s: float) -> None:
        self.submits = Window(timeout_s)
        self.queries = Queries(timeout_s)
        self.answer_octets = 0  # waiting to be taken, without submit_sm and query_sm
        self._sequences = Sequences(self._in_use)
        self._first: list[bytes] = []
        self._bulk: list[bytes] = []

    def _in_use(self, sequence: int) -> bool:
        return sequence in self.submits or sequence in self.queries.window

    @property
    def in_flight(self) -> int:
        """Submits and queries without an answer."""
        return len(self.submits.waiting) + len(self.queries.window.waiting)

    @property
    def has_output(self) -> bool:
        """Whether ``take`` would give something."""
        return bool(self._first or self._bulk)

    def request(self, command: int, body: bytes = b"") -> int:
        """Write a request of the session's own; returns its sequence number."""
        sequence = self._sequences.take(1)[0]
        self.respond(command, _OK, sequence, body)
        return sequence

    def respond(self, command: int, status: int, sequence: int, body: bytes = b"") -> None:
        """Write an answer."""
        frame = codec.frame(command, status, sequence, body)
        self._first.append(frame)
        self.answer_octets += len(frame)

    def submit(self, items: Sequence[tuple[bytes, Any]]) -> Sequence[int]:
        """Write submit_sm bodies, each with the token of its answer."""
        sequences = self._sequences.take(len(items))
        self.submits.reserve(sequences, [token for _, token in items])
        self._bulk += codec.requests(_SUBMIT, sequences, [body for body, _ in items])
        return sequences

    def query(self, body: bytes, token: Any) -> int:
        """Write a query_sm body."""
        sequences = self._sequences.take(1)
        self.queries.window.reserve(sequences, [token])
        self._bulk.append(codec.frame(Command.QUERY_SM, _OK, sequences[0], body))
        return sequences[0]

    def take(self, now: float) -> bytes:
        """All of it, to be written now; what is in it may be sent from here on."""
        output, self._first, self.answer_octets = self._first, [], 0
        if self._bulk:
            output += self._bulk
            self._bulk = []
            self.submits.leave(now)
            self.queries.window.leave(now)
        return b"".join(output)

    def withdraw(self) -> tuple[list[Any], list[Queried]]:
        """Tokens of the submits, and the queries, that were not taken; they never will be."""
        self._bulk = []
        return self.submits.withdraw(), self.queries.withdraw()
