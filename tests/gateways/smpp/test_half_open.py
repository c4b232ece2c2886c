"""Half-open TCP as it is: packets vanish between two hosts, and neither end hears of it.

The SMSC sits in a network namespace of its own behind a router that drops (wants root).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from engine.model import Provider
from engine.results import Awaiting, Disposition, Reached, Result
from gateways.smpp.events import Answered, Bound
from tests.gateways.smpp.desk import Node, order_of, provider_of, running
from tests.gateways.smpp.faulty import Peer, faulty_smsc, submit_resp
from tests.gateways.smpp.seat import seated, tally
from tests.gateways.smpp.victim import number_of
from tests.support.desk import Delivery
from tests.support.network import Network, network
from tests.support.smsc.peers import Smsc, node_smsc

WINDOW = 16
NEVER_MS = 3_600_000
SHORT: dict[str, Any] = {
    "window": WINDOW, "enquire_link_s": 0.3, "response_timeout_s": 1.0, "bind_timeout_s": 5.0,
    "unknown_wait_s": 0.3,
}  # fmt: skip
"""A dead connection is found within 1.3 s; TCP by itself tries for a quarter of an hour."""

BEFORE, MIDST, AFTER = range(1, 9), range(9, 51), range(51, 61)
RESENT = range(1001, 2001)


@pytest.fixture
def hosts() -> Iterator[Network]:
    with network() as found:
        yield found


# --- the session


async def test_enquire_link_finds_out(hosts: Network) -> None:
    """The SMSC's answers get lost, and so does what is submitted meanwhile."""
    taken, cut = trio.Event(), trio.Event()

    async def script(peer: Peer) -> None:
        await peer.bind()
        one, *others = await peer.expect_submits(5)
        await peer.send(submit_resp(one))
        taken.set()
        await cut.wait()
        await peer.send(*[submit_resp(other) for other in others])
        await peer.read()

    hosts.connect_from_us()
    listener = hosts.them.listener()
    settings = SHORT | {"enquire_link_s": 2.0}
    async with (
        faulty_smsc(script, listener=listener) as smsc,
        seated(smsc.port, host=hosts.them.address, **settings) as seat,
    ):
        await seat.until_bound()
        seat.submit(range(5))
        await seat.until(lambda: bool(seat.found(Answered)))
        await taken.wait()
        await hosts.cut()
        cut.set()
        seat.submit(range(5, 8))
        closed = await seat.until_over()
        assert await hosts.them.established() == 1  # it believes in us still
    assert (closed.reason, closed.clean) == ("no answer to enquire_link", False)
    assert tally(seat.events) == {"answered 0x0": 1, "unanswered": 7}
    assert len(smsc.peers[0].submits()) == 5
    assert seat.events[-1] is closed


async def test_nobody_is_reached(hosts: Network) -> None:
    """Not even a refusal comes back: the bind's own time limit ends it."""
    hosts.connect_from_us()
    await hosts.cut()
    listener = hosts.them.listener()
    async with (
        faulty_smsc(Peer.serve, listener=listener) as smsc,
        seated(smsc.port, host=hosts.them.address, bind_timeout_s=0.5) as seat,
    ):
        closed = await seat.until_over()
    assert closed.reason.startswith("no connection")
    assert seat.found(Bound) == []
    assert smsc.peers == []


# --- the link, with npm's SMSC at the other end


class Outage(msgspec.Struct):
    """What was handed in before, in and after it, and the record of the SMSC."""

    node: Node
    smsc: Smsc
    provider: Provider
    deliveries: dict[int, Delivery]
    in_window: set[str]  # taken by the SMSC, which has not answered them

    def numbers(self, *, accepted: bool) -> set[str]:
        """Telephones of those that the SMSC told us it took, or of those whose answer is open."""
        fates = {number_of(n): one.fate for n, one in self.deliveries.items()}
        awaiting = {number: fate for number, fate in fates.items() if isinstance(fate, Awaiting)}
        assert awaiting.keys() == fates.keys()
        return {n for n, fate in awaiting.items() if (fate.accepted_at is not None) is accepted}

    async def results(self, numbers: Iterable[str]) -> list[Result]:
        """What was reported of these."""
        spools = [n for n in self.deliveries if number_of(n) in set(numbers)]
        await self.node.inbox.wait(*spools)
        return [self.node.inbox.results[n] for n in spools]

    def sent(self) -> Counter[str]:
        """How often the SMSC took what is for each telephone."""
        return Counter(one.destination for one in self.smsc.taken())


