"""Files of the media folder that nobody owns go.

A file is on the disk before the row that names it: who is killed between the two leaves a file that
nobody knows, and so does who is killed before a superseded file is retired. What no row names an
hour after it was kept is retired; what was retired an hour ago goes, unless a row names it.

Beside another store than its own, the whole folder would be nobody's: it carries the identity of
the store it belongs to, and is swept for no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from itertools import islice
from typing import Any, TypeVar

import structlog
import trio

from engine.config import Config
from engine.errors import UnavailableError
from engine.store.base import Identity, Store
from engine.uploads import FOLDER, MediaFolder

T = TypeVar("T")

log = structlog.get_logger("sweeper")

EVERY_S = 3600.0
SLICE = 50_000
"""How many files the store is asked about at once; each time it passes over all attachments."""


class Sweeper:
    """Looks through the media folder at the start of a node and every hour."""

    def __init__(self, config: Config, store: Store) -> None:
        self._folder = MediaFolder(config, workers=1)
        self._path = config.data_path / FOLDER
        self._store = store
        self._counts = Counter(rounds=0, orphans=0, removed=0)
        self._foreign = False

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
        if not await self._belongs():
            return
        await self._folder.run(self._folder.clear_incoming)
        await self._remove()
        await self._retire()
        self._counts["rounds"] += 1

    def statistics(self) -> dict[str, Any]:
        """Rounds made; files that no row named, files that are gone."""
        return dict(self._counts)

    async def _belongs(self) -> bool:
        """Whether the folder is our store's, which it becomes at its first use."""
        store = await self._store.identity()
        found = await self._folder.run(self._folder.store)
        if not found and await self._may_be_of(store):
            await self._folder.run(self._folder.belong_to, store.uid)
            found = await self._folder.run(self._folder.store)
        foreign = found != store.uid
        if foreign and not self._foreign:
            log.error(
                "media_of_another_store", folder=str(self._path), store=store.uid, of=found or "?"
            )
        self._foreign = foreign
        return not foreign

    async def _may_be_of(self, store: Identity) -> bool:
        """Of a folder that says nothing: empty, with a file of a row, or younger than the store."""
        older = False
        async with aclosing(self._slices(self._folder.files())) as slices:
            async for files in slices:
                paths = [path for path, _ in files]
                if len(await self._store.unnamed(paths)) < len(paths):
                    return True
                if min(at for _, at in files) < store.born_at.timestamp():
                    older = True
        return not older

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

    async def _slices(self, items: Generator[T]) -> AsyncGenerator[list[T]]:
        """So many at a time, read in a thread."""
        with closing(items):
            while some := await self._folder.run(lambda: list(islice(items, SLICE))):
                yield some
