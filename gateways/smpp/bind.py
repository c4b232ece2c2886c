"""One bind: a connection, the session on it, and the tasks that move its octets."""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from engine.config import SmppConfig
from engine.errors import InvalidError
from engine.model import Provider
from gateways.smpp.events import Closed, Event
from gateways.smpp.login import Login
from gateways.smpp.pdu import Command
from gateways.smpp.rates import Rate
from gateways.smpp.session import Session
from gateways.smpp.settings import SmppSettings

READ_SIZE = 65_536
LINGER_S = 1.0
"""After the end, for what we still have to say to be read; a reset would overtake it."""

CLOSING_S = 5.0
"""For the owner to take the last events of a bind that is cancelled."""

OnEvents = Callable[[list[Event]], Awaitable[None] | None]
"""Takes what a session tells, in order; calls never overlap. May be sync or async."""


class Bind:
    """``run`` it once. ``session`` takes requests, ``rate`` says how many at a time; then ``poke``.

    The reader feeds the session, the only writer takes its output, the timer ticks it. While the
    writer sleeps, ``poke`` hands the kernel what it takes at once: waking a task costs more than
    that. Whatever the kernel does not take is the writer's.
    """

    def __init__(
        self,
        provider: Provider,
        settings: SmppSettings,
        config: SmppConfig,
        command: Command,
        on_events: OnEvents,
    ) -> None:
        now = trio.current_time()
        self.session = Session(
            Login(provider.username, provider.password),
            settings,
            command=command,
            max_pdu_bytes=config.max_pdu_bytes,
            now=now,
        )
        self.rate = Rate(settings.messages_per_second, now=now)
        self._provider, self._settings, self._config = provider, settings, config
        self._on_events = on_events
        self._turn = trio.Lock()
        self._wake = trio.Event()
        self._file = -1  # of a plain connection whose writer sleeps
        self._rest = b""  # taken from the session, and not from us
        self._idle = trio.Event()
        self._deaf = trio.Event()  # the reader is through
        self._over = trio.Event()
        self._connecting = trio.CancelScope()
        self._alarm = trio.CancelScope()
        self._alarm_at = math.inf  # asked of ``_alarm`` itself it would cost more than a look
        self._writing = trio.CancelScope()
        self._stalled_at = math.inf  # when what is being written takes too long
        self._closed: Closed | None = None
        self._octets = {"read": 0, "written": 0}

    async def run(self) -> Closed:
        """Connect, bind, and go on until it is over; tells how it ended.

        The last event handed out is the same ``Closed``. What network and peer do never leaves
        as an exception. Cancelling closes the connection at once; ``Closed`` is handed out then
        too, with at most ``CLOSING_S`` for the owner to take it.
        """
        try:
            reason = await self._live()
            await self._tell(self.session.eof(reason))
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSING_S):
                await self._tell(self.session.eof("cancelled"))
            self._over.set()
        assert self._closed is not None  # noqa: S101 - eof closed it if nothing else had
        return self._closed

    def poke(self) -> None:
        """The session has output; call it after every request and answer."""
        session = self.session
        if self._file >= 0 and not self._rest and session.has_output:
            self._write_at_once()
            if not (self._rest or session.closed or session.finished):
                return
        self._wake.set()

    async def unbind(self, drain_s: float) -> None:
        """Take no more, wait up to ``drain_s`` for answers, unbind, wait for the end of ``run``.

        What is still unanswered then comes as ``in_flight`` with ``Closed``.
        """
        self.session.drain()
        if self.session.in_flight:
            self._idle = trio.Event()
            with trio.move_on_after(drain_s):
                await self._idle.wait()
        self._connecting.cancel()
        await self._tell(self.session.unbind(trio.current_time()))
        self.poke()
        await self._over.wait()

    def statistics(self) -> dict[str, Any]:
        """Session, rate and octets."""
        return {
            **self.session.statistics(),
            **self.rate.statistics(trio.current_time()),
            "octets": dict(self._octets),
        }

    # --- the connection

    async def _live(self) -> str:
        """All of it; returns why it ended where the session does not know better."""
        started = trio.current_time()
        stream: trio.abc.Stream | None = None
        self._connecting.deadline = started + self._settings.bind_timeout_s
        try:
            self.session.open(started)
            with self._connecting:
                stream = await self._connect()
            if stream is None:
                return self._no_connection()
            await self._talk(stream)
        except (
            OSError,
            ValueError,
            OverflowError,
            InvalidError,
            trio.BrokenResourceError,
        ) as error:
            return f"connection: {_words(error)}"
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)
        return "the connection was closed"

    def _no_connection(self) -> str:
        if trio.current_time() >= self._connecting.deadline:
            return f"no connection within {self._settings.bind_timeout_s:g} s"
        return "unbound before it was connected"

    async def _connect(self) -> trio.abc.Stream:
        provider = self._provider
        plain = await trio.open_tcp_stream(provider.host, provider.port)
        if provider.transport != "tls":
            return plain
        try:
            context = await trio.to_thread.run_sync(self._tls)
            # SMSCs drop connections without a close_notify; PDUs have lengths, nothing can be cut.
            secure = trio.SSLStream(
                plain, context, server_hostname=provider.host, https_compatible=True
            )
            await secure.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(plain)
            raise
        return secure

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._config.ca_file or None)
        except OSError as error:
            raise OSError(f"CA file: {error}") from None
        if not self._settings.verify_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    async def _talk(self, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, stream)
            nursery.start_soon(self._keep_time)
            await self._write(stream)
            await self._part(stream)

    async def _read(self, stream: trio.abc.Stream) -> None:
        """After the session's end what still comes is thrown away, so that the peer reads ours."""
        reason = "the peer closed the connection"
        session = self.session
        try:
            while data := await stream.receive_some(READ_SIZE):
                self._octets["read"] += len(data)
                await self._tell(session.feed(bytes(data), trio.current_time()))
                self._changed()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            reason = f"connection: {_words(error)}"
        self._deaf.set()
        await self._tell(session.eof(reason))

    async def _write(self, stream: trio.abc.Stream) -> None:
        """Write what the session has until its end, or until the connection takes nothing more."""
        session, reason = self.session, "the peer unbound"
        try:
            with self._writing:
                while True:
                    self._wake = trio.Event()
                    if self._rest or session.has_output:
                        await self._send(stream)
                    elif session.closed or session.finished:
                        break
                    else:
                        await self._sleep(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            reason = f"connection: {_words(error)}"
        await self._tell(session.eof(reason))

    async def _sleep(self, stream: trio.abc.Stream) -> None:
        """Until there is something to write that ``poke`` did not write itself."""
        if isinstance(stream, trio.SocketStream):
            self._file = stream.socket.fileno()
        try:
            await self._wake.wait()
        finally:
            self._file = -1

    def _write_at_once(self) -> None:
        data = self.session.take_output(trio.current_time())
        try:
            written = os.write(self._file, data)
        except OSError:  # it is full, or gone: the writer finds out which
            written = 0
        self._octets["written"] += written
        self._rest = data[written:]
        self._keep_up()

    async def _send(self, stream: trio.abc.Stream) -> None:
        now = trio.current_time()
        # What is behind the rest is not taken yet: it may still turn out never to have left.
        data, self._rest = self._rest or self.session.take_output(now), b""
        self._stalled_at = now + self._settings.response_timeout_s
        self._changed()
        await stream.send_all(data)
        self._stalled_at = math.inf
        self._octets["written"] += len(data)

    async def _part(self, stream: trio.abc.Stream) -> None:
        """Say that nothing more comes and let the peer read it, then close."""
        with trio.move_on_after(LINGER_S):
            if isinstance(stream, trio.SocketStream):
                await _half_close(stream)
            await self._deaf.wait()
        await trio.aclose_forcefully(stream)

    async def _keep_time(self) -> None:
        """Tick the session; end it where a write is stuck, for a peer has to read."""
        session = self.session
        while not session.closed:
            self._alarm_at = min(session.deadline(), self._stalled_at)
            with trio.CancelScope(deadline=self._alarm_at) as self._alarm:
                await trio.sleep_forever()
            now = trio.current_time()
            if now >= self._stalled_at:
                await self._tell(session.eof("the peer does not read"))
            await self._tell(session.tick(now))
            self._changed()

    def _changed(self) -> None:
        """The session may have output, or an earlier deadline than the timer sleeps for."""
        self._keep_up()
        if self.session.has_output or self.session.finished:
            self.poke()

    def _keep_up(self) -> None:
        deadline = min(self.session.deadline(), self._stalled_at)
        if deadline < self._alarm_at:
            self._alarm_at = self._alarm.deadline = deadline

    async def _tell(self, events: list[Event]) -> None:
        """Hand events on; first come, first told."""
        if not events:
            return
        if isinstance(events[-1], Closed):
            self._end(events[-1])
        if self._turn.locked():
            await self._turn.acquire()
        else:
            self._turn.acquire_nowait()  # acquire would let the scheduler go round for every chunk
        try:
            waiting = self._on_events(events)
            if waiting is not None:
                await waiting
        finally:
            self._turn.release()
        if not self.session.in_flight:
            self._idle.set()

    def _end(self, closed: Closed) -> None:
        self._closed = closed
        self._alarm.cancel()
        self._writing.deadline = trio.current_time() + LINGER_S
        self._wake.set()


def _words(error: BaseException) -> str:
    """What the system said: trio tries every address of a host, and tells of all of them."""
    cause = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return str(cause)


async def _half_close(stream: trio.SocketStream) -> None:
    try:
        await stream.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return  # it is gone already, which is what we want
