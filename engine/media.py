"""Sound: any WAV, MP3, FLAC or OGG becomes the 8 kHz mono 16-bit WAV that gateways play.

What a file is, is decided by its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from engine.errors import InvalidError, UnsupportedMediaError
from engine.uploads import MediaFolder

SAMPLE_RATE = 8000

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

Samples = npt.NDArray[np.float32]


class Sound(msgspec.Struct, frozen=True, kw_only=True):
    """An upload on disk; paths are relative to the data directory.

    Of sound that was added to what was there before, no single file is the original.
    """

    media_path: str
    original_path: str = ""
    original_type: str = ""
    length_s: float


class Sounds:
    """Takes in sound."""

    def __init__(self, folder: MediaFolder, *, max_s: float) -> None:
        self._folder = folder
        self._max_s = max_s

    async def take(self, part: Path) -> Sound:
        """Take in an upload (the file moves); both files are durable when it returns.

        Raises ``UnsupportedMediaError`` (of no kind we know), ``InvalidError`` (damaged, empty, too
        long).
        """
        async with self._folder.scratch() as target:
            container, length_s = await self._convert(part, target, None)
            kind = _EXTENSION[container]
            media, original = await self._folder.keep((target, "wav"), (part, f"original.{kind}"))
            return Sound(
                media_path=media,
                original_path=original,
                original_type=kind,
                length_s=length_s,
            )

    async def join(self, before: str, part: Path) -> Sound:
        """The sound at ``before`` (relative) and that of an upload after it, in a new file."""
        async with self._folder.scratch() as target:
            _, length_s = await self._convert(part, target, self._folder.path(before))
            [media] = await self._folder.keep((target, "wav"))
            return Sound(media_path=media, length_s=length_s)

    async def _convert(self, part: Path, target: Path, before: Path | None) -> tuple[str, float]:
        return await self._folder.run(
            lambda: convert(part, target, max_s=self._max_s, before=before)
        )


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """Reads block after block and never seeks.

    python-soundfile seeks after every read of a seekable file, and a seek into MP3 does not give
    the samples that reading on gives: every block would begin with a fault.
    """

    def seekable(self) -> bool:
        """No, whatever the file is."""
        return False


def convert(
    source: Path, target: Path, *, max_s: float, before: Path | None = None
) -> tuple[str, float]:
    """Write ``source`` as 8 kHz mono 16-bit WAV to ``target``, after the WAV at ``before``.

    Returns the container of ``source`` and the length of ``target`` in s. Blocking, for a worker
    thread; memory is bounded whatever the length. Samples of a file that is 8 kHz mono 16-bit
    already are kept bit for bit.
    """
    audio = _opened(source)
    with (
        audio,
        soundfile.SoundFile(target, "w", SAMPLE_RATE, 1, "PCM_16", format="WAV") as output,
    ):
        ahead = 0 if before is None else _copy(_Forward(before), output)
        frames = ahead
        for block in _at_8_khz(audio):
            frames += len(block)
            if frames > max_s * SAMPLE_RATE:
                raise InvalidError(f"media: longer than {max_s:g} s")
            output.write(_to_int16(block))
        if frames == ahead:
            raise InvalidError("media: there is no sound in this file")
        return audio.format, frames / SAMPLE_RATE


def _opened(source: Path) -> soundfile.SoundFile:
    try:
        audio = _Forward(source)
    except soundfile.LibsndfileError:
        raise UnsupportedMediaError(
            "Recording media upload failed, invalid file type (WAV, MP3, FLAC and OGG are known)"
        ) from None
    if audio.format not in _EXTENSION:
        raise UnsupportedMediaError(f"{audio.format} is not one of WAV, MP3, FLAC and OGG")
    if audio.samplerate not in _RATES or audio.channels > _MAX_CHANNELS:
        raise InvalidError(
            f"media: {audio.samplerate} Hz with {audio.channels} channels is out of range"
        )
    return audio


def _copy(audio: soundfile.SoundFile, output: soundfile.SoundFile) -> int:
    """Samples of ours as they are; how many."""
    frames = 0
    with audio:
        while len(block := audio.read(_BLOCK_SAMPLES, dtype="int16")):
            output.write(block)
            frames += len(block)
    return frames


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
