"""The query_sm of a session (SMPP 3.4 §4.8): each ends with exactly one ``Queried``. Pure."""

from __future__ import annotations

from typing import Any

from gateways.smpp import codec
from gateways.smpp.events import Queried
from gateways.smpp.pdu import ProtocolError
from gateways.smpp.window import Window


class Queries:
    """Queries that wait for their answers; a late answer is of no use and not remembered."""

    def __init__(self, timeout_s: float) -> None:
        self.window = Window(timeout_s)

    def answered(self, sequence: int, status: int, body: bytes) -> Queried | None:
        """What an answer says; None where nobody waits for it."""
        try:
            token, late = self.window.answered(sequence)
        except KeyError:
            return None
        return None if late else _read(token, status, body)

    def expire(self, now: float) -> list[Queried]:
        """Those without an answer in time."""
        return _without_answer(self.window.expire(now))

    def withdraw(self) -> list[Queried]:
        """Those that never left."""
        return _without_answer(self.window.withdraw())

    def clear(self) -> list[Queried]:
        """All of them: the session is over."""
        return _without_answer(self.window.clear())


def _without_answer(tokens: list[Any]) -> list[Queried]:
    return [Queried(token) for token in tokens]


def _read(token: Any, status: int, body: bytes) -> Queried:
    if status:
        return Queried(token, status)
    try:
        message_id, final_date, state, error = codec.query_response(body)
    except ProtocolError:
        return Queried(token)
    return Queried(token, status, message_id, state, error, final_date)
