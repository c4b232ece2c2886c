"""Orders that are given up, at every state of the wire and at every checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from engine.results import Reached, Result
from gateways.smtp import results
from gateways.smtp.gateway import SmtpGateway
from tests.gateways.smtp.desk import (
    GOOD,
    Delivery,
    Node,
    order_of,
    provider_of,
    recipients,
    running,
)
from tests.gateways.smtp.faulty import Peer, faulty_mta, hold

OPENING = ("CONNECT", "EHLO")  # nobody's mail yet: all that wait for it share what becomes of it
BEFORE_DOT = (*OPENING, "MAIL", "RCPT", "DATA")
AFTER_DOT = ("BODY", "DOT")  # a small body leaves together with its dot
POLICIES = ("at_most_once", "at_least_once")


async def settled(node: Node) -> None:
    """Wait until whatever is under way is answered and in the journal."""

    def nothing() -> bool:
        ledger, lane = node.gateway.statistics()["ledger"], node.of()
        return not (ledger["under_way"] or ledger["unbooked"] or lane["committing"])

    await node.until(nothing, "all is booked")
    await node.gateway._ledger.flushed()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("step", [*BEFORE_DOT, *AFTER_DOT])
async def test_cancelled_at_every_state_of_the_wire(tmp_path: Path, step: str, policy: str) -> None:
    """M16: the next order gets its own answer, on another connection."""
    async with faulty_mta({step: hold}, GOOD) as mta, running(tmp_path) as node:
        provider = provider_of(mta.port, connections=1, unknown=policy, reply_timeout_s=1.0)
        await node.provide(provider)
        delivery = node.start(order_of(provider, 1))
        with trio.fail_after(20):
            await (await mta.peer()).event(step).wait()
        delivery.scope.cancel()
        with trio.fail_after(20):
            await delivery.done.wait()
        assert delivery.fate is None
        await settled(node)
        following = (await node.deliver(order_of(provider, 2))).result
        fate = (await node.fates(1))[1]
    assert isinstance(fate, Result)
    if step in OPENING:
        assert (following.cause, following.reached) == ("trunk_unavailable", Reached.NOTHING)
        assert fate == results.not_sent()
        assert not mta.mails
        return
    assert following.succeeded
    if step == "BODY" and fate == results.not_sent():
        assert not [
            it for it in recipients(mta) if b"<c1@" in it
        ]  # our go-ahead was still on its way
    elif step in AFTER_DOT:
        assert fate.cause == ("unknown" if policy == "at_most_once" else "resent")
        assert fate.reached is Reached.PERSON
        assert fate.again is (policy == "at_least_once")
    else:
        assert fate == results.not_sent()
    assert len(mta.peers) == 2
    assert recipients(mta)[-1].endswith(b"<c2@example.net>")


class CancelAfter(trio.abc.Instrument):
    """Cancels a delivery after so many steps of its task."""

    def __init__(self, delivery: Delivery, steps: int) -> None:
        self.left = steps
        self._delivery = delivery
        self.task: trio.lowlevel.Task | None = None

    async def run(self, gateway: SmtpGateway) -> None:
        self.task = trio.lowlevel.current_task()
        if not self.left:
            self._delivery.scope.cancel()
        await self._delivery.try_out(gateway)
        self.task = None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if not self.left:
                self._delivery.scope.cancel()


CANCEL_POINTS = range(12)
"""More than a delivery has checkpoints: the last of them are never reached."""


async def test_cancelled_at_every_checkpoint(tmp_path: Path) -> None:
    """What the server has is never taken for not sent, what it has not never for accepted."""
    ended = []
    async with faulty_mta(GOOD) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port, connections=1))
        for n in CANCEL_POINTS:
            delivery = Delivery(order_of(provider, n + 1))
            canceller = CancelAfter(delivery, n)
            trio.lowlevel.add_instrument(canceller)
            try:
                await canceller.run(node.gateway)
            finally:
                trio.lowlevel.remove_instrument(canceller)
            await settled(node)
            there = any(f"<c{n + 1}@" in line.decode() for line in recipients(mta))
            fate = (await node.fates(n + 1))[n + 1]
            assert isinstance(fate, Result)
            assert (fate.cause == "accepted") <= there
            assert (fate == results.not_sent()) <= (not there)
            ended.append(delivery.fate is not None)
        assert (await node.deliver(order_of(provider, 99))).result.succeeded
        assert node.gateway.statistics()["calls_up"] == 0
    assert not ended[0]
    assert ended[-1]


async def test_a_duplicate_says_so(tmp_path: Path) -> None:
    """At least once: what went out again has the row, and the same Message-ID."""

    async def lose(peer: Peer) -> None:
        await peer.drop()

    async with faulty_mta({"DOT": lose}, GOOD) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port, unknown="at_least_once"))
        first = await node.deliver(order_of(provider, 1, transmission_id=7))
        assert (first.result.cause, first.result.again) == ("resent", True)
        second = await node.deliver(order_of(provider, 2, transmission_id=7))
        third = await node.deliver(order_of(provider, 3, transmission_id=8))
    marked = ["possible_duplicate" in {row.name for row in each.result.rows}
              for each in (first, second, third)]  # fmt: skip
    assert marked == [True, True, False]
    ids = [
        row.data
        for each in (first, second, third)
        for row in each.result.rows
        if row.name == "message_id"
    ]
    assert ids[0] == ids[1] != ids[2]
    assert f"Message-ID: {ids[0]}".encode() in mta.mails[0]
