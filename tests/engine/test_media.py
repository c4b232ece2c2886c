"""Conversion of uploads, and the files it leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trio

from engine.config import HttpConfig
from engine.errors import (
    InvalidError,
    MissingBodyError,
    TooLargeError,
    UnavailableError,
    UnsupportedMediaError,
)
from engine.media import Sound, Sounds, convert
from engine.uploads import MediaFolder
from tests.support.engine import config_in


class pieces(AsyncIterator[bytes]):  # noqa: N801 - read as a function
    """Bytes as an upload brings them."""

    def __init__(self, data: bytes, size: int = 1000) -> None:
        self._rest = (data[start : start + size] for start in range(0, len(data), size))

    async def __anext__(self) -> bytes:
        for piece in self._rest:
            return piece
        raise StopAsyncIteration


def media_folder(folder: Path) -> MediaFolder:
    return MediaFolder(config_in(folder, http=HttpConfig(max_media_bytes=1_000_000)))


async def stored(folder: MediaFolder, data: bytes, *, max_s: float = 10) -> Sound:
    async with folder.received(pieces(data)) as part:
        return await Sounds(folder, max_s=max_s).take(part)


def files(folder: Path) -> set[Path]:
    return {path for path in (folder / "media").rglob("*") if path.is_file()}


def write(path: Path, samples: object, rate: int, **kind: str) -> Path:
    soundfile.write(path, samples, rate, **kind)
    return path


def test_telephone_sound_is_kept_bit_for_bit(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(-32768, 32768, 20_000).astype(np.int16)
    source = write(tmp_path / "in.wav", noise, 8000)
    assert convert(source, tmp_path / "out.wav", max_s=10) == ("WAV", 2.5)
    assert np.array_equal(soundfile.read(tmp_path / "out.wav", dtype="int16")[0], noise)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 44_100, 48_000, 96_000])
def test_speech_band_passes_and_the_rest_is_cut(tmp_path: Path, rate: int) -> None:
    time_s = np.arange(rate * 2) / rate
    wanted = 0.3 * np.sin(2 * np.pi * 1000 * time_s)
    above = 0.3 * np.sin(2 * np.pi * 5000 * time_s) if rate > 10_000 else 0 * time_s
    source = write(tmp_path / "in.wav", wanted + above, rate, subtype="FLOAT")
    convert(source, tmp_path / "out.wav", max_s=10)
    heard, _ = soundfile.read(tmp_path / "out.wav")
    spectrum = np.abs(np.fft.rfft(heard)) * 2 / len(heard)
    at = np.arange(len(spectrum)) * 8000 / len(heard)
    assert len(heard) == 16_000
    assert spectrum[np.argmin(abs(at - 1000))] == pytest.approx(0.3, rel=0.02)
    # 5 kHz would fold back to 3 kHz.
    assert spectrum[abs(at - 3000) < 50].max() < 0.3e-4


def test_loud_and_broken_samples_do_not_wrap_around(tmp_path: Path) -> None:
    samples = np.array([2.0, -2.0, np.nan, np.inf, -np.inf, 0.5] * 100, dtype=np.float32)
    source = write(tmp_path / "in.wav", samples, 8000, subtype="FLOAT")
    convert(source, tmp_path / "out.wav", max_s=10)
    heard, _ = soundfile.read(tmp_path / "out.wav", dtype="int16")
    assert list(heard[:6]) == [32767, -32768, 0, 32767, -32768, 16384]


def test_channels_are_mixed(tmp_path: Path) -> None:
    left, right = np.full(8000, 0.5), np.full(8000, -0.25)
    source = write(tmp_path / "in.wav", np.stack([left, right], 1), 8000, subtype="FLOAT")
    convert(source, tmp_path / "out.wav", max_s=10)
    heard, _ = soundfile.read(tmp_path / "out.wav")
    assert heard.mean() == pytest.approx(0.125, abs=1e-4)


def test_length_is_that_of_the_samples_not_of_the_header(tmp_path: Path) -> None:
    source = write(tmp_path / "in.wav", np.zeros(80_000), 8000)
    source.write_bytes(source.read_bytes()[:16_044])  # the header still says 10 s
    assert convert(source, tmp_path / "out.wav", max_s=5) == ("WAV", 1.0)


async def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    long = write(tmp_path / "long.flac", np.zeros(50_000), 8000).read_bytes()
    empty = write(tmp_path / "empty.wav", np.zeros(0), 8000).read_bytes()
    many = write(tmp_path / "many.wav", np.zeros((10, 65)), 8000).read_bytes()
    cases: list[tuple[bytes, type[Exception]]] = [
        (b"", MissingBodyError),
        (b"hello", UnsupportedMediaError),
        (b"\x00" * 1_000_001, TooLargeError),
        (long, InvalidError),
        (empty, InvalidError),
        (many, InvalidError),
    ]
    folder = media_folder(tmp_path)
    for data, error in cases:
        with pytest.raises(error):
            await stored(folder, data, max_s=5)
        assert files(tmp_path) == set()


class CutOff(AsyncIterator[bytes]):
    """An upload whose sender falls silent after a first piece."""

    def __init__(self) -> None:
        self.silent = trio.Event()

    async def __anext__(self) -> bytes:
        if self.silent.is_set():
            await trio.sleep_forever()
        self.silent.set()
        return b"RIFF"


async def test_an_upload_that_is_cut_off_leaves_nothing(tmp_path: Path) -> None:
    upload = CutOff()

    async def receive() -> None:
        async with media_folder(tmp_path).received(upload):
            raise AssertionError("it never came")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await upload.silent.wait()
        nursery.cancel_scope.cancel()
    assert files(tmp_path) == set()


async def test_files_are_kept_all_or_none(tmp_path: Path) -> None:
    folder = media_folder(tmp_path)
    async with folder.received(pieces(b"x")) as part:
        with pytest.raises(FileNotFoundError):
            await folder.keep((part, "wav"), (tmp_path / "no such file", "wav"))
    assert files(tmp_path) == set()


async def test_names_are_ours_and_the_original_is_kept(tmp_path: Path) -> None:
    data = write(tmp_path / "x.flac", np.zeros(8000), 8000).read_bytes()
    folder = media_folder(tmp_path)
    one, two = await stored(folder, data), await stored(folder, data)
    assert one.media_path != two.media_path
    assert folder.path(one.original_path).read_bytes() == data
    assert (one.original_type, one.length_s) == ("flac", 1.0)
    for path in (one.media_path, one.original_path):
        assert folder.path(path).parent == (tmp_path / "media").absolute()


async def test_sound_is_added_sample_by_sample(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(-32768, 32768, 20_000).astype(np.int16)
    first = write(tmp_path / "1.wav", noise[:15_000], 8000).read_bytes()
    second = write(tmp_path / "2.wav", noise[15_000:], 8000).read_bytes()
    folder = media_folder(tmp_path)
    before = await stored(folder, first)
    async with folder.received(pieces(second)) as part:
        after = await Sounds(folder, max_s=2.5).join(before.media_path, part)
    assert after.length_s == 2.5
    assert np.array_equal(soundfile.read(folder.path(after.media_path), dtype="int16")[0], noise)
    async with folder.received(pieces(second)) as part:
        with pytest.raises(InvalidError, match="longer than"):
            await Sounds(folder, max_s=2.4).join(before.media_path, part)
    assert len(files(tmp_path)) == 3, "what was refused leaves nothing"


async def test_a_disk_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "media").write_text("a file where the folder should be")
    with pytest.raises(UnavailableError):
        await stored(media_folder(tmp_path), b"x")
