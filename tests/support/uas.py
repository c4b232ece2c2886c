"""A scripted SIP far end in plain Python, for dialogs SIPp cannot have (digest, TLS, odd SDP).

One handler coroutine a dialog; it sees parsed requests and answers in any way it likes. Nothing of
pjproject is in it. Loopback loses nothing, so it never repeats; what we repeat it ignores.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from tests.support import LOCALHOST

DEADLINE_S = 20.0
_MAX = 65_536


class Message(NamedTuple):
    """A parsed SIP message."""

    start: str
    headers: tuple[tuple[str, str], ...]
    body: str

    @property
    def method(self) -> str:
        return self.start.split(" ", 1)[0]

    @property
    def status(self) -> int:
        """Of a response; 0 for a request."""
        return int(self.start.split(" ")[1]) if self.start.startswith("SIP/2.0") else 0

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str:
        return next(iter(self.all(name)), "")

    @property
    def rtp(self) -> tuple[str, int]:
        """Where its SDP wants RTP."""
        lines = self.body.splitlines()
        host = next(line for line in lines if line.startswith("c=IN IP4 ")).split()[2]
        return host, int(next(line for line in lines if line.startswith("m=audio ")).split()[1])


def parse(data: bytes) -> Message:
    head, _, body = data.decode().partition("\r\n\r\n")
    start, *lines = head.split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Message(start, tuple((k.strip(), v.strip()) for k, _, v in pairs), body)


def sdp(
    host: str = LOCALHOST,
    port: int = 49_152,
    *,
    formats: str = "0 101",
    proto: str = "RTP/AVP",
    direction: str = "sendrecv",
    te: int = 101,
    connection: str = "",
) -> str:
    """An answer or offer; ``connection`` replaces the c= line's address part."""
    lines = [
        "v=0", f"o=far 1 1 IN IP4 {host}", "s=-", f"c={connection or f'IN IP4 {host}'}", "t=0 0",
        f"m=audio {port} {proto} {formats}", "a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000",
        f"a=rtpmap:{te} telephone-event/8000", f"a={direction}",
    ]  # fmt: skip
    return "\r\n".join(lines) + "\r\n"


class Dialog:
    """One Call-ID: requests in, what we say out."""

    def __init__(self, uas: Uas, first: Message, send: Callable[[bytes], Awaitable[None]]) -> None:
        self.uas = uas
        self.invite = first
        self.requests, self._inbox = trio.open_memory_channel[Message](100)
        self._send = send
        self._cseq = 0
        self.tag = f"far{id(self)}"

    async def expect(self, start: str) -> Message:
        """The next message, which must begin so."""
        with trio.fail_after(DEADLINE_S):
            message = await self._inbox.receive()
        assert message.start.startswith(start), f"{message.start!r} instead of {start!r}"
        return message

    async def expect_late(self, start: str) -> Message:
        """As ``expect``, however long it takes."""
        message = await self._inbox.receive()
        assert message.start.startswith(start), f"{message.start!r} instead of {start!r}"
        return message

    async def respond(
        self, request: Message, status: str, body: str = "", *headers: str, tag: str = ""
    ) -> None:
        """Answer ``request``."""
        to = request.header("To")
        to = to if "tag=" in to else f"{to};tag={tag or self.tag}"
        lines = [f"SIP/2.0 {status}"]
        lines += [f"Via: {via}" for via in request.all("Via")]
        lines += [f"From: {request.header('From')}", f"To: {to}"]
        lines += [f"Call-ID: {request.header('Call-ID')}", f"CSeq: {request.header('CSeq')}"]
        lines += [f"Contact: <sip:far@{self.uas.authority}>", *headers]
        await self._say(lines, body)

    async def request(self, method: str, body: str = "", *headers: str, cseq: int = 0) -> None:
        """Send a request inside the dialog."""
        if not cseq:
            self._cseq += 1
        branch = f"z9hG4bK{self.tag}{method}{self._cseq}"
        kind = self.uas.transport.upper()
        target = self.invite.header("Contact").strip("<>").split(">")[0]
        lines = [
            f"{method} {target} SIP/2.0",
            f"Via: SIP/2.0/{kind} {self.uas.authority.split(';')[0]};branch={branch};rport",
            f"From: {self.invite.header('To')};tag={self.tag}",
            f"To: {self.invite.header('From')}",
            f"Call-ID: {self.invite.header('Call-ID')}",
            f"CSeq: {cseq or self._cseq} {method}",
            f"Contact: <sip:far@{self.uas.authority}>",
            "Max-Forwards: 70",
            *headers,
        ]
        await self._say(lines, body)

    async def reinvite(self, body: str) -> Message:
        """Offer again, and confirm what is answered."""
        await self.request("INVITE", body)
        message = await self.expect("SIP/2.0 ")
        while message.status < 200:
            message = await self.expect("SIP/2.0 ")
        await self.request("ACK", cseq=self._cseq)
        return message

    async def answer(self, body: str) -> None:
        """200 with ``body``, and the ACK."""
        await self.respond(self.invite, "200 OK", body)
        await self.expect("ACK")

    async def until_bye(self) -> None:
        """Confirm the BYE."""
        await self.respond(await self.expect("BYE"), "200 OK")

    async def _say(self, lines: list[str], body: str) -> None:
        if body:
            lines.append("Content-Type: application/sdp")
        lines.append(f"Content-Length: {len(body)}")
        await self._send("\r\n".join([*lines, "", body]).encode())


