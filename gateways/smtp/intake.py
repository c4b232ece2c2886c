"""A mail that came, by SMTP or IMAP: read in a process of its own, booked, answered.

250 is said only when everything it says is durable. What is refused for now comes again; those of
its recipients who have it already are told by the arrival key.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import msgspec
import structlog
import trio

from engine.addresses import plain
from engine.clock import Clock
from engine.errors import InvalidError, UnavailableError
from engine.gateway import Inbox, Reception
from engine.mail import InboundMail, MailAddress, MailFile
from engine.results import ResultRow
from engine.uploads import FOLDER
from gateways.smtp.bounces import Books, Matcher
from gateways.smtp.parsed import Parsed
from gateways.smtp.room import NoRoomError, Room

log = structlog.get_logger("smtp")

SCRATCH = f"{FOLDER}/mail"
"""Below the data directory, so that attachments are kept by renaming them."""

MAX_AT_ONCE = 100
MAX_ADDRESS = 320
"""64 + @ + 255 octets (RFC 5321 §4.5.3.1)."""

ALIKE_S = 300.0
"""How long a mail without Message-ID and Date is one with another that is equal to it.

A peer that lost our answer and comes back later brings it twice: better than an alarm unheard.
"""

_NO_ADDRESS = re.compile(r"[\x00-\x20\x7f-\x9f<>\ud800-\udfff]")


class Reply(NamedTuple):
    """An SMTP reply (RFC 5321 §4.2) with its enhanced code (RFC 3463)."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}"

    @property
    def later(self) -> bool:
        """Whether the mail shall come again."""
        return self.code // 100 == 4  # noqa: PLR2004


TAKEN = Reply(250, "2.0.0 Taken")
DROPPED = Reply(250, "2.0.0 Noted")
PUT_OFF = Reply(451, "4.3.0 Try again later")
NO_ROOM = Reply(452, "4.3.1 No room for mail, try again later")
NOBODY = Reply(550, "5.1.1 Nobody here takes mail at this address")
UNREADABLE = Reply(554, "5.6.0 The message cannot be read")

_REPLIES = {
    Reception.TAKEN: TAKEN,
    Reception.REPEATED: TAKEN,
    Reception.UNWANTED: NOBODY,
}


class Reading(Protocol):
    """What is needed of ``Readers``."""

    async def read(self, raw: bytes, scratch: Path) -> Parsed:
        """Its parts, its files at ``scratch``; ``InvalidError`` where it cannot be read."""
        ...


