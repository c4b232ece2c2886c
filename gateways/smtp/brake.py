"""The brake on closing addresses: who calls them all dead is wrong, not the list. Pure.

One for each provider, over its last final answers: taken, or refused for good. What was put off
says nothing of an address. That a domain does not exist, or takes no mail, comes from DNS and
counts like a reply: a resolver that denies every name is one fault for all addresses, too, and an
address that was spared wrongly is closed by the next mail to it.

A bounce that comes later is no answer and passes by: it comes long after the mails that were sent
with its own, so that a share of the last ones would mean nothing.
"""

from __future__ import annotations

from collections import deque

WINDOW = 200
LEAST = 50
"""Answers without which nothing is judged: a short list may be a bad one."""

RELEASE = 0.75
"""Of the share at which it was put on: at that very share it would go on and off and on again."""

OFF_PERCENT = 100.0


class Brake:
    """Whether addresses that are called dead are left open."""

    def __init__(self) -> None:
        self.on = False
        self.withheld = 0
        self._answers: deque[bool] = deque(maxlen=WINDOW)
        self._dead = 0

    @property
    def percent(self) -> float:
        """How many of the last answers called their address dead."""
        return 100.0 * self._dead / len(self._answers) if self._answers else 0.0

    def count(self, *, dead: bool, most_percent: float) -> bool:
        """Take a final answer in; whether the brake was put on or let go by it."""
        if len(self._answers) == WINDOW:
            self._dead -= self._answers[0]
        self._answers.append(dead)
        self._dead += dead
        before, limit = self.on, most_percent * (RELEASE if self.on else 1.0)
        judged = len(self._answers) >= LEAST and most_percent < OFF_PERCENT
        self.on = judged and self.percent > limit
        return self.on is not before
