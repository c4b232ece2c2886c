"""Small helpers every test may use; what one protocol needs has its own module here."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import trio

LOCALHOST = "127.0.0.1"
# The only polling interval in the tests, and only for processes that cannot tell us anything.
_POLL_S = 0.05


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port nobody listens on right now (bound to 0 and let go)."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((LOCALHOST, 0))
        port: int = probe.getsockname()[1]
        return port


def free_udp_port() -> int:
    """A UDP port nobody is bound to right now."""
    return free_port(socket.SOCK_DGRAM)


def free_media_port() -> int:
    """An even port whose next even one is free too: SIPp binds audio and video, or gives up."""
    while True:
        port = free_udp_port() & ~1
        try:
            with ExitStack() as probes:
                for wanted in (port, port + 2):
                    probe = probes.enter_context(socket.socket(type=socket.SOCK_DGRAM))
                    probe.bind((LOCALHOST, wanted))
        except OSError:
            continue
        return port


async def wait_for_line(
    stream: trio.abc.ReceiveStream, wanted: str, *, deadline_s: float = 20.0
) -> str:
    """Read a process's output up to the line that holds ``wanted``, and return all that was read.

    Raises ``AssertionError`` with all that was read when the stream or the deadline ends first.
    """
    seen = bytearray()
    with trio.move_on_after(deadline_s):
        async for chunk in stream:
            seen += chunk
            position = seen.find(wanted.encode())
            if position >= 0 and seen.find(b"\n", position) >= 0:
                return seen.decode(errors="replace")
    raise AssertionError(f"no line with {wanted!r} in: {seen.decode(errors='replace')}")


async def wait_until(
    condition: Callable[[], Awaitable[bool]], what: str, *, deadline_s: float = 20.0
) -> None:
    """Ask an outside process until it says yes. In-process things have events: wait for those.

    Raises ``AssertionError`` naming ``what`` when the deadline passes first.
    """
    with trio.move_on_after(deadline_s):
        while not await condition():  # noqa: ASYNC110 - a process has no events for us
            await trio.sleep(_POLL_S)
        return
    raise AssertionError(f"not within {deadline_s} s: {what}")
