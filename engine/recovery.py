"""After a crash: what had an intent and no result is closed as interrupted, counted and shown.

Nobody knows whether it reached a person, so it is not redialled unless the policy says so
(``retry.interrupted``); design.md §3.7.
"""

from __future__ import annotations

import structlog
import trio

from engine import retry, states
from engine.clock import Clock
from engine.config import RetryConfig
from engine.model import TransmissionStatus
from engine.results import interrupted
from engine.store.base import Interrupted, Outcome, Store

log = structlog.get_logger("recovery")

BATCH = 500


async def recover(store: Store, policy: RetryConfig, clock: Clock, node_id: int = 1) -> int:
    """Close every spool of this node that has no result; returns how many there were.

    Call before anything is dispatched. Raises ``UnavailableError`` where the store takes no writes.
    """
    closed = 0
    while batch := await store.interrupted_spools(node_id, BATCH):
        async with trio.open_nursery() as nursery:
            for found in batch:
                nursery.start_soon(store.finish_spool, _outcome(found, policy, clock))
        closed += len(batch)
    if closed:
        log.warning("recovered", interrupted_spools=closed)
    return closed


def _outcome(found: Interrupted, policy: RetryConfig, clock: Clock) -> Outcome:
    now, result = clock(), interrupted()
    transmission = found.transmission
    due_at = retry.decide(
        policy,
        try_done=transmission.try_done,
        try_allowed=transmission.try_allowed,
        result=result,
        now=now,
    )
    event = states.Event.RETRY if due_at else states.Event.FAIL
    return Outcome(
        spool_id=found.spool.id,
        transmission_id=transmission.id,
        campaign_id=found.spool.campaign_id,
        result=result,
        transmission_status=states.advance(TransmissionStatus.PROCESSING, event),
        due_at=due_at,
        at=now,
    )
