"""What a gateway has in hand, and what became of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from typing import Any, Generic, TypeVar

from engine.results import Awaiting, Fate

Session = TypeVar("Session")
Outcome = TypeVar("Outcome", bound=Fate)


class Traffic(Generic[Session]):
    """Sessions (calls, messages, mails) that are ``up``, the most there were, what they came to."""

    def __init__(self) -> None:
        self.up: set[Session] = set()
        self._peak = 0
        self._counts: Counter[str] = Counter()

    async def carry(self, session: Session, fate: Awaitable[Outcome]) -> Outcome:
        """Wait for the session's fate and count it; ``session`` is up meanwhile."""
        self.up.add(session)
        self._peak = max(self._peak, len(self.up))
        try:
            outcome = await fate
        finally:
            self.up.discard(session)
        self.count(outcome)
        return outcome

    def count(self, fate: Fate) -> None:
        """One more that came to this."""
        self._counts[_word(fate)] += 1

    def statistics(self) -> dict[str, Any]:
        """Up now and at most, and how many came to what."""
        return {"calls_up": len(self.up), "calls_up_peak": self._peak, **self._counts}


def _word(fate: Fate) -> str:
    if isinstance(fate, Awaiting):
        return "awaiting" if fate.accepted_at else "unknown"
    return fate.disposition.value
