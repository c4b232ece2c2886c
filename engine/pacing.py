"""When the next spool may start: GCRA per campaign behind a start-time fair queue. Pure.

Time is handed in (seconds on any monotonic clock), nothing here waits. A campaign's own pace is one
timestamp, the *theoretical arrival time* of its next start (GCRA, ITU-T I.371 annex A);
next = ideal + interval, so the count has no drift. Where a shared limit (node, trunk) holds several
flows back, the one with the smallest start tag goes first (start-time fair queuing, Goyal 1996),
with weights ∝ the pace each asked for: all get the same part of what they asked.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Generic, TypeVar

Item = TypeVar("Item")
Choice = TypeVar("Choice")

UNPACED_WEIGHT_PER_S = 100.0
"""Fair-queue weight of a flow without a pace of its own (single sends): that of 6,000 CPM."""

CATCH_UP_S = 0.05
"""How much of its past a late flow may still use: covers scheduling lag, allows no bursts."""


class Gcra:
    """A rate as one timestamp. ``per_s`` 0 = no limit. ``catch_up_s`` forgives lateness."""

    __slots__ = ("_catch_up_s", "_interval_s", "ready_at")

    def __init__(self, per_s: float, *, now: float, catch_up_s: float = CATCH_UP_S) -> None:
        self._interval_s = 1.0 / per_s if per_s > 0 else 0.0
        self._catch_up_s = catch_up_s
        self.ready_at = now

    def set_rate(self, per_s: float, now: float) -> None:
        """Go on at another rate; the next start is at most one new interval away."""
        self._interval_s = 1.0 / per_s if per_s > 0 else 0.0
        self.ready_at = min(self.ready_at, now + self._interval_s)

    def take(self, now: float) -> None:
        """Count a start at ``now``; the next one is due an interval after this one's ideal time."""
        self.ready_at = max(self.ready_at, now - self._catch_up_s) + self._interval_s


class Window:
    """At most ``per_s`` starts in any second, exactly: the last so many starts are remembered.

    A rate that is no whole number holds over as many seconds as make it one or more (0.5 a second:
    one in any two seconds). ``per_s`` 0 = no limit.
    """

    def __init__(self, per_s: float) -> None:
        self._size = max(1, int(per_s))
        self._length_s = self._size / per_s if per_s > 0 else 0.0
        self._starts: deque[float] = deque(maxlen=self._size)

    def ready_at(self) -> float:
        """The earliest time another start is allowed."""
        if len(self._starts) < self._size or not self._length_s:
            return 0.0
        return self._starts[0] + self._length_s

    def take(self, at: float) -> None:
        """Count a start."""
        if self._length_s:
            self._starts.append(at)

    def reserve(self, now: float) -> float:
        """Count a start at the earliest allowed time from ``now`` on; returns that time."""
        at = max(now, self.ready_at())
        self.take(at)
        return at


class Limit:
    """A limit nobody may exceed: ``per_s`` starts in any second, evenly spread; ``channels`` up.

    The GCRA spreads; the window of the last starts makes the limit strict although the GCRA
    forgives lateness. 0 = no limit.
    """

    def __init__(self, per_s: float, channels: int, *, now: float) -> None:
        self.channels = channels
        self.in_use = 0
        self.peak = 0
        self._gcra = Gcra(per_s, now=now)
        self._per_s = per_s
        self._window = Window(per_s)

    def reconfigure(self, per_s: float, channels: int, now: float) -> None:
        """Change the limit; what is up stays counted."""
        self.channels = channels
        if per_s != self._per_s:
            self._per_s = per_s
            self._gcra.set_rate(per_s, now)
            self._window = Window(per_s)

    @property
    def has_channel(self) -> bool:
        """Whether one more may be up."""
        return not self.channels or self.in_use < self.channels

    def ready_at(self) -> float:
        """The earliest time the rate allows another start (channels not considered)."""
        if self._per_s <= 0:
            return 0.0
        return max(self._gcra.ready_at, self._window.ready_at())

    def free(self, now: float) -> bool:
        """Whether another start is allowed now."""
        return self.has_channel and self.ready_at() <= now

    def take(self, now: float) -> None:
        """Count a start and a channel; the caller asked ``free`` first."""
        self.in_use += 1
        self.peak = max(self.peak, self.in_use)
        if self._per_s > 0:
            self._gcra.take(now)
            self._window.take(now)

    def give_back(self) -> None:
        """A channel is free again."""
        self.in_use -= 1


class Flow(Generic[Item]):
    """One campaign (or the single sends) in the queue: its pace, its prefetched items, its tags."""

    def __init__(self, key: int, per_s: float, *, now: float) -> None:
        self.key = key
        self.items: deque[Item] = deque()
        self.gcra = Gcra(per_s, now=now)
        self.weight = per_s or UNPACED_WEIGHT_PER_S
        self.start_tag = 0.0
        self.due_at = now  # when its next item may start: pace and arrival, not resources
        self.queued = False  # in one of the pacer's heaps
        self.removed = False
        self.granted = 0
        self.low_water = 0
        self.on_low: Callable[[], None] | None = None  # fewer than low_water items are left

    def set_rate(self, per_s: float, now: float) -> None:
        """Another pace from now on."""
        self.gcra.set_rate(per_s, now)
        self.weight = per_s or UNPACED_WEIGHT_PER_S


class Grant(Generic[Item, Choice]):
    """One item that may start now, with what was taken for it; ``due_at`` is its ideal time."""

    __slots__ = ("choice", "due_at", "flow", "item")

    def __init__(self, flow: Flow[Item], item: Item, choice: Choice, due_at: float) -> None:
        self.flow = flow
        self.item = item
        self.choice = choice
        self.due_at = due_at


