"""An engine's inbox that keeps what a gateway hands in, for tests of gateways alone."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from engine.gateway import InboundText, Reception, Report
from engine.mail import InboundMail


class NoMail:
    """The part of an inbox that no gateway for other messages asks for."""

    async def receive_mail(self, mail: InboundMail) -> Reception:
        """Nobody sends one."""
        raise AssertionError(f"nobody sent {mail.key}")

    async def serves_mail(self, address: str) -> bool:
        """Nobody asks."""
        raise AssertionError(f"nobody asked for {address}")


class Tray:
    """``engine.gateway.Inbox`` in memory; ``addresses`` are those it takes mail for (None: all)."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.texts: list[InboundText] = []
        self.mails: list[InboundMail] = []
        self.addresses: set[str] | None = None
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

    async def receive_mail(self, mail: InboundMail) -> Reception:
        """Keep it (its files stay where they are); as ``receive``, for each address."""
        if not await self.serves_mail(mail.destination):
            return Reception.UNWANTED
        if mail.repeat_within_s and any(_same(one, mail) for one in self.mails):
            return Reception.REPEATED
        self.mails.append(mail)
        self._ring()
        return Reception.TAKEN

    async def serves_mail(self, address: str) -> bool:
        """Whether it is one of ``addresses``."""
        await trio.lowlevel.checkpoint()
        return self.addresses is None or address.lower() in self.addresses

    async def until(self, *, reports: int = 0, texts: int = 0, mails: int = 0) -> None:
        """Wait until that many have come; the caller has the deadline."""
        while len(self.reports) < reports or len(self.texts) < texts or len(self.mails) < mails:
            await self._came.wait()

    def _ring(self) -> None:
        self._came.set()
        self._came = trio.Event()


def _same(one: InboundMail, other: InboundMail) -> bool:
    same_box = one.destination.lower() == other.destination.lower()
    return one.key == other.key and same_box
