"""Request bodies as bounded streams: a slow reader holds the sender back, memory stays flat."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio
from quart_trio.wrappers import TrioRequest

from engine.errors import InvalidError, TooLargeError

# Of at most 64 KiB each (hypercorn's read size), so 1 MiB a request.
_MAX_WAITING_CHUNKS = 16
_STALL_TIMEOUT_S = 30.0


class StreamBody:
    """What arrives of one request's body, in order. Takes the place of Quart's unbounded buffer."""

    def __init__(self, _expected: int | None, _maximum: int | None) -> None:
        self._arrived, self._waiting = trio.open_memory_channel[bytes](_MAX_WAITING_CHUNKS)
        self._finished = trio.Event()

    async def feed(self, chunk: bytes) -> None:
        """Hand over what the server read; waits while the application is behind."""
        if chunk and not self._finished.is_set():
            try:
                await self._arrived.send(chunk)
            except trio.BrokenResourceError:
                return  # nobody wants the rest

    def finish(self) -> None:
        """Say that the body is complete."""
        self._finished.set()
        self._arrived.close()

    async def take(self, timeout_s: float) -> bytes:
        """The next piece, b"" at the end; ``InvalidError`` where it does not come in time."""
        try:
            with trio.fail_after(timeout_s):
                return await self._waiting.receive()
        except trio.EndOfChannel:
            return b""
        except trio.TooSlowError:
            raise InvalidError("The body did not arrive in time") from None

    async def discard_rest(self, timeout_s: float) -> None:
        """Throw away what still arrives, for a while: who is still writing reads no answer."""
        self._waiting.close()
        with trio.move_on_after(timeout_s):
            await self._finished.wait()


class BodyChunks(AsyncIterator[bytes]):
    """A body piece by piece; ``TooLargeError`` beyond ``limit`` bytes in all.

    A plain iterator, because an async generator that is left half-way has to be closed by somebody.
    """

    def __init__(self, body: StreamBody, limit: int) -> None:
        self._body = body
        self._limit = limit
        self._size = 0

    async def __anext__(self) -> bytes:
        chunk = await self._body.take(_STALL_TIMEOUT_S)
        if not chunk:
            raise StopAsyncIteration
        self._size += len(chunk)
        if self._size > self._limit:
            raise TooLargeError(f"The body is larger than {self._limit} bytes")
        return chunk


class StreamRequest(TrioRequest):
    """A request whose body is a ``StreamBody``."""

    body_class = StreamBody  # type: ignore[assignment] # all of its interface that is used
    body: StreamBody  # type: ignore[assignment]

    def body_chunks(self, limit: int) -> AsyncIterator[bytes]:
        """The body piece by piece; ``TooLargeError`` at once where its length is announced."""
        if self.content_length is not None and self.content_length > limit:
            raise TooLargeError(f"The body is larger than {limit} bytes")
        return BodyChunks(self.body, limit)

    async def whole_body(self, limit: int) -> bytes:
        """The body of a small request."""
        return b"".join([chunk async for chunk in self.body_chunks(limit)])
