"""Parts of long messages that came in by providers that have no link any more."""

from __future__ import annotations

from collections.abc import Callable, Container

import structlog
import trio

from engine.clock import Clock
from engine.errors import UnavailableError
from engine.gateway import Inbox
from engine.model import Provider
from gateways.smpp import inbound, parts
from gateways.smpp.inbound import Receiver
from gateways.smpp.journal import Journal
from gateways.smpp.settings import SmppSettings

log = structlog.get_logger("smpp")


class Leftovers:
    """What a receiver does for its provider, for those that were deleted or are not in use.

    They were answered 0, so nobody delivers them again. ``served`` says which providers have a
    receiver of their own.
    """

    def __init__(
        self, journal: Journal, clock: Clock, served: Callable[[], Container[int]]
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._served = served
        self._former: dict[int, tuple[Provider, SmppSettings]] = {}

    def keep(self, provider: Provider, settings: SmppSettings) -> None:
        """Its link is closed; what it left is read by these settings."""
        self._former[provider.id] = (provider, settings)

    async def run(self, inbox: Inbox) -> None:
        """Hand in what waits for its other parts in vain, until cancelled."""
        while True:
            await trio.sleep(inbound.SWEEP_S)
            try:
                await self.sweep(inbox)
            except UnavailableError as error:
                log.warning("smpp.leftover_parts_wait", cause=str(error))

    async def sweep(self, inbox: Inbox) -> None:
        """Hand in what waited too long as it is, forget what was done long ago."""
        found = await self._journal.read(parts.provider_ids)
        served = self._served()
        # Of a run before this one only the number is known, and that is enough.
        self._former = {
            id_: self._former.get(id_) or (Provider(id=id_, name=f"{id_}"), SmppSettings())
            for id_ in found
            if id_ not in served
        }
        for provider, settings in list(self._former.values()):
            await Receiver(provider, settings, self._journal, inbox, self._clock).sweep()