async def send(node: Node, provider: Provider, numbers: Iterable[int]) -> dict[int, Delivery]:
    """Deliver these at once and wait for every fate; spool and telephone have the number."""
    deliveries = {
        n: Delivery(order_of(
            provider, f"n {n}", spool_id=n, destination=number_of(n), ring_timeout_s=15.0
        ))
        for n in numbers
    }  # fmt: skip
    async with trio.open_nursery() as nursery:
        for delivery in deliveries.values():
            nursery.start_soon(delivery.run, node.gateway)
    return deliveries


@asynccontextmanager
async def outage(hosts: Network, folder: Path, **settings: Any) -> AsyncIterator[Outage]:
    """Some go well; packets vanish in the middle of a window; the way is mended, some more go."""
    hosts.connect_from_us()
    async with (
        node_smsc(folder / "smsc", on=hosts.them, receipt="held") as smsc,
        running(folder / "node") as node,
    ):
        provider = provider_of(smsc.provider, **(SHORT | settings))
        await node.provide(provider)
        deliveries = await send(node, provider, BEFORE)
        await smsc.tell("set", options={"response_delay_ms": NEVER_MS})
        async with trio.open_nursery() as nursery:

            async def send_more() -> None:
                deliveries.update(await send(node, provider, MIDST))

            nursery.start_soon(send_more)
            await smsc.wait_taken(len(BEFORE) + WINDOW)
            await hosts.cut()
            in_window = {one.destination for one in smsc.taken()[len(BEFORE) :]}
            await node.until(lambda: node.of()["lines"][0]["last_error"] != "", "it is found out")
            assert node.of()["lines"][0]["last_error"] == "no answer to enquire_link"
            assert await hosts.them.established() == 1
            await smsc.tell("set", options={"response_delay_ms": 0})
            await hosts.mend()
        deliveries |= await send(node, provider, AFTER)
        # What our kernel kept of the old connection reaches the SMSC after all, then its end does.
        await smsc.wait_event("gone")
        assert node.of()["lines"][0]["binds"] == 2
        yield Outage(node, smsc, provider, deliveries, in_window)


async def test_at_most_once_nothing_is_lost_and_nothing_doubled(
    hosts: Network, tmp_path: Path
) -> None:
    async with outage(hosts, tmp_path) as over:
        accepted, unknown = over.numbers(accepted=True), over.numbers(accepted=False)
        assert len(over.in_window) >= WINDOW
        assert unknown >= over.in_window
        assert accepted >= {number_of(n) for n in (*BEFORE, *AFTER)}
        for result in await over.results(unknown):
            assert (result.disposition, result.cause) == (Disposition.INTERRUPTED, "unknown")
            assert (result.reached, result.again) == (Reached.PERSON, False)
        await over.smsc.tell("release")
        assert {one.cause for one in await over.results(accepted)} == {"delivered"}
        assert over.sent().keys() >= accepted
        assert max(over.sent().values()) == 1


async def test_at_least_once_sends_again_and_says_so(hosts: Network, tmp_path: Path) -> None:
    async with outage(hosts, tmp_path, unknown="at_least_once") as over:
        accepted, unknown = over.numbers(accepted=True), over.numbers(accepted=False)
        assert unknown >= over.in_window
        for result in await over.results(unknown):
            assert (result.cause, result.again) == ("resent", True)
            assert possible_duplicate(result)
        again = await resend(over, unknown)
        await over.smsc.tell("release")
        assert {one.cause for one in await over.results(accepted)} == {"delivered"}
        await over.node.inbox.wait(*again)
        assert {over.node.inbox.results[n].cause for n in again} == {"delivered"}
        assert over.sent().keys() == accepted | unknown
        doubled = {number for number, times in over.sent().items() if times > 1}
        assert over.in_window <= doubled <= unknown
        assert max(over.sent().values()) == 2


def possible_duplicate(result: Result) -> bool:
    rows = [(row.type, row.name, row.data) for row in result.rows]
    return ("info", "possible_duplicate", "1") in rows


async def resend(over: Outage, numbers: set[str]) -> Sequence[int]:
    """As the engine does: one more spool for each. Their ids."""
    spools = dict(zip(RESENT, sorted(numbers), strict=False))
    async with trio.open_nursery() as nursery:
        for spool_id, number in spools.items():
            order = order_of(over.provider, "again", spool_id=spool_id, destination=number)
            nursery.start_soon(Delivery(order).run, over.node.gateway)
    return list(spools)
