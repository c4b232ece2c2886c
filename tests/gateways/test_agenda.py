"""Rounds over a journal's rows: as soon as one is due, and again after a fault. In virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import trio
from trio.testing import MockClock

from engine.errors import UnavailableError
from gateways.agenda import REPORT_AGAIN_S, Agenda

TICK_S = 30.0


def clock() -> datetime:
    return datetime.fromtimestamp(trio.current_time(), UTC)


class Rounds:
    """What is due next, and when rounds were made, in seconds since the start."""

    def __init__(self) -> None:
        self.made: list[float] = []
        self.complaints: list[str] = []
        self.next_s: float | None = None
        self.error = ""
        self.agenda = Agenda(clock, self.complaints.append)
        self._begun = trio.current_time()

    def at(self, seconds: float) -> int:
        return int((self._begun + seconds) * 1000)

    async def make(self) -> int | None:
        await trio.lowlevel.checkpoint()
        self.made.append(round(trio.current_time() - self._begun, 1))
        if self.error:
            raise UnavailableError(self.error)
        return None if self.next_s is None else self.at(self.next_s)


@pytest.fixture
async def rounds() -> AsyncIterator[Rounds]:
    rounds = Rounds()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rounds.agenda.run, rounds.make)
        yield rounds
        nursery.cancel_scope.cancel()


async def test_where_nothing_is_due_it_looks_once_a_tick(
    rounds: Rounds, autojump_clock: MockClock
) -> None:
    await trio.sleep(2 * TICK_S + 1)
    assert rounds.made == [0, TICK_S, 2 * TICK_S]


async def test_the_next_round_is_when_the_next_row_is_due(
    rounds: Rounds, autojump_clock: MockClock
) -> None:
    rounds.next_s = 7.0
    await trio.sleep(6.9)
    assert rounds.made == [0]
    rounds.next_s = None
    await trio.sleep(1)
    assert rounds.made == [0, 7.0]


async def test_something_due_earlier_wakes_it_and_something_later_does_not(
    rounds: Rounds, autojump_clock: MockClock
) -> None:
    rounds.next_s = 20.0
    await trio.sleep(5)
    rounds.agenda.plan(rounds.at(25))
    await trio.sleep(1)
    assert rounds.made == [0]
    rounds.agenda.plan(rounds.at(10))
    await trio.sleep(1)
    assert rounds.made == [0, 6.0]


async def test_a_fault_is_told_and_another_round_comes_soon(
    rounds: Rounds, autojump_clock: MockClock
) -> None:
    rounds.error = "disk full"
    await trio.sleep(1)
    assert (rounds.agenda.fault, rounds.complaints) == ("disk full", ["disk full"])
    rounds.error = ""
    await trio.sleep(REPORT_AGAIN_S)
    assert rounds.made == [0, REPORT_AGAIN_S]
    assert (rounds.agenda.fault, rounds.complaints) == ("", ["disk full"])
