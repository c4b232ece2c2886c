"""What the engine asks of a gateway, and what a gateway hands to a program: all Protocols.

Nothing of SIP, SMPP or SMTP is in here. A gateway turns an ``Order`` into exactly one ``Result``;
everything that happens meanwhile is reported through ``progress``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import msgspec
import trio

from engine.mail import InboundMail, MailMessage
from engine.model import Provider, Service, Spool
from engine.results import Fate, Result, ResultRow


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


class TextKind(StrEnum):
    """What a text is made of, as far as the engine cares."""

    PLAIN = "plain"  # the GSM alphabet where it can say it, else Unicode
    UNICODE = "unicode"
    LATIN1 = "latin1"
    BINARY = "binary"  # octets; the text holds them as hexadecimal digits


class TextMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A text as it shall reach the handset: tokens are filled, nothing is split or encoded yet.

    ``flash``: shown at once and not kept (class 0). ``validity_s`` 0 = the provider's own.
    """

    text: str
    kind: TextKind = TextKind.PLAIN
    flash: bool = False
    validity_s: float = 0.0


class Messenger(Protocol):
    """A message about to be sent, as a program sees it. Cancelling abandons what has not left."""

    async def send_text(self, message: TextMessage) -> None:
        """Hand the text over; returns once the network answered for every part of it.

        Raises ``CallEnded`` where it did not take it: a program needs no error handling.
        """
        ...

    def note(self, row: ResultRow) -> None:
        """Keep a datum with the spool."""
        ...


class Mailer(Protocol):
    """A mail about to be sent, as a program sees it. Cancelling abandons what has not left."""

    async def send_mail(self, message: MailMessage) -> None:
        """Hand the mail over; returns once the network took it.

        Raises ``CallEnded`` where it did not: a program needs no error handling.
        """
        ...

    def note(self, row: ResultRow) -> None:
        """Keep a datum with the spool."""
        ...


class CallEnded(Exception):  # noqa: N818 - the end of a call is not an error
    """The call or message is over; the gateway knows why. A program lets it pass."""


Program = Callable[[Any], Awaitable[None]]
"""A program bound to its data: what ``engine.programs`` makes of a stored program.

It is given the live session of its service: a ``Call`` (voice), a ``Messenger`` (SMS), a ``Mailer``
(e-mail).
"""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery, complete: a gateway needs nothing else.

    ``destination`` is what the trunk shall dial (already rewritten). ``ring_timeout_s`` runs from
    the first packet, ``call_limit_s`` from the answer. ``media_timeout_s`` 0 = off: a far end that
    sends no RTP is not dead. ``transmission_id`` is the same for every spool of one message;
    ``owner_id`` is whose it is.
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
    transmission_id: int = 0
    owner_id: int | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a spool that was handed over earlier (see ``Awaiting``)."""

    spool_id: int
    result: Result


class InboundText(msgspec.Struct, frozen=True, kw_only=True):
    """A text message somebody sent us, whole (its parts are joined).

    ``source`` and ``destination`` are addresses as the network wrote them. ``key`` is the same for
    the same message handed over twice; with ``repeat_within_s`` above 0 one with the same key
    received that recently is the same message and not a second one.
    """

    provider: Provider
    source: str
    destination: str
    text: str
    kind: TextKind
    at: datetime
    key: str
    repeat_within_s: float = 0.0
    rows: tuple[ResultRow, ...] = ()


class Reception(StrEnum):
    """What became of something that came in."""

    TAKEN = "taken"  # durable
    REPEATED = "repeated"  # durable since it came the first time
    UNWANTED = "unwanted"  # no account has this address, or no program serves it


class Inbox(Protocol):
    """Where a gateway hands in what comes from outside. Both return once it is durable.

    ``UnavailableError``: the store takes no writes; the sender has to try again later.
    """

    async def report(self, reports: Sequence[Report]) -> None:
        """Close spools; those that are closed already keep their result, but get the rows.

        ``Result.suppress`` is obeyed in both cases.
        """
        ...

    async def receive(self, message: InboundText) -> Reception:
        """A message to one of our accounts."""
        ...

    async def receive_mail(self, mail: InboundMail) -> Reception:
        """A mail to one of our accounts."""
        ...

    async def serves_mail(self, address: str) -> bool:
        """Whether mail to this address would be taken; ``UnavailableError`` where nobody knows."""
        ...


class Gateway(Protocol):
    """One way out of the building. ``tests/suites/gateway_suite.py`` is its specification."""

    services: Service

    async def run(
        self, inbox: Inbox, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; ``task_status.started()`` once deliveries can be taken.

        Leaves nothing behind: cancelling it hangs up what is still up.
        """
        ...

    def check(self, provider: Provider) -> None:
        """``InvalidError`` naming the field that this gateway can never work with.

        Asked before a provider of its type is stored; secrets may be missing then.
        """
        ...

    async def providers(self, providers: Mapping[int, Provider]) -> None:
        """The active providers of this gateway's type, by id, whenever they change."""
        ...

    async def deliver(self, order: Order, progress: Progress) -> Fate:
        """Deliver and say what became of it; cancel = hang up / abandon, then ``Cancelled`` passes.

        Never raises for anything the outside did: failures classify themselves into the ``Result``.
        An ``Awaiting`` is followed by a ``Report`` to the inbox.
        """
        ...

    async def recall(self, spools: Sequence[Spool]) -> Mapping[int, Fate]:
        """What its journal knows, by spool id, of spools that were open when the node went down.

        Asked once, after ``run`` started and before the first ``deliver``. Those it does not name
        are closed as interrupted; a gateway without a journal names none.
        """
        ...

    def statistics(self) -> dict[str, Any]:
        """Queue lengths, calls up, workers: numbers and short strings, for dashboards."""
        ...
