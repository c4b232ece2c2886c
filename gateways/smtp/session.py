"""One connection of a peer that brings mail: aiosmtpd's session, with what it leaves open closed.

Runs in the asyncio thread. It never relays: a recipient is one of ours or is refused at RCPT.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import ssl
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import structlog
from aiosmtpd import smtp

from gateways.smtp.dotted import DottedText
from gateways.smtp.intake import PUT_OFF, TAKEN, Reply
from gateways.smtp.loop import LoopEndedError
from gateways.smtp.session_caps import Tally, peer_of
from gateways.smtp.session_hooks import MECHANISMS, Hooks, Shared

log = structlog.get_logger("smtp")

TAKING_S = 30.0
"""Beyond the reading of a mail: what the store may take."""

GOODBYE_S = 2.0
"""How long a peer may take to read its last reply."""

PIECE_BYTES = 65_536
"""Of a mail, between two turns of the others."""

LEAST_BYTES = 16_384
"""Of a mail, in every ``listen_idle_s``: who brings less says nothing."""

_END = b"\r\n.\r\n"
_PATH = re.compile(
    r"<(?:@[^:<>\s]{1,255}:)?([^<>\x00-\x20\x7f]{0,320})>(?:[ \t]+([\x21-\x7e \t]*))?"
)
_NOT_HERE = "502 5.5.1 Not implemented"


class Session(smtp.SMTP):
    """One connection."""

    def __init__(self, shared: Shared, tls: ssl.SSLContext | None, hostname: str) -> None:
        config = shared.config
        self._shared = shared
        self._tally = Tally()
        self._peer: str | None = None  # None: it has no seat
        self._heard_at = 0.0
        self._taking = False
        self._ended = False
        self._last_words = ""
        self._timers: list[asyncio.TimerHandle] = []
        super().__init__(
            Hooks(shared),
            data_size_limit=config.max_message_bytes,
            enable_SMTPUTF8=True,
            hostname=hostname,
            ident="ESMTP",
            tls_context=tls,
            require_starttls=config.listen_require_tls,
            timeout=config.listen_idle_s,
            auth_required=bool(config.listen_username),
            auth_exclude_mechanism=() if config.listen_username else MECHANISMS,
            authenticator=self._authenticated,
            loop=asyncio.get_running_loop(),
        )
        # aiosmtpd's is one for all sessions; the limit of a line is the reader's anyway.
        self.command_size_limit = self.line_length_limit
        self.command_size_limits = defaultdict(lambda: self.line_length_limit)

    # --- life ------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer came, or its TLS is up."""
        if self._original_transport is None and not self._seated(transport):
            return
        super().connection_made(transport)

    def _seated(self, transport: Any) -> bool:
        shared, peer = self._shared, peer_of(str((transport.get_extra_info("peername") or "?")[0]))
        shared.counts["connections"] += 1
        if not shared.seats.take(peer):
            shared.counts["no_seat"] += 1
            transport.write(b"421 4.3.2 Too many connections\r\n")
            transport.close()
            self.loop.call_later(GOODBYE_S, transport.abort)
            return False
        self._peer = peer
        shared.sessions.add(self)
        after_s = shared.config.listen_session_s
        self._timers.append(self.loop.call_later(after_s, self.end, "421 4.4.2 Too long"))
        return True

    @property
    def peer(self) -> str:
        """Who is counted as one (``peer_of``); "" without a seat."""
        return self._peer or ""

    def connection_lost(self, error: Exception | None) -> None:
        """It is over, whoever ended it."""
        shared = self._shared
        if self._peer is None or self not in shared.sessions:
            return
        shared.sessions.remove(self)
        shared.seats.leave(self._peer)
        for timer in self._timers:
            timer.cancel()
        if not shared.sessions:
            shared.empty.set()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Unless it had no seat, or nobody listens any more."""
        if self._peer is not None and not self._ended:
            super().data_received(data)

    def eof_received(self) -> bool | None:
        """As ``data_received``."""
        return False if self._peer is None else super().eof_received()

    def end(self, words: str) -> None:
        """Say this and close; a mail that is being taken gets its answer first."""
        if self._taking:
            self._last_words = words
            return
        if self._ended or self.transport is None:
            return
        self._ended = True
        self._shared.counts["ended_by_us"] += 1
        transport: Any = self.transport
        if not transport.is_closing():  # it said QUIT
            transport.write(words.encode() + b"\r\n")
            transport.close()
        # Who does not read would keep it open for ever.
        self._timers.append(self.loop.call_later(GOODBYE_S, self.abort))
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        raw: Any = self._original_transport or self.transport
        if raw is not None:
            raw.abort()
        # asyncio does not tell who waits for a TLS handshake.
        self.loop.call_soon(self.connection_lost, None)

    async def _handle_client(self) -> None:
        try:
            await super()._handle_client()
        except ConnectionError:
            self._shared.counts["lost"] += 1

    async def handle_exception(self, error: Exception) -> str:
        """What no rule of ours foresees; the peer learns nothing of it."""
        if isinstance(error, smtp.TLSSetupException):
            self._shared.counts["tls_failed"] += 1
        else:
            self._shared.counts["faults"] += 1
            log.error("smtp.session_fault", exc_info=error)
        return str(PUT_OFF)

    # --- time ------------------------------------------------------------------------------------
    def _reset_timeout(self, _duration: float | None = None) -> None:
        """The peer said something. One timer, moved when it rings: lines come by the thousand."""
        self._heard_at = self.loop.time()
        if self._timeout_handle is None:
            self._timeout_handle = self.loop.call_later(self._timeout_duration, self._timeout_cb)

    def _timeout_cb(self) -> None:
        left_s = self._heard_at + self._timeout_duration - self.loop.time()
        if self._taking or left_s > 0:
            wait_s = left_s if left_s > 0 else self._timeout_duration
            self._timeout_handle = self.loop.call_later(wait_s, self._timeout_cb)
        else:
            self.end("421 4.4.2 Idle for too long")

    # --- commands --------------------------------------------------------------------------------
    async def push(self, status: str | bytes) -> None:
        """Say it, or that it is enough (RFC 5321 §4.2.5 lets a server close after a 421)."""
        text = status if isinstance(status, str) else status.decode("ascii", "replace")
        enough = self._tally.answered(text)
        if enough:
            self._shared.counts["enough"] += 1
            self.end(enough)
            await asyncio.sleep(0)  # the end has cancelled us
            return
        if not self._ended:
            await super().push(text)

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """A path in its angle brackets and what follows; source routes are dropped (app. C)."""
        found = _PATH.fullmatch(arg)
        if found is None:
            return None, None
        address, rest = found.groups()
        # The one null sender of aiosmtpd: "" is what it takes for nothing said.
        return address or "<>", rest or ""

    async def smtp_STARTTLS(self, arg: str | None) -> None:  # noqa: N802
        """Once: there is no TLS within TLS (RFC 3207 §4.2)."""
        if self._tls_protocol is not None:
            await self.push("503 5.5.1 TLS is up")
            return
        await super().smtp_STARTTLS(arg)

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802 - aiosmtpd calls it
        """Mechanisms are named in any case (RFC 4954 §3)."""
        mechanism, blank, rest = (arg or "").partition(" ")
        await super().smtp_AUTH(mechanism.upper() + blank + rest)

    def _authenticated(self, *asked: Any) -> smtp.AuthResult:
        login, password = asked[-1]
        config = self._shared.config
        # Both are compared whatever the first says: time tells nothing.
        known = hmac.compare_digest(login, config.listen_username.encode())
        right = hmac.compare_digest(password, config.listen_password.encode())
        if known and right:
            return smtp.AuthResult(success=True)
        self._shared.counts["login_failed"] += 1
        log.warning("smtp.login_failed", peer=self._peer)
        # handled=True would leave the peer without an answer.
        return smtp.AuthResult(success=False, handled=False)

    async def smtp_VRFY(self, _arg: str | None) -> None:  # noqa: N802
        """Nobody learns who is here but by RCPT, which is counted."""
        await self.push(_NOT_HERE)

    async def smtp_EXPN(self, _arg: str | None) -> None:  # noqa: N802
        """As VRFY."""
        await self.push(_NOT_HERE)

    async def smtp_HELP(self, _arg: str | None) -> None:  # noqa: N802
        """Without a list of what may be tried."""
        await self.push("214 2.0.0 See RFC 5321")

    # --- mails -----------------------------------------------------------------------------------
    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802
        """Read the mail and take it (RFC 5321 §4.1.1.4, §4.5.2).

        aiosmtpd's own keeps every line as an object, and those of a line without end for ever.
        """
        if await self.check_helo_needed() or await self.check_auth_needed("DATA"):
            return
        envelope: Any = self.envelope
        if not envelope.rcpt_tos:
            await self.push("503 5.5.1 Error: need RCPT command")
            return
        if arg:
            await self.push("501 5.5.4 Syntax: DATA")
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        shared = self._shared
        text = DottedText(shared.budget, self.peer, shared.config.max_message_bytes)
        try:
            await self._read(text)
            self.envelope = self._create_envelope()
            reply = text.refusal or await self._taken(text.raw(), envelope)
        finally:
            text.close()
        await self.push(reply)
        if self._last_words:
            self.end(self._last_words)

    async def _read(self, text: DottedText) -> None:
        reader: Any = self._reader
        # The end may be the first line: what stands before it is the line end of DATA.
        reader._buffer[:0] = b"\r\n"  # noqa: SLF001 - nothing else puts octets back
        skipped, since = 2, 0
        while True:
            try:
                piece = await reader.readuntil(_END)
            except asyncio.LimitOverrunError as error:
                piece = await reader.read(min(error.consumed, PIECE_BYTES))
                text.add(piece[skipped:])
                skipped, since = 0, since + len(piece)
                if since >= LEAST_BYTES:
                    self._heard_at, since = self.loop.time(), 0
                if text.beyond_hope:
                    self.end("552 5.3.4 Message too big")
                await asyncio.sleep(0)  # for the others; the end has cancelled us
            else:
                text.add(piece[skipped : 2 - len(_END)])
                return

    async def _taken(self, raw: bytes, envelope: Any) -> str:
        sender = "" if envelope.mail_from == "<>" else envelope.mail_from
        recipients = tuple(envelope.rcpt_tos)
        shared, self._taking = self._shared, True
        try:
            replies = await shared.loop.ask(
                lambda: shared.intake.take(raw, sender, recipients),
                shared.config.read_timeout_s + TAKING_S,
            )
        except (TimeoutError, LoopEndedError) as error:
            log.warning("smtp.mail_put_off", cause=str(error))
            return str(PUT_OFF)
        finally:
            self._taking = False
            self._reset_timeout()
        reply = one_of(replies)
        if reply.code == TAKEN.code:
            self._tally.mail_taken()
            shared.counts["mails"] += 1
        return str(reply)


def one_of(replies: Sequence[Reply]) -> Reply:
    """SMTP has one reply for all recipients of a mail.

    What one of them has to get later comes again for all; those who have it are told by its key.
    What one of them has is taken: nobody bounces it for the others, who were wanted at RCPT.
    """
    later = [reply for reply in replies if reply.later]
    taken = [reply for reply in replies if reply.code // 100 == 2]  # noqa: PLR2004
    return (later or taken or list(replies))[0]
