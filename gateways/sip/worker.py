"""The node's side of one signalling worker: its stream, its slots, the calls it carries."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import orjson

from gateways.sip.session import Why
from native.pjsua.wire import SLOTS, CallSpec, Final, Remote, Verb

MAX_BACKLOG_BYTES = 1 << 20
_READ_BYTES = 1 << 16
_encode = msgspec.json.Encoder().encode


class Listener(Protocol):
    """A call as its worker sees it; never blocks, never raises."""

    def on_ring(self, status: int, remote: Remote | None) -> None:
        """A 18x came, with early media where ``remote`` is not None."""
        ...

    def on_up(self, remote: Remote | None) -> None:
        """Answered; ``remote`` None = as before."""
        ...

    def on_media(self, remote: Remote) -> None:
        """The far end moved its RTP, changed codec, or put us on hold."""
        ...

    def on_end(self, final: Final) -> None:
        """Over."""
        ...

    def on_lost(self, why: Why) -> None:
        """The worker is gone; nobody knows how the call ended."""
        ...


class Owner(Protocol):
    """Who keeps a worker: the pool of slots, or a registration."""

    def on_spoken(self, worker: Worker, words: list[Any]) -> None:
        """A line that is about no call: ready, free, ask, registration."""
        ...

    def on_gone(self, worker: Worker) -> None:
        """Its stream has ended; its calls were told."""
        ...


class WorkerGoneError(Exception):
    """The worker cannot take this order any more."""


class Worker:
    """A process behind a stream. ``free`` is what the worker itself said it has left."""

    __slots__ = (
        "_out", "_rest", "calls", "free", "gone", "idle_since", "index", "owner", "pid", "ready",
        "retiring", "started_at", "stream", "want_write",
    )  # fmt: skip

    def __init__(
        self,
        stream: socket.socket,
        pid: int,
        index: int,
        owner: Owner,
        want_write: Callable[[Worker], None],
    ) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.pid = pid
        self.index = index
        self.free = 0
        self.ready = False
        self.retiring = False
        self.gone = False
        self.idle_since = 0.0
        self.started_at = 0.0
        self.calls: dict[int, Listener] = {}
        self.owner = owner
        self.want_write = want_write
        self._rest = b""
        self._out = b""

    def place(self, number: int, spec: CallSpec, listener: Listener) -> None:
        """Send the order; raises ``WorkerGoneError``."""
        self.calls[number] = listener
        try:
            self.send(_encode((Verb.CALL, number, spec)) + b"\n")
        except WorkerGoneError:
            del self.calls[number]
            raise

    def hang_up(self, number: int) -> None:
        """CANCEL or BYE; a worker that is gone has said so to the call already."""
        if number in self.calls:
            try:
                self.send(b'["hangup",%d]\n' % number)
            except WorkerGoneError:
                return  # end-of-file follows and ends all calls of this worker

    def say(self, *words: Any) -> None:
        """Send one line; raises ``WorkerGoneError``."""
        self.send(_encode(words) + b"\n")

    def send(self, data: bytes) -> None:
        """Write now what the socket takes and keep the rest; raises ``WorkerGoneError``."""
        if self._out:
            self._out += data
            if len(self._out) > MAX_BACKLOG_BYTES:
                raise WorkerGoneError(f"worker {self.pid} does not read")
            return
        try:
            sent = self.stream.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise WorkerGoneError(str(error)) from error
        if sent < len(data):
            self._out = data[sent:]
            self.want_write(self)

    def flush(self) -> None:
        """The socket takes bytes again; raises ``WorkerGoneError``."""
        data, self._out = self._out, b""
        self.send(data)

    def receive(self) -> bool:
        """Read once and tell the calls; False at the end of the stream."""
        try:
            data = self.stream.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self._dispatch(orjson.loads(line))
        return True

    def _dispatch(self, words: list[Any]) -> None:
        verb = words[0]
        if verb == "up":
            call = self.calls.get(words[1])
            if call is not None:
                call.on_up(_remote(words[2]))
        elif verb == "end":
            call = self.calls.pop(words[1], None)
            if call is not None:
                call.on_end(msgspec.convert(words[2], Final))
        elif verb == "ring":
            call = self.calls.get(words[1])
            if call is not None:
                call.on_ring(words[2], _remote(words[3]))
        elif verb == "media":
            call = self.calls.get(words[1])
            if call is not None:
                call.on_media(Remote(*words[2]))
        else:
            self.owner.on_spoken(self, words)

    def lose(self, why: Why) -> None:
        """Tell all calls that nobody will ever know."""
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.on_lost(why)

    @property
    def idle(self) -> bool:
        """Whether all slots are free."""
        return self.free == SLOTS


def _remote(words: list[Any] | None) -> Remote | None:
    return None if words is None else Remote(*words)
