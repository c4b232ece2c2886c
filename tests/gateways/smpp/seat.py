"""A bind at an SMSC in a test, with all it told, and waits that end in a failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from engine.config import SmppConfig
from engine.model import Provider
from gateways.smpp import codec
from gateways.smpp.bind import Bind
from gateways.smpp.events import Answered, Bound, Closed, Event, Unanswered
from gateways.smpp.pdu import Address, Command, ShortMessage
from gateways.smpp.settings import SmppSettings

PATIENCE_S = 30.0

BODY = codec.encode_short_message(
    ShortMessage(source=Address("4930"), destination=Address("491701"), octets=b"hello")
)


def fates(events: Sequence[Event]) -> dict[Any, list[str]]:
    """What was told of each token, in order."""
    told: dict[Any, list[str]] = {}
    for event in events:
        if isinstance(event, Answered):
            word = f"{'late' if event.late else 'answered'} {event.status:#x}"
            told.setdefault(event.token, []).append(word)
        elif isinstance(event, Unanswered):
            told.setdefault(event.token, []).append("unanswered")
        elif isinstance(event, Closed):
            for token in event.in_flight:
                told.setdefault(token, []).append("in flight")
            for token in event.unsent:
                told.setdefault(token, []).append("unsent")
    return told


def tally(events: Sequence[Event]) -> dict[str, int]:
    """How often each fate was told."""
    return dict(Counter(word for words in fates(events).values() for word in words))


class Seat:
    """A running bind."""

    def __init__(self, provider: Provider, settings: SmppSettings, config: SmppConfig) -> None:
        self.events: list[Event] = []
        self.result: Closed | None = None
        self.over = trio.Event()
        self.bind = Bind(provider, settings, config, self._command(settings), self._take)
        self._changed = trio.Event()

    @staticmethod
    def _command(settings: SmppSettings) -> Command:
        pair = settings.bind == "pair"
        return Command.BIND_TRANSMITTER if pair else Command.BIND_TRANSCEIVER

    def _take(self, events: list[Event]) -> None:
        self.events += events
        self._changed.set()
        self._changed = trio.Event()

    async def run(self) -> None:
        self.result = await self.bind.run()
        self.over.set()

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait for what events bring."""
        with trio.fail_after(PATIENCE_S):
            while not done():
                await self._changed.wait()

    async def until_bound(self) -> None:
        await self.until(lambda: any(isinstance(one, Bound) for one in self.events))

    async def until_told(self, tokens: int) -> None:
        """Until so many tokens have a fate."""
        await self.until(lambda: len(fates(self.events)) >= tokens)

    async def until_over(self) -> Closed:
        with trio.fail_after(PATIENCE_S):
            await self.over.wait()
        assert self.result is not None
        return self.result

    def submit(self, tokens: Sequence[Any], body: bytes = BODY) -> None:
        self.bind.session.submit_many([(body, token) for token in tokens])
        self.bind.poke()

    def found(self, kind: type) -> list[Any]:
        return [one for one in self.events if isinstance(one, kind)]


@asynccontextmanager
async def seated(
    port: int,
    *,
    ca_file: str = "",
    transport: str = "tcp",
    password: str = "secret",  # noqa: S107 - of a server that lives for one test
    host: str = "127.0.0.1",
    **settings: Any,
) -> AsyncIterator[Seat]:
    """Run a bind to that port; it is cancelled at the end if it still runs."""
    provider = Provider(
        id=1, name="smsc", type="smpp", host="localhost" if transport == "tls" else host,
        port=port, transport=transport, username="esme", password=password,
    )  # fmt: skip
    config = SmppConfig(ca_file=ca_file)
    seat = Seat(provider, SmppSettings(**settings), config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(seat.run)
        yield seat
        nursery.cancel_scope.cancel()
