"""One connection to a mail server and the mails that go over it, one at a time. asyncio side.

Its owner task opens it, delivers and quits; ``abort`` may be called by anybody and ends all of it.
After any doubt — cancelled, timed out, a reply too many, 421 — it is not used again: a late reply
would be taken for the next mail's (messaging.md 16).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from gateways.smtp.manner import Manner
from gateways.smtp.opening import Failed, Opening, clean
from gateways.smtp.records import Answer, At, How, Parcel, Route
from gateways.smtp.wire import BrokenWireError, Reply, Wire

QUIT_S = 2.0
"""How long a peer may take to say goodbye."""

SMALL_BYTES = 65_536
"""Up to here, body and dot are one write."""

_PIECE_BYTES = 262_144
_GO_ON, _CLOSING = 354, 421
_TEMPORARY, _PERMANENT = 4, 5
_UNFIT = re.compile(r"[\x00-\x20\x7f<>]")


def answer(parcel: Parcel, at: At, how: How, *, left: bool = False, **more: Any) -> Answer:
    """What became of a parcel, now."""
    return Answer(
        id=parcel.id,
        spool_id=parcel.spool_id,
        at=at,
        how=how,
        left=left,
        seen_at=datetime.now(UTC),
        **more,
    )


class _Refused(Exception):  # noqa: N818 - a reply, no error
    """The peer said no."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class Connection:
    """One session. ``left``: the dot of the mail under way was given to the kernel or to TLS."""

    def __init__(self, manner: Manner) -> None:
        self.left = False
        self.delivered = 0
        self.tls = ""
        self.at = At.CONNECT
        self.route: Route | None = None  # once it is open
        self._manner = manner
        self._wire: Wire | None = None
        self._extensions: dict[str, str] = {}
        self._host = ""
        self._owed = 0  # replies to a group of commands that nobody has read yet
        self._in_mail = False  # the peer has an envelope that was given up

    @property
    def usable(self) -> bool:
        """Whether another mail may go over it."""
        return self._wire is not None and self._wire.usable and not self._in_mail

    def on_end(self, call: Callable[[], None]) -> None:
        """Have it told when it becomes useless, by whatever."""
        if self._wire is not None:
            self._wire.ended = call

    async def open(self, route: Route) -> None:
        """Connect, greet, TLS, login; ``Failed``. Where TLS was only offered and fails: without it.

        RFC 7435 §3: for opportunistic security, cleartext is better than no mail.
        """
        try:
            await self._open(route, plain=False)
        except Failed as error:
            if error.at is not At.TLS or self._manner.starttls != "offer" or route.verify:
                raise
            await self._open(route, plain=True)

    async def _open(self, route: Route, *, plain: bool) -> None:
        opening = Opening(self._manner, route)
        self._wire = opening.wire
        try:
            await opening.run(plain=plain)
        except BaseException:
            self.abort()
            raise
        self.route = route
        self._extensions, self.tls, self._host = opening.extensions, opening.tls, route.name

    async def deliver(self, parcel: Parcel) -> Answer:
        """Hand one mail over. Raises nothing but ``CancelledError``; ``left`` tells then."""
        wire = self._wire
        self.left, self.at = False, At.MAIL
        unable = self._unable(parcel)
        if unable:
            return self._answer(parcel, How.UNABLE, text=unable)
        try:
            if wire is None or not self.usable:
                raise BrokenWireError(How.LOST, "not connected")  # noqa: TRY301 - as on the way
            return self._answered(parcel, await self._transact(wire, parcel))
        except _Refused as refused:
            return self._answered(parcel, refused.reply)
        except BrokenWireError as error:
            self.abort()
            return self._answer(parcel, error.how, text=clean(str(error)))
        except BaseException:
            self.abort()
            raise

    def _answered(self, parcel: Parcel, reply: Reply) -> Answer:
        if self.left:
            self.delivered += 1
        if reply.code == _CLOSING:
            self.abort()
        return self._answer(parcel, How.REPLY, code=reply.code, text=clean(reply.message))

    def _answer(self, parcel: Parcel, how: How, **more: Any) -> Answer:
        return answer(parcel, self.at, how, left=self.left, host=self._host, tls=self.tls, **more)

    def _unable(self, parcel: Parcel) -> str:
        """What this mail needs and the peer lacks, "" for nothing."""
        if _UNFIT.search(parcel.sender) or _UNFIT.search(parcel.recipient):
            return "address"
        if parcel.smtputf8 and "smtputf8" not in self._extensions:
            return "SMTPUTF8 is not offered"
        if not parcel.smtputf8 and not (parcel.sender + parcel.recipient).isascii():
            return "SMTPUTF8 was not asked for"
        most = self._extensions.get("size", "")
        if most.isdecimal() and 0 < int(most[:20]) < parcel.size:  # 0: no limit, RFC 1870 §4
            return f"SIZE {most[:20]}"
        return ""

    # --- one mail

    async def _transact(self, wire: Wire, parcel: Parcel) -> Reply:
        commands = list(self._commands(parcel))
        if "pipelining" in self._extensions:
            await self._group(wire, parcel, commands)
        else:
            for at, line in commands:
                wire.expect()
                wire.write(line)
                self._check(at, await self._reply(wire, parcel, at))
        return await self._body(wire, parcel)

    async def _group(self, wire: Wire, parcel: Parcel, commands: list[tuple[At, bytes]]) -> None:
        """The envelope in one write (RFC 2920 §3.1); the first refusal is the answer."""
        self._owed = len(commands)
        wire.expect(self._owed)
        wire.write(b"".join(line for _, line in commands))
        for at, _ in commands:
            reply = await self._reply(wire, parcel, at)
            self._owed -= 1
            self._check(at, reply)

    def _commands(self, parcel: Parcel) -> Iterator[tuple[At, bytes]]:
        dsn = self._manner.dsn and "dsn" in self._extensions
        mail = [f"MAIL FROM:<{parcel.sender}>"]
        if "size" in self._extensions:
            mail.append(f"SIZE={parcel.size}")
        if parcel.smtputf8:
            mail.append("SMTPUTF8")
        recipient = [f"RCPT TO:<{parcel.recipient}>"]
        if dsn:
            mail.append("RET=HDRS")
            if parcel.envid:
                mail.append(f"ENVID={_xtext(parcel.envid)}")
            recipient.append("NOTIFY=FAILURE")
            if parcel.recipient.isascii():
                recipient.append(f"ORCPT=rfc822;{_xtext(parcel.recipient)}")
        yield At.MAIL, f"{' '.join(mail)}\r\n".encode()
        yield At.RCPT, f"{' '.join(recipient)}\r\n".encode()
        yield At.DATA, b"DATA\r\n"

    async def _reply(self, wire: Wire, parcel: Parcel, at: At) -> Reply:
        self.at = at
        return await wire.reply(self._patience_s(parcel))

    def _patience_s(self, parcel: Parcel) -> float:
        left_s = parcel.not_after - time.monotonic()
        if left_s <= 0:
            raise BrokenWireError(How.TIMEOUT, "out of time")
        return min(left_s, self._manner.reply_timeout_s)

    def _check(self, at: At, reply: Reply) -> None:
        """Whether the envelope goes on; a refusal leaves the peer with what it has of it."""
        if reply.code == _GO_ON if at is At.DATA else reply.code // 100 == 2:  # noqa: PLR2004
            return
        if reply.code // 100 not in {_TEMPORARY, _PERMANENT}:
            raise BrokenWireError(How.LOST, f"{reply.code} is no reply to {at}")
        self._in_mail = self._owed > 0 or at is not At.MAIL
        raise _Refused(reply)

    async def _body(self, wire: Wire, parcel: Parcel) -> Reply:
        self.at = At.DOT
        wire.expect()
        if parcel.size <= SMALL_BYTES:
            self._leave(wire, b"".join((*parcel.chunks, b".\r\n")))
        elif await self._pour(wire, parcel):
            self._leave(wire, b".\r\n")
        reply = await wire.reply(self._manner.dot_timeout_s)
        if reply.code // 100 not in {2, _TEMPORARY, _PERMANENT}:
            raise BrokenWireError(How.LOST, f"{reply.code} is no reply to the dot")
        if not self.left:
            self.abort()  # the peer did not wait for the end: it is not known where it stands
        return reply

    def _leave(self, wire: Wire, data: bytes) -> None:
        wire.write(data)  # raises where nothing of it was taken
        self.left = True

    async def _pour(self, wire: Wire, parcel: Parcel) -> bool:
        """Write a large body, never more ahead than a piece; False: the peer answered before."""
        for chunk in parcel.chunks:
            view = memoryview(chunk)
            for start in range(0, len(chunk), _PIECE_BYTES):
                wire.write(view[start : start + _PIECE_BYTES])
                if not await wire.flushed(self._patience_s(parcel)):
                    return False
        return True

    # --- after it

    async def settle(self) -> None:
        """Have the peer forget an envelope it refused; useless afterwards where that fails."""
        wire = self._wire
        if wire is None or not self._in_mail:
            return
        try:
            async with asyncio.timeout(self._manner.reply_timeout_s):
                await self._forget(wire)
        except (BrokenWireError, TimeoutError):
            self.abort()
        except BaseException:
            self.abort()
            raise

    async def _forget(self, wire: Wire) -> None:
        while self._owed:
            reply = await wire.reply(self._manner.reply_timeout_s)
            self._owed -= 1
            if reply.code // 100 not in {_TEMPORARY, _PERMANENT}:
                # It goes on without a recipient, and waits for a body (RFC 2920 §3.1), or worse.
                raise BrokenWireError(How.LOST, "out of step")
        wire.expect()
        wire.write(b"RSET\r\n")
        reply = await wire.reply(self._manner.reply_timeout_s)
        if reply.code // 100 != 2:  # noqa: PLR2004 - 2yz
            raise BrokenWireError(How.LOST, "RSET refused")
        self._in_mail = False

    async def quit(self) -> None:
        """Say goodbye and close, in ``QUIT_S`` at most (§4.1.1.10)."""
        wire = self._wire
        if wire is None:
            return
        try:
            if wire.usable:
                async with asyncio.timeout(QUIT_S):
                    await self._goodbye(wire)
        except (BrokenWireError, TimeoutError):
            pass  # it goes in any case
        finally:
            self.abort()
            with suppress(TimeoutError):
                async with asyncio.timeout(QUIT_S):
                    await asyncio.shield(wire.closed)

    async def _goodbye(self, wire: Wire) -> None:
        wire.expect()
        wire.write(b"QUIT\r\n")
        await wire.reply(QUIT_S)
        if wire.transport is not None:
            wire.transport.close()  # with TLS it takes leave as well
        await asyncio.shield(wire.closed)

    def abort(self) -> None:
        """End it now, whatever is under way."""
        if self._wire is not None:
            self._wire.abort()


def _xtext(text: str) -> str:
    """RFC 3461 §4: ASCII without blanks; "+", "=" and what is not printable as +XX."""
    return "".join(
        chr(octet) if 0x21 <= octet <= 0x7E and octet not in b"+=" else f"+{octet:02X}"  # noqa: PLR2004
        for octet in text.encode()
    )
