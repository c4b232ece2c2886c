"""Short messages on the loopback gateway, in virtual time: every scripted fate and its receipt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import trio

from engine.errors import InvalidError, UnavailableError
from engine.gateway import CallEnded, Messenger, Order, Report, Stage, TextKind, TextMessage
from engine.model import Provider, Service
from engine.programs.sendsms import sendsms
from engine.results import Awaiting, Fate, Result, ResultRow
from gateways.loopback.gateway import LoopbackGateway
from gateways.loopback.script import parse
from tests.support.inbox import Tray

HELLO = TextMessage(text="Hello")


def order(settings: dict[str, Any], message: TextMessage = HELLO, spool_id: int = 1) -> Order:
    return Order(
        spool_id=spool_id,
        uid=uuid4(),
        service=Service.SMS,
        provider=Provider(id=7, name="script", type="loopback", settings=settings),
        destination="4930",
        program=partial(sendsms, message=message),
        ring_timeout_s=30.0,
    )


@asynccontextmanager
async def running(tray: Tray) -> AsyncIterator[LoopbackGateway]:
    gateway = LoopbackGateway(seed=1)
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run, tray)
        yield gateway
        nursery.cancel_scope.cancel()


async def fate_of(settings: dict[str, Any], message: TextMessage = HELLO) -> Fate:
    async with running(Tray()) as gateway:
        return await gateway.deliver(order(settings, message), lambda _stage, _at: None)


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({}, "accepted"),
        ({"busy": 1.0}, "throttled"),
        ({"reject": 1.0}, "refused"),
        ({"invalid": 1.0}, "invalid_number"),
        ({"fail": 1.0}, "trunk_unavailable"),
    ],
)
async def test_what_the_network_answers_is_the_result(
    autojump_clock: Any, settings: dict[str, Any], cause: str
) -> None:
    result = await fate_of({"ring_s": 2.0, **settings})
    assert isinstance(result, Result)
    assert (result.cause, result.succeeded) == (cause, cause == "accepted")
    assert result.trunk_failed == (cause in {"throttled", "trunk_unavailable"})


async def test_a_receipt_comes_when_the_script_says(autojump_clock: Any) -> None:
    tray, stages = Tray(), list[Stage]()
    async with running(tray) as gateway:
        began = trio.current_time()
        given = {"ring_s": 1.0, "receipt_s": 5.0, "receipt_wait_s": 60.0}
        fate = await gateway.deliver(order(given), lambda stage, _at: stages.append(stage))
        assert isinstance(fate, Awaiting)
        assert fate.accepted_at is not None
        assert 59 < (fate.closes_at - fate.accepted_at).total_seconds() <= 60.1
        assert stages == [Stage.LEFT, Stage.CONNECTED]
        await tray.until(reports=1)
        assert trio.current_time() - began == 6.0
    [report] = tray.reports
    assert (report.spool_id, report.result.cause) == (1, "delivered")
    assert ResultRow("sms", "stat", "DELIVRD") in report.result.rows


async def test_each_receipt_says_its_own(autojump_clock: Any) -> None:
    tray = Tray()
    async with running(tray) as gateway:
        settings = {"receipt_s": [0.0, 9.0], "undelivered": 0.3, "silent": 0.2}
        for spool_id in range(200):
            await gateway.deliver(order(settings, spool_id=spool_id), lambda _stage, _at: None)
        with trio.move_on_after(20):
            await tray.until(reports=200)
        assert gateway.statistics()["receipts_due"] == 0
    causes = [report.result.cause for report in tray.reports]
    assert len({report.spool_id for report in tray.reports}) == len(causes)
    assert 140 < len(causes) < 180
    assert 0.15 < causes.count("undelivered") / len(causes) < 0.45


async def test_an_answer_that_never_comes_leaves_it_unknown(autojump_clock: Any) -> None:
    began = trio.current_time()
    fate = await fate_of({"no_answer": 1.0})
    assert isinstance(fate, Awaiting)
    assert (fate.accepted_at, trio.current_time() - began) == (None, 30.0)


async def test_parts_and_ids_are_told(autojump_clock: Any) -> None:
    long = TextMessage(text="x" * 400)
    fate = await fate_of({"receipt_s": 1.0}, long)
    names = [row.name for row in fate.rows]
    assert names == ["message_id"] * 3 + ["parts"]
    assert len(set(fate.rows)) == 4
    result = await fate_of({}, long)
    assert [row.name for row in result.rows] == names


async def test_octets_that_are_none_are_refused(autojump_clock: Any) -> None:
    result = await fate_of({}, TextMessage(text="xyz", kind=TextKind.BINARY))
    assert isinstance(result, Result)
    assert result.cause == "invalid_message"


async def test_a_second_text_of_a_program_is_not_sent(autojump_clock: Any) -> None:
    ended: list[bool] = []

    async def twice(messenger: Messenger) -> None:
        messenger.note(ResultRow("info", "note", "kept"))
        await messenger.send_text(HELLO)
        try:
            await messenger.send_text(HELLO)
        except CallEnded:
            ended.append(True)
            raise

    async with running(Tray()) as gateway:
        once = order({})
        this = Order(**{f: getattr(once, f) for f in once.__struct_fields__} | {"program": twice})
        result = await gateway.deliver(this, lambda _stage, _at: None)
    assert ended == [True]
    assert ResultRow("info", "note", "kept") in result.rows
    assert [row.name for row in result.rows].count("message_id") == 1


async def test_receipts_wait_for_a_store_that_refuses(autojump_clock: Any) -> None:
    class Full(Tray):
        refusals = 3

        async def report(self, reports: Any) -> None:
            if self.refusals:
                self.refusals -= 1
                raise UnavailableError("full")
            await super().report(reports)

    tray = Full()
    async with running(tray) as gateway:
        await gateway.deliver(order({"receipt_s": 0.0}), lambda _stage, _at: None)
        await tray.until(reports=1)
    assert isinstance(tray.reports[0], Report)
    assert tray.refusals == 0


@pytest.mark.parametrize("settings", [{"undelivered": 1.5}, {"silent": -0.1}, {"receipt_s": "x"}])
def test_a_script_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        parse(settings)
