"""Ours in ``bench sms``: ``python -m bench.sms_ours HOST PORT WINDOW SECONDS WAY``.

``bulk``: segments go to a link in batches, nothing is kept. ``durable``: the same with the journal,
intent before and answer after on the disk. ``await``: durable, a task waits for each message, as a
program does. Every segment is encoded on the way. Prints one JSON line.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from api.log import configure
from bench.child import say
from bench.nobody import Nobody
from bench.sms_peers import FIRST_NUMBER, TEXT
from engine.clock import now
from engine.config import LogConfig, SmppConfig
from engine.memory import settle
from engine.model import Provider
from gateways.smpp.codec import Template
from gateways.smpp.intake import NoReceiver
from gateways.smpp.journal import Journal
from gateways.smpp.ledger import Books, NoBooks
from gateways.smpp.link import Link
from gateways.smpp.pdu import Address, ShortMessage
from gateways.smpp.records import Segment
from gateways.smpp.settings import SmppSettings
from gateways.smpp.tickets import Place, Sending, Ticket
from gateways.smpp.tracker import Tracker

BATCH = 512
QUEUE = 2048
BIND_S = 10.0
SOURCE = Address("4930", 1, 1)


class Counter:
    """Segments handed in and come to rest; ``all_settled`` once they are as many."""

    def __init__(self) -> None:
        self.sent = self.accepted = self.settled = 0
        self._template = Template(ShortMessage(source=SOURCE, destination=Address("", 1, 1)))
        self._changed = trio.Event()

    def segments(self, count: int) -> list[Segment]:
        """The next ones, encoded."""
        first, body = self.sent + 1, self._template.body
        self.sent += count
        return [
            Segment(
                spool_id=number,
                number=1,
                total=1,
                destination=(destination := str(FIRST_NUMBER + number)),
                reference=(reference := number & 0xFFFF),
                body=body(destination, TEXT, reference),
            )
            for number in range(first, first + count)
        ]

    def on_settled(self, tickets: Sequence[Ticket]) -> None:
        """The link is through with them."""
        self.settled += len(tickets)
        self.accepted += [ticket.place for ticket in tickets].count(Place.ACCEPTED)
        if self.settled == self.sent:
            self._changed.set()

    async def all_settled(self) -> None:
        """Wait for the last one."""
        while self.settled < self.sent:
            self._changed = trio.Event()
            await self._changed.wait()


async def bulk(link: Link, seconds: float, counter: Counter) -> None:
    """Batch after batch, for so long."""
    until = trio.current_time() + seconds
    while trio.current_time() < until:
        await link.submit(counter.segments(BATCH), counter.on_settled)
    await counter.all_settled()


async def awaiting(link: Link, seconds: float, counter: Counter, *, tasks: int) -> None:
    """So many tasks, each with one message at a time."""
    until = trio.current_time() + seconds

    async def one() -> None:
        while trio.current_time() < until:
            sending = Sending(counter.segments(1), on_leaving=_nothing, on_refused=_nothing)
            await link.send(sending, patience_s=BIND_S, limit_s=BIND_S)
            counter.on_settled(sending.tickets)

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(one)


def _nothing(*_: Any) -> None:
    pass


async def measure(host: str, port: int, window: int, seconds: float, way: str) -> dict[str, Any]:
    """Bind, send, drain; what was accepted, and how long it took."""
    provider = Provider(
        id=1, name="far", type="smpp", host=host, port=port, transport="tcp",
        username="outspool", password="secret",  # noqa: S106 - of a bench
    )  # fmt: skip
    async with _books(durable=way != "bulk") as books:
        link = Link(
            provider,
            SmppSettings(window=window, receipts="none"),
            config=SmppConfig(max_queue=QUEUE),
            books=books,
            clock=now,
            receiver=NoReceiver(),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            await _bound(link)
            settle()
            counter, begun = Counter(), time.perf_counter()
            if way == "await":
                await awaiting(link, seconds, counter, tasks=2 * window)
            else:
                await bulk(link, seconds, counter)
            spent = time.perf_counter() - begun
            await link.close()
    if counter.accepted != counter.sent:
        raise RuntimeError(f"{counter.sent} sent, {counter.accepted} accepted")
    return {"sent": counter.accepted, "seconds": spent}


@asynccontextmanager
async def _books(*, durable: bool) -> AsyncIterator[Books]:
    """A journal in a folder of its own, with the tasks that it has in a node."""
    if not durable:
        yield NoBooks()
        return
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.db")
        await journal.open()
        tracker = Tracker(journal, now, keep_s=SmppConfig().keep_s)
        await tracker.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(tracker.run, Nobody(), _unasked))
            yield tracker
            nursery.cancel_scope.cancel()
        await journal.aclose()


async def _unasked(*_: Any) -> None:
    return None


async def _bound(link: Link) -> None:
    with trio.fail_after(BIND_S):
        while not link.bound:  # noqa: ASYNC110 - once, before anything is measured
            await trio.sleep(0.01)


def main() -> None:
    """Command line of the child process."""
    configure(LogConfig(level="error"))  # standard output is the bench's
    host, port, window, seconds, way = sys.argv[1:]
    say(trio.run(measure, host, int(port), int(window), float(seconds), way))


if __name__ == "__main__":
    main()
