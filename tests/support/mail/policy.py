"""Postfix asks us at every RCPT (SMTPD_POLICY_README): real refusals, at will."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import trio

from tests.support import LOCALHOST

DUNNO = "DUNNO"
GREYLISTED = "450 4.7.1 Greylisted, come back later"
GO_AWAY = "421 4.7.0 Too busy, closing"
NOBODY = "550 5.1.1 No such user"

Decide = Callable[[str, int], str]
"""What to answer for a recipient who is asked for the n-th time (from 1): an access(5) action."""


class Policy:
    """A running policy server; ``decide`` may be changed at any time."""

    def __init__(self, decide: Decide) -> None:
        self.decide = decide
        self.port = 0
        self.asked: Counter[str] = Counter()

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Answer until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host=LOCALHOST)
        self.port = listeners[0].socket.getsockname()[1]
        serving = partial(trio.serve_listeners, self._answer, listeners)
        async with trio.open_nursery() as nursery:
            await nursery.start(serving)
            task_status.started()

    async def _answer(self, stream: trio.SocketStream) -> None:
        unread = b""
        try:
            async for chunk in stream:
                *questions, unread = (unread + chunk).split(b"\n\n")
                for question in questions:
                    action = self._action(_attributes(question))
                    await stream.send_all(f"action={action}\n\n".encode())
        except trio.BrokenResourceError:
            return  # Postfix was killed

    def _action(self, attributes: Mapping[str, str]) -> str:
        recipient = attributes["recipient"]
        self.asked[recipient] += 1
        return self.decide(recipient, self.asked[recipient])


def _attributes(question: bytes) -> dict[str, str]:
    pairs = (line.partition("=") for line in question.decode().splitlines())
    return {name: value for name, _, value in pairs}


@asynccontextmanager
async def policy(decide: Decide) -> AsyncIterator[Policy]:
    """A started policy server, for ``postfix(policy=...)``."""
    server = Policy(decide)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        yield server
        nursery.cancel_scope.cancel()
