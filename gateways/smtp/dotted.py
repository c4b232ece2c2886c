"""The text of a mail as SMTP carries it (RFC 5321 §4.5.2), line by line. Pure."""

from __future__ import annotations

import re

from gateways.smtp.session_caps import Budget

FULL = "452 4.3.1 Too much mail at once, try again later"

_BARE = re.compile(rb"[\r\n]\.[\r\n]")


class DottedText:
    """The text of a mail as it comes: bounded, without what SMTP adds to it."""

    def __init__(self, budget: Budget, limit: int) -> None:
        self._budget = budget
        self._limit = limit
        self._octets = bytearray()
        self._held = 0
        self._seen = 0
        self.refusal = ""

    def add(self, line: bytes) -> None:
        """A line with its CRLF."""
        if self._counted(len(line)):
            return
        if _BARE.search(line) or (line[:1] == b"." and line[1:2] in (b"\r", b"\n")):
            # Some servers take this for the end, and what follows for commands: smuggling.
            self._refuse("554 5.6.0 A line that ends in a bare CR or LF around a dot")
            return
        self._octets += line[1:] if line.startswith(b".") else line

    def too_long(self, fragment: bytes) -> None:
        """A piece of a line that is longer than a line may be (§4.5.3.1.6)."""
        if not self._counted(len(fragment)):
            self._refuse("500 5.6.0 Line too long (RFC 5321 4.5.3.1.6)")

    def _counted(self, octets: int) -> bool:
        """Count them; whether they are of no use any more."""
        self._seen += octets
        if self.refusal:
            return True
        if self._seen > self._limit:
            self._refuse("552 5.3.4 Message too big")
        elif not self._budget.take(octets):
            self._refuse(FULL)
        else:
            self._held += octets
        return bool(self.refusal)

    def _refuse(self, reply: str) -> None:
        self.refusal = reply
        self._octets = bytearray()
        self._release()

    @property
    def beyond_hope(self) -> bool:
        """Twice what was allowed came, and still no end."""
        return self._seen > 2 * self._limit

    def raw(self) -> bytes:
        """The whole; once."""
        octets, self._octets = bytes(self._octets), bytearray()
        return octets

    def _release(self) -> None:
        held, self._held = self._held, 0
        self._budget.give_back(held)

    def close(self) -> None:
        """It is taken or refused: its octets are not held any more."""
        self._octets = bytearray()
        self._release()
