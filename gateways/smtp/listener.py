"""The SMTP listener: bounces, and mail to our accounts (RFC 5321). It takes, and sends nothing."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
import trio

from engine.config import SmtpConfig
from engine.errors import InvalidError
from gateways.smtp.loop import Loop, LoopEndedError
from gateways.smtp.session import Session
from gateways.smtp.session_caps import Budget
from gateways.smtp.session_hooks import Shared, Taking

log = structlog.get_logger("smtp")

MAX_HELD_BYTES = 268_435_456
"""Of raw mail that comes in, of all sessions together."""

CLOSE_S = 5.0
"""How long sessions may take to end when the node stops."""

_SHARES = 4  # of what is held, one for each peer
_BACKLOG = 128

# It would write addresses and commands at info.
logging.getLogger("mail.log").setLevel(logging.CRITICAL)


class Listener:
    """Listens at ``listen_host:listen_port`` while ``run`` runs; port 0 is any that is free."""

    def __init__(self, config: SmtpConfig, loop: Loop, intake: Taking) -> None:
        """``InvalidError``: TLS or a login is asked for, and what it takes is not there."""
        if config.listen_username and not config.listen_password:
            field = "listen_password"
            raise InvalidError(f"smtp.{field}: needed for a login", field=field)
        self._config = config
        self._loop = loop
        self._certificate = _Certificate(config)
        self._hostname = config.hostname or socket.gethostname()
        # One mail as big as may be must fit.
        share = max(MAX_HELD_BYTES // _SHARES, config.max_message_bytes)
        self._shared = Shared(config, loop, intake, Budget(MAX_HELD_BYTES, share))
        self._server: asyncio.Server | None = None

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; tells the port. ``OSError``: no such address, or no certificate."""
        port = await self._loop.run(self._open)
        log.info("smtp.listening", host=self._config.listen_host, port=port)
        task_status.started(port)
        try:
            await trio.sleep_forever()
        finally:
            # Where the loop is gone, so are the sessions.
            with trio.CancelScope(shield=True), suppress(LoopEndedError):
                await self._loop.run(self._close)

    # --- asyncio side ----------------------------------------------------------------------------
    async def _open(self) -> int:
        self._certificate.context()  # where it cannot be read, nobody is let in
        self._server = await asyncio.get_running_loop().create_server(
            self._session, self._config.listen_host, self._config.listen_port, backlog=_BACKLOG
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def _session(self) -> Session:
        return Session(self._shared, self._certificate.context(), self._hostname)

    async def _close(self) -> None:
        assert self._server is not None  # noqa: S101 - _open made it
        self._server.close()
        for session in list(self._shared.sessions):
            session.end("421 4.3.2 Going down")
        if self._shared.sessions:
            self._shared.empty.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._shared.empty.wait(), CLOSE_S)
        for session in list(self._shared.sessions):
            session.abort()

    def statistics(self) -> dict[str, Any]:
        """Sessions that are up, octets that may still come, what was seen since the start."""
        shared = self._shared
        return {
            "sessions": len(shared.sessions),
            "free_bytes": shared.budget.free,
            **shared.counts,
        }


class _Certificate:
    """Read again when its file changes: certificates live for weeks, nodes for months."""

    def __init__(self, config: SmtpConfig) -> None:
        self._files = (config.listen_certificate, config.listen_key or None)
        self._changed_at = 0
        self._context: ssl.SSLContext | None = None
        wanted = config.listen_require_tls or config.listen_username
        if wanted and not config.listen_certificate:
            field = "listen_certificate"
            raise InvalidError(f"smtp.{field}: needed for TLS and logins", field=field)

    def context(self) -> ssl.SSLContext | None:
        """For a new session; None without a certificate."""
        path, key = self._files
        if not path:
            return None
        try:
            changed_at = Path(path).stat().st_mtime_ns
            if changed_at != self._changed_at:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(path, key)
                self._context, self._changed_at = context, changed_at
        except (OSError, ssl.SSLError) as error:
            if self._context is None:
                raise
            # Half written, or without its new key: the old one goes on.
            log.warning("smtp.certificate_unreadable", error=type(error).__name__)
        return self._context
