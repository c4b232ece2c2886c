"""A process that journals as fast as it can and says what is durable, until it is killed.

``python -m tests.gateways.smpp.journal_peer FILE FIRST_SPOOL``: ``intended N``, ``answered N``,
``received N``, ``unsent N`` for each spool, after the tracker's method returned.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import trio

from engine.clock import now
from gateways.smpp.journal import Journal
from gateways.smpp.records import Segment, SegmentAnswer
from gateways.smpp.tracker import Tracker
from tests.gateways.smpp.books import PROVIDER, SETTINGS, Inbox, receipt, segment

_STDOUT = 1
_BATCH = 8


def _say(word: str, segments: Iterable[Segment]) -> None:
    """One write, no buffer: what is said has happened, kill -9 or not."""
    os.write(_STDOUT, "".join(f"{word} {it.spool_id}\n" for it in segments).encode())


async def _send(tracker: Tracker, first: int) -> None:
    """One bind's life: some are answered, some of these get receipts, some never left."""
    while True:
        batch = [segment(spool_id) for spool_id in range(first, first + _BATCH)]
        await tracker.intend(PROVIDER, batch, SETTINGS)
        _say("intended", batch)
        unsent, taken = batch[:2], batch[2:]
        await tracker.unsent(unsent)
        _say("unsent", unsent)
        answers = [
            SegmentAnswer(segment=it, status=0, message_id=str(it.spool_id), at=now())
            for it in taken
        ]
        await tracker.answered(PROVIDER, answers)
        _say("answered", taken)
        delivered = taken[3:]
        receipts = [receipt(str(it.spool_id)) for it in delivered]
        await tracker.receipts(PROVIDER, SETTINGS, receipts)
        _say("received", delivered)
        first += 4 * _BATCH


async def main(path: Path, first: int) -> None:
    """Four binds at once, so that groups gather."""
    journal = Journal(path)
    await journal.open()
    tracker = Tracker(journal, now)
    await tracker.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tracker.run, Inbox(), _nobody)
        for bind in range(4):
            nursery.start_soon(_send, tracker, first + bind * _BATCH)


async def _nobody(*_: object) -> None:
    """The SMSC that answers no query_sm."""


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
