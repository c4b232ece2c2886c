"""The inbox of a gateway that is measured by itself."""

from __future__ import annotations

from collections.abc import Sequence

from engine.gateway import InboundText, Reception, Report
from engine.mail import InboundMail


class Nobody:
    """``engine.gateway.Inbox`` of a far end that sends nothing; whatever comes is an error."""

    async def report(self, reports: Sequence[Report]) -> None:
        """Not asked for."""
        raise RuntimeError(f"{len(reports)} reports")

    async def receive(self, message: InboundText) -> Reception:
        """Not sent."""
        raise RuntimeError(message.key)

    async def receive_mail(self, mail: InboundMail) -> Reception:
        """Not sent."""
        raise RuntimeError(mail.key)

    async def serves_mail(self, address: str) -> bool:
        """Not asked."""
        raise RuntimeError(address)
