"""What the far end of a loopback call does: shares of outcomes and how long each takes. Pure."""

from __future__ import annotations

import random
from enum import StrEnum
from typing import Any

import msgspec

from engine.errors import InvalidError


class Exponential(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A duration with the given mean and no memory: talk times of a telephone network."""

    mean: float


Spread = float | tuple[float, float] | Exponential
"""Seconds: one value (``2.5``), evenly spread (``[1, 4]``) or exponential (``{"mean": 3}``)."""


class Ending(StrEnum):
    """How the far end meets a call."""

    ANSWER = "answer"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    REJECT = "reject"
    INVALID = "invalid"
    FAIL = "fail"
    DEFER = "defer"


class Stat(StrEnum):
    """What a receipt says of a message, in its own word."""

    DELIVERED = "DELIVRD"
    UNDELIVERED = "UNDELIV"


class Plan(msgspec.Struct, frozen=True):
    """One call's or message's fate, drawn from a ``Script``. None = never by itself."""

    ending: Ending
    ring_s: float | None = 0.0
    talk_s: float | None = None
    digits: str = ""
    receipt_wait_s: float = 3600.0
    defer_s: tuple[float, ...] = ()


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A far end. Also what ``Provider.settings`` of type loopback may hold, field by field.

    Shares are weights; ``answer`` unset is what the others leave of 1. The defaults answer at once
    and listen to the end.
    """

    answer: float | None = None
    busy: float = 0.0
    no_answer: float = 0.0  # rings until our ring timeout, or for ``no_answer_s``
    reject: float = 0.0
    invalid: float = 0.0  # no such number
    fail: float = 0.0  # the trunk itself is down
    ring_s: Spread = 0.0  # from the first packet to answer, busy or refusal
    no_answer_s: Spread | None = None  # the network gives up after this long; None: it never does
    early: float = 0.0  # share of answered calls in which the callee hangs up by itself …
    talk_s: Spread = 2.0  # … this long after answering
    digits: str = ""  # keys pressed in every answered call
    speed: float = 1.0  # seconds of recording played per second; 0 = at once
    # Short messages. ``answer`` is the share the network accepts, after ``ring_s``; ``no_answer``
    # that of which it never says anything; ``busy`` that for which it is too busy.
    receipt_s: Spread | None = None  # from acceptance to its receipt; None: no receipts are asked
    undelivered: float = 0.0  # share of receipts that say so
    silent: float = 0.0  # share of accepted messages whose receipt never comes
    receipt_wait_s: float = 3600.0  # how long a receipt is waited for
    # E-mails, in the same words: ``receipt_s`` is when a bounce comes, where bounces can reach us,
    # ``undelivered`` the share that bounces; ``no_answer``: nobody answers the last dot.
    defer: float = 0.0  # share that the network puts off …
    defer_s: tuple[float, ...] = (300.0, 900.0, 1800.0, 3600.0)  # … each time for so long

    def shares(self) -> tuple[tuple[Ending, float], ...]:
        """Each ending with its weight, none of them 0."""
        others = (
            (Ending.BUSY, self.busy),
            (Ending.NO_ANSWER, self.no_answer),
            (Ending.REJECT, self.reject),
            (Ending.INVALID, self.invalid),
            (Ending.FAIL, self.fail),
            (Ending.DEFER, self.defer),
        )
        rest = max(0.0, 1.0 - sum(share for _, share in others))
        answer = rest if self.answer is None else self.answer
        return tuple((e, share) for e, share in ((Ending.ANSWER, answer), *others) if share)


def parse(settings: dict[str, Any]) -> Script:
    """The script in a provider's settings; raises ``InvalidError`` naming what is wrong with it."""
    try:
        script = msgspec.convert(settings, Script)
    except msgspec.ValidationError as error:
        raise InvalidError(f"loopback settings: {error}", field="settings") from error
    if not script.shares() or any(share < 0 for _, share in script.shares()):
        raise InvalidError("loopback settings: shares must be positive", field="settings")
    if not all(0 <= share <= 1 for share in (script.undelivered, script.silent)):
        raise InvalidError("loopback settings: shares must be from 0 to 1", field="settings")
    if any(seconds < 0 for seconds in script.defer_s):
        raise InvalidError("loopback settings: defer_s must not be negative", field="settings")
    if script.speed < 0:
        raise InvalidError("loopback settings: speed must not be negative", field="settings")
    return script


class Player:
    """Draws one plan after the other from a script; the same seed gives the same calls."""

    def __init__(self, script: Script, dice: random.Random) -> None:
        self.script = script
        self._dice = dice
        self._shares = script.shares()
        self._total = sum(share for _, share in self._shares)
        # The bench's far end: nothing to draw, so nothing is drawn.
        self._certain = len(self._shares) == 1 and not script.early and script.ring_s == 0.0
        self._instant = Plan(
            self._shares[0][0], 0.0, None, script.digits, script.receipt_wait_s, script.defer_s
        )

    def draw(self) -> Plan:
        """The next call's fate."""
        ending = self._shares[0][0] if self._certain else self._ending()
        if ending is Ending.NO_ANSWER:
            gives_up = self.script.no_answer_s
            gives_up_s = None if gives_up is None else self._seconds(gives_up)
            return Plan(ending, gives_up_s, receipt_wait_s=self.script.receipt_wait_s)
        if self._certain:
            return self._instant
        early = ending is Ending.ANSWER and self._dice.random() < self.script.early
        talk_s = self._seconds(self.script.talk_s) if early else None
        ring_s, script = self._seconds(self.script.ring_s), self.script
        return Plan(ending, ring_s, talk_s, script.digits, script.receipt_wait_s, script.defer_s)

    def receipt(self) -> tuple[float, Stat] | None:
        """When the receipt of the next accepted message comes and what it says; None: never."""
        if self.script.receipt_s is None or self._dice.random() < self.script.silent:
            return None
        bad = self._dice.random() < self.script.undelivered
        return self._seconds(self.script.receipt_s), Stat.UNDELIVERED if bad else Stat.DELIVERED

    def _ending(self) -> Ending:
        point = self._dice.random() * self._total
        for ending, share in self._shares:
            point -= share
            if point < 0:
                return ending
        return self._shares[-1][0]

    def _seconds(self, spread: Spread) -> float:
        match spread:
            case Exponential(mean):
                return self._dice.expovariate(1.0 / mean) if mean > 0 else 0.0
            case (low, high):
                return self._dice.uniform(low, high)
            case _:
                return float(spread)
