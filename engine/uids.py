"""New uids: UUIDs of version 4 whose random bytes are fetched for many at once.

``os.urandom`` gives up the interpreter lock; in a busy node getting it back costs more than the
random bytes do. They are the system's all the same: a Call-ID must not be guessed (RFC 3261
§8.1.1.4).
"""

from __future__ import annotations

import os
from uuid import UUID

_SIZE = 16
_AT_ONCE = 256


class _Supply:
    """Random bytes in store. For one thread: Trio's."""

    def __init__(self) -> None:
        self._bytes = b""
        self._used = 0

    def next(self) -> UUID:
        if self._used >= len(self._bytes):
            self._bytes = os.urandom(_SIZE * _AT_ONCE)
            self._used = 0
        start = self._used
        self._used += _SIZE
        return UUID(bytes=self._bytes[start : start + _SIZE], version=4)


_supply = _Supply()


def new_uid() -> UUID:
    """A new version 4 UUID; to be called on Trio's thread only."""
    return _supply.next()
