"""The octets of one connection: every reply in its turn, and none that was not asked for.

On aiosmtplib's protocol, which parses replies and keeps the transport. What it lacks is here: it
takes octets left over from one reply for the next command's, so that a mail could be told
another's answer (RFC 5321 §4.2: one reply per command, in order).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

from aiosmtplib.errors import SMTPResponseException, SMTPServerDisconnected
from aiosmtplib.protocol import MAX_RESPONSE_LENGTH, SMTPProtocol
from aiosmtplib.response import SMTPResponse as Reply

from gateways.smtp.records import How

__all__ = ["BrokenWireError", "Reply", "Wire"]

_CLOSED = "connection closed"


class BrokenWireError(Exception):
    """The connection is of no more use: ``how`` is LOST or TIMEOUT, the text says why."""

    def __init__(self, how: How, text: str) -> None:
        super().__init__(text)
        self.how = how


class Wire(SMTPProtocol):
    """One connection. One task writes and reads it; ``ended`` is called once it is of no use."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.ended: Callable[[], None] | None = None
        self.closed = loop.create_future()  # the socket is gone
        self._expected = 0
        self._replies: deque[Reply] = deque()
        self._broken: BrokenWireError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        """Whether a command may be written: nothing is wrong, nothing owed."""
        return (
            self._broken is None and not self._expected and not self._replies and self.is_connected
        )

    @property
    def tls_version(self) -> str:
        """``TLSv1.3`` or the like, "" without."""
        tls = self.transport.get_extra_info("ssl_object") if self.transport is not None else None
        return str(tls.version()) if tls is not None else ""

    # --- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have every octet that the kernel does not take at once pause the writer."""
        super().connection_made(transport)
        cast("asyncio.WriteTransport", transport).set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        """Take replies that are waited for; anything else ends the use of the connection."""
        if self._broken is not None:
            return
        if not self._expected:
            self._break(How.LOST, "a reply that nothing was asked for")
            return
        self._buffer += data
        if b"\n" in data:
            self._parse()
        if len(self._buffer) > MAX_RESPONSE_LENGTH:
            self._break(How.LOST, "reply too long")
        self._wake()

    def _parse(self) -> None:
        try:
            while self._expected and (reply := self._read_response_from_buffer()) is not None:
                self._expected -= 1
                self._replies.append(reply)
        except SMTPResponseException:
            self._break(How.LOST, "no SMTP reply")
        if self._buffer and not self._expected:
            self._break(How.LOST, "a reply too many")  # those asked for are good all the same

    def eof_received(self) -> bool:
        """The peer says no more."""
        self._break(How.LOST, _CLOSED)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        super().connection_lost(exc)
        self._break(How.LOST, f"connection lost: {exc}" if exc else _CLOSED)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        """The kernel takes no more."""
        super().pause_writing()
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """All that was written is with the kernel, or with TLS."""
        super().resume_writing()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def _break(self, how: How, text: str) -> None:
        if self._broken is None:
            self._broken = BrokenWireError(how, text)
            self._wake()
            if self.ended is not None:
                self.ended()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- what its task calls

    def expect(self, replies: int = 1) -> None:
        """So many more replies are asked for by what is written next."""
        self._expected += replies

    def write(self, data: bytes | memoryview) -> None:
        """Give it to the transport; ``BrokenWireError`` where that took nothing of it."""
        if self._broken is not None:
            raise self._broken
        try:
            super().write(cast("bytes", data))
        except SMTPServerDisconnected as error:
            raise BrokenWireError(How.LOST, _CLOSED) from error

    async def reply(self, timeout_s: float) -> Reply:
        """The next reply asked for; ``BrokenWireError`` where none comes."""
        self._arm(timeout_s)
        while not self._replies:
            await self._changed()
        return self._replies.popleft()

    async def flushed(self, timeout_s: float) -> bool:
        """Wait until all that was written has left; False: the peer answered before that.

        ``BrokenWireError`` where the connection ends or takes nothing for so long.
        """
        self._arm(timeout_s)
        while self._room is not None and not self._replies:
            self._room.add_done_callback(lambda _: self._wake())
            await self._changed()
        return not self._replies

    async def _changed(self) -> None:
        if self._broken is not None:
            raise self._broken
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _arm(self, timeout_s: float) -> None:
        """One timer follows a deadline that moves with every reply."""
        self._deadline = self._loop.time() + timeout_s
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._expire)
        else:
            self._break(How.TIMEOUT, "no reply in time")

    async def upgrade(self, context: ssl.SSLContext, name: str, timeout_s: float) -> None:
        """Speak TLS from here on; ``OSError`` (of which ``ssl.SSLError``) where it fails."""
        if self._broken is not None:
            raise self._broken
        transport = await self._loop.start_tls(
            cast("asyncio.WriteTransport", self.transport),
            self,
            context,
            server_hostname=name,
            ssl_handshake_timeout=timeout_s,
        )
        if transport is None:
            raise BrokenWireError(How.LOST, _CLOSED)
        # Not 0: asyncio's TLS would then pause with nothing left to resume for.
        transport.set_write_buffer_limits(high=1, low=0)
        self.transport = transport
        self._over_ssl = True

    def abort(self) -> None:
        """End it at once; what was not sent is not sent."""
        self._break(How.LOST, "aborted")
        if self.transport is not None:
            cast("asyncio.WriteTransport", self.transport).abort()
