"""After a crash: what had an intent and no result is closed, counted and shown.

First the gateways are asked what their journals know of it (``Gateway.recall``): a message that
went out goes on waiting for its report, one that never left goes out. Of what nobody knows anything
(every call) it may have reached a person, so it is closed as interrupted and not repeated unless
the policy says so (``retry.interrupted``); design.md §3.7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec
import structlog
import trio

from engine import retry, states
from engine.clock import Clock
from engine.config import RetryConfig
from engine.gateway import Gateway
from engine.model import Campaign, CampaignStatus, Provider, Spool, TransmissionStatus
from engine.results import Awaiting, Fate, Result, interrupted
from engine.store.base import Condition, Interrupted, Op, Outcome, Query, Standing, Store

log = structlog.get_logger("recovery")

BATCH = 500

AGAIN_MOST = 5
"""Spools that one transmission may have ended with the same wish to go on at once."""


async def recover(
    store: Store,
    policy: RetryConfig,
    clock: Clock,
    gateways: Mapping[str, Gateway] | None = None,
    node_id: int = 1,
) -> int:
    """Settle every spool of this node without a result that waits for none; returns how many.

    Call with the gateways running and before anything is dispatched. Raises ``UnavailableError``
    where the store takes no writes.
    """
    settled = 0
    while batch := await store.interrupted_spools(node_id, BATCH):
        fates = await _recalled(store, gateways or {}, [found.spool for found in batch])
        await settle(store, policy, clock, batch, fates)
        settled += len(batch)
    if settled:
        log.warning("recovered", interrupted_spools=settled)
    return settled


async def settle(
    store: Store,
    policy: RetryConfig,
    clock: Clock,
    batch: Sequence[Interrupted],
    fates: Mapping[int, Fate],
) -> None:
    """Write down what became of each spool; interrupted where nobody knows."""
    closed: dict[int, Result] = {}
    async with trio.open_nursery() as nursery:
        for found in batch:
            fate = fates.get(found.spool.id) or interrupted()
            if isinstance(fate, Awaiting):
                nursery.start_soon(store.await_report, found.spool.id, fate, clock())
            else:
                closed[found.spool.id] = fate
    ends = [found.standing for found in batch if found.spool.id in closed]
    await store.finish_spools(await conclude(store, policy, clock, ends, closed))


async def _recalled(
    store: Store, gateways: Mapping[str, Gateway], spools: Sequence[Spool]
) -> dict[int, Fate]:
    """What the gateways know of the spools that went their way."""
    types = await _types(store, {spool.provider_id for spool in spools})
    fates: dict[int, Fate] = {}
    for kind, gateway in gateways.items():
        own = [spool for spool in spools if types.get(spool.provider_id) == kind]
        if own:
            fates |= await gateway.recall(own)
        # A deleted provider tells no more whose spools these were: only what was sent is known.
        lost = [s for s in spools if s.provider_id not in types and s.service & gateway.services]
        if lost:
            known = await gateway.recall(lost)
            fates |= {key: fate for key, fate in known.items() if not _never_left(fate)}
    return fates


def _never_left(fate: Fate) -> bool:
    return isinstance(fate, Result) and fate.again


async def _types(store: Store, provider_ids: Iterable[int | None]) -> dict[int | None, str]:
    ids = tuple(key for key in provider_ids if key is not None)
    condition = Condition("id", Op.IN, ids)
    found = await store.find(Provider, Query(conditions=(condition,))) if ids else []
    return {provider.id: provider.type for provider in found}


async def conclude(
    store: Store,
    policy: RetryConfig,
    clock: Clock,
    ends: Sequence[Standing],
    results: Mapping[int, Result],
) -> list[Outcome]:
    """What follows from the results (by spool id) of spools that no job holds."""
    policies = await effective_policies(store, policy, ends)
    now = clock()
    outcomes: list[Outcome] = []
    for one in ends:
        result = await bounded(store, one.transmission_id, results[one.spool_id])
        outcomes.append(closing(one, result, policies[one.transmission_id], now))
    return outcomes


async def bounded(store: Store, transmission_id: int, result: Result) -> Result:
    """The result, not to go on at once where that was tried again and again."""
    if not result.again:
        return result
    alike = (
        Condition("transmission_id", Op.EQ, transmission_id),
        Condition("response", Op.EQ, result.cause),
    )
    if await store.count(Spool, Query(conditions=alike)) < AGAIN_MOST:
        return result
    log.error("goes_on_no_more", transmission_id=transmission_id, cause=result.cause)
    return msgspec.structs.replace(result, again=False)


async def effective_policies(
    store: Store, policy: RetryConfig, rows: Sequence[Standing]
) -> dict[int, RetryConfig | None]:
    """What holds for each transmission (by its id): its own delays over its campaign's.

    None: nobody would bring another try. Its contact is gone, or its campaign is over.
    """
    ids = tuple({row.campaign_id for row in rows if row.campaign_id is not None})
    condition = Condition("id", Op.IN, ids)
    campaigns = await store.find(Campaign, Query(conditions=(condition,))) if ids else []
    delays = {campaign.id: campaign.retry_delays for campaign in campaigns}
    over = {one.id for one in campaigns if one.status is CampaignStatus.COMPLETED}
    return {
        row.transmission_id: None
        if row.contact_id is None or row.campaign_id in over
        else retry.effective(policy, delays.get(row.campaign_id or 0, {}), row.retry_delays)
        for row in rows
    }


def closing(one: Standing, result: Result, policy: RetryConfig | None, now: datetime) -> Outcome:
    """The end of a transmission in process that no job holds, and of its spool where it has one.

    ``policy`` None: whatever the result, there is no other try.
    """
    due_at = None if policy is None else _due_at(one, result, policy, now)
    if result.succeeded:
        event = states.Event.SUCCEED
    else:
        event = states.Event.RETRY if due_at else states.Event.FAIL
    return Outcome(
        spool_id=one.spool_id,
        transmission_id=one.transmission_id,
        campaign_id=one.campaign_id,
        result=result,
        transmission_status=states.advance(TransmissionStatus.PROCESSING, event),
        due_at=due_at,
        at=now,
    )


def _due_at(one: Standing, result: Result, policy: RetryConfig, now: datetime) -> datetime | None:
    if result.again:
        return now
    return retry.decide(
        policy,
        try_done=one.try_done,
        try_allowed=one.try_allowed,
        result=result,
        now=now,
    )
