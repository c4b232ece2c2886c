"""The queue of a provider by itself, in virtual time: order, bounds, and nothing before its intent.

Binds and journal are played: the first take what they have room for, the second takes its time and
sometimes refuses.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from engine.errors import UnavailableError
from gateways.smpp.feeder import MAX_BATCH, Feeder
from gateways.smpp.records import Segment
from gateways.smpp.tickets import Bulk, Place, Sending, Ticket

COMMIT_S = 0.01
REFUSED_EVERY = 5


class World:
    """A feeder between a played journal and one played bind, which answers when it is told."""

    def __init__(self, *, window: int = 10, max_queue: int = 1000, rate: float = 0.0) -> None:
        self.window = window
        self.rate = rate
        self.bound = True
        self.durable: set[int] = set()
        self.written: list[Ticket] = []
        self.in_window: list[Ticket] = []
        self.settled: list[Ticket] = []
        self.commits: list[int] = []
        self.refuse = False
        self._sent_at: list[float] = []
        self.feeder = Feeder(
            lambda: (self,), self._intend, self._take_back, self._strand, max_queue=max_queue
        )

    # the journal
    async def _intend(self, segments: Sequence[Segment]) -> None:
        await trio.sleep(COMMIT_S)
        if self.refuse and len(self.commits) % REFUSED_EVERY == 0:
            self.commits.append(0)
            raise UnavailableError("full")
        self.commits.append(len(segments))
        self.durable.update(segment.spool_id for segment in segments)

    def _take_back(self, tickets: list[Ticket]) -> None:
        self.durable.difference_update(ticket.segment.spool_id for ticket in tickets)

    def _strand(self, tickets: list[Ticket]) -> None:
        self._take_back(tickets)
        for ticket in tickets:
            ticket.place = Place.HELD
        self.feeder.put_back(tickets)

    # the bind
    def room(self, now: float) -> int:
        if not self.bound:
            return 0
        room = self.window - len(self.in_window)
        if self.rate:
            recent = sum(at > now - 1 for at in self._sent_at)
            room = min(room, math.floor(self.rate) - recent)
        return max(0, room)

    def reach(self, now: float) -> int:
        return MAX_BATCH if self.bound else 0

    def ready_at(self, now: float) -> float:
        if not self.rate or not self.bound or self.room(now):
            return math.inf
        return min((at + 1 for at in self._sent_at if at > now - 1), default=math.inf)

    def submit(self, tickets: Sequence[Ticket], now: float) -> None:
        for ticket in tickets:
            assert ticket.segment.spool_id in self.durable, "written before its intent"
            assert ticket not in self.in_window
        assert len(tickets) <= self.room(now)
        self.written += tickets
        self.in_window += tickets
        self._sent_at += [now] * len(tickets)

    def answer(self, count: int) -> None:
        """The oldest of the window are answered."""
        for ticket in self.in_window[:count]:
            ticket.place = Place.ACCEPTED
        self.in_window = self.in_window[count:]
        self.feeder.poke()

    def drop(self) -> None:
        """The connection is gone, the window with it."""
        self.bound = False
        for ticket in self.in_window:
            ticket.place = Place.UNKNOWN
        self.in_window = []
        self.feeder.poke()

    def tickets(self, count: int, first: int = 0) -> list[Ticket]:
        bulk = Bulk(self.settled.extend)
        return [Ticket(segment_of(first + n), bulk) for n in range(count)]


def segment_of(n: int) -> Segment:
    return Segment(spool_id=n, number=1, total=1, destination="1", reference=n, body=b"")


def numbers(tickets: Sequence[Ticket]) -> list[int]:
    return [ticket.segment.spool_id for ticket in tickets]


async def test_they_leave_in_order_as_the_window_opens(autojump_clock: MockClock) -> None:
    world = World(window=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.feeder.run)
        await world.feeder.put(world.tickets(35))
        await trio.sleep(1)
        assert numbers(world.written) == list(range(10))
        world.answer(4)
        await trio.sleep(1)
        assert numbers(world.written) == list(range(14))
        while world.in_window:
            world.answer(10)
            await trio.sleep(1)
        assert numbers(world.written) == list(range(35))
        nursery.cancel_scope.cancel()


async def test_the_journal_runs_ahead_of_a_quick_window_only(autojump_clock: MockClock) -> None:
    """What is on the disk and not written would be unknown after a crash: no more than helps."""
    world = World(window=10, max_queue=100_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.feeder.run)
        await world.feeder.put(world.tickets(5000))
        for _ in range(20):  # slow: one answer a second
            await trio.sleep(1)
            world.answer(1)
        assert len(world.durable) - len(world.written) <= 16
        for _ in range(1000):  # quick: a window in a fifth of a commit
            await trio.sleep(COMMIT_S / 5)
            world.answer(10)
        assert len(world.written) > 3000, "the window waited for the journal"
        nursery.cancel_scope.cancel()


async def test_a_rate_holds_and_the_clock_wakes_the_feeder(autojump_clock: MockClock) -> None:
    world = World(window=100, rate=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.feeder.run)
        await world.feeder.put(world.tickets(50))
        await trio.sleep(3.5)
        assert 15 <= len(world.written) <= 20
        await trio.sleep(10)
        assert len(world.written) == 50
        nursery.cancel_scope.cancel()


async def test_what_is_held_comes_back_when_it_is_due(autojump_clock: MockClock) -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.feeder.run)
        (ticket,) = world.tickets(1)
        await world.feeder.put([ticket])
        await trio.sleep(1)
        world.in_window.clear()
        ticket.place = Place.HELD
        world.feeder.hold(ticket, trio.current_time() + 30)
        await trio.sleep(29)
        assert len(world.written) == 1
        await trio.sleep(2)
        assert numbers(world.written) == [0, 0]
        nursery.cancel_scope.cancel()


async def test_callers_wait_for_room_and_may_be_given_up(autojump_clock: MockClock) -> None:
    world = World(window=1, max_queue=3)
    world.bound = False
    refused: list[Sending] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.feeder.run)
        await world.feeder.put(world.tickets(3))
        sending = Sending([segment_of(9)], on_leaving=lambda: None, on_refused=refused.append)
        nursery.start_soon(world.feeder.put, sending.tickets)
        await trio.sleep(1)
        assert world.feeder.statistics()["held_back"] == 1
        assert world.feeder.withdraw(sending.tickets) == sending.tickets
        await trio.sleep(1)
        assert world.feeder.statistics()["held_back"] == 0
        assert world.feeder.statistics()["queue"] == 3
        nursery.cancel_scope.cancel()


async def test_callers_take_the_places_of_those_that_are_given_up(
    autojump_clock: MockClock,
) -> None:
    world = World(max_queue=3)
    world.bound = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.feeder.run)
        queued, waiting = world.tickets(3), world.tickets(2, first=3)
        await world.feeder.put(queued)
        nursery.start_soon(world.feeder.put, waiting)
        await trio.sleep(1)
        assert world.feeder.statistics()["held_back"] == 1
        assert world.feeder.withdraw(queued) == queued
        await trio.sleep(1)
        assert world.feeder.statistics()["held_back"] == 0
        assert world.feeder.backlog == 2
        nursery.cancel_scope.cancel()


actions = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 30)),
        st.tuples(st.just("answer"), st.integers(1, 12)),
        st.tuples(st.just("withdraw"), st.integers(0, 400)),
        st.tuples(st.just("drop"), st.just(0)),
        st.tuples(st.just("bind"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 40)),
    ),
    max_size=40,
)


@given(steps=actions, refuse=st.booleans())
@settings(max_examples=150, deadline=None)
def test_whatever_happens_each_is_written_once_or_withdrawn(
    steps: list[tuple[str, int]], *, refuse: bool
) -> None:
    """Nothing before its intent (the bind asserts it), nothing twice, nothing forgotten."""

    async def play() -> None:
        world = World(window=8)
        world.refuse = refuse
        everything: list[Ticket] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.feeder.run)
            for verb, number in steps:
                await _step(world, everything, verb, number)
            world.bound, world.refuse = True, False
            world.feeder.poke()
            for _ in range(200):
                await trio.sleep(2)
                world.answer(8)
            nursery.cancel_scope.cancel()
        assert max(Counter(numbers(world.written)).values(), default=1) == 1
        for ticket in everything:
            was_written = ticket in world.written
            assert was_written is (ticket.place in (Place.ACCEPTED, Place.UNKNOWN))
            assert was_written or ticket.place is Place.WITHDRAWN
        assert world.durable == set(numbers(world.written))
        statistics = world.feeder.statistics()
        assert (statistics["queue"], statistics["journalled"]) == (0, 0)

    trio.run(play, clock=MockClock(autojump_threshold=0))


async def _step(world: World, everything: list[Ticket], verb: str, number: int) -> None:
    match verb:
        case "put":
            tickets = world.tickets(number, first=len(everything))
            everything += tickets
            await world.feeder.put(tickets)
        case "answer":
            world.answer(number)
        case "withdraw":
            world.feeder.withdraw(everything[number : number + 5])
        case "drop":
            world.drop()
        case "bind":
            world.bound = True
            world.feeder.poke()
        case "wait":
            await trio.sleep(number * COMMIT_S / 7)
