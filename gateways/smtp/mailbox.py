"""One IMAP connection (RFC 9051, RFC 3501), blocking, for a thread of its own. Nothing of ours."""

from __future__ import annotations

import imaplib
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from gateways.smtp.settings import ImapSettings

SOCKET_S = 30.0
"""Until each reply."""

_IMPLICIT_PORT, _PORT = 993, 143
_WINDOW = 10_000  # UIDs asked for in one search: replies stay short whatever the mailbox holds
_SLICE = 100
_OVERHEAD = 65_536  # octets beyond a mail that a reply may have
_SIZE = re.compile(rb"\bUID (\d+)\b.*?\bRFC822\.SIZE (\d+)|\bRFC822\.SIZE (\d+)\b.*?\bUID (\d+)")
_DEAD = (OSError, imaplib.IMAP4.abort)


class LoginRefusedError(Exception):
    """The server is there and does not let us in."""


class MailboxError(Exception):
    """The connection, the server or the folder fails; another try may help."""


class DisposalRefusedError(MailboxError):
    """The server does not do that with a mail. ``copied``: it did that much, which is enough."""

    def __init__(self, why: str, *, copied: bool) -> None:
        super().__init__(why)
        self.copied = copied


class _Ours:
    """What imaplib's clients lack; ``box`` gets hold of them before they wait for a greeting."""

    def __init__(self, box: Mailbox, *args: Any, **named: Any) -> None:
        self._box = box
        super().__init__(*args, **named)

    def open(self, *args: Any, **named: Any) -> None:
        """Connect."""
        super().open(*args, **named)  # type: ignore[misc]
        self._box.hold(self)

    def read(self, size: int) -> bytes:
        """A literal: a server that goes mad does not fill the memory."""
        if size > self._box.limit:
            raise imaplib.IMAP4.abort("a literal is longer than what was asked for")
        octets: bytes = super().read(size)  # type: ignore[misc]
        return octets


class _Plain(_Ours, imaplib.IMAP4):
    pass


class _Implicit(_Ours, imaplib.IMAP4_SSL):
    pass


