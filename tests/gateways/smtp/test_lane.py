"""A provider's queue in virtual time, between a press, a disk and a wire that do as told."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.clock import now
from engine.errors import InvalidError, UnavailableError
from engine.mail import MailAddress
from engine.model import Provider
from engine.results import Result
from gateways.smtp import results
from gateways.smtp.books import Flag
from gateways.smtp.compose import Envelope
from gateways.smtp.jobs import Job, Place
from gateways.smtp.lane import JOURNAL_RETRY_S, Lane
from gateways.smtp.press import PressJob
from gateways.smtp.records import Parcel
from gateways.smtp.settings import SmtpSettings
from gateways.smtp.tracker import Intent
from tests.support.mails import MAIL

GONE = results.trunk_failure("trunk_unavailable")


class Parts:
    """Press, journal, bridge and ledger of a lane; ``None`` gates are open."""

    def __init__(self, credit: int = 4, *, in_all: int | None = None) -> None:
        self.credit = credit
        self.in_all = in_all
        self.out: list[Job] = []
        self.sent_ids: list[int] = []
        self.intended: list[int] = []
        self.given_back: list[int] = []
        self.dropped: list[int] = []
        self.most_out = 0
        self.fault = ""
        self.refusals = 0
        self.pressing = trio.Event()
        self.press_gate: trio.Event | None = None
        self.committing = trio.Event()
        self.commit_gate: trio.Event | None = None
        self.broken: dict[int, Exception] = {}
        self.jobs: dict[int, Job] = {}

    # --- press
    async def fill(self, jobs: Sequence[PressJob]) -> list[Parcel | Exception]:
        self.pressing.set()
        if self.press_gate is not None:
            await self.press_gate.wait()
        await trio.lowlevel.checkpoint()
        return [self.broken.get(job.spool_id) or parcel(job) for job in jobs]

    # --- journal
    async def intend(self, intents: Sequence[Intent]) -> frozenset[int]:
        self.committing.set()
        if self.commit_gate is not None:
            await self.commit_gate.wait()
        await trio.lowlevel.checkpoint()
        if self.fault:
            self.refusals += 1
            raise UnavailableError(self.fault)
        self.intended += [it.spool_id for it in intents]
        return frozenset()

    # --- wire
    def credits(self, _provider_id: int, domain: str | None = None) -> int:
        if domain is None:
            return 1000 if self.in_all is None else self.in_all - len(self.out)
        of_domain = sum(job.domain == domain or not domain for job in self.out)
        room = self.credit - of_domain
        return room if self.in_all is None else min(room, self.in_all - len(self.out))

    def send(self, _provider_id: int, parcels: Sequence[Parcel]) -> None:
        assert {it.spool_id for it in parcels} <= set(self.intended)
        self.sent_ids += [it.spool_id for it in parcels]

    def drop(self, _provider_id: int, parcel_ids: Sequence[int]) -> None:
        self.dropped += parcel_ids

    # --- ledger
    def sent(self, jobs: Sequence[Job]) -> None:
        self.out += jobs
        self.most_out = max(self.most_out, len(self.out))

    def unsent(self, jobs: Sequence[Job]) -> None:
        self.given_back += [job.spool_id for job in jobs]


def parcel(job: PressJob) -> Parcel:
    return Parcel(
        id=job.parcel_id, spool_id=job.spool_id, sender="", recipient="", domain="",
        size=0, chunks=(), not_after=job.not_after,
    )  # fmt: skip


def job_of(number: int, domain: str = "example.net", *, direct: bool = False) -> Job:
    envelope = Envelope(
        sender=MailAddress("a@example.org"),
        to=MailAddress(f"c{number}@{domain}"),
        message_id=f"<{number}@example.org>",
        at=now(),
    )
    return Job(
        id=number,
        spool_id=number,
        transmission_id=number,
        domain=domain,
        recipient=f"c{number}@{domain}",
        message=MAIL,
        envelope=envelope,
        blueprint=cast("Any", None),
        signers=(),
        settings=SmtpSettings(),
        direct=direct,
        flags=Flag(0),
        bounces=False,
        not_after=0.0,
        rows=[],
        on_leaving=lambda: None,
    )


class Seat:
    """A running lane and its parts."""

    def __init__(self, lane: Lane, parts: Parts) -> None:
        self.lane, self.parts = lane, parts

    async def put(self, *jobs: Job) -> None:
        for job in jobs:
            await self.lane.put(job)

    async def settle(self) -> None:
        await trio.testing.wait_all_tasks_blocked()

    async def answer(self, count: int = 1000) -> int:
        """Answer so many of those that are out, and book them; how many there were."""
        answered, self.parts.out = self.parts.out[:count], self.parts.out[count:]
        for job in answered:
            self.lane.answered(job)
        await self.settle()
        for job in answered:
            self.lane.booked(job)
            job.settle(results.accepted(()))
        await self.settle()
        return len(answered)


@asynccontextmanager
async def seated(
    parts: Parts | None = None, *, direct: bool = False, max_queue: int = 100, pressers: int = 1
) -> AsyncIterator[Seat]:
    """One presser keeps the order; several share it out by sixteen."""
    parts = parts or Parts()
    provider = Provider(id=1, name="relay", type="smtp", host="" if direct else "relay")
    lane = Lane(
        provider, SmtpSettings(), wire=parts, books=parts, press=parts, desk=parts,
        clock=now, max_queue=max_queue, pressers=pressers,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lane.run)
        yield Seat(lane, parts)
        nursery.cancel_scope.cancel()


def cause(job: Job) -> str:
    assert isinstance(job.fate, Result)
    return job.fate.cause


# --- the usual way -------------------------------------------------------------------------------
async def test_no_more_leave_than_the_connections_take(autojump_clock: object) -> None:
    async with seated(Parts(credit=4)) as seat:
        jobs = [job_of(n) for n in range(1, 31)]
        await seat.put(*jobs)
        await seat.settle()
        assert seat.parts.sent_ids == seat.parts.intended == [1, 2, 3, 4]
        while await seat.answer(3):
            assert len(seat.parts.out) <= 4
        assert seat.parts.sent_ids == list(range(1, 31))
        assert seat.parts.most_out == 4


async def test_an_answer_that_is_not_booked_keeps_its_place(autojump_clock: object) -> None:
    """What is answered and not in the journal would be unknown after a crash, too."""
    async with seated(Parts(credit=2)) as seat:
        await seat.put(*[job_of(n) for n in range(1, 6)])
        await seat.settle()
        first = seat.parts.out.pop(0)
        seat.lane.answered(first)
        await seat.settle()
        assert seat.parts.intended == [1, 2]
        seat.lane.booked(first)
        await seat.settle()
        assert seat.parts.intended == [1, 2, 3]


async def test_who_orders_waits_where_the_queue_is_full(autojump_clock: object) -> None:
    async with seated(Parts(credit=1), max_queue=3) as seat:
        await seat.put(*[job_of(n) for n in range(1, 4)])
        await seat.settle()
        await seat.put(job_of(4))
        with trio.move_on_after(1) as scope:
            await seat.lane.put(job_of(5))
        assert scope.cancelled_caught
        await seat.answer(1)
        with trio.fail_after(1):
            await seat.lane.put(job_of(6))
        while await seat.answer():
            pass
        assert seat.parts.sent_ids == [1, 2, 3, 4, 6]


async def test_a_slow_domain_holds_up_no_other(autojump_clock: object) -> None:
    async with seated(Parts(credit=2), direct=True) as seat:
        slow = [job_of(n, "slow.example", direct=True) for n in range(1, 31)]
        fast = [job_of(n, f"fast{n}.example", direct=True) for n in range(31, 41)]
        await seat.put(*slow, *fast)
        await seat.settle()
        sent = Counter(n <= 30 for n in seat.parts.sent_ids)
        assert sent == {True: 2, False: 10}
        assert seat.lane.statistics()["domains"]["slow.example"] > 0


async def test_all_domains_together_are_no_more_than_the_connections_take(
    autojump_clock: object,
) -> None:
    """And each has its turn, however much of the others waits."""
    async with seated(Parts(credit=2, in_all=3), direct=True) as seat:
        jobs = [job_of(n, f"d{n % 6}.example", direct=True) for n in range(60)]
        await seat.put(*jobs)
        await seat.settle()
        served: list[str] = []
        while seat.parts.out:
            served += [job.domain for job in seat.parts.out]
            await seat.answer()
        assert seat.parts.most_out == 3
        assert len(served) == 60
        assert len(set(served[:12])) == 6


async def test_what_is_not_booked_of_one_domain_counts_for_all(autojump_clock: object) -> None:
    async with seated(Parts(credit=2, in_all=3), direct=True) as seat:
        await seat.put(*[job_of(n, f"d{n}.example", direct=True) for n in range(6)])
        await seat.settle()
        first = seat.parts.out.pop(0)
        seat.lane.answered(first)
        await seat.put(job_of(6, "d6.example", direct=True))
        await seat.settle()
        assert len(seat.parts.intended) == 3
        seat.lane.booked(first)
        await seat.settle()
        assert len(seat.parts.intended) == 4


async def test_what_cannot_be_made_is_refused_and_holds_up_nothing(autojump_clock: object) -> None:
    parts = Parts()
    parts.broken = {2: InvalidError("subject: CR", field="subject"), 3: RuntimeError("a bug")}
    parts.broken[4] = InvalidError("from: CR", field="from")
    async with seated(parts) as seat:
        jobs = [job_of(n) for n in range(1, 6)]
        await seat.put(*jobs)
        await seat.settle()
        assert parts.sent_ids == [1, 5]
        assert [cause(jobs[n]) for n in (1, 2, 3)] == [
            "invalid_message", "invalid_message", "invalid_sender",
        ]  # fmt: skip


# --- disks ---------------------------------------------------------------------------------------
async def test_while_the_disk_refuses_all_wait_and_nothing_leaves(autojump_clock: object) -> None:
    parts = Parts()
    parts.fault = "disk full"
    async with seated(parts) as seat:
        await seat.put(*[job_of(n) for n in range(1, 4)])
        await trio.sleep(10 * JOURNAL_RETRY_S + 0.5)
        assert 10 <= parts.refusals <= 12
        assert not parts.sent_ids
        assert seat.lane.statistics()["fault"] == "disk full"
        parts.fault = ""
        await trio.sleep(2 * JOURNAL_RETRY_S)
        assert parts.sent_ids == [1, 2, 3]
        assert not seat.lane.statistics()["fault"]


async def test_a_lane_that_closes_does_not_wait_for_a_disk(autojump_clock: object) -> None:
    parts = Parts()
    parts.fault = "disk full"
    async with seated(parts) as seat:
        jobs = [job_of(n) for n in range(1, 4)]
        await seat.put(*jobs)
        await seat.settle()
        seat.lane.close(GONE)
        with trio.fail_after(10):
            await seat.lane.emptied.wait()
        assert {cause(job) for job in jobs} == {"trunk_unavailable"}
        assert not parts.sent_ids


# --- given up ------------------------------------------------------------------------------------
@pytest.mark.parametrize("place", [Place.QUEUED, Place.PRESSING, Place.READY, Place.COMMITTING])
async def test_what_is_given_up_before_it_left_never_leaves(
    autojump_clock: object, place: Place
) -> None:
    parts = Parts(credit=0 if place is Place.READY else 4)
    gate = trio.Event()
    if place is Place.PRESSING:
        parts.press_gate = gate
    if place is Place.COMMITTING:
        parts.commit_gate = gate
    async with seated(parts) as seat:
        job, other = job_of(1), job_of(2)
        await seat.put(job)
        if place is not Place.QUEUED:
            await seat.settle()
        await seat.put(other)
        assert job.place is place
        assert seat.lane.withdraw(job, results.not_sent())
        assert not seat.lane.withdraw(job, results.not_sent())
        gate.set()
        parts.credit = 4
        seat.lane._to_send.set()
        await seat.settle()
        assert parts.sent_ids == [2]
        assert parts.given_back == ([1] if place is Place.COMMITTING else [])
        await seat.answer()
        left = seat.lane.statistics()
        assert not any(left[name] for name in ("queued", "pressing", "ready", "unbooked"))
        assert seat.lane._live == 0


async def test_closing_tells_all_that_wait_wherever_they_are(autojump_clock: object) -> None:
    parts = Parts(credit=1)
    async with seated(parts, max_queue=200) as seat:
        jobs = [job_of(n) for n in range(1, 101)]
        await seat.put(*jobs)
        await seat.settle()
        late = job_of(999)
        seat.lane.close(GONE)
        await seat.put(late)
        with trio.fail_after(10):
            await seat.lane.emptied.wait()
        (out,) = parts.sent_ids
        assert not jobs.pop(out - 1).done.is_set()
        assert {cause(job) for job in [*jobs, late]} == {"trunk_unavailable"}
        assert seat.lane._live == 0


async def test_closing_while_one_is_being_filled_in(autojump_clock: object) -> None:
    parts = Parts()
    parts.press_gate = trio.Event()
    async with seated(parts) as seat:
        await seat.put(job := job_of(1))
        await parts.pressing.wait()
        seat.lane.close(GONE)
        parts.press_gate.set()
        await seat.lane.emptied.wait()
        assert cause(job) == "trunk_unavailable"
        assert not parts.sent_ids


@given(st.lists(st.tuples(st.sampled_from("pwad"), st.integers(0, 39)), max_size=60))
@settings(max_examples=60, deadline=None)
def test_whatever_happens_each_leaves_at_most_once_and_none_is_forgotten(
    deeds: list[tuple[str, int]],
) -> None:
    """Put, withdraw, answer, a disk that refuses: in any order."""

    async def run() -> None:
        parts, jobs = Parts(credit=3), {}
        async with seated(parts, max_queue=1000, pressers=2) as seat:
            for number, (deed, which) in enumerate(deeds, 1):
                if deed == "p":
                    jobs[number] = job_of(number)
                    await seat.put(jobs[number])
                elif deed == "w" and jobs:
                    job = jobs[sorted(jobs)[which % len(jobs)]]
                    seat.lane.withdraw(job, results.not_sent())
                elif deed == "a":
                    await seat.answer(which % 4)
                else:
                    parts.fault = "" if parts.fault else "full"
            parts.fault = ""
            await trio.sleep(2 * JOURNAL_RETRY_S)
            while await seat.answer():
                pass
            assert all(job.done.is_set() for job in jobs.values())
            assert len(set(parts.sent_ids)) == len(parts.sent_ids)
            withdrawn = {n for n, job in jobs.items() if job.place is Place.WITHDRAWN}
            assert set(parts.sent_ids) == jobs.keys() - withdrawn
            assert set(parts.given_back) == set(parts.intended) & withdrawn
            assert parts.most_out <= 3
            assert seat.lane._live == 0

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
