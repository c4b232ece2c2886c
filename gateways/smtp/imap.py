"""Mail from a mailbox elsewhere, for who has no listener: looked for every ``poll_s``.

A mail is booked (how far the mailbox is read) once the intake has said its last word about it; a
kill before that shows it to the intake again, which knows it. Only then it is marked, moved or
deleted; what the server does not do now, or a kill prevents, is done by a later look. What is
refused stays there.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import structlog
import trio

from engine.errors import UnavailableError
from engine.model import Provider
from engine.store.journal import Journal
from gateways.smtp import bookmarks
from gateways.smtp.bookmarks import Place, mailbox_of
from gateways.smtp.intake import NOBODY, TAKEN, Reply
from gateways.smtp.mailbox import (
    DisposalRefusedError,
    LoginRefusedError,
    Mailbox,
    MailboxError,
)
from gateways.smtp.settings import ImapSettings

T = TypeVar("T")

log = structlog.get_logger("smtp")

BACKOFF_S = (5.0, 300.0)
"""The first and the longest wait after a failure; each is twice the one before."""

REFUSED_S = 900.0
"""After a login that was refused: accounts are locked for less."""

JOIN_S = 5.0
_HEADERS = 65_536  # octets that are looked through for addresses
_MAX_ADDRESSES = 20
_FIELDS = ("delivered-to", "x-original-to", "envelope-to", "to", "cc")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_ADDRESS = re.compile(r"[^\s<>,;:\"()\[\]\\]{1,64}@[^\s<>,;:\"()\[\]\\@]{1,255}")


class Taking(Protocol):
    """What is needed of ``Intake``."""

    async def wanted(self, recipient: str) -> bool:
        """Whether mail to this address would be taken."""
        ...

    async def take(
        self, raw: bytes, mail_from: str, recipients: Sequence[str], *, provider_id: int = 0
    ) -> list[Reply]:
        """Make it durable; one reply per recipient."""
        ...


class ImapPoller:
    """The mailbox of one provider."""

    def __init__(
        self,
        provider: Provider,
        settings: ImapSettings,
        intake: Taking,
        journal: Journal,
        *,
        ca_file: str = "",
        max_bytes: int = 25_000_000,
    ) -> None:
        self._provider = provider
        self._settings = settings
        self._intake = intake
        self._journal = journal
        self._ca_file = ca_file
        self._max_bytes = max_bytes
        self._thread = trio.CapacityLimiter(1)
        self._counts: Counter[str] = Counter()
        self._fault = ""
        self._staying = ""  # why mails that were taken are still where they were

    async def run(self) -> None:
        """Until cancelled; then the connection is cut and its thread ends."""
        failures = 0
        while True:
            try:
                await self.look()
                failures, self._fault, wait_s = 0, self._staying, self._settings.poll_s
            except LoginRefusedError:
                self._failed("login refused")
                log.error("smtp.imap_login_refused", provider=self._provider.name)  # noqa: TRY400
                wait_s = REFUSED_S
            except (MailboxError, UnavailableError) as error:
                self._failed(str(error))
                log.warning("smtp.imap_failed", provider=self._provider.name, cause=str(error))
                wait_s, failures = _backoff_s(failures), failures + 1
            except Exception:
                # Ours, or a mail that finds a fault of ours: it must not take the gateway down.
                self._failed("a fault of ours, see the log")
                log.exception("smtp.imap_fault", provider=self._provider.name)
                wait_s, failures = _backoff_s(failures), failures + 1
            await trio.sleep(wait_s)

    def _failed(self, fault: str) -> None:
        self._fault = fault
        self._counts["failures"] += 1

    async def look(self) -> None:
        """Take what is new; ``LoginRefusedError``, ``MailboxError``, ``UnavailableError``."""
        box = Mailbox(self._settings, ca_file=self._ca_file, max_bytes=self._max_bytes)
        try:
            await self._in_thread(box.open)
            await self._take_new(box)
            await self._in_thread(box.close)
        finally:
            box.cut()
            with trio.move_on_after(JOIN_S, shield=True):
                await trio.to_thread.run_sync(box.close, limiter=self._thread)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """One step; cancelled, ``look`` cuts the connection under it."""
        return await trio.to_thread.run_sync(work, limiter=self._thread, abandon_on_cancel=True)

    async def _take_new(self, box: Mailbox) -> None:
        place = Place(self._provider.id, mailbox_of(self._settings), box.uidvalidity)
        last, left = await self._journal.write(lambda tx: bookmarks.opened(tx, place))
        self._staying = ""
        for uid in left:
            if not await self._dispose(box, place, uid):
                break  # most likely of all of them
        mails = box.newer(last)
        while (found := await self._in_thread(lambda: next(mails, None))) is not None:
            uid, size = found
            if not await self._take(box, place, uid, size):
                return

    async def _take(self, box: Mailbox, place: Place, uid: int, size: int) -> bool:
        """Take one mail; False where the store takes none now."""
        self._counts["seen"] += 1
        reply = await self._answered(box, uid, size)
        if reply.later:
            return False
        # What was not taken stays where it is: it may be somebody's.
        taken = reply.code == TAKEN.code
        await self._journal.write(lambda tx: bookmarks.book(tx, place, uid, taken=taken))
        if taken:
            await self._dispose(box, place, uid)
        return True

    async def _answered(self, box: Mailbox, uid: int, size: int) -> Reply:
        if size > self._max_bytes:
            self._counts["too_big"] += 1
            log.warning("smtp.imap_too_big", provider=self._provider.name, uid=uid, octets=size)
            return NOBODY
        raw = await self._in_thread(lambda: box.fetch(uid))
        reply = NOBODY  # of what is gone, too
        if raw is not None and len(raw) <= self._max_bytes:
            reply = await self._handed_in(raw)
        self._counts[f"replies_{reply.code}"] += 1
        return reply

    async def _dispose(self, box: Mailbox, place: Place, uid: int) -> bool:
        """Mark, move or delete it; False where the server refuses: a later look tries again."""
        try:
            await self._in_thread(lambda: box.dispose(uid))
        except DisposalRefusedError as error:
            self._counts["not_disposed"] += 1
            if not self._staying:
                log.warning(
                    "smtp.imap_not_disposed", provider=self._provider.name, cause=str(error)
                )
            self._staying = str(error)
            if not error.copied:
                return False
        self._journal.post(lambda tx: bookmarks.disposed(tx, place, uid))
        return True

    async def _handed_in(self, raw: bytes) -> Reply:
        recipient = await self._recipient(raw)
        if recipient is None:
            return NOBODY
        [reply] = await self._intake.take(
            raw, sender_of(raw), [recipient], provider_id=self._provider.id
        )
        return reply

    async def _recipient(self, raw: bytes) -> str | None:
        """The envelope is gone: the first address of ours that the headers name."""
        for address in addresses_of(raw):
            if await self._intake.wanted(address):
                return address
        return None

    def statistics(self) -> dict[str, Any]:
        """Mails seen, what became of them, what is wrong now."""
        return {**self._counts, "fault": self._fault}


def _backoff_s(failures: int) -> float:
    first, longest = BACKOFF_S
    wait_s: float = min(first * 2 ** min(failures, 10), longest)
    return wait_s * random.uniform(0.8, 1.2)


def addresses_of(raw: bytes) -> Iterator[str]:
    """Who a mail was for, likeliest first: what delivered it says more than who wrote it."""
    fields = _fields(raw)
    seen: dict[str, None] = {}
    for name in _FIELDS:
        for value in fields.get(name, ()):
            for found in _ADDRESS.finditer(value):
                seen[found[0]] = None
                if len(seen) >= _MAX_ADDRESSES:
                    break
    yield from list(seen)[:_MAX_ADDRESSES]


def sender_of(raw: bytes) -> str:
    """The envelope's sender where delivery left it (RFC 5321 §4.4); "" too where it did not."""
    for value in _fields(raw).get("return-path", ()):
        found = _ADDRESS.search(value)
        return found[0] if found else ""
    return ""


def _fields(raw: bytes) -> dict[str, list[str]]:
    """Header fields by name in small letters; bounded, and no parser that strangers can upset."""
    head = _FOLD.sub(b" ", raw[:_HEADERS])
    fields: dict[str, list[str]] = {}
    for line in head.split(b"\n"):
        if not line.strip():
            break
        name, colon, value = line.partition(b":")
        if colon:
            fields.setdefault(name.strip().lower().decode("latin-1"), []).append(
                value.decode("utf-8", "replace").strip()
            )
    return fields
