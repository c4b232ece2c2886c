"""What every voice gateway must do, as tests: subclass ``GatewaySuite`` and give it a harness.

A harness makes the far end behave in a named way; how (SIPp scenarios, a script) is its business.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

import trio

from engine.gateway import Call, Gateway, Media, Order, Program, Stage
from engine.model import Provider, Service
from engine.results import Blame, Disposition, Reached, Result, ResultRow
from tests.suites.trial import DEADLINE_S, Trial


class FarEnd(Enum):
    """How the far end behaves. Times are short: these tests run in real time."""

    ANSWER = auto()  # rings, answers, listens until we hang up
    BUSY = auto()
    RING = auto()  # rings for ever
    REJECT = auto()  # a person refuses
    UNAVAILABLE = auto()  # the trunk itself is down
    UNKNOWN = auto()  # no such number
    HANG_UP = auto()  # answers, hangs up after half a second
    PRESS = auto()  # answers and presses 1 and #


class Harness(Protocol):
    """What a gateway's tests provide."""

    @property
    def gateway(self) -> Gateway:
        """Running."""
        ...

    @property
    def media(self) -> Media:
        """A recording of one second or less."""
        ...

    @property
    def long_media(self) -> Media:
        """One of several seconds."""
        ...

    def far_end(self, behaviour: FarEnd) -> AbstractAsyncContextManager[Provider]:
        """A trunk whose far end behaves so, for as long as the block lasts."""
        ...


class Delivery(Trial):
    """One call under test: its result, and the stages it reported, in order."""

    def __init__(
        self, harness: Harness, provider: Provider, program: Program, **fields: Any
    ) -> None:
        order = Order(
            spool_id=1,
            uid=uuid4(),
            service=Service.VOICE,
            provider=provider,
            destination="100",
            program=program,
            caller_id="4930123",
            caller_name="Suite",
            **fields,
        )
        super().__init__(harness.gateway, order)
        self.done = trio.Event()
        self.result: Result | None = None

    async def run(self) -> Result:
        result = await super().run()
        assert isinstance(result, Result)
        self.result = result
        self.done.set()
        return result


async def play(media: Media, call: Call) -> None:
    await call.answered()
    await call.play(media)
    await call.hang_up()


async def listen(call: Call) -> None:
    """Stay on the line until somebody ends the call."""
    await call.answered()
    await trio.sleep_forever()


def rows_of(result: Result, kind: str, name: str) -> Sequence[str]:
    return [row.data for row in result.rows if (row.type, row.name) == (kind, name)]


