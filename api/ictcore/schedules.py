"""/transmissions/{id}/schedule, /campaigns/{id}/…/schedule and /schedules: things to do later."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from msgspec import UNSET

from api.ictcore.fields import (
    OWNER_FILTERS,
    Flag,
    Integer,
    Number,
    Text,
    changes,
    read_body,
    seconds,
)
from api.ictcore.lists import find, page, rows
from api.paging import Filter, boolean, integer, string
from api.routing import Ask, Created, Done, Reply, Route, Rows
from engine.calendar_rules import RANGES
from engine.errors import InvalidError
from engine.firing import Action
from engine.model import Task
from engine.schedules import Given, Plan
from engine.store.base import Op


class ScheduleBody(msgspec.Struct, kw_only=True):
    """When: one moment (``delay``, ``timestamp``, ``datetime`` or ``due_at``), or calendar fields.

    Calendar fields are ``*``, a number, ``a-b``, ``*/n`` or lists of these; weekday 1 is Sunday.
    What is left out is ``*``; but ``hour`` and ``minute`` are 0 below a coarser field that was
    given: ``{"hour": 9}`` is 09:00. It happens at the next moment that all fields match, with
    ``is_recurring`` at every one until ``expiry``.

    ``delay`` counts seconds from now, ``timestamp`` is Unix seconds, ``datetime`` ISO 8601;
    ``due_at`` and ``expiry`` are either. Without an offset they are meant in ``timezone``: an IANA
    name, by default the account's, else the owner's, else the node's. Lighter ``weight`` goes first
    among those of the same minute. A ``status`` is ignored.
    """

    year: Text = UNSET
    month: Text = UNSET
    day: Text = UNSET
    weekday: Text = UNSET
    hour: Text = UNSET
    minute: Text = UNSET
    delay: Number = UNSET
    timestamp: Integer = UNSET
    datetime: Text = UNSET
    due_at: Text = UNSET
    expiry: Text = UNSET
    timezone: Text = UNSET
    weight: Integer = UNSET
    is_recurring: Flag = UNSET


class ScheduleView(msgspec.Struct, kw_only=True):
    """A schedule as clients read it: ``due_at`` is its next run, ``note`` tells of the last one."""

    schedule_id: int
    task_id: int
    type: str
    action: str
    transmission_id: int | None
    campaign_id: int | None
    account_id: int | None
    status: str
    year: str
    month: str
    day: str
    weekday: str
    hour: str
    minute: str
    timezone: str
    is_recurring: int
    weight: int
    due_at: int | None
    expiry: int | None
    last_run: int | None
    note: str
    user_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None


FILTERS = {
    "schedule_id": Filter("id", Op.EQ, integer),
    "task_id": Filter("id", Op.EQ, integer),
    "account_id": Filter("account_id", Op.EQ, integer),
    "type": Filter("type", Op.EQ, string),
    "action": Filter("action", Op.EQ, string),
    "status": Filter("status", Op.CONTAINS, string),
    "is_recurring": Filter("recurring", Op.EQ, boolean),
    **OWNER_FILTERS,
}


def to_json(task: Task) -> ScheduleView:
    """The task on the wire."""
    return ScheduleView(
        schedule_id=task.id,
        task_id=task.id,
        type=task.type,
        action=task.action,
        transmission_id=task.target_id if task.action == Action.SEND else None,
        campaign_id=None if task.action == Action.SEND else task.target_id,
        account_id=task.account_id,
        status=task.status.value,
        **{name: getattr(task, name) for name in RANGES},
        timezone=task.timezone,
        is_recurring=int(task.recurring),
        weight=task.weight,
        due_at=seconds(task.due_at),
        expiry=seconds(task.expires_at),
        last_run=seconds(task.last_run),
        note=task.note,
        user_id=task.owner_id,
        created_by=task.owner_id,
        date_created=seconds(task.created_at),
        last_updated=seconds(task.updated_at),
    )


async def _plan(ask: Ask) -> Plan:
    given = changes(await read_body(ask, ScheduleBody, creating=True))
    expiry = _time("expiry", given["expiry"]) if "expiry" in given else None
    return Plan(
        fields={name: given[name] for name in RANGES if name in given},
        moments={
            name: moment for name in Given if (moment := _moment(name, given.get(name))) is not None
        },
        recurring=given.get("is_recurring", False),
        weight=given.get("weight", 0),
        expires_at=expiry,
        timezone=given.get("timezone", ""),
    )


def _moment(name: Given, value: float | str | None) -> datetime | float | None:
    if value is None or name is Given.DELAY:
        return None if value is None else float(value)
    if name is Given.TIMESTAMP:
        return _epoch(name, str(value))
    return _iso(name, str(value)) if name is Given.DATETIME else _time(name, str(value))


def _time(name: str, text: str) -> datetime | None:
    """Unix seconds or ISO 8601; forms send 0 for none."""
    if text == "0":
        return None
    return _epoch(name, text) if text.isascii() and text.isdigit() else _iso(name, text)


def _epoch(name: str, text: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (OverflowError, OSError, ValueError):
        raise InvalidError(f"{name}: must be Unix seconds", field=name) from None


def _iso(name: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidError(f"{name}: must be like 2026-01-31T09:00:00", field=name) from None


async def schedule_send(ask: Ask) -> Reply:
    """PUT /transmissions/{transmission_id}/schedule."""
    task = await ask.engine.schedules.send_at(ask.who, ask.id("transmission_id"), await _plan(ask))
    return Created("schedule_id", task.id)


async def cancel_send(ask: Ask) -> Reply:
    """DELETE /transmissions/{transmission_id}/schedule."""
    await ask.engine.schedules.cancel_send(ask.who, ask.id("transmission_id"))
    return Done()


async def of_transmission(ask: Ask) -> Reply:
    """GET /transmissions/{transmission_id}/schedule."""
    query, limit = page(ask, FILTERS)
    found = await ask.engine.schedules.of_transmission(ask.who, ask.id("transmission_id"), query)
    return rows(found, limit, to_json)


async def schedule_start(ask: Ask) -> Reply:
    """POST or PUT /campaigns/{campaign_id}/start/schedule."""
    return await _schedule_run(ask, Action.START)


async def schedule_stop(ask: Ask) -> Reply:
    """POST or PUT /campaigns/{campaign_id}/stop/schedule."""
    return await _schedule_run(ask, Action.STOP)


async def cancel_runs(ask: Ask) -> Reply:
    """DELETE or POST /campaigns/{campaign_id}/schedule: all starts and stops."""
    return await _cancel_runs(ask, Action.START, Action.STOP)


async def cancel_starts(ask: Ask) -> Reply:
    """DELETE /campaigns/{campaign_id}/start/schedule."""
    return await _cancel_runs(ask, Action.START)


async def cancel_stops(ask: Ask) -> Reply:
    """DELETE /campaigns/{campaign_id}/stop/schedule."""
    return await _cancel_runs(ask, Action.STOP)


async def of_campaign(ask: Ask) -> Reply:
    """GET /campaigns/{campaign_id}/schedule."""
    query, limit = page(ask, FILTERS)
    found = await ask.engine.schedules.of_campaign(ask.who, ask.id("campaign_id"), query)
    return rows(found, limit, to_json)


async def index(ask: Ask) -> Reply:
    """GET /schedules."""
    return await find(ask, Task, FILTERS, to_json)


async def _schedule_run(ask: Ask, action: Action) -> Reply:
    task = await ask.engine.schedules.run_at(
        ask.who, ask.id("campaign_id"), action, await _plan(ask)
    )
    return Created("schedule_id", task.id)


async def _cancel_runs(ask: Ask, *actions: Action) -> Reply:
    await ask.engine.schedules.cancel_runs(ask.who, ask.id("campaign_id"), *actions)
    return Done()


_SEND = "/transmissions/{transmission_id}/schedule"
_CAMPAIGN = "/campaigns/{campaign_id}"
_START, _STOP, _ALL = (
    _CAMPAIGN + path for path in ("/start/schedule", "/stop/schedule", "/schedule")
)

ROUTES = (
    Route(verb="PUT", path=_SEND, handler=schedule_send, summary="Send it later",
          answer=Created, view="schedule_id", body=ScheduleBody, statuses=(423,)),
    Route(verb="DELETE", path=_SEND, handler=cancel_send, summary="Do not send it later",
          answer=Done),
    Route(verb="GET", path=_SEND, handler=of_transmission,
          summary="List the schedules of a transmission", answer=Rows, view=ScheduleView,
          filters=FILTERS),
    *(
        Route(verb=verb, path=_START, handler=schedule_start, summary="Start dialling later",
              answer=Created, view="schedule_id", body=ScheduleBody, statuses=(417,))
        for verb in ("POST", "PUT")
    ),
    Route(verb="DELETE", path=_START, handler=cancel_starts,
          summary="Forget the scheduled starts of a campaign", answer=Done),
    *(
        Route(verb=verb, path=_STOP, handler=schedule_stop, summary="Stop dialling later",
              answer=Created, view="schedule_id", body=ScheduleBody, statuses=(417,))
        for verb in ("POST", "PUT")
    ),
    Route(verb="DELETE", path=_STOP, handler=cancel_stops,
          summary="Forget the scheduled stops of a campaign", answer=Done),
    *(
        Route(verb=verb, path=_ALL, handler=cancel_runs,
              summary="Forget all schedules of a campaign", answer=Done)
        for verb in ("DELETE", "POST")
    ),
    Route(verb="GET", path=_ALL, handler=of_campaign, summary="List the schedules of a campaign",
          answer=Rows, view=ScheduleView, filters=FILTERS),
    Route(verb="GET", path="/schedules", handler=index, summary="List schedules", answer=Rows,
          view=ScheduleView, filters=FILTERS),
)  # fmt: skip
