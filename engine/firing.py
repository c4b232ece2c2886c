"""Does what is scheduled when its time has come: once, also through a crash in between.

A run is claimed first: its task is moved on and marked ``UNDERWAY`` in one durable write. Only then
it is done, and the mark replaced by what became of it. A mark found at the start of a node is a run
of which nobody knows: starting and stopping a campaign can be done again without harm, a send is
repeated only where its transmission shows no try since the claim.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
import structlog
import trio

from engine import states
from engine.auth import Principal
from engine.bus import Bus
from engine.calendar_rules import Rule, last_fire, next_fire, zone
from engine.catalog import FAMILY, Catalog
from engine.config import ScheduleConfig
from engine.delivery import STORE_RETRY_S
from engine.errors import NotFoundError, OutspoolError, UnavailableError
from engine.events import TaskFired
from engine.model import (
    EPOCH,
    Campaign,
    Task,
    TaskStatus,
    Transmission,
    TransmissionStatus,
    User,
)
from engine.store.base import Condition, Op, Query

log = structlog.get_logger("schedules")

TRANSMISSION, CAMPAIGN = "transmission", "campaign"
UNDERWAY = "under way"
RECHECK_S = 30.0
"""How soon a wall clock that was set is noticed."""

BATCH = 64
_MAX_DUE = 1000

T = TypeVar("T")

Key = tuple[str, int]
"""What a task is about: type and id of its target."""

_KINDS: dict[str, type[Transmission | Campaign]] = {
    TRANSMISSION: Transmission,
    CAMPAIGN: Campaign,
}
_OVER = frozenset({TransmissionStatus.COMPLETED, TransmissionStatus.INVALID})


class Action(StrEnum):
    """What a task does."""

    SEND = "send"
    START = "start"
    STOP = "stop"


RIGHT = {
    Action.SEND: "transmission_send",
    Action.START: "campaign_start",
    Action.STOP: "campaign_stop",
}


class Verbs(Protocol):
    """What tasks are made of: the engine's own verbs."""

    ready: bool

    async def start_campaign(self, campaign_id: int) -> Campaign:
        """See ``Engine``."""
        ...

    async def stop_campaign(self, campaign_id: int) -> Campaign:
        """See ``Engine``."""
        ...

    async def send(self, transmission_id: int) -> int:
        """See ``Engine``."""
        ...


class _Run(msgspec.Struct):
    """One run of a task: when it was to be, and why it is not done ("" = it is)."""

    task: Task
    at: datetime
    claimed: bool = False
    refusal: str = ""
    expired: bool = False


