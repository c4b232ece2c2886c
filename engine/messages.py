"""The media of messages: uploads taken in, kept, handed out, swept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from engine.auth import Principal
from engine.catalog import Catalog
from engine.errors import NotFoundError
from engine.media import MediaLibrary
from engine.model import Recording
from engine.store.base import Query


class Messages:
    """The media of one node's messages."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._store = catalog.store
        self._media = MediaLibrary(catalog.config)
        catalog.after_delete(Recording, self._retire)

    async def set_media(
        self, who: Principal, recording_id: int, chunks: AsyncIterator[bytes]
    ) -> Recording:
        """Take in the media of a recording; safe while a campaign plays the one before.

        Raises what ``MediaLibrary.store`` raises.
        """
        who.require("recording_create")
        await self._catalog.visible(who, Recording, recording_id)
        media = await self._media.store(chunks)
        async with self._catalog.edits[Recording]:
            before = await self._catalog.visible(who, Recording, recording_id)
            after = await self._store.update(
                msgspec.structs.replace(
                    before,
                    media_path=media.media_path,
                    original_path=media.original_path,
                    original_type=media.original_type,
                    length_s=media.length_s,
                    updated_at=self._catalog.clock(),
                )
            )
            await self._retire(before)
        return after

    async def media_path(self, who: Principal, recording_id: int) -> Path:
        """Where the WAV of a recording is; ``NotFoundError`` where none was uploaded."""
        recording = await self._catalog.read(who, Recording, recording_id)
        if not recording.media_path:
            raise NotFoundError("Recording media not found")
        return self._media.path(recording.media_path)

    async def _retire(self, recording: Recording) -> None:
        self._media.retire(recording.media_path, recording.original_path)
        rows = await self._store.find(Recording, Query())
        await self._media.sweep(
            frozenset(path for row in rows for path in (row.media_path, row.original_path))
        )