class Intake:
    """Where mail comes in, whatever brings it. ``data``: the node's data directory."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        readers: Reading,
        matcher: Matcher,
        books: Books,
        data: Path,
        clock: Clock,
        repeat_within_s: float,
        min_free_bytes: int = 0,
    ) -> None:
        self._inbox = inbox
        self._readers = readers
        self._matcher = matcher
        self._books = books
        self._folder = (data / SCRATCH).absolute()
        self._room = Room(data, min_free_bytes)
        self._clock = clock
        self._repeat_within_s = repeat_within_s
        self._at_once = 0
        self._counts: Counter[str] = Counter()

    async def open(self) -> None:
        """Remove what a run that was killed left; before the first mail."""
        await trio.to_thread.run_sync(lambda: shutil.rmtree(self._folder, ignore_errors=True))

    async def wanted(self, recipient: str) -> bool:
        """Whether mail to this address would be taken; ``UnavailableError``: nobody knows now.

        ``NoRoomError``: nobody's would be.
        """
        await self._room.check()
        if len(recipient.encode(errors="replace")) > MAX_ADDRESS or _NO_ADDRESS.search(recipient):
            return False
        if self._matcher.token_of(recipient) is not None:
            return True
        return await self._inbox.serves_mail(recipient)

    async def take(
        self, raw: bytes, mail_from: str, recipients: Sequence[str], *, provider_id: int = 0
    ) -> list[Reply]:
        """Make it durable; one reply per recipient.

        ``mail_from`` "" is the null sender; ``provider_id`` 0 = the listener. Cancelling leaves
        no file behind, and of its recipients those who have it already.
        """
        if self._at_once >= MAX_AT_ONCE:
            self._counts["put_off"] += 1
            return [PUT_OFF] * len(recipients)
        self._at_once += 1
        try:
            replies = await self._taken(raw, mail_from, recipients, provider_id)
        finally:
            self._at_once -= 1
        self._counts.update(f"replies_{reply.code}" for reply in replies)
        return replies

    async def _taken(
        self, raw: bytes, mail_from: str, recipients: Sequence[str], provider_id: int
    ) -> list[Reply]:
        try:
            await self._room.check()
            async with self._scratch() as scratch:
                parsed = await self._readers.read(raw, scratch)
                if await self._bounced(parsed, mail_from, recipients):
                    return [TAKEN] * len(recipients)
                came = _Came(parsed, mail_from, provider_id, scratch)
                return [
                    await self._handed_in(came, recipient, place)
                    for place, recipient in enumerate(recipients)
                ]
        except InvalidError as error:
            log.info("smtp.mail_unreadable", reason=str(error), octets=len(raw))
            return [UNREADABLE] * len(recipients)
        except (UnavailableError, OSError) as error:
            return [_put_off(error)] * len(recipients)

    async def _bounced(self, parsed: Parsed, mail_from: str, recipients: Sequence[str]) -> bool:
        """Whether it was a bounce of ours, which is booked then and no mail to anybody."""
        for found in await self._matcher.match(parsed, mail_from, recipients):
            if await self._books.bounce(found):
                self._counts["bounces"] += 1
                return True
        return False

    async def _handed_in(self, came: _Came, recipient: str, place: int) -> Reply:
        if self._matcher.token_of(recipient) is not None:
            # Holidays, delays, and bounces made up: an address nobody writes to by hand.
            self._counts["dropped"] += 1
            return DROPPED
        try:
            await self._room.check()
            files = (
                await trio.to_thread.run_sync(came.files_for, place) if came.parsed.files else ()
            )
            mail = came.mail(recipient, files, at=self._clock())
            within_s = self._repeat_within_s
            if not came.parsed.is_named:
                within_s = min(within_s, ALIKE_S)
            mail = msgspec.structs.replace(mail, repeat_within_s=within_s)
            return _REPLIES[await self._inbox.receive_mail(mail)]
        except InvalidError as error:
            log.warning("smtp.mail_refused", field=error.field)
            return UNREADABLE
        except (UnavailableError, OSError) as error:
            return _put_off(error)

    @asynccontextmanager
    async def _scratch(self) -> AsyncIterator[Path]:
        folder = self._folder / uuid4().hex
        try:
            await trio.to_thread.run_sync(lambda: folder.mkdir(parents=True, mode=0o700))
            yield folder
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))

    def statistics(self) -> dict[str, Any]:
        """Mails being taken, what was answered, what bounces said."""
        return {"at_once": self._at_once, **self._counts, "reports": dict(self._matcher.counts)}


def _put_off(error: Exception) -> Reply:
    if isinstance(error, NoRoomError):
        return NO_ROOM
    log.warning("smtp.mail_put_off", cause=str(error))
    return PUT_OFF


class _Came(msgspec.Struct, frozen=True):
    """A mail that was read; its files are at ``scratch``."""

    parsed: Parsed
    mail_from: str
    provider_id: int
    scratch: Path

    def files_for(self, place: int) -> tuple[MailFile, ...]:
        """Its files once more, for the recipient at ``place``: whoever takes a mail moves them."""
        folder = self.scratch / f"for{place}"
        folder.mkdir()
        files = []
        for file in self.parsed.files:
            path = folder / str(file.index)
            path.hardlink_to(self.scratch / str(file.index))
            files.append(MailFile(path.absolute(), file.name, file.type, file.size))
        return tuple(files)

    def mail(self, recipient: str, files: tuple[MailFile, ...], *, at: datetime) -> InboundMail:
        """As the engine takes it."""
        parsed = self.parsed
        source = parsed.source
        if plain(source.address) is None:
            source = MailAddress(plain(self.mail_from) or "", source.name)
        return InboundMail(
            provider_id=self.provider_id,
            source=source,
            destination=recipient,
            subject=parsed.subject,
            body=parsed.body,
            body_alt=parsed.body_alt,
            message_id=parsed.message_id,
            at=at,
            key=_key(self.mail_from, parsed.digest),
            files=files,
            rows=_rows(source, parsed),
        )


def _rows(source: MailAddress, parsed: Parsed) -> tuple[ResultRow, ...]:
    found = (
        ("from", source.address),
        ("message_id", parsed.message_id),
        ("cut", ",".join(parsed.cut)),
    )
    return tuple(ResultRow("email", name, data) for name, data in found if data)


def _key(mail_from: str, digest: str) -> str:
    """The same for the same mail handed over again, by whatever way it took."""
    parts = msgspec.json.encode((mail_from, digest))
    return blake2b(parts, digest_size=16).hexdigest()