class Pacer(Generic[Item, Choice]):
    """All flows of a node. ``grants`` says what may start now; ``next_at`` when to ask again."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Flow[Item]]] = []  # by time due
        self._ready: list[tuple[float, int, Flow[Item]]] = []  # due, by start tag
        self._sequence = count()
        self._virtual_time = 0.0
        self.held = False  # some ready flow found no free choice at the last look
        self.flows: dict[int, Flow[Item]] = {}

    def add(self, key: int, per_s: float, now: float) -> Flow[Item]:
        """A new flow, without items."""
        flow: Flow[Item] = Flow(key, per_s, now=now)
        self.flows[key] = flow
        return flow

    def remove(self, flow: Flow[Item]) -> list[Item]:
        """Forget a flow; the items not granted are handed back."""
        flow.removed = True
        self.flows.pop(flow.key, None)
        items = list(flow.items)
        flow.items.clear()
        return items

    def set_rate(self, flow: Flow[Item], per_s: float, now: float) -> None:
        """Another pace; a flow waiting for its old, slower time is moved up."""
        flow.set_rate(per_s, now)
        waiting = [entry for entry in self._waiting if entry[2] is not flow]
        if len(waiting) < len(self._waiting):
            self._waiting = waiting
            heapq.heapify(self._waiting)
            self._enqueue(flow, now)

    def feed(
        self, flow: Flow[Item], items: Iterable[Item], now: float, *, first: bool = False
    ) -> None:
        """More items for a flow, in order; ``first`` puts them before those it has."""
        if first:
            flow.items.extendleft(reversed(list(items)))
        else:
            flow.items.extend(items)
        self._wake(flow, now)

    def put_back(self, flow: Flow[Item], item: Item, now: float) -> None:
        """An item that was granted but could not start after all; it is the flow's next one."""
        flow.items.appendleft(item)
        self._wake(flow, now)

    def _wake(self, flow: Flow[Item], now: float) -> None:
        if flow.items and not flow.queued and not flow.removed:
            self._enqueue(flow, now)

    def _enqueue(self, flow: Flow[Item], now: float) -> None:
        flow.queued = True
        flow.due_at = max(flow.gcra.ready_at, now)
        heapq.heappush(self._waiting, (flow.due_at, next(self._sequence), flow))

    def _mature(self, now: float) -> None:
        """Move the flows whose time has come into the fair queue."""
        while self._waiting and self._waiting[0][0] <= now:
            flow = heapq.heappop(self._waiting)[2]
            # A flow that only waited for its own pace while the virtual time ran past its tag keeps
            # up to one interval of its part: else its part depends on how the paces interlock.
            earliest = self._virtual_time - 1.0 / flow.weight
            flow.start_tag = max(flow.start_tag, earliest)
            heapq.heappush(self._ready, (flow.start_tag, next(self._sequence), flow))

    def grants(
        self,
        now: float,
        open_: Callable[[], bool],
        choose: Callable[[Item], Choice | None],
        limit: int = 500,
    ) -> list[Grant[Item, Choice]]:
        """What may start now, at most ``limit``.

        ``open_`` says whether any start is possible at all (node limits, some trunk free);
        ``choose`` takes the resources for an item (a trunk) or answers None when none is free.
        """
        self._mature(now)
        granted: list[Grant[Item, Choice]] = []
        held: list[tuple[float, int, Flow[Item]]] = []
        closed = False
        while self._ready and len(granted) < limit and not closed:
            if not open_():
                closed = True
            else:
                self._look(heapq.heappop(self._ready), now, choose, granted, held)
        self.held = closed or (bool(held) and not self._ready)
        for entry in held:
            heapq.heappush(self._ready, entry)
        return granted

    def _look(
        self,
        entry: tuple[float, int, Flow[Item]],
        now: float,
        choose: Callable[[Item], Choice | None],
        granted: list[Grant[Item, Choice]],
        held: list[tuple[float, int, Flow[Item]]],
    ) -> None:
        """Grant the first item of the flow, or hold the flow back."""
        flow = entry[2]
        if flow.removed or not flow.items:
            flow.queued = False
            return
        choice = choose(flow.items[0])
        if choice is None:
            held.append(entry)
        else:
            granted.append(self._grant(flow, choice, now))

    def _grant(self, flow: Flow[Item], choice: Choice, now: float) -> Grant[Item, Choice]:
        grant = Grant(flow, flow.items.popleft(), choice, flow.due_at)
        self._virtual_time = max(self._virtual_time, flow.start_tag)
        flow.start_tag += 1.0 / flow.weight
        flow.gcra.take(now)
        flow.granted += 1
        flow.queued = False
        if flow.items:
            self._requeue(flow, now)
        if len(flow.items) < flow.low_water and flow.on_low is not None:
            flow.on_low()
        return grant

    def _requeue(self, flow: Flow[Item], now: float) -> None:
        if flow.gcra.ready_at > now:
            self._enqueue(flow, now)
        else:
            flow.queued = True
            flow.due_at = flow.gcra.ready_at
            heapq.heappush(self._ready, (flow.start_tag, next(self._sequence), flow))

    def next_at(self, resources_at: float) -> float:
        """When to look again: the next flow's time, or ``resources_at`` where flows were held."""
        at = self._waiting[0][0] if self._waiting else float("inf")
        if self._ready:
            at = min(at, resources_at) if self.held else 0.0
        return at

    def statistics(self) -> dict[str, int]:
        """Flows, items prefetched, flows waiting for their time and for a free trunk."""
        return {
            "flows": len(self.flows),
            "prefetched": sum(len(flow.items) for flow in self.flows.values()),
            "waiting": len(self._waiting),
            "ready": len(self._ready),
        }
