"""Whether a message that came in may be one that came before: pure, time is handed in.

People do send "Yes" twice. An SMSC sends a message twice only where it cannot know that we have it:
the connection ended soon after our answer, or the answer was late, or we were another process.
"""

from __future__ import annotations

from collections.abc import Hashable

LATE_S = 5.0
"""An SMSC that waits longer than this for an answer may have given up and deliver again."""

REMEMBERED = 100_000
"""Messages known by their keys; beyond that the oldest are forgotten."""

_ENDED_KEPT = 64


class _Session:
    """One connection; ``ended_at`` None while it lives."""

    __slots__ = ("ended_at",)

    def __init__(self) -> None:
        self.ended_at: float | None = None


class Repeats:
    """What came in by each connection of a provider.

    ``redelivery_s``: later than that nobody delivers again. ``silence_s``: how long a connection
    can be dead before it is found out, so that an answer may be lost that long before its end.
    """

    def __init__(self, redelivery_s: float, silence_s: float, now: float) -> None:
        self.redelivery_s = redelivery_s
        self._silence_s = silence_s
        self._started_at = now
        self._sessions: dict[Hashable, _Session] = {}
        self._ended: dict[Hashable, _Session] = {}  # what they brought may still be in hand
        self._in_hand: dict[str, tuple[float, _Session]] = {}
        self._answered: dict[str, tuple[float, bool, _Session]] = {}

    def asked(self, key: str, session: Hashable, now: float) -> float:
        """A message is being taken: within how many seconds the same one is a repeat (0: never)."""
        within_s = self.redelivery_s if self._doubtful(key, now) else 0.0
        self._in_hand.setdefault(key, (now, self._record(session)))
        return within_s

    def _record(self, session: Hashable) -> _Session:
        return self._ended.get(session) or self._sessions.setdefault(session, _Session())

    def _doubtful(self, key: str, now: float) -> bool:
        if key in self._in_hand:
            asked_at, session = self._in_hand[key]
            return now - asked_at > LATE_S or session.ended_at is not None
        if key not in self._answered:
            return now - self._started_at < self.redelivery_s
        answered_at, late, session = self._answered[key]
        if now - answered_at > self.redelivery_s:
            return False
        ended_at = session.ended_at
        return late or (ended_at is not None and ended_at - answered_at <= self._silence_s)

    def answered(self, key: str, session: Hashable, now: float) -> None:
        """It is durable and is being answered on this connection."""
        asked_at, record = self._in_hand.pop(key, (now, self._record(session)))
        self._answered.pop(key, None)
        self._answered[key] = (now, now - asked_at > LATE_S, record)
        oldest = next(iter(self._answered))
        too_old = now - self._answered[oldest][0] > self.redelivery_s
        if too_old or len(self._answered) > REMEMBERED:
            del self._answered[oldest]

    def dropped(self, key: str) -> None:
        """It was not taken; whoever sent it has it still."""
        self._in_hand.pop(key, None)

    def ended(self, session: Hashable, now: float) -> None:
        """The connection is over."""
        record = self._sessions.pop(session, _Session())
        record.ended_at = now
        self._ended[session] = record
        if len(self._ended) > _ENDED_KEPT:
            del self._ended[next(iter(self._ended))]

    def statistics(self) -> dict[str, int]:
        """How many messages are remembered, how many are being taken."""
        return {"remembered": len(self._answered), "in_hand": len(self._in_hand)}
