"""Schedules as callers ask for them: something to be done to a transmission or campaign at a time.

What is asked for (``Plan``) becomes a ``Task``; ``engine.firing`` does it when its time has come.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Any

import msgspec

from engine import calendar_rules, states
from engine.auth import Principal
from engine.calendar_rules import EVERY, RANGES, Rule
from engine.catalog import Catalog
from engine.errors import ConflictError, InvalidError, NotReadyError
from engine.firing import CAMPAIGN, RIGHT, TRANSMISSION, UNDERWAY, Action, Firing
from engine.model import Account, Campaign, Entity, Task, TaskStatus, Transmission, User
from engine.store.base import Condition, Op, Query

MAX_PENDING = 100
"""Tasks one campaign may have waiting: business days need a few."""

MAX_WEIGHT = 1_000_000
_FIELDS = tuple(RANGES)
_END = datetime(calendar_rules.LAST_YEAR + 1, 1, 1, tzinfo=UTC)


class Given(StrEnum):
    """How a single moment was named."""

    DELAY = "delay"
    TIMESTAMP = "timestamp"
    DATETIME = "datetime"
    DUE_AT = "due_at"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """When something is to be done, as it was asked for: by fields or as one moment.

    ``fields`` are those of ``Rule`` that were given. ``moments`` are times by the name of the field
    they came in; naive ones are the wall clock's in the task's zone, ``delay`` is in seconds.
    """

    fields: dict[str, str] = {}
    moments: dict[Given, datetime | float] = {}
    recurring: bool = False
    weight: int = 0
    expires_at: datetime | None = None
    timezone: str = ""


class Schedules:
    """The tasks of one node."""

    def __init__(self, catalog: Catalog, firing: Firing) -> None:
        self._catalog = catalog
        self._store = catalog.store
        self._firing = firing
        self._grace_s = catalog.config.schedule.missed_after_s
        catalog.after_delete(Transmission, self._target_deleted)
        catalog.after_delete(Campaign, self._target_deleted)

    async def send_at(self, who: Principal, transmission_id: int, plan: Plan) -> Task:
        """Send a transmission later. It has one schedule: another one takes its place.

        Raises ``InvalidError`` naming the field; ``NotReadyError`` where it is completed, invalid
        or being sent.
        """
        who.require("transmission_send", "task_create")
        transmission = await self._catalog.visible(who, Transmission, transmission_id)
        if not states.may(transmission.status, states.Event.CLAIM):
            raise NotReadyError(f"Transmission is {transmission.status.value}")
        task = await self._planned(who, transmission, Action.SEND, plan)
        async with self._catalog.edits[Task]:
            waiting = [row for row in await self._of(transmission) if _waits(row)]
            if waiting:
                first, *others = waiting
                kept = msgspec.structs.replace(task, id=first.id, uid=first.uid)
                stored = await self._store.update(kept)
                await self._delete(others)
            else:
                stored = await self._store.insert(task)
        self._firing.nudge()
        return stored

    async def run_at(self, who: Principal, campaign_id: int, action: Action, plan: Plan) -> Task:
        """Start or stop a campaign later; it may have many schedules.

        Raises ``InvalidError`` naming the field; ``ConflictError`` beyond ``MAX_PENDING``.
        """
        who.require(RIGHT[action], "task_create")
        campaign = await self._catalog.visible(who, Campaign, campaign_id)
        task = await self._planned(who, campaign, action, plan)
        async with self._catalog.edits[Task]:
            waiting = [row for row in await self._of(campaign) if _waits(row)]
            if len(waiting) >= MAX_PENDING:
                raise ConflictError(f"Campaign has {MAX_PENDING} schedules already")
            stored = await self._store.insert(task)
        self._firing.nudge()
        return stored

    async def cancel_send(self, who: Principal, transmission_id: int) -> None:
        """Nothing scheduled is sent from now on; sending now stays possible."""
        who.require("transmission_update", "task_delete")
        target = await self._catalog.visible(who, Transmission, transmission_id)
        await self._cancel(target, (Action.SEND,))

    async def cancel_runs(self, who: Principal, campaign_id: int, *actions: Action) -> None:
        """Forget the scheduled ``actions`` of a campaign; it goes on as it is now."""
        who.require("task_delete", *(RIGHT[action] for action in actions))
        await self._cancel(await self._catalog.visible(who, Campaign, campaign_id), actions)

    async def of_transmission(
        self, who: Principal, transmission_id: int, query: Query
    ) -> list[Task]:
        """What is scheduled for a transmission, and what became of it."""
        who.require("transmission_read", "task_list")
        return await self._of(
            await self._catalog.visible(who, Transmission, transmission_id), query
        )

    async def of_campaign(self, who: Principal, campaign_id: int, query: Query) -> list[Task]:
        """What is scheduled for a campaign, and what became of it."""
        who.require("campaign_read", "task_list")
        return await self._of(await self._catalog.visible(who, Campaign, campaign_id), query)

    async def _of(self, target: Transmission | Campaign, query: Query | None = None) -> list[Task]:
        query = query or Query()
        conditions = (
            Condition("type", Op.EQ, _type(target)),
            Condition("target_id", Op.EQ, target.id),
            *query.conditions,
        )
        return await self._store.find(Task, msgspec.structs.replace(query, conditions=conditions))

    async def _cancel(self, target: Transmission | Campaign, actions: Sequence[Action]) -> None:
        """Delete what waits; what is being done this moment is done before this returns."""
        key = (_type(target), target.id)
        while True:
            await self._firing.settled(key)
            async with self._catalog.edits[Task]:
                if self._firing.busy(key):
                    continue
                rows = await self._of(target)
                return await self._delete([r for r in rows if _waits(r) and r.action in actions])

    async def _target_deleted(self, target: Transmission | Campaign) -> None:
        async with self._catalog.edits[Task]:
            await self._delete(await self._of(target))

    async def _delete(self, rows: Sequence[Task]) -> None:
        for row in rows:
            await self._store.delete(Task, row.id)

    async def _planned(
        self, who: Principal, target: Transmission | Campaign, action: Action, plan: Plan
    ) -> Task:
        name = plan.timezone or await self._timezone(target)
        now = self._catalog.clock()
        return Task(
            type=_type(target),
            action=action,
            target_id=target.id,
            account_id=target.account_id,
            owner_id=who.user_id,
            created_at=now,
            updated_at=now,
            timezone=name,
            **planned(plan, calendar_rules.zone(name), now, self._grace_s),
        )

    async def _timezone(self, target: Transmission | Campaign) -> str:
        """The account's, else the owner's, else the node's."""
        if target.account_id is not None:
            account = await self._store.get(Account, target.account_id)
            if account is not None and account.timezone:
                return account.timezone
        owner = None if target.owner_id is None else await self._store.get(User, target.owner_id)
        if owner is not None and owner.timezone_id is not None:
            return calendar_rules.offset_name(owner.timezone_id)
        return self._catalog.config.node.timezone