class GatewaySuite:
    """Subclasses give the fixture ``harness``."""

    async def deliver(
        self, harness: Harness, behaviour: FarEnd, program: Program | None = None, **fields: Any
    ) -> Delivery:
        async with harness.far_end(behaviour) as provider:
            program = program or partial(play, harness.media)
            delivery = Delivery(harness, provider, program, **fields)
            await delivery.run()
        self.check_clean(harness)
        return delivery

    def check_clean(self, harness: Harness) -> None:
        assert harness.gateway.statistics()["calls_up"] == 0

    async def test_an_answered_call_plays_the_recording_and_ends(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, FarEnd.ANSWER)
        result = delivery.result
        assert result is not None
        assert (result.disposition, result.reached) == (Disposition.ANSWERED, Reached.PERSON)
        assert (result.cause, result.blame) == ("answered", Blame.NOBODY)
        assert result.talk_s >= harness.media.length_s * 0.9
        assert result.started_at is not None
        assert result.connected_at is not None
        assert result.ended_at is not None
        assert result.started_at <= result.connected_at <= result.ended_at

    async def test_stages_come_in_order(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, FarEnd.ANSWER)
        assert delivery.stages[0] is Stage.LEFT
        assert delivery.stages[-1] is Stage.CONNECTED
        assert delivery.stages == [s for s in Stage if s in delivery.stages]
        assert delivery.times == sorted(delivery.times)
        assert all(time.tzinfo is not None for time in delivery.times)

    async def test_busy(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, FarEnd.BUSY)
        result = delivery.result
        assert result is not None
        assert (result.disposition, result.cause) == (Disposition.BUSY, "busy")
        assert result.blame is Blame.CALLEE
        assert result.reached is Reached.NETWORK
        assert result.connected_at is None
        assert result.talk_s == 0.0
        assert Stage.CONNECTED not in delivery.stages

    async def test_nobody_answers_until_the_ring_timeout(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, FarEnd.RING, ring_timeout_s=0.7)
        result = delivery.result
        assert result is not None
        assert (result.disposition, result.cause) == (Disposition.NO_ANSWER, "no_answer")
        assert result.reached is Reached.NETWORK
        assert delivery.stages == [Stage.LEFT, Stage.RINGING]

    async def test_a_person_refuses(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, FarEnd.REJECT)
        result = delivery.result
        assert result is not None
        assert (result.disposition, result.cause) == (Disposition.REJECTED, "rejected")
        assert result.reached is Reached.PERSON

    async def test_the_trunk_is_down(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, FarEnd.UNAVAILABLE)
        result = delivery.result
        assert result is not None
        assert (result.disposition, result.cause) == (Disposition.FAILED, "trunk_unavailable")
        assert result.trunk_failed

    async def test_the_number_does_not_exist(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, FarEnd.UNKNOWN)
        result = delivery.result
        assert result is not None
        assert (result.disposition, result.cause) == (Disposition.INVALID, "invalid_number")
        assert result.blame is Blame.REQUEST
        assert not result.trunk_failed

    async def test_the_callee_hangs_up_early(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, FarEnd.HANG_UP, partial(play, harness.long_media))
        result = delivery.result
        assert result is not None
        assert result.disposition is Disposition.ANSWERED
        assert 0.0 < result.talk_s < harness.long_media.length_s

    async def test_the_callee_hangs_up_on_a_program_that_does_not_listen(
        self, harness: Harness
    ) -> None:
        delivery = await self.deliver(harness, FarEnd.HANG_UP, listen)
        assert delivery.result is not None
        assert delivery.result.disposition is Disposition.ANSWERED

    async def test_keys_are_kept_in_order(self, harness: Harness) -> None:
        delivery = await self.deliver(
            harness, FarEnd.PRESS, partial(play, harness.long_media), call_limit_s=4.0
        )
        assert delivery.result is not None
        assert rows_of(delivery.result, "dtmf", "key") == ["1", "#"]

    async def test_notes_of_the_program_are_kept(self, harness: Harness) -> None:
        async def program(call: Call) -> None:
            await call.answered()
            call.note(ResultRow("info", "menu", "main"))

        delivery = await self.deliver(harness, FarEnd.ANSWER, program)
        assert delivery.result is not None
        assert rows_of(delivery.result, "info", "menu") == ["main"]

    async def test_the_call_limit_ends_an_answered_call(self, harness: Harness) -> None:
        delivery = await self.deliver(harness, FarEnd.ANSWER, listen, call_limit_s=0.5)
        result = delivery.result
        assert result is not None
        assert (result.disposition, result.cause) == (Disposition.ANSWERED, "call_limit")
        assert result.talk_s >= 0.4

    async def test_a_program_that_returns_hangs_up(self, harness: Harness) -> None:
        async def program(call: Call) -> None:
            await call.answered()

        delivery = await self.deliver(harness, FarEnd.ANSWER, program)
        assert delivery.result is not None
        assert delivery.result.disposition is Disposition.ANSWERED

    async def test_a_program_that_never_calls_has_reached_nothing(self, harness: Harness) -> None:
        async def program(call: Call) -> None:
            await trio.lowlevel.checkpoint()

        delivery = await self.deliver(harness, FarEnd.ANSWER, program)
        assert delivery.result is not None
        assert delivery.result.reached is Reached.NOTHING
        assert delivery.stages == []

    async def test_cancelled_while_it_rings(self, harness: Harness) -> None:
        await self._cancel_at(harness, FarEnd.RING, Stage.RINGING)

    async def test_cancelled_in_the_middle_of_the_call(self, harness: Harness) -> None:
        await self._cancel_at(harness, FarEnd.ANSWER, Stage.CONNECTED)

    async def _cancel_at(self, harness: Harness, behaviour: FarEnd, stage: Stage) -> None:
        async with harness.far_end(behaviour) as provider, trio.open_nursery() as nursery:
            delivery = Delivery(harness, provider, listen)
            nursery.start_soon(delivery.run)
            with trio.fail_after(DEADLINE_S):
                await delivery.reached[stage].wait()
            nursery.cancel_scope.cancel()
        assert delivery.result is None
        self.check_clean(harness)

    async def test_many_at_once(self, harness: Harness) -> None:
        async with harness.far_end(FarEnd.ANSWER) as provider:
            deliveries = [
                Delivery(harness, provider, partial(play, harness.media)) for _ in range(25)
            ]
            async with trio.open_nursery() as nursery:
                for delivery in deliveries:
                    nursery.start_soon(delivery.run)
        assert {d.result.disposition for d in deliveries if d.result} == {Disposition.ANSWERED}
        assert harness.gateway.statistics()["calls_up_peak"] >= 25
        self.check_clean(harness)
