"""After a crash: what had an intent and no result is closed as interrupted, counted and shown.

Nobody knows whether it reached a person, so it is not redialled unless the policy says so
(``retry.interrupted``); design.md §3.7.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import structlog
import trio

from engine import retry, states
from engine.clock import Clock
from engine.config import RetryConfig
from engine.model import Campaign, Transmission, TransmissionStatus
from engine.results import Result, interrupted
from engine.store.base import Condition, Op, Outcome, Query, Store

log = structlog.get_logger("recovery")

BATCH = 500


async def recover(store: Store, policy: RetryConfig, clock: Clock, node_id: int = 1) -> int:
    """Close every spool of this node that has no result; returns how many there were.

    Call before anything is dispatched. Raises ``UnavailableError`` where the store takes no writes.
    """
    closed = 0
    while batch := await store.interrupted_spools(node_id, BATCH):
        policies = await effective_policies(store, policy, (found.transmission for found in batch))
        async with trio.open_nursery() as nursery:
            for found in batch:
                key = found.transmission.id
                outcome = closing(
                    found.transmission, interrupted(), policies[key], clock(), found.spool.id
                )
                nursery.start_soon(store.finish_spool, outcome)
        closed += len(batch)
    if closed:
        log.warning("recovered", interrupted_spools=closed)
    return closed


async def effective_policies(
    store: Store, policy: RetryConfig, transmissions: Iterable[Transmission]
) -> dict[int, RetryConfig]:
    """What holds for each transmission (by its id): its own delays over its campaign's."""
    rows = list(transmissions)
    ids = tuple({row.campaign_id for row in rows if row.campaign_id is not None})
    condition = Condition("id", Op.IN, ids)
    campaigns = await store.find(Campaign, Query(conditions=(condition,))) if ids else []
    delays = {campaign.id: campaign.retry_delays for campaign in campaigns}
    return {
        row.id: retry.effective(policy, delays.get(row.campaign_id or 0, {}), row.retry_delays)
        for row in rows
    }


def closing(
    transmission: Transmission,
    result: Result,
    policy: RetryConfig,
    now: datetime,
    spool_id: int = 0,
) -> Outcome:
    """The end of a transmission in process whose job is gone, and of its spool where it has one."""
    due_at = retry.decide(
        policy,
        try_done=transmission.try_done,
        try_allowed=transmission.try_allowed,
        result=result,
        now=now,
    )
    event = states.Event.RETRY if due_at else states.Event.FAIL
    return Outcome(
        spool_id=spool_id,
        transmission_id=transmission.id,
        campaign_id=transmission.campaign_id,
        result=result,
        transmission_status=states.advance(TransmissionStatus.PROCESSING, event),
        due_at=due_at,
        at=now,
    )
