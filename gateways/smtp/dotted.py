"""The text of a mail as SMTP carries it (RFC 5321 §4.5.2), piece by piece. Pure.

Strangers choose how many lines a mail has, so nothing here is done once per line.
"""

from __future__ import annotations

from gateways.smtp.session_caps import Budget

FULL = "452 4.3.1 Too much mail at once, try again later"

MAX_LINE = 1_001
"""Octets of a line without its CRLF; §4.5.3.1.6 allows 998, and a dot of transparency."""

_CRLF = b"\r\n"
_BARE = (b"\n.\n", b"\n.\r", b"\r.\n", b"\r.\r")


class DottedText:
    """The text of a mail as it comes: bounded, without what SMTP adds to it."""

    def __init__(self, budget: Budget, peer: str, limit: int) -> None:
        self._budget = budget
        self._peer = peer
        self._limit = limit
        self._octets = bytearray()
        self._open = _CRLF  # the line that has no end yet, from the line end before it
        self._held = 0
        self._seen = 0
        self.refusal = ""

    def add(self, piece: bytes) -> None:
        """What came, cut anywhere; the last piece ends with a CRLF."""
        if self._counted(len(piece)):
            return
        text = self._open + piece
        if any(end in text for end in _BARE):
            # Some servers take this for the end, and what follows for commands: smuggling.
            self._refuse("554 5.6.0 A line that ends in a bare CR or LF around a dot")
        elif _line_too_long(text):
            self._refuse("500 5.6.0 Line too long (RFC 5321 4.5.3.1.6)")
        else:
            whole = text.rfind(_CRLF)
            self._octets += text[:whole].replace(b"\r\n.", _CRLF)
            self._open = text[whole:]

    def _counted(self, octets: int) -> bool:
        """Count them; whether they are of no use any more."""
        self._seen += octets
        if self.refusal:
            return True
        if self._seen > self._limit:
            self._refuse("552 5.3.4 Message too big")
        elif not self._budget.take(self._peer, octets):
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
        """The whole; once. "" of what was refused."""
        octets, self._octets = self._octets, bytearray()
        octets += b"" if self.refusal else self._open
        self._open = _CRLF
        return bytes(memoryview(octets)[len(_CRLF) :])  # the line end before the first line

    def _release(self) -> None:
        held, self._held = self._held, 0
        self._budget.give_back(self._peer, held)

    def close(self) -> None:
        """It is taken or refused: its octets are not held any more."""
        self._octets = bytearray()
        self._release()


def _line_too_long(text: bytes) -> bool:
    """Of a text that begins with a line end; two steps at most for every thousand octets."""
    at = 0
    # One more: a CR at the very end may be half of a line end.
    while len(text) - at - len(_CRLF) > MAX_LINE + 1:
        start = at + len(_CRLF)
        at = text.rfind(_CRLF, start, start + MAX_LINE + len(_CRLF))
        if at < 0:
            return True
    return False
