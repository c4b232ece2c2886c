"""The HTTP server: hypercorn's Trio protocol code inside our own nursery, with three faults mended.

All were seen on hypercorn 0.18.0 with quart-trio 0.12.0, which is why hypercorn is pinned:

1. After its first request a connection was never closed for being idle: Quart's request nursery is
   cancelled while hypercorn re-arms the idle timer. ``HttpConnection`` shields the last message.
2. A client that stopped reading held up shutdown for as long as it liked, because writes were
   shielded without a deadline. ``_TcpServer`` gives every write one.
3. A connection that its client had closed was kept until its idle timer ran out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app
from quart_trio.asgi import TrioASGIHTTPConnection

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
    from quart_trio import QuartTrio

    from engine.config import HttpConfig

log = structlog.get_logger("api.server")

_BACKLOG = 512
_PIECE_BYTES = 65_536  # one write's deadline is for this much
# How long an answer waits for a client that is still sending a body nobody wants.
_DISCARD_S = 2.0


class HttpConnection(TrioASGIHTTPConnection):
    """One request: streams its body with back-pressure, and lets hypercorn finish (fault 1)."""

    async def handle_messages(  # type: ignore[override]
        self, nursery: trio.Nursery, request: Any, receive: ASGIReceiveCallable
    ) -> None:
        """Feed the request's body until it is complete or the client has gone."""
        while True:
            message = await receive()
            if message["type"] == "http.request":
                await request.body.feed(message.get("body", b""))
                if not message.get("more_body", False):
                    request.body.finish()
            elif message["type"] == "http.disconnect":
                nursery.cancel_scope.cancel()
                return

    async def handle_request(  # type: ignore[override]
        self, nursery: trio.Nursery, request: Any, send: ASGISendCallable
    ) -> None:
        """Answer; each write has a deadline of its own, so a long download needs none."""

        async def send_message(message: Any) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            with trio.CancelScope(shield=last):
                await send(message)

        response = await self.app.handle_request(request)
        await request.body.discard_rest(_DISCARD_S)
        await self._send_response(send_message, response)
        nursery.cancel_scope.cancel()


class _Writes:
    """The deadlines of the writes in progress; shutdown makes them short."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._scopes: set[trio.CancelScope] = set()

    @contextmanager
    def deadline(self) -> Iterator[trio.CancelScope]:
        scope = trio.CancelScope(shield=True, deadline=trio.current_time() + self._timeout_s)
        self._scopes.add(scope)
        try:
            with scope:
                yield scope
        finally:
            self._scopes.discard(scope)

    def shorten(self, timeout_s: float) -> None:
        self._timeout_s = min(self._timeout_s, timeout_s)
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, trio.current_time() + self._timeout_s)


class _TcpServer(TCPServer):
    """hypercorn's connection with writes that end (fault 2), and an end (fault 3)."""

    def __init__(self, writes: _Writes, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._writes = writes

    async def protocol_send(self, event: Event) -> None:
        """Write, or let hypercorn do what is not writing."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            for start in range(0, len(event.data), _PIECE_BYTES):
                if not await self._write(event.data[start : start + _PIECE_BYTES]):
                    await self.protocol.handle(Closed())
                    return

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()

    async def _write(self, piece: bytes) -> bool:
        try:
            with self._writes.deadline() as scope:
                await self.stream.send_all(piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        if scope.cancelled_caught:
            # Half a message is out: nothing sensible can follow it.
            await trio.aclose_forcefully(self.stream)
            return False
        return True


class _CappedListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts no more than there are slots; who comes then waits in the kernel's backlog."""

    def __init__(self, listener: trio.SocketListener, slots: trio.Semaphore) -> None:
        self._listener = listener
        self._slots = slots

    async def accept(self) -> trio.SocketStream:
        await self._slots.acquire()
        try:
            return await self._listener.accept()
        except BaseException:
            self._slots.release()
            raise

    async def aclose(self) -> None:
        await self._listener.aclose()


class _Server:
    """What the connections of one ``serve_http`` share."""

    def __init__(self, app: QuartTrio, config: HttpConfig) -> None:
        self._app = wrap_app(app, 0, "asgi")
        self._config = config
        self._hypercorn = _hypercorn_config(config)
        self._context = WorkerContext(None)
        self._writes = _Writes(config.keep_alive_timeout_s)
        self._slots = trio.Semaphore(config.max_connections)

    async def serve(self, listeners: list[trio.SocketListener], shutdown: trio.Event) -> None:
        capped = [_CappedListener(listener, self._slots) for listener in listeners]
        async with trio.open_nursery() as connections:
            try:
                async with trio.open_nursery() as accepting:
                    accept = partial(
                        trio.serve_listeners, self._handle, capped, handler_nursery=connections
                    )
                    accepting.start_soon(accept)
                    await shutdown.wait()
                    accepting.cancel_scope.cancel()
            finally:
                grace_s = self._config.shutdown_timeout_s
                self._writes.shorten(grace_s)
                connections.cancel_scope.deadline = trio.current_time() + grace_s
                # Idle connections close now, busy ones after their answer.
                await self._context.terminated.set()

    async def _handle(self, stream: trio.SocketStream) -> None:
        try:
            await _TcpServer(
                self._writes,
                self._app,
                self._hypercorn,
                self._context,
                ConnectionState({}),
                stream,
            )
        except Exception:
            # One connection's trouble must not take the node's nursery with it.
            log.exception("connection_failed")
        finally:
            self._slots.release()


async def serve_http(
    app: QuartTrio,
    config: HttpConfig,
    shutdown: trio.Event,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` until ``shutdown``, then at most ``shutdown_timeout_s`` for what is open.

    ``task_status`` is told the port once connections are taken (``config.port`` 0 = any free one).
    Raises ``OSError`` where the address cannot be bound.
    """
    async with trio.open_nursery() as background:
        app.nursery = background
        await app.startup()
        try:
            listeners = await _listen(config)
            task_status.started(listeners[0].socket.getsockname()[1])
            await _Server(app, config).serve(listeners, shutdown)
        finally:
            with trio.CancelScope(shield=True):
                await app.shutdown()


async def _listen(config: HttpConfig) -> list[trio.SocketListener]:
    listeners = await trio.open_tcp_listeners(config.port, host=config.host, backlog=_BACKLOG)
    if config.port == 0:
        # A name with several addresses would get a port for each; one is what the caller is told.
        for spare in listeners[1:]:
            await spare.aclose()
        del listeners[1:]
    return listeners


def _hypercorn_config(config: HttpConfig) -> HypercornConfig:
    hypercorn = HypercornConfig()
    hypercorn.keep_alive_timeout = config.keep_alive_timeout_s
    hypercorn.graceful_timeout = config.shutdown_timeout_s
    hypercorn.include_server_header = False
    hypercorn.accesslog = None
    # Handed to the program's own logging; hypercorn would put handlers of its own on a name.
    hypercorn.errorlog = logging.getLogger("hypercorn.error")
    return hypercorn
