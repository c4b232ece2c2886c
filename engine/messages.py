"""The media of messages: uploads taken in, added to, handed out; files retired with their rows."""

from __future__ import annotations

import mimetypes
import re
import tempfile
import zipfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from engine.auth import Principal
from engine.catalog import FAMILY, Catalog
from engine.documents import Documents, Pages
from engine.errors import InvalidError, NotFoundError, TooLargeError
from engine.filenames import safe_name
from engine.media import Sound, Sounds
from engine.model import Document, Recording, Template
from engine.uploads import MediaFolder

M = TypeVar("M", Recording, Document)

MAX_ATTACHMENTS = 10
_DEFAULT_TYPE = "application/octet-stream"
_MEDIA_TYPE = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}")


class Attachment(msgspec.Struct, frozen=True):
    """A file that goes with an e-mail. ``path`` is absolute, ``size`` in bytes."""

    path: Path
    name: str
    type: str
    size: int


class Messages:
    """The media of one node's messages."""

    def __init__(self, catalog: Catalog) -> None:
        config = catalog.config
        self._catalog = catalog
        self._folder = MediaFolder(config)
        self._max_bytes = config.http.max_media_bytes
        self._takers: dict[type[Any], Sounds | Documents] = {
            Recording: Sounds(self._folder, max_s=config.media.max_recording_s),
            Document: Documents(self._folder, config.media),
        }
        for kind in (Recording, Document, Template):
            catalog.after_delete(kind, self._retire)

    # --- recordings and documents ---------------------------------------------------------------
    async def set_media(
        self, who: Principal, kind: type[M], message_id: int, chunks: AsyncIterator[bytes]
    ) -> M:
        """Take in the media of a message; safe while a campaign uses the one before.

        Raises what ``MediaFolder.received`` and the kind's ``take`` raise.
        """
        await self._asked(who, kind, message_id)
        async with self._folder.received(chunks) as part:
            made = await self._takers[kind].take(part)
        saved = await self._save(who, kind, message_id, made)
        assert saved is not None  # noqa: S101 - nothing was expected of what is there
        return saved

    async def add_media(
        self, who: Principal, kind: type[M], message_id: int, chunks: AsyncIterator[bytes]
    ) -> M:
        """Add sound or pages to the end of what a message has. Raises as ``set_media``."""
        await self._asked(who, kind, message_id)
        taker, original, saved = self._takers[kind], "", None
        async with self._folder.received(chunks) as source:
            try:
                while saved is None:
                    before = await self._catalog.visible(who, kind, message_id)
                    if before.media_path:
                        came = self._folder.path(original) if original else source
                        made = await taker.join(before.media_path, came)
                    else:
                        made = await taker.take(source)
                        original = made.original_path
                    saved = await self._save(
                        who, kind, message_id, made, expected=before.media_path
                    )
            finally:
                if original and (saved is None or saved.original_path != original):
                    self._folder.discard(original)
        return saved

    async def media(self, who: Principal, kind: type[M], message_id: int) -> Path:
        """Where the media of a message is; ``NotFoundError`` where none was uploaded."""
        message = await self._catalog.read(who, kind, message_id)
        if not message.media_path:
            raise NotFoundError(f"{kind.__name__} media not found")
        return self._folder.path(message.media_path)

    async def _asked(self, who: Principal, kind: type[Any], message_id: int) -> None:
        who.require(f"{FAMILY[kind]}_create")
        await self._catalog.visible(who, kind, message_id)

    async def _save(
        self,
        who: Principal,
        kind: type[M],
        message_id: int,
        made: Sound | Pages,
        *,
        expected: str | None = None,
    ) -> M | None:
        """Write down what was made; None where the media is not what was ``expected`` any more."""
        saved: M | None = None
        try:
            async with self._catalog.edits[kind]:
                before = await self._catalog.visible(who, kind, message_id)
                if expected is None or before.media_path == expected:
                    saved = await self._catalog.store.update(self._with(before, made))
        finally:
            if saved is None:
                original = made.original_path if expected is None else ""
                self._folder.discard(made.media_path, original)
        if saved is not None:
            await self._retire(before)
        return saved

    def _with(self, message: M, made: Sound | Pages) -> M:
        return msgspec.structs.replace(
            message,
            type=Path(made.media_path).suffix.removeprefix("."),
            updated_at=self._catalog.clock(),
            **msgspec.structs.asdict(made),
        )

    # --- attachments of templates ---------------------------------------------------------------
    async def attach(
        self,
        who: Principal,
        template_id: int,
        chunks: AsyncIterator[bytes],
        *,
        name: str,
        type: str,  # noqa: A002 - the word for it
        replace: bool,
    ) -> Template:
        """Add a file to a template, or put it in the place of all it has.

        ``name`` and ``type`` are what the client says; both are made harmless. Raises
        ``InvalidError`` beyond ``MAX_ATTACHMENTS``, ``TooLargeError`` beyond the limit of one
        upload for all of them, and what ``MediaFolder.received`` raises.
        """
        await self._asked(who, Template, template_id)
        async with self._folder.received(chunks) as part:
            size = part.stat().st_size
            [path] = await self._folder.keep((part, "attachment"))
        saved = None
        try:
            async with self._catalog.edits[Template]:
                before = await self._catalog.visible(who, Template, template_id)
                kept = () if replace else before.attachments
                one = _attachment(path, name, type, size, len(kept) + 1)
                after = self._checked((*kept, one))
                saved = await self._catalog.store.update(
                    msgspec.structs.replace(
                        before, attachments=after, updated_at=self._catalog.clock()
                    )
                )
        finally:
            if saved is None:
                self._folder.discard(path)
        if replace:
            await self._retire(before)
        return saved

    def _checked(self, attachments: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        if len(attachments) > MAX_ATTACHMENTS:
            raise InvalidError(f"media: a template has at most {MAX_ATTACHMENTS} attachments")
        if sum(one["size"] for one in attachments) > self._max_bytes:
            raise TooLargeError(f"media: all attachments are larger than {self._max_bytes} bytes")
        return attachments

    async def attachments(self, who: Principal, template_id: int) -> list[Attachment]:
        """The files of a template, at least one; ``NotFoundError`` where there is none."""
        template = await self._catalog.read(who, Template, template_id)
        if not template.attachments:
            raise NotFoundError("Template file not found")
        return [
            Attachment(self._folder.path(one["path"]), one["name"], one["type"], one["size"])
            for one in template.attachments
        ]

    async def bundle(self, attachments: Sequence[Attachment]) -> IO[bytes]:
        """A ZIP of several files, in a file without a name: closing it removes it."""
        return await self._folder.run(_zipped, attachments)

    async def _retire(self, message: Recording | Document | Template) -> None:
        if isinstance(message, Template):
            await self._folder.retire(*(one["path"] for one in message.attachments))
        else:
            await self._folder.retire(message.media_path, message.original_path)


def _attachment(path: str, name: str, kind: str, size: int, number: int) -> dict[str, Any]:
    media_type = kind.partition(";")[0].strip().lower()
    if not _MEDIA_TYPE.fullmatch(media_type):
        media_type = _DEFAULT_TYPE
    extension = mimetypes.guess_extension(media_type) or ".bin"
    safe = safe_name(name) or f"attachment_{number}{extension}"
    return {"path": path, "name": safe, "type": media_type, "size": size}


def _zipped(attachments: Sequence[Attachment]) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever reads it closes it
    with zipfile.ZipFile(file, "w") as archive:
        for number, one in enumerate(attachments, 1):
            doubled = one.name in archive.namelist()
            archive.write(one.path, f"{number} {one.name}" if doubled else one.name)
    file.seek(0)
    return file
