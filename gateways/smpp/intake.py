"""What SMSCs deliver: receipts to the tracker, messages to the receiver; answered when durable.

A deliver_sm or data_sm gets status 0 (SMPP 3.4 §4.6.2, §4.7.2) once what it says is on the disk,
and ESME_RX_T_APPN, "try again", while that cannot be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import structlog
import trio

from engine.clock import Clock
from engine.errors import UnavailableError
from engine.model import Provider
from gateways.smpp import receipts
from gateways.smpp.bind import Bind
from gateways.smpp.deliveries import RX_T_APPN
from gateways.smpp.events import Delivered
from gateways.smpp.records import Receipt
from gateways.smpp.settings import SmppSettings

log = structlog.get_logger("smpp")

MAX_BATCH = 500
"""Deliveries made durable together. How many can wait is bounded by the sessions."""

SWAMPED = 2 * MAX_BATCH
"""With more waiting nothing is sent: what is sent now brings more of them soon, and an SMSC that is
told to try a receipt again later may never do so."""

Asked = tuple[Bind, Delivered]
"""A deliver_sm or data_sm, and the bind that waits for its answer."""

Take = Callable[[Sequence[Asked]], Awaitable[Sequence[int]]]
"""Makes them durable; returns the command_status for each."""


class Receiving(Protocol):
    """Messages to us, as a link uses it (``gateways.smpp.inbound.Receiver``)."""

    async def run(self) -> None:
        """What has to be done beside it, until cancelled."""
        ...

    async def handle(self, deliveries: Sequence[Asked]) -> Sequence[int]:
        """As ``Take``."""
        ...

    def replace(self, provider: Provider, settings: SmppSettings) -> None:
        """The provider from now on."""
        ...

    def ended(self, session: Bind) -> None:
        """A bind is over."""
        ...

    def statistics(self) -> dict[str, Any]:
        """What came in."""
        ...


class NoReceiver:
    """Takes nothing: every message shall come again later. For measuring."""

    async def run(self) -> None:
        """Nothing."""

    async def handle(self, deliveries: Sequence[Asked]) -> Sequence[int]:
        """Try later."""
        await trio.lowlevel.checkpoint()
        return [RX_T_APPN] * len(deliveries)

    def replace(self, provider: Provider, settings: SmppSettings) -> None:
        """Nothing."""

    def ended(self, session: Bind) -> None:
        """Nothing."""

    def statistics(self) -> dict[str, Any]:
        """Nothing."""
        return {}


class _Lane:
    """Deliveries of one kind: what gathers while a batch is made durable is the next batch."""

    def __init__(self, kind: str, take: Take, answered: Callable[[], None]) -> None:
        self._answered = answered
        self.waiting: list[Asked] = []
        self.taken = self.refused = 0
        self._kind = kind
        self._take = take
        self._wake = trio.Event()

    def add(self, asked: Asked) -> None:
        self.waiting.append(asked)
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self.waiting:
                batch, self.waiting = self.waiting[:MAX_BATCH], self.waiting[MAX_BATCH:]
                self._answer(batch, await self._statuses(batch))
                self._answered()

    async def _statuses(self, batch: list[Asked]) -> Sequence[int]:
        try:
            return await self._take(batch)
        except UnavailableError as error:
            log.warning("smpp.deliveries_wait", kind=self._kind, cause=str(error))
        except Exception:
            # Ours; it must not take the other providers down. The SMSC keeps it and tries again.
            log.exception("smpp.delivery_failed", kind=self._kind)
        return [RX_T_APPN] * len(batch)

    def _answer(self, batch: list[Asked], statuses: Sequence[int]) -> None:
        for (bind, delivered), status in zip(batch, statuses, strict=True):
            bind.session.answer(delivered.sequence, status)
            bind.poke()
            self.taken += not status
            self.refused += bool(status)


class Intake:
    """The deliveries of one provider. ``take_receipts`` returns when they are durable.

    ``on_answered`` is called after every batch: there may be less of them now.
    """

    def __init__(
        self,
        settings: SmppSettings,
        clock: Clock,
        take_receipts: Callable[[Sequence[Receipt]], Awaitable[None]],
        receiver: Receiving,
        on_answered: Callable[[], None],
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._take_receipts = take_receipts
        self._read: list[Receipt] = []  # of what waits in the lane, in its order
        self._receipts = _Lane("receipt", self._book, on_answered)
        self._messages = _Lane("message", receiver.handle, on_answered)
        self._receiver = receiver

    def take(self, bind: Bind, delivered: Delivered) -> None:
        """Have it made durable and answered."""
        receipt = receipts.parse(delivered.message, self.settings, at=self._clock())
        if receipt is None:
            self._messages.add((bind, delivered))
        else:
            self._read.append(receipt)
            self._receipts.add((bind, delivered))

    @property
    def swamped(self) -> bool:
        """Whether so much waits that nothing should be sent until it is answered."""
        return len(self._receipts.waiting) + len(self._messages.waiting) > SWAMPED

    def replace(self, provider: Provider, settings: SmppSettings) -> None:
        """Read what comes from now on by these settings."""
        self.settings = settings
        self._receiver.replace(provider, settings)

    def ended(self, bind: Bind) -> None:
        """A bind is over."""
        self._receiver.ended(bind)

    async def _book(self, batch: Sequence[Asked]) -> Sequence[int]:
        found, self._read = self._read[: len(batch)], self._read[len(batch) :]
        await self._take_receipts(found)
        return [0] * len(batch)

    async def run(self) -> None:
        """Take until cancelled; one kind does not wait for the other."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receipts.run)
            nursery.start_soon(self._messages.run)
            nursery.start_soon(self._receiver.run)

    def statistics(self) -> dict[str, Any]:
        """What came in, what was told to come again."""
        return {
            lane: {"waiting": len(of.waiting), "taken": of.taken, "refused": of.refused}
            for lane, of in (("receipts", self._receipts), ("messages", self._messages))
        } | {"inbound": self._receiver.statistics()}