def planned(plan: Plan, where: tzinfo, now: datetime, grace_s: float) -> dict[str, Any]:
    """The fields of the task that a plan makes; ``InvalidError`` names what makes no sense.

    A moment may lie ``grace_s`` in the past: it is done at once.
    """
    if not 0 <= plan.weight <= MAX_WEIGHT:
        raise InvalidError(f"weight: must be from 0 to {MAX_WEIGHT}", field="weight")
    fields = _with_defaults(plan.fields)
    calendar_rules.check(Rule(**fields))
    if plan.moments:
        due_at = _one_moment(plan, where, now, grace_s)
        fields = {}
    else:
        due_at = _first_run(plan, fields, where, now)
    expires_at = plan.expires_at and _aware(plan.expires_at, where, "expiry")
    if expires_at and expires_at <= due_at:
        raise InvalidError("expiry: must be after the first run", field="expiry")
    return {
        **fields,
        "recurring": plan.recurring,
        "weight": plan.weight,
        "due_at": due_at,
        "expires_at": expires_at,
    }


def _one_moment(plan: Plan, where: tzinfo, now: datetime, grace_s: float) -> datetime:
    (given, value), *more = plan.moments.items()
    others = [*(str(name) for name, _ in more), *(n for n, v in plan.fields.items() if v != EVERY)]
    if others:
        raise InvalidError(f"{others[0]}: {given} is given as well", field=others[0])
    if plan.recurring:
        message = f"is_recurring: needs calendar fields, {given} is one moment"
        raise InvalidError(message, field="is_recurring")
    if isinstance(value, datetime):
        at = _aware(value, where, given)
    elif not 0 <= value <= (_END - now).total_seconds():
        raise InvalidError(f"{given}: not a number of seconds from now", field=given)
    else:
        at = now + timedelta(seconds=value)
    if at < now - timedelta(seconds=grace_s):
        raise InvalidError(f"{given}: is in the past", field=given)
    return at


def _aware(value: datetime, where: tzinfo, field: str) -> datetime:
    try:
        at = calendar_rules.moment(value, where) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        at = _END
    if not at < _END:
        raise InvalidError(f"{field}: after the year {calendar_rules.LAST_YEAR}", field=field)
    return at


def _with_defaults(given: dict[str, str]) -> dict[str, str]:
    """``*`` for what was left out, but the first value below a coarser field that was given.

    ``hour`` 9 alone is 09:00, and not each of the sixty minutes after it.
    """
    fields: dict[str, str] = {}
    fixed = False
    for name in _FIELDS:
        default = str(RANGES[name][0]) if fixed and name in _FILLED else EVERY
        fields[name] = given.get(name, default)
        fixed = fixed or fields[name] != EVERY
    return fields


# The day is not: a weekday says enough, and a month alone means all of its days.
_FILLED = frozenset({"hour", "minute"})


def _first_run(plan: Plan, fields: dict[str, str], where: tzinfo, now: datetime) -> datetime:
    if not plan.fields:
        # Unknown keys are ignored: a slip in the only key must not call anybody at once.
        raise InvalidError(
            "delay is missing: or timestamp, datetime, due_at, or one of " + ", ".join(_FIELDS),
            field="delay",
        )
    first = calendar_rules.next_fire(Rule(**fields), where, now)
    if first is not None:
        return first
    without_year = Rule(**{**fields, "year": EVERY})
    field = "day" if calendar_rules.next_fire(without_year, where, now) is None else "year"
    raise InvalidError(f"{field}: no such day is to come", field=field)


def _type(target: Entity) -> str:
    return TRANSMISSION if isinstance(target, Transmission) else CAMPAIGN


def _waits(task: Task) -> bool:
    """Whether anything of the task is still to come."""
    return task.status is TaskStatus.PENDING or task.note == UNDERWAY
