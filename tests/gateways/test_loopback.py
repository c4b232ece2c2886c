"""The loopback gateway in virtual time: every scripted ending, and every way a call can be cut."""

from __future__ import annotations

import random
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidError
from engine.gateway import Call, CallEnded, Media, Order, Program, Stage
from engine.model import Provider, Service
from engine.results import Disposition, Reached, Result, ResultRow
from gateways.loopback.gateway import LoopbackGateway
from gateways.loopback.script import Ending, Exponential, Player, Script, parse
from tests.support.inbox import Tray

MESSAGE = Media(Path("message.wav"), 10.0)


async def play_message(call: Call) -> None:
    await call.answered()
    await call.play(MESSAGE)


def order(program: Program = play_message, **fields: Any) -> Order:
    provider = Provider(id=7, name="script", type="loopback", settings=fields.pop("settings", {}))
    return Order(
        spool_id=1,
        uid=uuid4(),
        service=Service.VOICE,
        provider=provider,
        destination="100",
        program=program,
        **fields,
    )


class Stages(list[Stage]):
    """Collects what a delivery reports."""

    def __call__(self, stage: Stage, at: datetime) -> None:
        assert at.tzinfo is not None
        self.append(stage)


async def call(gateway: LoopbackGateway, this: Order, stages: Stages | None = None) -> Result:
    """Deliver one call: its result is known at its end."""
    result = await gateway.deliver(this, Stages() if stages is None else stages)
    assert isinstance(result, Result)
    return result


async def deliver(script: Script, this: Order | None = None) -> tuple[Result, list[Stage], float]:
    """The result, the stages and the virtual seconds one delivery took."""
    stages, began = Stages(), trio.current_time()
    result = await call(LoopbackGateway(script, seed=1), this or order(), stages)
    return result, list(stages), trio.current_time() - began


async def test_an_answered_call_plays_the_whole_recording(autojump_clock: Any) -> None:
    result, stages, took_s = await deliver(Script(ring_s=3.0, digits="5#"))
    assert result.disposition is Disposition.ANSWERED
    assert result.reached is Reached.PERSON
    assert stages == [Stage.LEFT, Stage.RINGING, Stage.CONNECTED]
    assert (took_s, result.talk_s) == (13.0, 10.0)
    assert result.rows == (ResultRow("dtmf", "key", "5"), ResultRow("dtmf", "key", "#"))
    assert result.started_at is not None
    assert result.connected_at is not None
    assert result.ended_at is not None


@pytest.mark.parametrize(
    ("script", "disposition", "cause"),
    [
        (Script(busy=1), Disposition.BUSY, "busy"),
        (Script(reject=1), Disposition.REJECTED, "rejected"),
        (Script(invalid=1), Disposition.INVALID, "invalid_number"),
        (Script(fail=1), Disposition.FAILED, "trunk_unavailable"),
    ],
)
async def test_a_refused_call_ends_after_its_ring_time(
    autojump_clock: Any, script: Script, disposition: Disposition, cause: str
) -> None:
    result, stages, took_s = await deliver(parse({"ring_s": 2.0, **_share(script)}))
    assert (result.disposition, result.cause) == (disposition, cause)
    assert Stage.CONNECTED not in stages
    assert took_s == 2.0
    assert result.trunk_failed is (cause == "trunk_unavailable")


def _share(script: Script) -> dict[str, float]:
    ((ending, share),) = script.shares()
    return {ending.value: share}


async def test_nobody_answers_until_our_ring_timeout(autojump_clock: Any) -> None:
    result, _, took_s = await deliver(Script(no_answer=1), order(ring_timeout_s=25.0))
    assert (result.disposition, result.cause, took_s) == (
        Disposition.NO_ANSWER,
        "no_answer",
        25.0,
    )
    assert result.reached is Reached.NETWORK


async def test_the_network_gives_up_before_our_ring_timeout(autojump_clock: Any) -> None:
    result, _, took_s = await deliver(Script(no_answer=1, no_answer_s=12.0))
    assert (result.disposition, took_s) == (Disposition.NO_ANSWER, 12.0)


async def test_a_slow_answer_comes_too_late(autojump_clock: Any) -> None:
    result, stages, took_s = await deliver(Script(ring_s=40.0), order(ring_timeout_s=30.0))
    assert (result.disposition, took_s) == (Disposition.NO_ANSWER, 30.0)
    assert stages == [Stage.LEFT, Stage.RINGING]


async def test_the_callee_hangs_up_early(autojump_clock: Any) -> None:
    heard: list[str] = []

    async def program(call: Call) -> None:
        await call.answered()
        heard.append("hello")
        await call.play(MESSAGE)
        heard.append("all of it")

    result, _, _ = await deliver(Script(early=1, talk_s=2.5), order(program))
    assert heard == ["hello"]
    assert (result.disposition, result.talk_s) == (Disposition.ANSWERED, 2.5)


async def test_the_call_limit_ends_a_program_that_does_not(autojump_clock: Any) -> None:
    async def program(call: Call) -> None:
        await call.answered()
        await trio.sleep_forever()

    result, _, _ = await deliver(Script(), order(program, call_limit_s=60.0))
    assert (result.cause, result.talk_s) == ("call_limit", 60.0)


async def test_a_program_may_hang_up_and_is_told_that_it_did(autojump_clock: Any) -> None:
    async def program(call: Call) -> None:
        await call.answered()
        await call.hang_up()
        with pytest.raises(CallEnded):
            await call.play(MESSAGE)

    result, _, took_s = await deliver(Script(), order(program))
    assert (result.disposition, took_s) == (Disposition.ANSWERED, 0.0)


