"""DNS for tests: a real dnsmasq, and a responder for what a real one will not do."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import dns.flags
import dns.message
import dns.rdatatype
import trio

from tests.support import LOCALHOST, free_port, wait_until

DNSMASQ = "/usr/sbin/dnsmasq"
DEADLINE_S = 10.0
_MAX_QUESTION = 4_096
_ATTEMPTS = 20


class Names:
    """A running name server; its ``server`` is as ``SmtpConfig.dns_servers`` wants it."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def server(self) -> str:
        """Address and port."""
        return f"{LOCALHOST}:{self.port}"


@asynccontextmanager
async def dnsmasq(folder: Path, *records: str) -> AsyncIterator[Names]:
    """A dnsmasq that knows ``records`` (its own options, without dashes) and nothing else.

    What it has no record of below ``.test`` and ``.example`` does not exist; others are refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    options = [
        f"port={port}",
        f"listen-address={LOCALHOST}",
        "bind-interfaces",
        "no-resolv",
        "no-hosts",
        "local=/test/example/",
        f"pid-file={folder / 'dnsmasq.pid'}",
        *records,
    ]
    settings = folder / "dnsmasq.conf"
    settings.write_text("\n".join([*options, ""]))
    process = await trio.lowlevel.open_process(
        [DNSMASQ, "--keep-in-foreground", "--user=", f"--conf-file={settings}"],
        stdin=subprocess.DEVNULL,
    )
    try:
        await wait_until(lambda: _answers(port, process), "dnsmasq", deadline_s=DEADLINE_S)
        yield Names(port)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _answers(port: int, process: trio.Process) -> bool:
    assert process.returncode is None, "dnsmasq ended"
    try:
        stream = await trio.open_tcp_stream(LOCALHOST, port)
    except OSError:
        return False
    await stream.aclose()
    return True


Answering = Callable[[dns.message.Message], dns.message.Message | None]
"""A question's answer; None = say nothing."""


class Responder(Names):
    """Answers as ``answer`` says, over UDP and TCP. ``questions``: ``name type`` as they came."""

    def __init__(self, port: int, answer: Answering) -> None:
        super().__init__(port)
        self.answer = answer
        self.questions: list[str] = []

    def reply(self, wire: bytes, *, udp: bool) -> bytes | None:
        """What goes back for a question as it came."""
        question = dns.message.from_wire(wire)
        asked = question.question[0]
        self.questions.append(f"{asked.name} {dns.rdatatype.to_text(asked.rdtype)}")
        answer = self.answer(question)
        if answer is None:
            return None
        if udp and answer.flags & dns.flags.TC:
            answer.answer = []
        else:
            answer.flags &= ~dns.flags.TC
        return answer.to_wire()


@asynccontextmanager
async def responder(answer: Answering) -> AsyncIterator[Responder]:
    """A name server that answers what the test says."""
    udp, tcp = await _ports()
    names = Responder(udp.getsockname()[1], answer)
    with udp:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve_udp, udp, names)
            await nursery.start(partial(trio.serve_listeners, partial(_serve_tcp, names), tcp))
            yield names
            nursery.cancel_scope.cancel()


async def _ports() -> tuple[trio.socket.SocketType, list[trio.SocketListener]]:
    """One port for both: what is free for UDP may be taken for TCP."""
    for _ in range(_ATTEMPTS):
        udp = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        await udp.bind((LOCALHOST, 0))
        try:
            return udp, await trio.open_tcp_listeners(udp.getsockname()[1], host=LOCALHOST)
        except OSError:
            udp.close()
    raise AssertionError("no port is free for both UDP and TCP")


async def _serve_udp(udp: trio.socket.SocketType, names: Responder) -> None:
    while True:
        wire, peer = await udp.recvfrom(_MAX_QUESTION)
        if (answer := names.reply(wire, udp=True)) is not None:
            await udp.sendto(answer, peer)


async def _serve_tcp(names: Responder, stream: trio.SocketStream) -> None:
    """One question a connection, short enough to come at once (RFC 1035 §4.2.2)."""
    wire = await stream.receive_some(_MAX_QUESTION)
    if (answer := names.reply(bytes(wire[2:]), udp=False)) is not None:
        await stream.send_all(len(answer).to_bytes(2, "big") + answer)
    await stream.aclose()
