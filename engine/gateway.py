"""What the engine asks of a gateway, and what a gateway hands to a program: all Protocols.

Nothing of SIP, SMPP or SMTP is in here. A gateway turns an ``Order`` into exactly one ``Result``;
everything that happens meanwhile is reported through ``progress``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import msgspec
import trio

from engine.model import Provider, Service
from engine.results import Result, ResultRow


class Stage(StrEnum):
    """How far a delivery got. ``LEFT`` = the first packet is about to leave this machine."""

    LEFT = "left"
    RINGING = "ringing"
    CONNECTED = "connected"


Progress = Callable[[Stage, datetime], None]
"""Called by a gateway, on Trio's thread, as a delivery advances; never blocks, never raises."""


class Media(msgspec.Struct, frozen=True):
    """A recording as a gateway plays it: absolute path of an 8 kHz mono 16-bit WAV, length."""

    path: Path
    length_s: float


class Call(Protocol):
    """A live outbound call as a program sees it. Cancelling the program's scope hangs up.

    Every method raises ``CallEnded`` when the call is over (busy, refused, hung up by the far end,
    limits): a program needs no error handling to be correct.
    """

    async def answered(self) -> None:
        """Place the call and wait until it is answered; ``CallEnded`` where it never is."""
        ...

    async def play(self, media: Media) -> None:
        """Play the whole of ``media``; returns when its last sample was sent."""
        ...

    async def hang_up(self) -> None:
        """End the call from our side and wait until it is over."""
        ...

    def note(self, row: ResultRow) -> None:
        """Keep a datum with the spool."""
        ...


class CallEnded(Exception):  # noqa: N818 - the end of a call is not an error
    """The call is over; the gateway knows why. A program lets it pass."""


Program = Callable[[Call], Awaitable[None]]
"""A program bound to its data: what ``engine.programs`` makes of a stored program."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery, complete: a gateway needs nothing else.

    ``destination`` is what the trunk shall dial (already rewritten). ``ring_timeout_s`` runs from
    the first packet, ``call_limit_s`` from the answer. ``media_timeout_s`` 0 = off: a far end that
    sends no RTP is not dead.
    """

    spool_id: int
    uid: UUID
    service: Service
    provider: Provider
    destination: str
    program: Program
    caller_id: str = ""
    caller_name: str = ""
    ring_timeout_s: float = 30.0
    call_limit_s: float = 3600.0
    media_timeout_s: float = 0.0


class Inbound(msgspec.Struct, frozen=True, kw_only=True):
    """Something that came in from outside (a call, an SMS, a receipt). Nothing consumes it yet."""

    service: Service
    source: str
    destination: str
    at: datetime


class Gateway(Protocol):
    """One way out of the building. ``tests/suites/gateway_suite.py`` is its specification."""

    services: Service

    async def run(
        self,
        inbound: trio.MemorySendChannel[Inbound],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; ``task_status.started()`` once deliveries can be taken.

        Leaves nothing behind: cancelling it hangs up what is still up.
        """
        ...

    async def providers(self, providers: Mapping[int, Provider]) -> None:
        """The active providers of this gateway's type, by id, whenever they change."""
        ...

    async def deliver(self, order: Order, progress: Progress) -> Result:
        """Deliver and say what became of it; cancel = hang up / abandon, then ``Cancelled`` passes.

        Never raises for anything the outside did: failures classify themselves into the ``Result``.
        """
        ...

    def statistics(self) -> dict[str, Any]:
        """Queue lengths, calls up, workers: numbers and short strings, for dashboards."""
        ...
