"""An engine's inbox that keeps what a gateway hands in, for tests of gateways alone."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from engine.gateway import InboundText, Reception, Report


class Tray:
    """``engine.gateway.Inbox`` in memory."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.texts: list[InboundText] = []
        self._came = trio.Event()

    async def report(self, reports: Sequence[Report]) -> None:
        """Keep them."""
        self.reports += reports
        self._ring()
        await trio.lowlevel.checkpoint()

    async def receive(self, message: InboundText) -> Reception:
        """Keep it; one with a key that came before is a repeat."""
        await trio.lowlevel.checkpoint()
        if any(text.key == message.key for text in self.texts) and message.repeat_within_s:
            return Reception.REPEATED
        self.texts.append(message)
        self._ring()
        return Reception.TAKEN

    async def until(self, *, reports: int = 0, texts: int = 0) -> None:
        """Wait until that many have come; the caller has the deadline."""
        while len(self.reports) < reports or len(self.texts) < texts:
            await self._came.wait()

    def _ring(self) -> None:
        self._came.set()
        self._came = trio.Event()