async def test_a_program_that_places_no_call_reaches_nobody() -> None:
    async def program(call: Call) -> None:
        call.note(ResultRow("info", "skipped", "yes"))

    result, stages, _ = await deliver(Script(), order(program))
    assert (result.disposition, result.reached) == (Disposition.CANCELLED, Reached.NOTHING)
    assert (stages, result.rows) == ([], (ResultRow("info", "skipped", "yes"),))


@pytest.mark.parametrize(("speed", "took_s"), [(4.0, 2.5), (0.0, 0.0), (1.0, 10.0)])
async def test_speed_scales_the_recording(autojump_clock: Any, speed: float, took_s: float) -> None:
    result, _, took = await deliver(Script(speed=speed))
    assert took == result.talk_s == took_s


@pytest.mark.parametrize("cut_after_s", [0.0, 1.0, 5.0, 12.9])
async def test_cancelling_a_delivery_leaves_no_call(
    autojump_clock: Any, cut_after_s: float
) -> None:
    gateway = LoopbackGateway(Script(ring_s=3.0))
    with trio.move_on_after(cut_after_s) as scope:
        await gateway.deliver(order(), Stages())
    assert scope.cancelled_caught
    assert gateway.statistics()["calls_up"] == 0


async def test_closing_the_gateway_ends_its_calls(autojump_clock: Any) -> None:
    gateway = LoopbackGateway(Script(ring_s=3.0))
    results: list[Result] = []

    async def one() -> None:
        results.append(await call(gateway, order()))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as serving:
            async with trio.open_nursery() as inner:
                await inner.start(gateway.run, Tray())
                nursery.start_soon(one)
                await trio.testing.wait_all_tasks_blocked()
                serving.cancel()
    ((cause, reached),) = [(result.cause, result.reached) for result in results]
    assert (cause, reached) == ("shutdown", Reached.NETWORK)
    late = await call(gateway, order())
    assert (late.cause, late.reached) == ("gateway_closed", Reached.NOTHING)


async def test_a_programs_own_mistake_is_not_hidden() -> None:
    async def program(_call: Call) -> None:
        raise ZeroDivisionError

    gateway = LoopbackGateway()
    with pytest.raises(ZeroDivisionError):
        await gateway.deliver(order(program), Stages())
    assert gateway.statistics()["calls_up"] == 0


async def test_a_provider_brings_its_own_script(autojump_clock: Any) -> None:
    gateway = LoopbackGateway(Script())
    busy = await call(gateway, order(settings={"busy": 1.0}))
    fails = await call(gateway, order(settings={"fail": 1.0}))
    usual = await call(gateway, order())
    assert [r.cause for r in (busy, fails, usual)] == ["busy", "trunk_unavailable", "answered"]
    assert gateway.statistics()["busy"] == 1
    await gateway.providers({})


async def test_a_provider_with_a_bad_script_says_so() -> None:
    result = await call(LoopbackGateway(), order(settings={"buzy": 1.0}))
    assert (result.disposition, result.cause) == (Disposition.FAILED, "invalid_settings")


@pytest.mark.parametrize(
    "settings",
    [
        {"busy": -0.5},
        {"answer": 0.0},
        {"speed": -1.0},
        {"ring_s": "long"},
        {"busy": "half"},
        {"defer_s": [-1.0]},
    ],
)
def test_a_bad_script_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match="loopback settings"):
        parse(settings)


@settings(max_examples=25)
@given(
    shares=st.lists(st.floats(0.05, 1.0), min_size=len(Ending), max_size=len(Ending)),
    seed=st.integers(0, 2**32),
)
def test_outcomes_come_in_their_shares(shares: list[float], seed: int) -> None:
    names = [ending.value for ending in Ending]
    player = Player(parse(dict(zip(names, shares, strict=True))), random.Random(seed))
    drawn = [player.draw().ending for _ in range(4000)]
    for ending, share in zip(Ending, shares, strict=True):
        expected = share / sum(shares)
        # 6 standard deviations of a binomial: a false alarm in 10^9.
        slack = 6 * (expected * (1 - expected) / len(drawn)) ** 0.5
        assert abs(drawn.count(ending) / len(drawn) - expected) < slack


def test_the_same_seed_gives_the_same_calls() -> None:
    script = parse(
        {"answer": 0.5, "busy": 0.5, "ring_s": [1, 4], "early": 0.5, "talk_s": {"mean": 3}}
    )
    first, second = (Player(script, random.Random(42)) for _ in range(2))
    assert [first.draw() for _ in range(50)] == [second.draw() for _ in range(50)]


@given(low=st.floats(0, 10), width=st.floats(0, 10), seed=st.integers(0, 1000))
def test_times_stay_within_their_spread(low: float, width: float, seed: int) -> None:
    player = Player(Script(ring_s=(low, low + width)), random.Random(seed))
    for _ in range(20):
        ring_s = player.draw().ring_s
        assert ring_s is not None
        assert low <= ring_s <= low + width


def test_exponential_times_have_their_mean() -> None:
    player = Player(Script(ring_s=Exponential(3.0)), random.Random(1))
    drawn = [player.draw().ring_s or 0.0 for _ in range(20_000)]
    assert abs(sum(drawn) / len(drawn) - 3.0) < 0.15
