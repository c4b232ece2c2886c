"""After a crash: what had an intent and no result is closed, counted and shown.

First the gateways are asked what their journals know of it (``Gateway.recall``): a message that
went out goes on waiting for its report, one that never left goes out. Of what nobody knows anything
(every call) it may have reached a person, so it is closed as interrupted and not repeated unless
the policy says so (``retry.interrupted``); design.md §3.7.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import msgspec
import structlog
import trio

from engine import retry, states
from engine.clock import Clock
from engine.config import RetryConfig
from engine.errors import UnavailableError
from engine.gateway import Gateway
from engine.model import Campaign, CampaignStatus, Provider, Spool, TransmissionStatus
from engine.results import Awaiting, Disposition, Fate, Reached, Result, interrupted
from engine.store.base import Condition, Interrupted, Op, Outcome, Query, Standing, Store

log = structlog.get_logger("recovery")

BATCH = 500

AGAIN_MOST = 5
"""Spools that one transmission may have ended with the same wish to go on at once."""

NEVER_LEFT_MOST = 100
"""The same where nothing left: a node that is killed every second still sends everything."""


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
    # Nothing is queued yet: nobody has to be told which addresses are closed.
    await finish(store, store, await conclude(store, policy, clock, ends, closed))


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
        result, policy_now = results[one.spool_id], policies[one.transmission_id]
        if policy_now is None:
            outcomes.append(closing(one, given_up(result), None, now))
            continue
        result, delay_s = await bounded(store, one.transmission_id, result)
        outcomes.append(closing(one, result, policy_now, now, delay_s=delay_s))
    return outcomes


class Unwanted(Protocol):
    """Where addresses are closed: the list (``DoNotContacts``), or the store below it."""

    async def suppress(self, spool_id: int, reason: str) -> object:
        """Close a spool's destination; the same again changes nothing."""
        ...


async def finish(store: Store, unwanted: Unwanted, outcomes: Sequence[Outcome]) -> None:
    """Close what must not be contacted again, then the spools: no crash between loses the list."""
    told = [one for one in outcomes if one.result.suppress]
    await together([partial(unwanted.suppress, o.spool_id, o.result.suppress) for o in told])
    await store.finish_spools(outcomes)


async def together(writes: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Do them at once, so that they share commits; ``UnavailableError`` of any is raised as one."""
    faults: list[UnavailableError] = []

    async def one(write: Callable[[], Awaitable[object]]) -> None:
        try:
            await write()
        except UnavailableError as error:
            faults.append(error)

    async with trio.open_nursery() as nursery:
        for write in writes:
            nursery.start_soon(one, write)
    if faults:
        raise faults[0]


async def bounded(
    store: Store, transmission_id: int, result: Result
) -> tuple[Result, float | None]:
    """The result as it holds, and in how many seconds the same try goes on (None: it does not).

    Not at once where that was tried again and again, not later where it was put off often enough.
    """
    if result.again:
        result = await _not_for_ever(store, transmission_id, result)
        return result, 0.0 if result.again else None
    seconds = await delay_s(store, transmission_id, result)
    if seconds is None:
        return given_up(result), None
    # So spelled it is counted the next time.
    return msgspec.structs.replace(result, disposition=Disposition.DEFERRED), seconds


async def delay_s(store: Store, transmission_id: int, result: Result) -> float | None:
    """Seconds until a try that the network put off goes on; None: it does not."""
    if not result.later_s:
        return None
    alike = (
        Condition("transmission_id", Op.EQ, transmission_id),
        Condition("disposition", Op.EQ, Disposition.DEFERRED.value),
    )
    before = await store.count(Spool, Query(conditions=alike))
    return result.later_s[before] if before < len(result.later_s) else None


def given_up(result: Result) -> Result:
    """The result of a try that does not go on: what was put off has failed."""
    if result.disposition is not Disposition.DEFERRED and not result.later_s:
        return result
    return msgspec.structs.replace(result, disposition=Disposition.FAILED, later_s=())


async def _not_for_ever(store: Store, transmission_id: int, result: Result) -> Result:
    alike = (
        Condition("transmission_id", Op.EQ, transmission_id),
        Condition("response", Op.EQ, result.cause),
    )
    most = NEVER_LEFT_MOST if result.reached is Reached.NOTHING else AGAIN_MOST
    if await store.count(Spool, Query(conditions=alike)) < most:
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


def closing(
    one: Standing,
    result: Result,
    policy: RetryConfig | None,
    now: datetime,
    *,
    delay_s: float | None = None,
) -> Outcome:
    """The end of a transmission in process that no job holds, and of its spool where it has one.

    ``policy`` None: whatever the result, there is no other try. ``delay_s``: the same try goes on
    then.
    """
    due_at = None if policy is None else _due_at(one, result, policy, now, delay_s)
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


def _due_at(
    one: Standing, result: Result, policy: RetryConfig, now: datetime, delay_s: float | None
) -> datetime | None:
    if delay_s is not None:
        return now + timedelta(seconds=delay_s)
    return retry.decide(
        policy,
        try_done=one.try_done,
        try_allowed=one.try_allowed,
        result=result,
        now=now,
    )
