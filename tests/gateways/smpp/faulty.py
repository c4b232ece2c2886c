"""An SMSC that does what its script says: the faults no real one can be made to show.

Written on bare sockets and ``struct``, so that no mistake of our codec can hide in it.
"""

from __future__ import annotations

import math
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from gateways.smpp.pdu import Command, Pdu

_HEADER = struct.Struct(">IIII")
_RESPONSE = 0x80000000
BINDS = {Command.BIND_TRANSCEIVER, Command.BIND_TRANSMITTER, Command.BIND_RECEIVER}


def pdu(command: int, status: int, sequence: int, body: bytes = b"") -> bytes:
    """A whole PDU in octets."""
    return _HEADER.pack(16 + len(body), command, status, sequence) + body


def submit_resp(to: Pdu, status: int = 0, message_id: str | None = None) -> bytes:
    """The answer to a submit_sm; the id is made of its sequence number."""
    name = f"id{to.sequence}" if message_id is None else message_id
    return pdu(Command.SUBMIT_SM_RESP, status, to.sequence, b"" if status else f"{name}\0".encode())


def deliver_body(text: bytes = b"hello", source: bytes = b"491701", esm_class: int = 0) -> bytes:
    """Body of a deliver_sm."""
    fixed = bytes((esm_class, 0, 0)) + b"\0\0" + bytes((0, 0, 0, 0, len(text)))
    return b"\0" + b"\1\1" + source + b"\0" + b"\1\1" + b"4930\0" + fixed + text


def data_body(
    text: bytes = b"hello", source: bytes = b"491701", esm_class: int = 0, tlvs: bytes = b""
) -> bytes:
    """Body of a data_sm, the text in message_payload; ``tlvs`` come after it."""
    payload = struct.pack(">HH", 0x0424, len(text)) + text if text else b""
    fixed = bytes((esm_class, 0, 0))
    return b"\0" + b"\1\1" + source + b"\0" + b"\1\1" + b"4930\0" + fixed + payload + tlvs


class Peer:
    """One connection to the SMSC, with all that came on it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.got: list[Pdu] = []
        self._kept = b""

    def submits(self) -> list[Pdu]:
        """The submit_sm read so far."""
        return [one for one in self.got if one.command == Command.SUBMIT_SM]

    async def read(self) -> Pdu | None:
        """The next PDU, None at the end of the connection."""
        while not self._whole():
            try:
                data = await self.stream.receive_some(65_536)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data:
                return None
            self._kept += data
        length, command, status, sequence = _HEADER.unpack_from(self._kept)
        body, self._kept = self._kept[16:length], self._kept[length:]
        self.got.append(Pdu(command, status, sequence, body))
        return self.got[-1]

    def _whole(self) -> bool:
        return len(self._kept) >= 16 and len(self._kept) >= _HEADER.unpack_from(self._kept)[0]

    async def expect(self, command: int) -> Pdu:
        """The next PDU with this command; others on the way are kept in ``got``."""
        while (found := await self.read()) is not None:
            if found.command == command:
                return found
        raise AssertionError(f"connection ended before 0x{command:08x}: {self.got}")

    async def expect_submits(self, count: int) -> list[Pdu]:
        """So many more submit_sm."""
        return [await self.expect(Command.SUBMIT_SM) for _ in range(count)]

    async def send(self, *pieces: bytes) -> None:
        """Write, each piece by itself."""
        for piece in pieces:
            await self.stream.send_all(piece)

    async def bind(self) -> Pdu:
        """Take the bind, whatever its kind."""
        request = await self.read()
        assert request is not None
        assert request.command in BINDS
        await self.send(pdu(request.command | _RESPONSE, 0, request.sequence, b"faulty\0"))
        return request

    async def serve(self) -> None:
        """Be a good SMSC from here to the end of the connection."""
        while (request := await self.read()) is not None:
            if request.command == Command.SUBMIT_SM:
                await self.send(submit_resp(request))
            elif not request.command & _RESPONSE:
                await self.send(pdu(request.command | _RESPONSE, 0, request.sequence))
            if request.command == Command.UNBIND:
                return


Script = Callable[[Peer], Awaitable[None]]


class FaultySmsc:
    """Where it listens and whom it spoke with; each connection runs the script."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.peers: list[Peer] = []
        self.ended = trio.Event()  # a script is through
        self.dropped = 0  # connections that broke under their script

    @property
    def got(self) -> list[Pdu]:
        """All PDUs of all connections."""
        return [one for peer in self.peers for one in peer.got]


@asynccontextmanager
async def faulty_smsc(
    script: Script,
    *,
    tls: ssl.SSLContext | None = None,
    receive_buffer: int = 0,
    listener: trio.SocketListener | None = None,
) -> AsyncIterator[FaultySmsc]:
    """Listen on a free port of this machine or there; the connection ends with the script."""
    if listener is None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    if receive_buffer:  # inherited by what is accepted
        listener.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
    smsc = FaultySmsc(listener.socket.getsockname()[1])

    async def serve(stream: trio.SocketStream) -> None:
        secured: Any = trio.SSLStream(stream, tls, server_side=True) if tls else stream
        peer = Peer(secured)
        smsc.peers.append(peer)
        try:
            await script(peer)
        except trio.BrokenResourceError:
            smsc.dropped += 1  # the other end may go at any time; what it did is for the test
        finally:
            smsc.ended.set()
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield smsc
        nursery.cancel_scope.cancel()


async def silence(_: Peer) -> None:
    """Neither read nor write."""
    await trio.sleep(math.inf)
