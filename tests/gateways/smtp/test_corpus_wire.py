"""The hostile corpus through listener and readers, while somebody sends us ordinary mail."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio

from engine.config import SmtpConfig
from gateways.smtp.readers import Readers
from tests.gateways.smtp.corpus import CORPUS, mutations
from tests.gateways.smtp.incoming import ALICE, BOB, Desk, listening
from tests.gateways.smtp.test_mime import check_line

pytestmark = pytest.mark.slow

MUTATIONS = 500
GROWTH_BYTES = 150_000_000
GOOD = b"Subject: good %d\r\nFrom: friend@example.net\r\n\r\nhello\r\n"


def stuffed(raw: bytes) -> bytes:
    """As DATA sends it (RFC 5321 §4.5.2), whatever line ends it has."""
    return re.sub(rb"(?m)^\.", b"..", raw.removesuffix(b"\r\n")) + b"\r\n"


async def harm(desk: Desk, mails: Iterable[bytes], replies: Counter[str]) -> None:
    for raw in mails:
        async with desk.peer() as peer:
            await peer.hello()
            try:
                reply = await peer.mail(ALICE, text=stuffed(raw))
            except trio.BrokenResourceError:
                reply = ""  # cut off in the middle
            replies[reply[:3]] += 1


async def befriend(desk: Desk, ended: trio.Event) -> int:
    sent = 0
    while not ended.is_set():
        async with desk.peer() as peer:
            await peer.hello()
            assert (await peer.mail(BOB, text=GOOD % sent)).startswith("250 ")
            sent += 1
    return sent


def memory_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_the_listener_stays_up_and_a_friends_mail_comes(tmp_path: Path) -> None:
    mails = [*(one.raw for one in CORPUS), *mutations(MUTATIONS, seed=7)]
    replies: Counter[str] = Counter()
    readers = Readers(SmtpConfig())
    async with trio.open_nursery() as nursery:
        await nursery.start(readers.run)
        async with listening(tmp_path, readers) as desk:
            before, ended, sent = memory_bytes(), trio.Event(), 0

            async def friend() -> None:
                nonlocal sent
                sent = await befriend(desk, ended)

            async with trio.open_nursery() as senders:
                senders.start_soon(friend)
                await harm(desk, mails, replies)
                ended.set()
            assert memory_bytes() - before < GROWTH_BYTES
        nursery.cancel_scope.cancel()
    assert set(replies) <= {"250", "500", "501", "552", "554", ""}
    assert replies["250"] > len(mails) // 3
    for mail in desk.post.mails:
        for line in (mail.subject, mail.source.address, mail.source.name, mail.message_id):
            check_line(line)
    assert sum(mail.destination == BOB for mail in desk.post.mails) == sent > 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
