"""The media folder of a node: uploads come in, are kept under names of ours, go when superseded.

No path comes from outside. A file that is kept is never overwritten: a call may be about to play
it, so what takes its place has another name, and the old one is removed an hour later, by
``engine.sweeper``.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import trio

from engine import keyfiles
from engine.config import Config
from engine.disk import sync
from engine.errors import MissingBodyError, TooLargeError, UnavailableError

FOLDER = "media"
_INCOMING = "incoming"  # what is not complete yet
_RETIRED = "retired"  # an empty file for every one that is to go
MARK = "store"
"""The file that says whose folder it is."""

# A superseded or half-written file may still be wanted for this long by calls on their way.
_KEEP_S = 3600.0
_OURS = re.compile(r"[0-9a-f]{32}(\.original)?\.[a-z0-9]{1,16}")

T = TypeVar("T")


class MediaFolder:
    """Where the media of messages are; what takes long is done in ``workers`` threads."""

    def __init__(self, config: Config, *, workers: int = 2) -> None:
        self._data = config.data_path
        self._folder = config.data_path / FOLDER
        self._max_bytes = config.http.max_media_bytes
        self._limiter = trio.CapacityLimiter(workers)

    def path(self, relative: str) -> Path:
        """The absolute path of a kept file."""
        return (self._data / relative).absolute()

    @asynccontextmanager
    async def received(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[Path]:
        """An upload on disk, for the length of the block.

        Raises ``MissingBodyError`` (nothing came), ``TooLargeError``, ``UnavailableError`` (disk).
        """
        part = self._folder / _INCOMING / uuid4().hex
        try:
            await trio.to_thread.run_sync(self._make_folders)
            await self._receive(chunks, part)
            yield part
        except OSError as error:
            raise UnavailableError(f"The media could not be stored: {error.strerror}") from error
        finally:
            if part.exists():
                part.unlink()

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """A path to make a file at, which is gone after the block unless it was kept."""
        part = self._folder / _INCOMING / uuid4().hex
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)

    async def keep(self, *parts: tuple[Path, str]) -> list[str]:
        """Take complete files in, each with its extension: all of them, or none.

        They are durable when their relative paths are answered.
        """
        return await trio.to_thread.run_sync(self._keep, parts)

    async def keep_copies(self, *files: tuple[Path, str]) -> list[str]:
        """``keep`` of copies: the files stay where they are, whatever disk that is.

        ``UnavailableError`` where the disk takes none.
        """
        return await trio.to_thread.run_sync(self._keep_copies, files)

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Run something that takes long, in one of the folder's threads."""
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)

    def discard(self, *relative: str) -> None:
        """Remove files that nobody has heard of yet."""
        for path in filter(None, relative):
            self.path(path).unlink(missing_ok=True)

    async def retire(self, *relative: str) -> int:
        """Superseded files go once nobody can need them; how many were not retired before."""
        names = [Path(path).name for path in relative if path]
        return await trio.to_thread.run_sync(self._retire, names)

    def kept(self) -> Generator[str]:
        """Relative paths of what was kept over an hour ago. Blocking.

        Plain files under names of ours: what else lies there is somebody else's.
        """
        for name in _old_files(self._folder):
            if _OURS.fullmatch(name):
                yield f"{FOLDER}/{name}"

    def files(self) -> Generator[tuple[str, float]]:
        """Relative path and time of every file under a name of ours, however young. Blocking."""
        for entry in _entries(self._folder):
            found = _status(entry) if _OURS.fullmatch(entry.name) else None
            if found is not None:
                yield f"{FOLDER}/{entry.name}", found.st_mtime

    def store(self) -> str:
        """The ``Identity.uid`` of whose files these are; "" where nothing says it. Blocking."""
        mark = self._folder / MARK
        return mark.read_text("ascii", "replace").strip() if mark.exists() else ""

    def belong_to(self, store: str) -> None:
        """From now on, where it did not belong to any store. Blocking, durable on return."""
        self._make_folders()
        keyfiles.make(self._folder / MARK, f"{store}\n".encode)

    def overdue(self) -> Generator[str]:
        """Relative paths of what was retired over an hour ago. Blocking."""
        for name in _old_files(self._folder / _RETIRED):
            yield f"{FOLDER}/{name}"

    def remove(self, paths: Iterable[str], spared: Iterable[str]) -> None:
        """Retired files go, those ``spared`` are retired no more. Blocking."""
        self.discard(*paths)
        for path in (*paths, *spared):
            (self._folder / _RETIRED / Path(path).name).unlink(missing_ok=True)

    def clear_incoming(self) -> None:
        """What was cut off on its way in goes. Blocking."""
        for name in _old_files(self._folder / _INCOMING):
            (self._folder / _INCOMING / name).unlink(missing_ok=True)

    def _make_folders(self) -> None:
        for name in (_INCOMING, _RETIRED):
            (self._folder / name).mkdir(parents=True, exist_ok=True)

    async def _receive(self, chunks: AsyncIterator[bytes], part: Path) -> None:
        size = 0
        async with await trio.open_file(part, "xb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > self._max_bytes:
                    raise TooLargeError(f"media is larger than {self._max_bytes} bytes")
                await file.write(chunk)
        if size == 0:
            raise MissingBodyError("Media upload failed, no file uploaded")

    def _keep(self, parts: Sequence[tuple[Path, str]]) -> list[str]:
        kept: list[str] = []
        try:
            for part, extension in parts:
                name = f"{uuid4().hex}.{extension}"
                sync(part)
                part.rename(self._folder / name)
                kept.append(f"{FOLDER}/{name}")
            sync(self._folder)
        except OSError:
            self.discard(*kept)
            raise
        return kept

    def _keep_copies(self, files: Sequence[tuple[Path, str]]) -> list[str]:
        parts = [(self._folder / _INCOMING / uuid4().hex, extension) for _, extension in files]
        try:
            self._make_folders()
            for (file, _), (part, _) in zip(files, parts, strict=True):
                shutil.copyfile(file, part)
            return self._keep(parts)
        except OSError as error:
            raise UnavailableError(f"The media could not be stored: {error.strerror}") from error
        finally:
            for part, _ in parts:
                part.unlink(missing_ok=True)

    def _retire(self, names: list[str]) -> int:
        self._make_folders()
        marks = [self._folder / _RETIRED / name for name in names]
        fresh = [mark for mark in marks if not mark.exists()]
        for mark in fresh:
            mark.touch()
        return len(fresh)


def _old_files(folder: Path) -> Generator[str]:
    """Names of the files in a folder that are over an hour old; none where there is no folder."""
    # File times are the file system's, so the reference is its clock and not the engine's.
    oldest = time.time() - _KEEP_S
    for entry in _entries(folder):
        found = _status(entry)
        if found is not None and found.st_mtime < oldest:
            yield entry.name


def _entries(folder: Path) -> Generator[os.DirEntry[str]]:
    if folder.exists():
        with os.scandir(folder) as entries:
            yield from entries


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Of a plain file; None of all else: what a link leads to is not ours."""
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # it went meanwhile
        return None
    return found if stat.S_ISREG(found.st_mode) else None
