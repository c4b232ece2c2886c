"""From a TCP connection to a session that takes mail: greeting, EHLO, TLS, login. asyncio side."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import Sequence

from aiosmtplib.auth import auth_crammd5_verify, auth_plain_encode
from aiosmtplib.errors import SMTPAuthenticationError
from aiosmtplib.esmtp import parse_esmtp_extensions

from gateways.smtp import tls
from gateways.smtp.manner import Manner
from gateways.smtp.records import At, How, Route
from gateways.smtp.wire import BrokenWireError, Reply, Wire

MAX_TEXT = 512

_READY, _DONE, _LOGGED_IN, _GO_ON = 220, 250, 235, 334
_NO_COMMAND = (500, 501, 502, 504, 550)
_CONTROLS = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")


class Failed(Exception):  # noqa: N818 - an answer of the peer, as ``NoRoute``
    """No session: how far it came, and what decided it."""

    def __init__(self, at: At, how: How, *, code: int = 0, text: str = "") -> None:
        super().__init__(f"{how} at {at}: {code or ''} {text}")
        self.at, self.how, self.code, self.text = at, how, code, text


def clean(text: str) -> str:
    """A peer's words, fit for a row and a log: one line, no controls, 512 characters."""
    tidy = _CONTROLS.sub(" ", text[: 4 * MAX_TEXT]).encode("utf-8", "replace").decode()
    return tidy.strip()[:MAX_TEXT]


class Opening:
    """Makes one session on ``wire``; how far it is, is ``at``."""

    def __init__(self, manner: Manner, route: Route) -> None:
        self.at = At.CONNECT
        self.wire = Wire(asyncio.get_running_loop())
        self.extensions: dict[str, str] = {}
        self.tls = ""
        self._manner, self._route = manner, route
        self._mechanisms: list[str] = []

    async def run(self, *, plain: bool = False) -> None:
        """All of it; ``Failed``. ``plain``: no STARTTLS, even where it is offered."""
        try:
            await self._connect()
            if self._manner.implicit_tls:
                await self._encrypt()
            await self._greeting()
            await self._ehlo()
            if not self.tls and not plain and self._wants_tls():
                await self._starttls()
            if self._manner.username:
                await self._login()
        except BrokenWireError as error:
            raise Failed(self.at, error.how, text=clean(str(error))) from error

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._manner.implicit_tls:
            self.wire.expect()  # the greeting, which may be there as soon as the connection
        try:
            async with asyncio.timeout(self._manner.connect_timeout_s):
                await loop.create_connection(lambda: self.wire, self._route.host, self._route.port)
        except TimeoutError as error:
            raise Failed(At.CONNECT, How.TIMEOUT, text="no connection in time") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: no host name at all
            raise Failed(At.CONNECT, How.REFUSED, text=clean(str(error))) from error

    async def _greeting(self) -> None:
        """§3.1; 220 or nothing is sent to this peer."""
        self.at = At.GREETING
        await self._accept(await self._reply(), _READY)

    async def _ehlo(self) -> None:
        """§3.2: EHLO, and HELO for who does not know it."""
        self.at = At.EHLO
        reply = await self._ask(f"EHLO {self._manner.hostname}")
        if reply.code in _NO_COMMAND:
            reply = await self._ask(f"HELO {self._manner.hostname}")
            await self._accept(reply, _DONE)
            self.extensions, self._mechanisms = {}, []
            return
        await self._accept(reply, _DONE)
        self.extensions, self._mechanisms = parse_esmtp_extensions(reply.message)

    # --- TLS

    def _wants_tls(self) -> bool:
        mode, offered = self._manner.starttls, "starttls" in self.extensions
        if mode == "require" and not offered:
            raise Failed(At.TLS, How.UNTRUSTED, text="STARTTLS is required and not offered")
        return mode != "never" and offered

    async def _starttls(self) -> None:
        """RFC 3207 §4.2: what was said before is forgotten; octets after the 220 are an attack."""
        self.at = At.TLS
        await self._accept(await self._ask("STARTTLS"), _READY)
        if not self.wire.usable:
            raise Failed(At.TLS, How.LOST, text="octets between STARTTLS and TLS")
        await self._encrypt()
        await self._ehlo()

    async def _encrypt(self) -> None:
        self.at = At.TLS
        if self._manner.implicit_tls:
            self.wire.expect()  # the greeting may come with the end of the handshake
        try:
            context = tls.context(self._manner.ca_file, verify=self._route.verify)
        except OSError as error:
            raise Failed(At.TLS, How.UNTRUSTED, text=f"CA file: {clean(str(error))}") from error
        try:
            await self.wire.upgrade(context, self._route.name, self._manner.connect_timeout_s)
        except ssl.CertificateError as error:
            raise Failed(At.TLS, How.UNTRUSTED, text=clean(error.verify_message)) from error
        except ConnectionAbortedError as error:
            raise Failed(At.TLS, How.TIMEOUT, text="no TLS in time") from error
        except (OSError, ValueError) as error:  # of which all of ssl's; ValueError: no host name
            raise Failed(At.TLS, How.LOST, text=f"TLS failed: {clean(str(error))}") from error
        self.tls = self.wire.tls_version

    # --- login (RFC 4954)

    async def _login(self) -> None:
        self.at = At.AUTH
        manner = self._manner
        if not self.tls and not manner.auth_without_tls:
            raise Failed(At.AUTH, How.UNABLE, text="no login without TLS")
        mechanism = next((one for one in self._wanted() if one in self._mechanisms), "")
        if not mechanism:
            raise Failed(At.AUTH, How.UNABLE, text=f"AUTH {manner.auth} is not offered")
        reply = await self._exchange(mechanism)
        await self._accept(reply, _LOGGED_IN)

    def _wanted(self) -> Sequence[str]:
        if self._manner.auth != "auto":
            return (self._manner.auth,)
        return ("plain", "login", "cram-md5") if self.tls else ("cram-md5", "plain", "login")

    async def _exchange(self, mechanism: str) -> Reply:
        username, password = self._manner.username, self._manner.password
        if mechanism == "plain":
            return await self._ask(f"AUTH PLAIN {auth_plain_encode(username, password).decode()}")
        if mechanism == "login":
            reply = await self._ask("AUTH LOGIN")
            for secret in (username, password):
                if reply.code != _GO_ON:
                    return reply
                reply = await self._ask(base64.b64encode(secret.encode()).decode())
            return reply
        reply = await self._ask("AUTH CRAM-MD5")
        if reply.code != _GO_ON:
            return reply
        try:
            proof = auth_crammd5_verify(username, password, reply.message)
        except SMTPAuthenticationError as error:
            raise Failed(At.AUTH, How.LOST, text="no CRAM-MD5 challenge") from error
        return await self._ask(proof.decode())

    # --- commands

    async def _ask(self, line: str) -> Reply:
        self.wire.expect()
        self.wire.write(f"{line}\r\n".encode())
        return await self._reply()

    async def _reply(self) -> Reply:
        return await self.wire.reply(self._manner.reply_timeout_s)

    async def _accept(self, reply: Reply, code: int) -> None:
        if reply.code != code:
            text = reply.message
            if self.at is At.AUTH and self._manner.password:
                text = text.replace(self._manner.password, "***")
            raise Failed(self.at, How.REPLY, code=reply.code, text=clean(text))
