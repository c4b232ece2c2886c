"""A tracker on a real journal, with an inbox that keeps what it is given and a clock to turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import trio
import trio.testing

from engine.errors import UnavailableError
from engine.gateway import InboundText, Reception, Report
from engine.results import Awaiting, Result
from gateways.smpp.journal import Journal
from gateways.smpp.pdu import Address
from gateways.smpp.records import Receipt, ReceiptState, Segment, SegmentAnswer
from gateways.smpp.settings import SmppSettings
from gateways.smpp.tracker import Tracker
from tests.support.inbox import NoMail

PROVIDER = 7
SETTINGS = SmppSettings(
    validity_s=0, receipt_wait_s=1000, receipt_grace_s=200, unknown_wait_s=60, receipt_ids="exact"
)
LEARNING = SmppSettings(receipt_wait_s=1000, receipt_grace_s=200)
AGAIN = msgspec.structs.replace(SETTINGS, unknown="at_least_once")
LIFE_S = 1200  # of SETTINGS: receipt_wait_s and receipt_grace_s
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PHONE = "4917012345678"
# A submit_sm without header, as far as the sender: no service type, international, ISDN, "Acme".
BODY = b"\0\x01\x01Acme\0\x01\x01" + PHONE.encode() + b"\0" + bytes(12)


def clock() -> datetime:
    """Calendar time that runs with Trio's, virtual or not."""
    return NOON + timedelta(seconds=trio.current_time())


def segment(spool_id: int = 1, number: int = 1, total: int = 1, **fields: Any) -> Segment:
    """One part to ``PHONE``; its reference is its spool's number plus its own."""
    known: dict[str, Any] = {
        "destination": PHONE,
        "reference": spool_id + number - 1,
        "body": BODY,
    } | fields
    return Segment(spool_id=spool_id, number=number, total=total, **known)


def parts(spool_id: int, total: int) -> list[Segment]:
    """All parts of a message."""
    return [segment(spool_id, number, total) for number in range(1, total + 1)]


def answer(it: Segment, message_id: str = "", status: int = 0) -> SegmentAnswer:
    """The SMSC's answer; without a status it accepted."""
    return SegmentAnswer(segment=it, status=status, message_id=message_id, at=clock())


def receipt(
    message_id: str, state: ReceiptState = ReceiptState.DELIVERED, **fields: Any
) -> Receipt:
    """A receipt from ``PHONE``."""
    known = {"handset": PHONE, "error": "000", "submitted": "1", "done": "2"} | fields
    return Receipt(message_id=message_id, state=state, received_at=clock(), **known)


class Inbox(NoMail):
    """``engine.gateway.Inbox`` that keeps every report; while ``fault`` is set it takes none."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.refused = 0
        self.fault = False

    async def report(self, reports: Sequence[Report]) -> None:
        """Keep them."""
        await trio.lowlevel.checkpoint()
        if self.fault:
            self.refused += 1
            raise UnavailableError("store: full")
        self.reports += reports

    async def receive(self, message: InboundText) -> Reception:
        """No tracker hands in messages."""
        raise NotImplementedError

    @property
    def results(self) -> dict[int, Result]:
        """The last result of each spool."""
        return {report.spool_id: report.result for report in self.reports}

    @property
    def causes(self) -> list[tuple[int, str]]:
        """Spool and cause of each report, in order."""
        return [(report.spool_id, report.result.cause) for report in self.reports]


class Books:
    """Journal and tracker of one run of the gateway; several may follow each other on one file."""

    def __init__(self, journal: Journal, *, keep_s: float = 100_000.0) -> None:
        self.journal = journal
        self.inbox = Inbox()
        self.asked: list[tuple[int, str, Address]] = []
        self.states: dict[str, ReceiptState] = {}
        self.patience: dict[int, float] = {}
        self.in_hand: set[int] = set()
        self.tracker = Tracker(journal, clock, keep_s=keep_s)

    async def query(
        self, provider_id: int, message_id: str, source: Address
    ) -> ReceiptState | None:
        """The SMSC's answer to query_sm: what ``states`` has."""
        await trio.lowlevel.checkpoint()
        self.asked.append((provider_id, message_id, source))
        return self.states.get(message_id)

    async def send(self, *segments: Segment, settings: SmppSettings = SETTINGS) -> None:
        """Journal them: they may have left."""
        await self.tracker.intend(PROVIDER, segments, settings)

    async def accept(self, *answers: tuple[Segment, str]) -> None:
        """The SMSC takes these under these ids."""
        await self.tracker.answered(PROVIDER, [answer(*it) for it in answers])

    async def refuse(self, it: Segment, status: int) -> None:
        """The SMSC refuses one for good."""
        await self.tracker.answered(PROVIDER, [answer(it, status=status)])

    async def lose(self, *segments: Segment, settings: SmppSettings = SETTINGS) -> None:
        """The connection goes down before the answers."""
        await self.tracker.unknown(PROVIDER, segments, settings)

    async def receive(self, *receipts: Receipt, settings: SmppSettings = SETTINGS) -> None:
        """These come in."""
        await self.tracker.receipts(PROVIDER, settings, receipts)

    async def rows(self, table: str) -> int:
        """How many rows a table of the journal has."""
        statement = f"SELECT count(*) FROM {table}"  # noqa: S608 - a test's own word
        count: int = await self.journal.read(lambda it: it.execute(statement).fetchone()[0])
        return count


async def opened(path: Path, nursery: trio.Nursery, **settings: Any) -> Books:
    """A run of the gateway on this file, inline: it ends with ``close``."""
    journal = Journal(path, inline=True)
    await journal.open()
    books = Books(journal, **settings)
    await books.tracker.open()
    in_hand = books.in_hand.__contains__
    nursery.start_soon(books.tracker.run, books.inbox, books.query, lambda: books.patience, in_hand)
    await trio.testing.wait_all_tasks_blocked()
    return books


@asynccontextmanager
async def run(path: Path, **settings: float) -> AsyncIterator[Books]:
    """The gateway between a start and a crash: nothing is done at the end but what is done."""
    async with trio.open_nursery() as nursery:
        books = await opened(path, nursery, **settings)
        yield books
        nursery.cancel_scope.cancel()
    await books.journal.aclose()


def rows(result: Result | Awaiting) -> list[tuple[str, str]]:
    """Its result rows, name and data."""
    return [(row.name, row.data) for row in result.rows]


async def later(seconds: float) -> None:
    """Let time pass, and what it brings happen."""
    await trio.sleep(seconds)
    await trio.testing.wait_all_tasks_blocked()
