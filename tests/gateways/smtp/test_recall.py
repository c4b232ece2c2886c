"""kill -9 at every step between the intent and the answer: what the next start knows of each."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from engine.model import Service, Spool
from engine.results import Fate, Reached, Result, ResultRow
from gateways.smtp import results
from tests.gateways.smtp.desk import order_of, provider_of, running
from tests.gateways.smtp.faulty import FaultyMta, Script, faulty_mta, hold
from tests.gateways.smtp.victim import CREDITS

MAILS = 60
DEADLINE_S = 60.0
POLICIES = ("at_most_once", "at_least_once")
STEPS = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "BODY", "DOT")

Moment = Callable[[FaultyMta, trio.Process], Awaitable[None]]


class Killed:
    """What a victim had said and the server had when it was killed."""

    def __init__(self) -> None:
        self.said: dict[int, str] = {}
        self.known: dict[int, Fate] = {}
        self.there: list[int] = []
        self.ids: dict[int, str] = {}


@asynccontextmanager
async def killed(
    folder: Path, script: Script, moment: Moment, policy: str, count: int = MAILS
) -> AsyncIterator[Killed]:
    """Kill a victim at that moment, then ask a gateway on its journal what it knows."""
    state = Killed()
    async with faulty_mta(script) as mta:
        command = [sys.executable, "-m", "tests.gateways.smtp.victim"]
        command += [str(mta.port), str(folder), str(count), policy]
        async with trio.open_nursery() as nursery:
            process = await trio.lowlevel.open_process(command, stdout=-1)
            nursery.start_soon(_listen, process, state)
            try:
                with trio.fail_after(DEADLINE_S):
                    await moment(mta, process)
            finally:
                process.send_signal(signal.SIGKILL)
                with trio.CancelScope(shield=True):
                    await process.wait()
        state.there = there(mta)
        state.ids = dict(zip(state.there, map(message_id, mta.mails), strict=True))
    async with running(folder) as node:
        spools = [
            Spool(id=n, transmission_id=1000 + n, service=Service.EMAIL)
            for n in range(1, count + 1)
        ]
        state.known = dict(await node.gateway.recall(spools))
    assert state.known.keys() == set(range(1, count + 1))
    yield state


async def _listen(process: trio.Process, state: Killed) -> None:
    assert process.stdout is not None
    seen = b""
    async for chunk in process.stdout:
        seen += chunk
    for line in seen.decode().splitlines():
        _, number, cause = line.split()
        state.said[int(number)] = cause


def there(mta: FaultyMta) -> list[int]:
    """The spools whose mail the server has, to the last dot."""
    return [
        int(mail.partition(b"To: ")[2].partition(b"@")[0].rpartition(b"<c")[2])
        for mail in mta.mails
    ]


def message_id(mail: bytes) -> str:
    return mail.partition(b"\r\nMessage-ID: ")[2].partition(b"\r\n")[0].decode()


def judged(state: Killed, policy: str) -> None:
    """The state of each is right: not sent is not there, accepted is, the rest nobody can know."""
    assert len(set(state.there)) == len(state.there)
    unknown = []
    for number, fate in state.known.items():
        assert isinstance(fate, Result)
        if fate == results.not_sent():
            assert number not in state.there
        elif fate.cause == "accepted":
            assert number in state.there
        else:
            unknown.append(number)
            assert fate.cause == ("unknown" if policy == "at_most_once" else "resent")
            assert fate.reached is Reached.PERSON
            assert fate.again is (policy == "at_least_once")
        names = [row.data for row in fate.rows if row.name == "message_id"]
        assert len(names) == (fate != results.not_sent())
        if number in state.there:
            assert names == [state.ids[number]]
    assert len(unknown) <= CREDITS
    for number, cause in state.said.items():
        fate = state.known[number]
        assert isinstance(fate, Result)
        assert fate.cause == cause


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("step", STEPS)
async def test_killed_while_the_wire_is_there(tmp_path: Path, step: str, policy: str) -> None:
    async def moment(mta: FaultyMta, _: trio.Process) -> None:
        await (await mta.peer()).event(step).wait()

    async with killed(tmp_path, {step: hold}, moment, policy, count=20) as state:
        judged(state, policy)
        assert any(fate != results.not_sent() for fate in state.known.values())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mails", [1, 7, 19, 40])
async def test_killed_in_full_swing(tmp_path: Path, mails: int, policy: str) -> None:
    async def moment(mta: FaultyMta, _: trio.Process) -> None:
        while len(mta.mails) < mails:
            await trio.lowlevel.checkpoint()

    async with killed(tmp_path, {}, moment, policy) as state:
        judged(state, policy)
        assert len(state.there) >= mails


async def test_what_goes_out_again_is_marked_and_everything_arrives(tmp_path: Path) -> None:
    """At least once: the next start sends what is not known to be there; doubles say so."""

    async def moment(mta: FaultyMta, _: trio.Process) -> None:
        while len(mta.mails) < 5:
            await trio.lowlevel.checkpoint()

    async with killed(tmp_path, {}, moment, "at_least_once") as state:
        pass
    async with faulty_mta({}) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port, unknown="at_least_once"))
        marked = set()
        for number, fate in state.known.items():
            if isinstance(fate, Result) and fate.again:
                order = order_of(provider, 1000 + number, transmission_id=1000 + number,
                                 destination=f"c{number}@example.net")  # fmt: skip
                result = (await node.deliver(order)).result
                assert result.succeeded
                if ResultRow("info", "possible_duplicate", "1") in result.rows:
                    marked.add(number)
        again = there(mta)
    assert set(state.there) | set(again) == set(range(1, MAILS + 1))
    assert set(state.there) & set(again) <= marked


async def test_a_journal_that_was_lost_names_nothing(tmp_path: Path) -> None:
    async def moment(mta: FaultyMta, _: trio.Process) -> None:
        await (await mta.peer()).event("DOT").wait()

    async with killed(tmp_path, {"DOT": hold}, moment, "at_most_once", count=3):
        pass
    for file in tmp_path.glob("smtp-journal.db*"):
        file.unlink()
    async with running(tmp_path) as node:
        spool = Spool(id=1, transmission_id=1, service=Service.EMAIL)
        assert dict(await node.gateway.recall([spool])) == {}
