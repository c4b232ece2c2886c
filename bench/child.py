"""A process of its own of a bench: what it says of itself, and where it is reached."""

from __future__ import annotations

import socket
import sys
from typing import Any

import msgspec
import orjson
import trio

HOST = "127.0.0.1"
LOOK_S = 0.01


class Rate(msgspec.Struct, frozen=True):
    """Messages or mails sent and answered, and how long that took."""

    sent: int
    seconds: float

    @property
    def per_s(self) -> float:
        """Of them a second."""
        return self.sent / self.seconds if self.seconds else 0.0


def say(what: dict[str, Any]) -> None:
    """One line of JSON for the bench."""
    sys.stdout.write(orjson.dumps(what).decode() + "\n")
    sys.stdout.flush()


def free_port() -> int:
    """A TCP port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def listening(port: int, deadline_s: float) -> None:
    """Wait until somebody answers there; ``trio.TooSlowError`` where nobody does."""
    with trio.fail_after(deadline_s):
        while True:
            try:
                stream = await trio.open_tcp_stream(HOST, port)
            except OSError:
                await trio.sleep(LOOK_S)
            else:
                await stream.aclose()
                return
