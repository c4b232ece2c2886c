"""Whether and when a failed try is repeated: a pure decision."""

from __future__ import annotations

from datetime import datetime, timedelta

from engine.config import RetryConfig
from engine.results import Disposition, Reached, Result


def decide(
    policy: RetryConfig, *, try_done: int, try_allowed: int, result: Result, now: datetime
) -> datetime | None:
    """When the next try is due, or None for never.

    ``try_done`` includes the try that ``result`` ended. A success, a refusal by the callee, an
    address that does not exist and whatever may have reached a person unasked are never repeated
    (style.md habit 11), unless the policy says so by name.
    """
    if result.succeeded or try_done >= try_allowed:
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
        case Disposition.INTERRUPTED:
            return policy.interrupted_delay_s if policy.interrupted else None
        case Disposition.FAILED if result.reached is not Reached.PERSON:
            return policy.failed_delay_s
        case _:
            return None
