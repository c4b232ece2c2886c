"""Uploads: any WAV, MP3, FLAC or OGG becomes the 8 kHz mono 16-bit WAV that gateways play.

What a file is, is decided by its bytes. Names are ours, so no path comes from outside; a replaced
file is never overwritten but superseded (a call may be about to play it) and swept later.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import trio

from engine.config import Config
from engine.errors import (
    InvalidError,
    MissingBodyError,
    TooLargeError,
    UnavailableError,
    UnsupportedMediaError,
)

SAMPLE_RATE = 8000
FOLDER = "media"

# libsndfile's name of the container → the extension the original is kept under.
_EXTENSION = {
    "WAV": "wav",
    "WAVEX": "wav",
    "RF64": "wav",
    "FLAC": "flac",
    "OGG": "ogg",
    "MP3": "mp3",
}
_RATES = range(1000, 384_001)
_MAX_CHANNELS = 64
_BLOCK_SAMPLES = 131_072  # of all channels together: bounds memory whatever the file claims
_PART = ".part"
# A superseded or half-written file may still be wanted for this long by calls on their way.
_KEEP_S = 3600.0

Samples = npt.NDArray[np.float32]


class Converted(msgspec.Struct, frozen=True, kw_only=True):
    """An upload on disk; paths are relative to the data directory."""

    media_path: str
    original_path: str
    original_type: str
    length_s: float


class MediaLibrary:
    """The media folder of a node."""

    def __init__(self, config: Config, *, workers: int = 2) -> None:
        self._data = config.data_path
        self._folder = config.data_path / FOLDER
        self._max_bytes = config.http.max_media_bytes
        self._max_s = config.media.max_recording_s
        self._limiter = trio.CapacityLimiter(workers)

    def path(self, relative: str) -> Path:
        """The absolute path of a stored file."""
        return (self._data / relative).absolute()

    async def store(self, chunks: AsyncIterator[bytes]) -> Converted:
        """Take in an upload; both files are durable when it returns.

        Raises ``MissingBodyError`` (nothing came), ``TooLargeError``, ``UnsupportedMediaError`` (of
        no kind we know), ``InvalidError`` (damaged, empty, too long), ``UnavailableError`` (disk).
        """
        name = uuid4().hex
        part = self._folder / f"{name}.original{_PART}"
        try:
            await self._receive(chunks, part)
            return await trio.to_thread.run_sync(self._convert, name, part, limiter=self._limiter)
        except OSError as error:
            raise UnavailableError(f"The media could not be stored: {error.strerror}") from error
        finally:
            if part.exists():
                part.unlink()

    async def sweep(self, keep: frozenset[str]) -> None:
        """Remove files that ``keep`` (relative paths) does not name, once nobody needs them."""
        await trio.to_thread.run_sync(self._sweep, keep)

    def retire(self, *relative: str) -> None:
        """Start the clock of superseded files; ``sweep`` removes them when it has run out."""
        for path in filter(None, relative):
            if self.path(path).exists():
                os.utime(self.path(path))

    async def _receive(self, chunks: AsyncIterator[bytes], part: Path) -> None:
        size = 0
        await trio.to_thread.run_sync(_make_folder, self._folder)
        async with await trio.open_file(part, "xb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > self._max_bytes:
                    raise TooLargeError(f"media is larger than {self._max_bytes} bytes")
                await file.write(chunk)
        if size == 0:
            raise MissingBodyError("Recording media upload failed, no file uploaded")

    def _convert(self, name: str, part: Path) -> Converted:
        target = self._folder / f"{name}.wav{_PART}"
        try:
            kind, length_s = convert(part, target, max_s=self._max_s)
            extension = _EXTENSION[kind]
            media = self._folder / f"{name}.wav"
            original = self._folder / f"{name}.original.{extension}"
            for path, final in ((target, media), (part, original)):
                _sync(path)
                path.rename(final)
            _sync(self._folder)
        finally:
            target.unlink(missing_ok=True)
        return Converted(
            media_path=f"{FOLDER}/{media.name}",
            original_path=f"{FOLDER}/{original.name}",
            original_type=extension,
            length_s=length_s,
        )

    def _sweep(self, keep: frozenset[str]) -> None:
        if not self._folder.is_dir():
            return
        # File times are the file system's, so the reference is its clock and not the engine's.
        oldest = time.time() - _KEEP_S
        for path in self._folder.iterdir():
            if f"{FOLDER}/{path.name}" not in keep and path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """Reads block after block and never seeks.

    python-soundfile seeks after every read of a seekable file, and a seek into MP3 does not give
    the samples that reading on gives: every block would begin with a fault.
    """

    def seekable(self) -> bool:
        """No, whatever the file is."""
        return False


def convert(source: Path, target: Path, *, max_s: float) -> tuple[str, float]:
    """Write ``source`` as 8 kHz mono 16-bit WAV to ``target``; returns container and length in s.

    Blocking, for a worker thread; memory is bounded whatever the length. Samples of a file that is
    8 kHz mono 16-bit already are kept bit for bit.
    """
    try:
        audio = _Forward(source)
    except soundfile.LibsndfileError:
        raise UnsupportedMediaError(
            "Recording media upload failed, invalid file type (WAV, MP3, FLAC and OGG are known)"
        ) from None
    with audio:
        if audio.format not in _EXTENSION:
            raise UnsupportedMediaError(f"{audio.format} is not one of WAV, MP3, FLAC and OGG")
        if audio.samplerate not in _RATES or audio.channels > _MAX_CHANNELS:
            raise InvalidError(
                f"media: {audio.samplerate} Hz with {audio.channels} channels is out of range"
            )
        frames = 0
        with soundfile.SoundFile(target, "w", SAMPLE_RATE, 1, "PCM_16", format="WAV") as output:
            for block in _at_8_khz(audio):
                frames += len(block)
                if frames > max_s * SAMPLE_RATE:
                    raise InvalidError(f"media: longer than {max_s:g} s")
                output.write(_to_int16(block))
    if frames == 0:
        raise InvalidError("media: there is no sound in this file")
    return audio.format, frames / SAMPLE_RATE


def _at_8_khz(audio: soundfile.SoundFile) -> Iterator[Samples]:
    if audio.samplerate == SAMPLE_RATE:
        yield from _mono_blocks(audio)
        return
    # "VHQ" is soxr's best: next to 8 kHz inaudible, and still a hundred times faster than speech.
    stream = soxr.ResampleStream(audio.samplerate, SAMPLE_RATE, 1, "float32", "VHQ")
    for block in _mono_blocks(audio):
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def _mono_blocks(audio: soundfile.SoundFile) -> Iterator[Samples]:
    size = _BLOCK_SAMPLES // audio.channels
    while True:
        try:
            block: Samples = audio.read(size, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise InvalidError(f"media: cannot be decoded ({error})") from None
        if len(block) == 0:
            return
        yield block[:, 0] if audio.channels == 1 else block.mean(axis=1, dtype=np.float32)


def _to_int16(samples: Samples) -> npt.NDArray[np.int16]:
    inside = np.clip(np.nan_to_num(samples), -1.0, 1.0)
    scaled: npt.NDArray[np.int16] = np.rint(inside * 32768).clip(-32768, 32767).astype(np.int16)
    return scaled


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