class Firing:
    """The one task of a node that waits for the next due ``Task`` and has it done."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        config: ScheduleConfig,
        bus: Bus,
        verbs: Verbs,
        principal: Callable[[User], Principal],
    ) -> None:
        self._catalog = catalog
        self._store = catalog.store
        self._clock = catalog.clock
        self._config = config
        self._bus = bus
        self._verbs = verbs
        self._principal = principal
        self._nudged = trio.Event()
        self._next_due: datetime | None = None
        self._busy: dict[Key, trio.Event] = {}
        self._interrupted: set[Key] = set()
        self._counts = {"fired": 0, "missed": 0, "refused": 0}

    def nudge(self) -> None:
        """A task was added or changed."""
        self._nudged.set()

    def busy(self, key: Key) -> bool:
        """Whether a run of this target is claimed and not done yet."""
        return key in self._busy

    async def settled(self, key: Key) -> None:
        """Wait until no run of this target is being done."""
        while key in self._busy:
            await self._busy[key].wait()

    def statistics(self) -> dict[str, Any]:
        """Runs done, late ones (done or not), refused ones; targets at work; the next run."""
        next_due = None if self._next_due is None else self._next_due.timestamp()
        return {**self._counts, "busy": len(self._busy), "next_due_at": next_due}

    # --- waiting --------------------------------------------------------------------------------
    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fire what is due until cancelled; the node is ready when it starts."""
        task_status.started()
        known = False
        while True:
            self._nudged = trio.Event()
            try:
                if not known:
                    self._interrupted = {_key(task) for task in await self._find(note=UNDERWAY)}
                    known = True
                await self._round()
            except OutspoolError as error:
                log.warning("schedules_wait_for_store", cause=str(error))
                await trio.sleep(STORE_RETRY_S)
                continue
            await self._wait()

    async def _round(self) -> None:
        """Fire all that is due now, then look when the next is."""
        while self._verbs.ready:
            now = self._clock()
            due = await self._find(
                BATCH, Condition("due_at", Op.LE, now), status=TaskStatus.PENDING
            )
            keys = dict.fromkeys([*self._interrupted, *(_key(task) for task in due)])
            if not keys:
                break
            self._next_due = None
            await self._fire(list(keys)[:BATCH])
        since = Condition("due_at", Op.GE, EPOCH)
        first = await self._find(1, since, status=TaskStatus.PENDING)
        self._next_due = first[0].due_at if first and self._verbs.ready else None

    async def _wait(self) -> None:
        while self._next_due is not None:
            delay_s = (self._next_due - self._clock()).total_seconds()
            if delay_s <= 0:
                return
            with trio.move_on_after(min(delay_s, RECHECK_S)):
                await self._nudged.wait()
                return
        await self._nudged.wait()

    async def _find(
        self, limit: int | None = None, *conditions: Condition, **equal: Any
    ) -> list[Task]:
        same = (Condition(name, Op.EQ, value) for name, value in equal.items())
        query = Query(conditions=(*same, *conditions), order="due_at", limit=limit)
        return await self._store.find(Task, query)

    # --- firing ---------------------------------------------------------------------------------
    async def _fire(self, keys: Sequence[Key]) -> None:
        """Targets side by side, the runs of one in order."""
        failures: list[OutspoolError] = []
        async with trio.open_nursery() as nursery:
            for key in keys:
                nursery.start_soon(self._fire_target, key, failures)
        if failures:
            raise failures[0]

    async def _fire_target(self, key: Key, failures: list[OutspoolError]) -> None:
        try:
            async with self._catalog.edits[Task]:
                self._busy[key] = trio.Event()
                runs = await self._claim_all(key)
            self._interrupted.discard(key)
            for run in runs:
                await self._do(run)
        except OutspoolError as error:  # nothing of it was claimed
            failures.append(error)
        finally:
            event = self._busy.pop(key, None)
            if event is not None:
                event.set()

    async def _claim_all(self, key: Key) -> list[_Run]:
        """The runs of this target that are due, each one claimed, refused or expired: durably."""
        now = self._clock()
        kind, target_id = key
        known = {"type": kind, "target_id": target_id}
        due = await self._find(
            _MAX_DUE, Condition("due_at", Op.LE, now), status=TaskStatus.PENDING, **known
        )
        begun = (
            await self._find(_MAX_DUE, note=UNDERWAY, **known) if key in self._interrupted else []
        )
        target = await self._store.get(_KINDS[kind], target_id)
        if target is None:  # a crash between its end and that of its tasks
            for task_id in {task.id for task in (*due, *begun)}:
                await self._store.delete(Task, task_id)
            return []
        runs = self._runs(due, begun, now)
        self._judge(runs, target, now)
        return [await self._claim(run, target, now) for run in runs]

    def _runs(self, due: Sequence[Task], begun: Iterable[Task], now: datetime) -> list[_Run]:
        runs = [_Run(task, task.last_run or now, claimed=True) for task in begun]
        runs += [_Run(task, self._last(task, now)) for task in due]
        return sorted(runs, key=lambda run: (run.at, run.task.weight, run.task.id))

    def _last(self, task: Task, now: datetime) -> datetime:
        """When the task should have run last: of many missed runs it is the one that counts."""
        assert task.due_at is not None  # noqa: S101 - it was found by it
        if not task.recurring or not self._late(task.due_at, now):
            return task.due_at
        return last_fire(_rule(task), zone(task.timezone), task.due_at, now)

    def _late(self, at: datetime, now: datetime) -> bool:
        return now - at > timedelta(seconds=self._config.missed_after_s)

    def _judge(self, runs: Sequence[_Run], target: Transmission | Campaign, now: datetime) -> None:
        for run in runs:
            late = self._late(run.at, now)
            if run.task.expires_at is not None and run.task.expires_at <= now:
                run.refusal, run.expired = "expired", True
            elif late and self._config.missed == "expire":
                run.refusal, run.expired = f"missed at {_shown(run.at)}", True
            elif late and isinstance(target, Campaign) and run is not runs[-1]:
                # Starting now what is to be stopped a moment later would call a few people.
                run.refusal = "missed, and a later one counts"
            elif run.claimed and isinstance(target, Transmission) and _tried(target, run.at):
                run.refusal = "sent; the node stopped before it was noted"

    async def _claim(self, run: _Run, target: Transmission | Campaign, now: datetime) -> _Run:
        """Move the task on before anything is done; ``UnavailableError``: nothing was claimed."""
        task = run.task
        changes: dict[str, Any] = {"note": run.refusal or UNDERWAY, "updated_at": now}
        if not run.claimed:
            changes |= {"last_run": now, **_moved_on(run, target, now)}
        run.task = await self._store.update(msgspec.structs.replace(task, **changes))
        return run

    async def _do(self, run: _Run) -> None:
        """Do a claimed run and note what became of it, however long the store takes to say yes."""
        task, late = run.task, self._late(run.at, self._clock())
        done, note = False, run.refusal
        if not note:
            done, note = await _until_stored(partial(self._deed, task))
            note = f"late, was due at {_shown(run.at)}: {note}" if late else note
            await _until_stored(partial(self._note, task, note))
        self._counts["fired" if done else "refused"] += 1
        self._counts["missed"] += late
        log.info("task_fired", task_id=task.id, action=task.action, done=done, note=note)
        self._bus.publish(
            TaskFired(
                at=self._clock(),
                task_id=task.id,
                type=task.type,
                action=task.action,
                target_id=task.target_id,
                done=done,
                note=note,
            )
        )

    async def _deed(self, task: Task) -> tuple[bool, str]:
        """Whether it was done, and what there is to say; ``UnavailableError``: not now."""
        try:
            refusal = await self._forbidden(task)
            if refusal:
                return False, refusal
            if task.action == Action.SEND:
                return True, f"sent as spool {await self._verbs.send(task.target_id)}"
            if task.action == Action.START:
                await self._verbs.start_campaign(task.target_id)
                return True, "started"
            await self._verbs.stop_campaign(task.target_id)
        except UnavailableError:
            raise
        except OutspoolError as error:
            return False, f"not done: {error}"
        except Exception:
            log.exception("task_failed", task_id=task.id)
            return False, "not done: an error of ours, see the log"
        return True, "stopped"

    async def _forbidden(self, task: Task) -> str:
        """Why its owner may not have this done any more, else "". Nobody's task may do anything."""
        if task.owner_id is None:
            return ""
        user = await self._store.get(User, task.owner_id)
        if user is None or not user.active:
            return "not done: the user who scheduled it is not active"
        who = self._principal(user)
        kind = _KINDS[task.type]
        target = await self._store.get(kind, task.target_id)
        if target is None:
            raise NotFoundError(f"{kind.__name__} not found")
        if not who.may(RIGHT[Action(task.action)]) or not who.sees(FAMILY[kind], target):
            return "not done: the user who scheduled it has not the permission any more"
        return ""

    async def _note(self, task: Task, note: str) -> None:
        async with self._catalog.edits[Task]:
            row = await self._store.get(Task, task.id)  # its target may have gone, and it with it
            if row is not None:
                at = self._clock()
                await self._store.update(msgspec.structs.replace(row, note=note, updated_at=at))


async def _until_stored(work: Callable[[], Awaitable[T]]) -> T:
    """What ``work`` answers, however often the store has to be asked."""
    while True:
        try:
            return await work()
        except OutspoolError as error:
            log.warning("task_waits_for_store", cause=str(error))
        await trio.sleep(STORE_RETRY_S)


def _moved_on(run: _Run, target: Transmission | Campaign, now: datetime) -> dict[str, Any]:
    """What is left of the task after this run: the next one, or its end."""
    task = run.task
    over = isinstance(target, Transmission) and target.status in _OVER
    if task.recurring and not over:
        following = next_fire(_rule(task), zone(task.timezone), now)
        if following is not None and (task.expires_at is None or following < task.expires_at):
            return {"due_at": following}
    event = states.Event.EXPIRE if run.expired else states.Event.FIRE
    return {"status": states.advance(task.status, event)}


def _rule(task: Task) -> Rule:
    return Rule(**{name: getattr(task, name) for name in Rule.__struct_fields__})


def _tried(transmission: Transmission, since: datetime) -> bool:
    return transmission.last_run is not None and transmission.last_run >= since


def _key(task: Task) -> Key:
    return task.type, task.target_id


def _shown(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
