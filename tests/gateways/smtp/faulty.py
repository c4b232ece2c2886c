"""A mail server that does what its script says: the faults no real one can be made to show.

Written on bare Trio streams, so that no mistake of our client can hide in it. A script is a map
from steps to reactions; a step that is not in it is served as RFC 5321 says.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import trio

EXTENSIONS = ("SIZE 50000000", "8BITMIME", "ENHANCEDSTATUSCODES", "DSN", "SMTPUTF8")
PIPELINING = (*EXTENSIONS, "PIPELINING")

STEPS = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "BODY", "DOT", "RSET", "QUIT")
"""Where a script may react: commands, and CONNECT (the greeting), BODY (the 354 is out, nothing of
the body is read), DOT (all of it is read)."""


class Gone(Exception):  # noqa: N818 - the end of a script, no error
    """The connection is over."""


class Peer:
    """One connection to the server, with all that came on it."""

    def __init__(self, stream: trio.SocketStream, mta: FaultyMta) -> None:
        self.stream: trio.abc.Stream = stream
        self.mta = mta
        self.lines: list[str] = []  # commands
        self.mails: list[bytes] = []  # bodies that came whole, dots undone
        self.reached: dict[str, trio.Event] = {}
        self.over = trio.Event()
        self.tls = False
        self.said = ""
        self._socket = stream
        self._kept = b""

    async def say(self, text: str) -> None:
        """Lines, CRLF put after each."""
        self.said = text
        await self.send("".join(f"{line}\r\n" for line in text.split("\n")).encode())

    async def send(self, data: bytes) -> None:
        """These octets."""
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Gone from error

    async def more(self) -> None:
        """Read what there is."""
        try:
            data = await self.stream.receive_some(262_144)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Gone from error
        if not data:
            raise Gone
        self._kept += data

    async def line(self) -> str:
        """The next command, without its CRLF; ``Gone`` at the end of the connection."""
        while b"\r\n" not in self._kept:
            await self.more()
        line, _, self._kept = self._kept.partition(b"\r\n")
        self.lines.append(line.decode())
        return self.lines[-1]

    async def body(self) -> bytes:
        """All up to the final dot."""
        while not (self._kept.startswith(b".\r\n") or b"\r\n.\r\n" in self._kept):
            await self.more()
        if self._kept.startswith(b".\r\n"):
            body, self._kept = b"", self._kept[3:]
        else:
            body, _, self._kept = self._kept.partition(b"\r\n.\r\n")
            body += b"\r\n"
        self.mails.append(body.replace(b"\r\n..", b"\r\n."))
        return self.mails[-1]

    async def drop(self) -> None:
        """Close, without a word."""
        await self._socket.aclose()
        raise Gone

    async def to_tls(self, context: ssl.SSLContext) -> None:
        """Go on within TLS; what was read ahead in the clear is forgotten."""
        self._kept = b""
        stream = trio.SSLStream(self._socket, context, server_side=True, https_compatible=True)
        try:
            await stream.do_handshake()
        except (trio.BrokenResourceError, ssl.SSLError) as error:
            raise Gone from error
        self.stream, self.tls = stream, True

    def event(self, step: str) -> trio.Event:
        """Set once this step is reached."""
        return self.reached.setdefault(step, trio.Event())


Act = Callable[[Peer], Awaitable[object]]
Reaction = str | bytes | Act
Script = Mapping[str, Reaction]


async def hold(_peer: Peer) -> None:
    """Say nothing any more, and read nothing."""
    await trio.sleep_forever()


async def drop(peer: Peer) -> None:
    """Close without a word."""
    await peer.drop()


def then(*reactions: Reaction) -> Act:
    """One after another."""

    async def act(peer: Peer) -> None:
        for reaction in reactions:
            await react(peer, reaction)

    return act


def in_turn(*reactions: Reaction) -> Act:
    """The first time the first, and so on; the last one stays."""
    left = list(reactions)

    async def act(peer: Peer) -> None:
        await react(peer, left.pop(0) if len(left) > 1 else left[0])

    return act


async def react(peer: Peer, reaction: Reaction) -> None:
    """Do it."""
    if isinstance(reaction, str):
        await peer.say(reaction)
    elif isinstance(reaction, bytes):
        await peer.send(reaction)
    else:
        await reaction(peer)


class FaultyMta:
    """The server; ``peers`` are its connections in the order they came."""

    def __init__(
        self, scripts: tuple[Script, ...], extensions: tuple[str, ...], tls: ssl.SSLContext | None
    ) -> None:
        self.port = 0
        self.peers: list[Peer] = []
        self.open = 0
        self._scripts = scripts or ({},)
        self._extensions = extensions
        self._tls = tls
        self._came = trio.Event()

    async def peer(self, number: int = 0) -> Peer:
        """Connection ``number``, once it is there."""
        while len(self.peers) <= number:
            await self._came.wait()
        return self.peers[number]

    @property
    def mails(self) -> list[bytes]:
        """Bodies that came whole, on any connection."""
        return [mail for peer in self.peers for mail in peer.mails]

    async def _handle(self, stream: trio.SocketStream) -> None:
        script = self._scripts[min(len(self.peers), len(self._scripts) - 1)]
        peer = Peer(stream, self)
        self.peers.append(peer)
        self._came.set()
        self._came = trio.Event()
        self.open += 1
        try:
            await self._converse(peer, script)
        except Gone:
            pass
        finally:
            self.open -= 1
            peer.over.set()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(peer.stream)

    async def _converse(self, peer: Peer, script: Script) -> None:
        if "TLS" in script:
            assert self._tls is not None
            await peer.to_tls(self._tls)
        await self._step(peer, script, "CONNECT", "220 faulty.test ESMTP")
        while True:
            verb = (await peer.line()).split(" ")[0].upper()
            await self._command(peer, script, verb)
            if verb == "QUIT":
                return

    async def _command(self, peer: Peer, script: Script, verb: str) -> None:
        if verb == "EHLO":
            await self._step(peer, script, verb, self._hello(peer))
        elif verb == "STARTTLS" and verb not in script:
            await peer.say("220 2.0.0 go ahead")
            assert self._tls is not None
            await peer.to_tls(self._tls)
        elif verb == "DATA":
            await self._step(peer, script, "DATA", "354 go ahead")
            if peer.said.startswith("354"):
                await self._mail(peer, script)
        else:
            await self._step(peer, script, verb, "221 bye" if verb == "QUIT" else "250 2.0.0 ok")

    async def _mail(self, peer: Peer, script: Script) -> None:
        await self._step(peer, script, "BODY", b"")
        await peer.body()
        await self._step(peer, script, "DOT", "250 2.0.0 taken")

    async def _step(self, peer: Peer, script: Script, step: str, usual: Reaction) -> None:
        peer.event(step).set()
        await react(peer, script.get(step, usual))

    def _hello(self, peer: Peer) -> str:
        offered = [*self._extensions]
        if self._tls is not None and not peer.tls:
            offered.append("STARTTLS")
        lines = ["faulty.test", *offered]
        return "\n".join([f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"])


@asynccontextmanager
async def faulty_mta(
    *scripts: Script,
    extensions: tuple[str, ...] = EXTENSIONS,
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[FaultyMta]:
    """A server on this machine; connection n follows script n, the last one all that come after.

    ``tls``: STARTTLS is offered with it; a script with the step TLS speaks TLS from the start.
    """
    mta = FaultyMta(scripts, extensions, tls)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, mta._handle, port, host=host)
        listeners = await nursery.start(serve)
        mta.port = listeners[0].socket.getsockname()[1]
        yield mta
        nursery.cancel_scope.cancel()
