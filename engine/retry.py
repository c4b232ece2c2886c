"""Whether and when a failed try is repeated: a pure decision."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from engine.config import RetryConfig
from engine.errors import InvalidError
from engine.results import STUCK, Disposition, Reached, Result

MAX_DELAY_S = 604_800.0
"""A week: later than that nobody remembers what the call was about."""

# What a campaign or transmission may set, and which of the node's delays that stands for. To whom
# it is about, a spool that was cut short has failed.
_DELAYS = {
    "busy": ("busy_delay_s",),
    "no_answer": ("no_answer_delay_s",),
    "failed": ("failed_delay_s", "interrupted_delay_s"),
}


class Policy:
    """The retry policy that holds now. Jobs share it with their campaign, which may change it."""

    __slots__ = ("config",)

    def __init__(self, config: RetryConfig | None = None) -> None:
        self.config = config or RetryConfig()


def delays(given: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by outcome (``busy``, ``no_answer``, ``failed``), digit strings as numbers.

    Raises ``InvalidError`` naming the key that is unknown or not from 0 to ``MAX_DELAY_S``.
    """
    for outcome in given:
        if outcome not in _DELAYS:
            _refuse(outcome, f"one of {', '.join(_DELAYS)}")
    return {outcome: _seconds(outcome, value) for outcome, value in given.items()}


def _seconds(outcome: str, value: Any) -> float:
    try:
        seconds = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds <= MAX_DELAY_S:  # false for NaN too
        _refuse(outcome, f"seconds from 0 to {MAX_DELAY_S:.0f}")
    return seconds


def _refuse(outcome: str, expected: str) -> None:
    raise InvalidError(f"retry_delays.{outcome[:32]}: must be {expected}", field="retry_delays")


def effective(policy: RetryConfig, *overrides: Mapping[str, float]) -> RetryConfig:
    """``policy`` with the delays of a campaign, then a transmission, put over it."""
    changed = {
        field: seconds
        for override in overrides
        for outcome, seconds in override.items()
        for field in _DELAYS[outcome]
    }
    return msgspec.structs.replace(policy, **changed) if changed else policy


def decide(
    policy: RetryConfig, *, try_done: int, try_allowed: int, result: Result, now: datetime
) -> datetime | None:
    """When the next try is due, or None for never.

    ``try_done`` includes the try that ``result`` ended. A success, a refusal by the callee, an
    address that does not exist or was closed and whatever may have reached a person unasked are
    never repeated (style.md habit 11), unless the policy says so by name.
    """
    if result.succeeded or result.suppress or try_done >= try_allowed:
        return None
    delay_s = _delay_s(policy, result)
    return None if delay_s is None else now + timedelta(seconds=delay_s)


def _delay_s(policy: RetryConfig, result: Result) -> float | None:
    match result.disposition:
        case Disposition.BUSY:
            return policy.busy_delay_s
        case Disposition.NO_ANSWER:
            return policy.no_answer_delay_s
        case Disposition.REJECTED:
            return policy.busy_delay_s if policy.rejected else None
        case Disposition.FAILED if result.reached is not Reached.PERSON:
            return policy.failed_delay_s
        case Disposition.INTERRUPTED | Disposition.FAILED if _unseen(result):
            return policy.interrupted_delay_s if policy.interrupted else None
        case _:
            return None


def _unseen(result: Result) -> bool:
    """Whether nobody saw the outcome: the node died under it, or lost it."""
    return result.disposition is Disposition.INTERRUPTED or result.cause == STUCK
