"""What SMSCs deliver faster than it can be made durable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import trio
import trio.testing

from engine.clock import now
from gateways.smpp.bind import Bind
from gateways.smpp.events import Delivered
from gateways.smpp.intake import MAX_BATCH, SWAMPED, Intake, NoReceiver
from gateways.smpp.pdu import Address, ShortMessage
from gateways.smpp.records import Receipt
from gateways.smpp.settings import SmppSettings

RECEIPT = ShortMessage(
    source=Address("4917012345678", 1, 1), esm_class=4, octets=b"id:1 stat:DELIVRD err:000 text:"
)


class Seat:
    """The bind and its session, as far as answers go to them."""

    def __init__(self) -> None:
        self.session = self
        self.answers: list[tuple[int, int]] = []

    def answer(self, sequence: int, status: int) -> None:
        self.answers.append((sequence, status))

    def poke(self) -> None:
        """There is no writer."""


async def test_swamped_until_most_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    """Then nothing is sent; every batch answered is told, or nobody would look again."""
    disk, told = trio.Event(), list[bool]()

    async def book(_: Sequence[Receipt]) -> None:
        await disk.wait()

    def tell() -> None:
        told.append(intake.swamped)

    intake, seat = Intake(SmppSettings(), now, book, NoReceiver(), tell), Seat()
    count = SWAMPED + MAX_BATCH + 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(intake.run)
        for sequence in range(MAX_BATCH):
            intake.take(cast("Bind", cast("Any", seat)), Delivered(sequence, RECEIPT))
        await trio.testing.wait_all_tasks_blocked()
        for sequence in range(MAX_BATCH, count):
            intake.take(cast("Bind", cast("Any", seat)), Delivered(sequence, RECEIPT))
        assert intake.swamped
        disk.set()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert seat.answers == [(sequence, 0) for sequence in range(count)]
    assert told == [True, False, False, False]