class Mailbox:
    """``open`` first; ``MailboxError`` from every method. ``cut`` may come from another thread."""

    def __init__(self, settings: ImapSettings, *, ca_file: str, max_bytes: int) -> None:
        self._settings = settings
        self._ca_file = ca_file
        self._max_bytes = max_bytes
        self.limit = max_bytes + _OVERHEAD
        self._client: Any = None
        self._cut = False
        self.uidvalidity = 0
        self._uidnext = 0
        self._capabilities: frozenset[str] = frozenset()

    def open(self) -> None:
        """Connect, log in, select the folder; ``LoginRefusedError``."""
        self._guard(self._connect)
        try:
            self._guard(self._log_in)
        except MailboxError as error:
            if isinstance(error.__cause__, _DEAD):
                raise
            raise LoginRefusedError(str(error)) from None
        self._guard(self._select)

    def _connect(self) -> None:
        settings = self._settings
        port = settings.port or (_IMPLICIT_PORT if settings.tls == "implicit" else _PORT)
        if settings.tls == "implicit":
            _Implicit(self, settings.host, port, ssl_context=self._context(), timeout=SOCKET_S)
            return
        client = _Plain(self, settings.host, port, timeout=SOCKET_S)
        if settings.tls == "starttls":
            client.starttls(ssl_context=self._context())

    def hold(self, client: Any) -> None:
        """It is connected: ``cut`` and ``close`` reach it from now on."""
        self._client = client
        if self._cut:
            raise imaplib.IMAP4.abort("cut")

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._ca_file or None)
        if not self._settings.verify_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _log_in(self) -> None:
        self._client.login(self._settings.username, self._settings.password)

    def _select(self) -> None:
        client = self._client
        # Servers say the most after the login (RFC 9051 §6.2.3), and imaplib asks before it only.
        said = b" ".join(_checked(client.capability()))
        self._capabilities = frozenset(said.decode("ascii", "replace").upper().split())
        _checked(client.select(_quoted(self._settings.folder)))
        self.uidvalidity = _number(client.response("UIDVALIDITY"))
        self._uidnext = _number(client.response("UIDNEXT"))

    def newer(self, uid: int) -> Iterator[tuple[int, int]]:
        """UID and size in octets of the mails with a UID above, in order."""
        first = uid + 1
        while first < self._uidnext:
            last = min(first + _WINDOW, self._uidnext) - 1
            found = self._guard(partial(self._search, first, last))
            for start in range(0, len(found), _SLICE):
                part = found[start : start + _SLICE]
                yield from self._guard(partial(self._sizes, part))
            first = last + 1

    def _search(self, first: int, last: int) -> list[int]:
        [found] = _checked(self._client.uid("SEARCH", None, f"UID {first}:{last}"))
        uids = {int(uid) for uid in (found or b"").split()}
        return sorted(uid for uid in uids if first <= uid <= last)

    def _sizes(self, uids: list[int]) -> list[tuple[int, int]]:
        asked = ",".join(map(str, uids))
        lines = _checked(self._client.uid("FETCH", asked, "(UID RFC822.SIZE)"))
        sizes = {}
        for line in lines:
            if isinstance(line, bytes) and (found := _SIZE.search(line)):
                uid, size, other_size, other_uid = found.groups()
                sizes[int(uid or other_uid)] = int(size or other_size)
        return [(uid, sizes[uid]) for uid in uids if uid in sizes]

    def fetch(self, uid: int) -> bytes | None:
        """The mail, not marked as seen; None where it is gone."""
        asked = f"(UID BODY.PEEK[]<0.{self._max_bytes + 1}>)"
        lines = self._guard(lambda: _checked(self._client.uid("FETCH", str(uid), asked)))
        for line in lines:
            if isinstance(line, tuple) and b"BODY[]" in line[0].upper():
                return bytes(line[1])
        return None

    def dispose(self, uid: int) -> None:
        """Do with a mail that was taken what the settings say; ``DisposalRefusedError``.

        A mail that is gone is no error (RFC 9051 §6.4.9).
        """
        copied = False
        for command, *arguments in self._disposal(str(uid)):
            try:
                self._guard(partial(self._tell, command, *arguments))
            except MailboxError as error:
                if isinstance(error.__cause__, _DEAD):
                    raise
                raise DisposalRefusedError(str(error), copied=copied) from None
            copied = copied or command == "COPY"

    def _tell(self, *command: str) -> None:
        _checked(self._client.uid(*command))

    def _disposal(self, uid: str) -> Iterator[tuple[str, ...]]:
        after, folder = self._settings.after, _quoted(self._settings.move_to)
        if after == "seen":
            yield "STORE", uid, "+FLAGS.SILENT", r"(\Seen)"
            return
        if after == "move" and "MOVE" in self._capabilities:
            yield "MOVE", uid, folder
            return
        if after == "move":
            yield "COPY", uid, folder
        yield "STORE", uid, "+FLAGS.SILENT", r"(\Deleted)"
        # Without UIDPLUS it stays marked: EXPUNGE would remove what others have marked too.
        if "UIDPLUS" in self._capabilities:
            yield "EXPUNGE", uid

    def close(self) -> None:
        """Log out; it may be closed already."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(*_DEAD, imaplib.IMAP4.error):
                client.logout()
            with suppress(OSError):
                client.shutdown()

    def cut(self) -> None:
        """End whatever waits for the server, from any thread."""
        self._cut = True
        client = self._client
        if client is not None and getattr(client, "sock", None) is not None:
            with suppress(OSError):
                client.sock.shutdown(socket.SHUT_RDWR)

    def _guard(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (*_DEAD, imaplib.IMAP4.error, ValueError) as error:
            # The server's words, and OpenSSL's; a password is in none of them.
            raise MailboxError(f"{type(error).__name__}: {str(error)[:200]}") from error


def _checked(answer: tuple[str, list[Any]]) -> list[Any]:
    kind, data = answer
    if kind != "OK":
        raise imaplib.IMAP4.error(repr(data)[:200])
    return data


def _number(answer: tuple[str, list[Any]]) -> int:
    """Of an untagged response code; 0 where the server did not say it."""
    _, data = answer
    return int(data[0]) if data and data[0] else 0


def _quoted(name: str) -> str:
    """A folder's name (modified UTF-7 is the operator's to write: RFC 9051 §5.1)."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
