"""Whether the other end still reads us: enquire_link (SMPP 3.4 §4.11). Pure."""

from __future__ import annotations

import math


class Pulse:
    """When to ask, and when to give up.

    Only an answer to something of ours shows that the peer reads; requests of its own do not.
    """

    def __init__(self, every_s: float, timeout_s: float, *, now: float) -> None:
        self.heard_at = now  # the last answer to anything of ours
        self._every_s, self._timeout_s = every_s, timeout_s
        self._asked_at = -math.inf

    @property
    def asked(self) -> bool:
        """Whether a question is open."""
        return self.heard_at < self._asked_at

    def due(self) -> float:
        """When to ask, or, where a question is open, to give up."""
        if self.asked:
            return self._asked_at + self._timeout_s
        return self.heard_at + self._every_s

    def ask(self, now: float) -> None:
        """A question leaves."""
        self._asked_at = now
