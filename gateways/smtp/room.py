"""Whether the disk has room for strangers' mail: the store and the journals need it too."""

from __future__ import annotations

import shutil
from pathlib import Path

import structlog
import trio

from engine.errors import UnavailableError

log = structlog.get_logger("smtp")

EVERY_S = 1.0
"""How long an answer of the disk holds."""


class NoRoomError(UnavailableError):
    """Less is free than must be."""


class Room:
    """The free room of a folder's disk, and how much there must be; 0 = whatever there is."""

    def __init__(self, folder: Path, min_free_bytes: int) -> None:
        self._folder = folder
        self._least = min_free_bytes
        self._asked_at = float("-inf")
        self._enough = True

    async def check(self) -> None:
        """``NoRoomError`` where too little is free, or the disk does not say."""
        if self._least and trio.current_time() >= self._asked_at + EVERY_S:
            self._tell(await trio.to_thread.run_sync(self._free))
            self._asked_at = trio.current_time()
        if not self._enough:
            raise NoRoomError("no room for mail on the disk")

    def _free(self) -> int:
        try:
            return shutil.disk_usage(self._folder).free
        except OSError as error:
            log.warning("smtp.disk_unreadable", cause=str(error))
            return 0

    def _tell(self, free: int) -> None:
        enough = free >= self._least
        if enough != self._enough:
            log.warning("smtp.room" if enough else "smtp.no_room", free_bytes=free)
        self._enough = enough
