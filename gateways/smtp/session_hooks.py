"""What all sessions of the listener have together, and what is answered to a mail's envelope."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from engine.config import SmtpConfig
from engine.errors import UnavailableError
from gateways.smtp.dotted import FULL
from gateways.smtp.intake import NO_ROOM, NOBODY, PUT_OFF, Reply
from gateways.smtp.loop import Loop, LoopEndedError
from gateways.smtp.room import NoRoomError
from gateways.smtp.session_caps import Budget, Seats

if TYPE_CHECKING:
    from gateways.smtp.session import Session

log = structlog.get_logger("smtp")

WANTED_S = 15.0
"""How long a peer waits for RCPT's answer before it is told to come again."""

MECHANISMS = ("PLAIN", "LOGIN")
_ADVERTISED_BY_US = ("250-AUTH", "250 HELP")


class Taking(Protocol):
    """What is needed of ``Intake``."""

    async def wanted(self, recipient: str) -> bool:
        """Whether mail to this address would be taken."""
        ...

    async def take(
        self, raw: bytes, mail_from: str, recipients: Sequence[str], *, provider_id: int = 0
    ) -> list[Reply]:
        """Make it durable; one reply per recipient."""
        ...


class Shared:
    """What all sessions of a listener have together."""

    def __init__(self, config: SmtpConfig, loop: Loop, intake: Taking, budget: Budget) -> None:
        self.config = config
        self.loop = loop
        self.intake = intake
        self.budget = budget
        self.seats = Seats(config.listen_connections, config.listen_connections_per_address)
        self.sessions: set[Session] = set()
        self.empty = asyncio.Event()  # set when the last session ends
        self.counts: Counter[str] = Counter()


class Hooks:
    """What aiosmtpd asks us at each command; answers are whole replies."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def handle_EHLO(  # noqa: N802
        self, server: Session, session: Any, _envelope: Any, hostname: str, offers: list[str]
    ) -> list[str]:
        """Offer what there is, without HELP; AUTH only where somebody can log in."""
        session.host_name = hostname
        offers = [one for one in offers if not one.startswith(_ADVERTISED_BY_US)]
        if self._shared.config.listen_username and server._tls_protocol is not None:  # noqa: SLF001
            offers.append("250-AUTH " + " ".join(MECHANISMS))
        return [*offers, "250 ENHANCEDSTATUSCODES"]

    async def handle_MAIL(  # noqa: N802
        self, server: Session, _session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        """A sender; the size it promises must fit now, but is not held before it comes."""
        if not _writable(address, envelope):
            return "553 5.6.7 Not ASCII, and without SMTPUTF8"
        sizes = [option[5:] for option in options if option.startswith("SIZE=")]
        if sizes and int(sizes[0]) > self._shared.budget.left(server.peer):
            self._shared.counts["too_full"] += 1
            return FULL
        envelope.mail_from = address
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802
        self, _server: Session, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        """A recipient of ours, or none."""
        if len(envelope.rcpt_tos) >= self._shared.config.listen_recipients:
            return "452 4.5.3 Too many recipients"
        if not _writable(address, envelope):
            return "553 5.6.7 Not ASCII, and without SMTPUTF8"
        try:
            wanted = address != "<>" and await self._shared.loop.ask(
                lambda: self._shared.intake.wanted(address), WANTED_S
            )
        except NoRoomError:
            self._shared.counts["no_room"] += 1
            return str(NO_ROOM)
        except (UnavailableError, TimeoutError, LoopEndedError) as error:
            log.warning("smtp.recipient_put_off", cause=str(error))
            return str(PUT_OFF)
        if not wanted:
            self._shared.counts["unwanted"] += 1
            return str(NOBODY)
        if address not in envelope.rcpt_tos:
            envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"


def _writable(address: str, envelope: Any) -> bool:
    """Whether it is ASCII, or UTF-8 that was announced (RFC 6531 §3.4)."""
    if address.isascii():
        return True
    with suppress(UnicodeEncodeError):
        address.encode()
        return bool(envelope.smtp_utf8)
    return False