Script = Callable[[Dialog], Awaitable[None]]


class Uas:
    """Runs ``script`` for every new Call-ID."""

    def __init__(self, script: Script, nursery: trio.Nursery, transport: str) -> None:
        self.transport = transport
        self.name = LOCALHOST  # host in our Contact
        self.port = 0
        self.messages: list[Message] = []
        self.ended = trio.Event()  # the first dialog's script is through
        self._script = script
        self._nursery = nursery
        self._dialogs: dict[str, Dialog] = {}
        self._seen: set[tuple[str, str]] = set()

    @property
    def authority(self) -> str:
        suffix = "" if self.transport == "udp" else f";transport={self.transport}"
        return f"{self.name}:{self.port}{suffix}"

    def take(self, data: bytes, send: Callable[[bytes], Awaitable[None]]) -> None:
        message = parse(data)
        key = (message.header("Via"), message.start)
        if key in self._seen:
            return
        self._seen.add(key)
        self.messages.append(message)
        call_id = message.header("Call-ID")
        dialog = self._dialogs.get(call_id)
        if dialog is None:
            dialog = self._dialogs[call_id] = Dialog(self, message, send)
            self._nursery.start_soon(self._run, dialog)
        else:
            dialog.requests.send_nowait(message)

    async def _run(self, dialog: Dialog) -> None:
        await self._script(dialog)
        self.ended.set()

    async def serve_udp(self, udp: trio.socket.SocketType) -> None:
        while True:
            data, source = await udp.recvfrom(_MAX)

            async def send(reply: bytes, to: tuple[str, int] = source) -> None:
                await udp.sendto(reply, to)

            if data.strip():
                self.take(data, send)

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        buffer = b""
        async with stream:
            while True:
                try:
                    data = await stream.receive_some(_MAX)
                except trio.BrokenResourceError:
                    return  # a handshake that was refused ends so
                if not data:
                    return
                buffer = self._split(buffer + data, stream.send_all)

    def _split(self, buffer: bytes, send: Callable[[bytes], Awaitable[None]]) -> bytes:
        while b"\r\n\r\n" in buffer.lstrip():
            buffer = buffer.lstrip()
            head = buffer.index(b"\r\n\r\n") + 4
            length = int(parse(buffer[:head]).header("Content-Length") or 0)
            if len(buffer) < head + length:
                break
            self.take(buffer[: head + length], send)
            buffer = buffer[head + length :]
        return buffer


@asynccontextmanager
async def run_uas(
    script: Script, transport: str = "udp", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Uas]:
    """A far end on a free port; what its scripts raise fails the test."""
    async with trio.open_nursery() as nursery:
        uas = Uas(script, nursery, transport)
        if transport == "udp":
            with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                await udp.bind((LOCALHOST, 0))
                uas.port = udp.getsockname()[1]
                nursery.start_soon(uas.serve_udp, udp)
                yield uas
                nursery.cancel_scope.cancel()
            return
        listeners: list[trio.abc.Listener[trio.abc.Stream]] = list(
            await trio.open_tcp_listeners(0, host=LOCALHOST)
        )
        uas.port = listeners[0].socket.getsockname()[1]  # type: ignore[attr-defined]
        if tls is not None:
            listeners = [trio.SSLListener(listeners[0], tls)]
        nursery.start_soon(trio.serve_listeners, uas.serve_stream, listeners)
        yield uas
        nursery.cancel_scope.cancel()


def challenge(realm: str = "far", nonce: str = "n0nce") -> str:
    """The value of WWW-Authenticate or Proxy-Authenticate."""
    return f'Digest realm="{realm}", nonce="{nonce}", algorithm=MD5, qop="auth"'


def digest_holds(message: Message, header: str, username: str, password: str) -> bool:
    """Whether the credentials of ``message`` are right (RFC 2617 §3.2.2, MD5, qop=auth)."""
    value = message.header(header)
    if not value.startswith("Digest "):
        return False
    fields = {
        key.strip(): item.strip().strip('"')
        for key, _, item in (part.partition("=") for part in value[7:].split(","))
    }

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    first = md5(f"{username}:{fields['realm']}:{password}")
    second = md5(f"{message.method}:{fields['uri']}")
    middle = ":".join(fields[key] for key in ("nonce", "nc", "cnonce", "qop"))
    return fields["username"] == username and fields["response"] == md5(
        f"{first}:{middle}:{second}"
    )
