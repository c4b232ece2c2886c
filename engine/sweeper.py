"""Files of the media folder that nobody owns go.

A file is on the disk before the row that names it: who is killed between the two leaves a file that
nobody knows, and so does who is killed before a superseded file is retired. What no row names an
hour after it was kept is retired; what was retired an hour ago goes, unless a row names it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from itertools import islice
from typing import Any

import structlog
import trio

from engine.config import Config
from engine.errors import UnavailableError
from engine.store.base import Store
from engine.uploads import MediaFolder

log = structlog.get_logger("sweeper")

EVERY_S = 3600.0
SLICE = 50_000
"""How many files the store is asked about at once; each time it passes over all attachments."""


class Sweeper:
    """Looks through the media folder at the start of a node and every hour."""

    def __init__(self, config: Config, store: Store) -> None:
        self._folder = MediaFolder(config, workers=1)
        self._store = store
        self._counts = Counter(rounds=0, orphans=0, removed=0)

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.sweep()
            except (UnavailableError, OSError) as error:
                log.warning("media_sweep_waits", cause=str(error))
            await trio.sleep(EVERY_S)

    async def sweep(self) -> None:
        """One round. ``UnavailableError`` (store) and ``OSError`` end it; the next goes on."""
        await self._folder.run(self._folder.clear_incoming)
        await self._remove()
        await self._retire()
        self._counts["rounds"] += 1

    def statistics(self) -> dict[str, Any]:
        """Rounds made; files that no row named, files that are gone."""
        return dict(self._counts)

    async def _remove(self) -> None:
        """What a row names after all stays: whoever kept it was slow."""
        async with aclosing(self._slices(self._folder.overdue())) as slices:
            async for paths in slices:
                gone = await self._store.unnamed(paths)
                spared = sorted({*paths} - {*gone})
                await self._folder.run(self._folder.remove, gone, spared)
                self._counts["removed"] += len(gone)

    async def _retire(self) -> None:
        orphans = 0
        async with aclosing(self._slices(self._folder.kept())) as slices:
            async for paths in slices:
                orphans += await self._folder.retire(*await self._store.unnamed(paths))
        self._counts["orphans"] += orphans
        if orphans:
            log.warning("media_orphaned", files=orphans)

    async def _slices(self, paths: Generator[str]) -> AsyncGenerator[list[str]]:
        """So many at a time, read in a thread."""
        with closing(paths):
            while some := await self._folder.run(lambda: list(islice(paths, SLICE))):
                yield some
