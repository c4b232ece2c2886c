"""A listener with everything behind it but the engine, and a peer that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import msgspec
import trio

from engine.config import SmtpConfig
from engine.errors import InvalidError, UnavailableError
from engine.gateway import Reception
from engine.mail import InboundMail, MailAddress
from gateways.smtp.bounces import Matcher
from gateways.smtp.intake import Intake, Reading
from gateways.smtp.listener import Listener
from gateways.smtp.loop import Loop
from gateways.smtp.parsed import Parsed
from gateways.smtp.tracker import Bounce
from gateways.smtp.verp import Verp
from tests.gateways.smtp.test_verp import Keys
from tests.support import LOCALHOST
from tests.support.inbox import Tray

ALICE, BOB = "alice@example.org", "bob@example.org"
PATTERN = "b+{token}@bounces.example.org"
SENDER = "someone@example.net"
DEADLINE_S = 20.0


class Post(Tray):
    """A tray whose store may be down; mail is for Alice and Bob."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses = {ALICE, BOB}
        self.down: set[str] = set()  # addresses whose mail it cannot store now
        self.asked: list[str] = []

    async def serves_mail(self, address: str) -> bool:
        self.asked.append(address)
        if "everybody" in self.down:
            raise UnavailableError("no disk")
        return await super().serves_mail(address)

    async def receive_mail(self, mail: InboundMail) -> Reception:
        if mail.destination in self.down:
            raise UnavailableError("no disk")
        return await super().receive_mail(mail)


class Raw:
    """Reads nothing of a mail but its octets; a mail with ``MARK`` in it cannot be read."""

    MARK = b"\x00unreadable"

    def __init__(self, answer: Parsed | None = None) -> None:
        self.seen: list[bytes] = []
        self.scratches: list[Path] = []
        self.answer = answer or Parsed(source=MailAddress(SENDER))
        self.gate: trio.Event | None = None

    async def read(self, raw: bytes, scratch: Path) -> Parsed:
        self.seen.append(raw)
        self.scratches.append(scratch)
        if self.gate is not None:
            await self.gate.wait()
        if self.MARK in raw:
            raise InvalidError("not to be read")
        for file in self.answer.files:
            (scratch / str(file.index)).write_bytes(b"x" * file.size)
        digest = blake2b(raw, digest_size=8).hexdigest()
        return msgspec.structs.replace(self.answer, digest=digest)


class Ledger:
    """``bounces.Books`` in memory: mails of ours by spool, and of which transmission each is."""

    def __init__(self) -> None:
        self.mails: dict[int, str] = {}
        self.spools: dict[int, int] = {}
        self.bounces: list[Bounce] = []
        self.waiting: set[int] = set()  # their own answer is not there yet

    async def bounce(self, found: Bounce) -> bool:
        await trio.lowlevel.checkpoint()
        recipient = self.mails.get(found.spool_id)
        if recipient is None or found.recipient not in ("", recipient):
            return False
        if found.spool_id in self.waiting:
            raise UnavailableError("its answer is still awaited")
        self.bounces.append(found)
        return True

    async def spool_of(self, transmission_id: int) -> int | None:
        await trio.lowlevel.checkpoint()
        return self.spools.get(transmission_id)


class Peer:
    """Who talks SMTP to us, line by line or not."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._seen = bytearray()

    async def reply(self) -> str:
        """The next whole reply, its lines joined by blanks; "" at the end of the connection."""
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            line = await self._line()
            if not line:
                break
            lines.append(line)
        return " ".join(lines)

    async def _line(self) -> str:
        with trio.fail_after(DEADLINE_S):
            while b"\r\n" not in self._seen:
                chunk = await self._received()
                if not chunk:
                    return ""
                self._seen += chunk
        line, _, rest = bytes(self._seen).partition(b"\r\n")
        self._seen = bytearray(rest)
        return line.decode()

    async def _received(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(65_536))
        except trio.BrokenResourceError:
            return b""

    async def say(self, line: str | bytes) -> str:
        """Send a line; its reply."""
        octets = line.encode() if isinstance(line, str) else line
        await self.stream.send_all(octets + b"\r\n")
        return await self.reply()

    async def hello(self) -> str:
        """Read the greeting, say EHLO; its reply."""
        assert (await self.reply()).startswith("220 ")
        return await self.say("EHLO peer.example.net")

    async def envelope(self, *recipients: str, sender: str = SENDER) -> list[str]:
        """MAIL and RCPTs; the replies to the RCPTs."""
        assert (await self.say(f"MAIL FROM:<{sender}>")).startswith("250 ")
        return [await self.say(f"RCPT TO:<{recipient}>") for recipient in recipients]

    async def data(self, text: bytes) -> str:
        """DATA, the text and the dot; the reply to the dot, or to DATA where it was refused."""
        reply = await self.say("DATA")
        if not reply.startswith("354"):
            return reply
        await self.stream.send_all(text + b".\r\n")
        return await self.reply()

    async def mail(self, *recipients: str, sender: str = SENDER, text: bytes = b"Hi\r\n") -> str:
        """A whole transaction; the reply to the dot."""
        await self.envelope(*recipients, sender=sender)
        return await self.data(text)


class Desk:
    """A listener that is up, and what is behind it."""

    def __init__(
        self, listener: Listener, intake: Intake, post: Post, ledger: Ledger, verp: Verp
    ) -> None:
        self.listener = listener
        self.intake = intake
        self.post = post
        self.ledger = ledger
        self.verp = verp
        self.port = 0
        self.scope = trio.CancelScope()
        self.over = trio.Event()

    async def stop(self) -> None:
        """As when the node stops: the listener ends, the rest is still there."""
        self.scope.cancel()
        with trio.fail_after(DEADLINE_S):
            await self.over.wait()

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        with self.scope:
            await self.listener.run(task_status=task_status)
        self.over.set()

    @asynccontextmanager
    async def peer(self, host: str = LOCALHOST) -> AsyncIterator[Peer]:
        """A connection, not yet greeted."""
        async with await trio.open_tcp_stream(host, self.port) as stream:
            yield Peer(stream)


@asynccontextmanager
async def listening(
    folder: Path, readers: Reading | None = None, **config: object
) -> AsyncIterator[Desk]:
    """A listener with these fields of ``SmtpConfig``."""
    settings = SmtpConfig(**config)  # type: ignore[arg-type]
    loop, post, ledger, verp = Loop(), Post(), Ledger(), Verp(Keys())
    matcher = Matcher(verp, ledger)
    matcher.serve([PATTERN])
    intake = Intake(
        inbox=post,
        readers=readers or Raw(),
        matcher=matcher,
        books=ledger,
        data=folder,
        clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        repeat_within_s=60.0,
        min_free_bytes=settings.min_free_bytes,
    )
    desk = Desk(Listener(settings, loop, intake), intake, post, ledger, verp)
    async with trio.open_nursery() as nursery:
        await nursery.start(loop.serve)
        desk.port = await nursery.start(desk.run)
        yield desk
        await desk.stop()
        nursery.cancel_scope.cancel()
    assert loop.statistics()["errors"] == 0


def codes(replies: Sequence[str]) -> list[int]:
    """The three digits of each."""
    return [int(reply[:3]) for reply in replies]
