"""G.711, WAV and jitter buffer of the C engine, with libsndfile as the oracle."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from native.rtp._rtp import ffi, lib

from tests.support.audio import Samples, chirp, decode, read_wav, write_wav

lib.g711_init()
LAWS = {
    0: (lib.g711_encode_ulaw, lib.g711_decode_ulaw),
    8: (lib.g711_encode_alaw, lib.g711_decode_alaw),
}
EINVAL, EFBIG, ENOENT = 22, 27, 2
every_law = pytest.mark.parametrize("law", LAWS)


def encoded(law: int, samples: Samples) -> bytes:
    out = ffi.new("uint8_t[]", len(samples))
    LAWS[law][0](ffi.from_buffer("int16_t[]", samples), out, len(samples))
    return bytes(out)


def decoded(law: int, data: bytes) -> Samples:
    out = ffi.new("int16_t[]", len(data))
    LAWS[law][1](ffi.from_buffer("uint8_t[]", data), out, len(data))
    return np.frombuffer(ffi.buffer(out), dtype=np.int16)


@every_law
def test_every_code_means_what_libsndfile_says(law: int) -> None:
    codes = bytes(range(256))
    assert decoded(law, codes).tolist() == decode(codes, law).tolist()


@every_law
def test_every_code_survives(law: int) -> None:
    codes = bytes(range(256))
    again = encoded(law, decoded(law, codes))
    # µ-law has two zeros; the negative one comes back as the positive.
    assert again == codes.replace(b"\x7f", b"\xff") if law == 0 else again == codes


@every_law
def test_every_sample_becomes_the_nearest_code_or_its_neighbour(law: int) -> None:
    samples = np.arange(-32768, 32768).astype(np.int16)
    codes = encoded(law, samples)
    values = np.unique(decoded(law, bytes(range(256))).astype(int))
    heard = decode(codes, law).astype(int)
    nearest = values[np.abs(values[None, :] - samples[:, None].astype(int)).argmin(axis=1)]
    # Steps double from segment to segment: one sixteenth of what the segment begins with.
    step = np.maximum(np.abs(nearest), np.abs(heard)) / 16 + 16
    assert (np.abs(heard - nearest) <= step).all()
    assert (np.diff(heard) >= 0).all(), "louder in, louder out"


def read(path: Path) -> tuple[Samples | None, int]:
    count, error = ffi.new("size_t *"), ffi.new("int *")
    samples = lib.wav_read(str(path).encode(), count, error)
    if samples == ffi.NULL:
        return None, int(error[0])
    try:
        copy = np.frombuffer(ffi.buffer(samples, count[0] * 2), dtype=np.int16).copy()
    finally:
        lib.free(samples)
    return copy, 0


def test_a_wav_file_is_read_as_it_is(tmp_path: Path) -> None:
    samples = chirp(0.7)
    heard, error = read(write_wav(tmp_path / "a.wav", samples))
    assert error == 0
    assert heard is not None
    assert heard.tolist() == samples.tolist()


def wav(
    *, tag: int = 1, channels: int = 1, rate: int = 8000, bits: int = 16, before: bytes = b"",
    length: int | None = None, data: bytes = b"\1\0\2\0",
) -> bytes:  # fmt: skip
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * 2, 2, bits)
    size = len(data) if length is None else length
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + before
    return b"RIFF\0\0\0\0WAVE" + chunks + b"data" + struct.pack("<I", size) + data


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(wav(), id="plain"),
        pytest.param(wav(before=b"LIST\3\0\0\0abc\0"), id="another chunk of odd length"),
        pytest.param(wav(length=0), id="a stream's file without length"),
        pytest.param(wav(length=0xFFFFFFFF), id="a stream's file of unknown length"),
    ],
)
def test_wav_files_of_the_wild(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    heard, error = read(tmp_path / "a.wav")
    assert error == 0
    assert heard is not None
    assert heard.tolist() == [1, 2]


@pytest.mark.parametrize(
    "content",
    [wav(tag=7), wav(channels=2), wav(rate=16000), wav(bits=8), wav()[:30], b"", b"RIFF" * 20,
     b"RIFF\0\0\0\0WAVEdata\4\0\0\0abcd"],
)  # fmt: skip
def test_files_that_are_something_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    assert read(tmp_path / "a.wav") == (None, EINVAL)


def test_what_is_no_file(tmp_path: Path) -> None:
    assert read(tmp_path / "missing.wav") == (None, ENOENT)
    assert read(tmp_path) == (None, EINVAL)


def test_a_recording_beyond_four_hours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(wav(length=0))
    with path.open("r+b") as file:
        file.truncate(4 * 3600 * 16000 + 100)
    assert read(path) == (None, EFBIG)


@given(
    content=st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: wav()[:44] + tail)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    heard, error = read(tmp_path / "a.wav")
    assert (heard is None) == (error != 0)


def test_the_header_we_write_is_one_others_read(tmp_path: Path) -> None:
    samples = chirp(0.2)
    header = ffi.new("uint8_t[44]")
    lib.wav_header(header, len(samples))
    (tmp_path / "a.wav").write_bytes(bytes(header) + samples.tobytes())
    assert read_wav(tmp_path / "a.wav").tolist() == samples.tolist()


FRAME, DELAY, SIZE = 160, 800, 8192


class Buffer:
    """The C jitter buffer, and what it gave."""

    def __init__(self) -> None:
        self._buffer = ffi.new("struct jitter_buffer *")
        self._frame = ffi.new("int16_t[]", FRAME)
        self.heard: list[int] = []

    def write(self, timestamp: int, samples: Samples, ssrc: int = 1) -> None:
        pointer = ffi.from_buffer("int16_t[]", samples)
        lib.jitter_write(self._buffer, ssrc, timestamp & 0xFFFFFFFF, pointer, len(samples))

    def read(self, frames: int = 1) -> None:
        for _ in range(frames):
            lib.jitter_read(self._buffer, self._frame)
            self.heard += list(self._frame)

    def flush(self) -> list[int]:
        while lib.jitter_left(self._buffer):
            self.read()
        return self.heard


def frames_of(count: int) -> list[Samples]:
    return [np.full(FRAME, number + 1, dtype=np.int16) for number in range(count)]


@given(st.permutations(range(4)), st.integers(0, 2**32 - 1), st.sets(st.integers(0, 3), max_size=3))
@example([3, 2, 1, 0], 2**32 - 200, set())
def test_order_is_restored_and_loss_is_silence(order: list[int], base: int, lost: set[int]) -> None:
    buffer, frames = Buffer(), frames_of(8)
    buffer.write(base - FRAME, np.full(FRAME, 99, dtype=np.int16))  # begins the stream
    for number in order:
        if number not in lost:
            buffer.write(base + number * FRAME, frames[number])
    buffer.write(base + 4 * FRAME, frames[4])
    heard = buffer.flush()[::FRAME]
    expected = [0 if number in lost else number + 1 for number in range(5)]
    assert heard == [0] * (DELAY // FRAME) + [99] + expected


def test_what_comes_after_its_turn_is_left_out() -> None:
    buffer, frames = Buffer(), frames_of(3)
    buffer.write(0, frames[0])
    buffer.read(DELAY // FRAME + 2)
    buffer.write(FRAME, frames[1])
    buffer.write(2 * FRAME, frames[2])
    assert buffer.flush()[::FRAME] == [0] * 5 + [1, 0, 3]


def test_a_far_end_that_falls_silent_is_not_heard_again_a_lap_later() -> None:
    buffer = Buffer()
    buffer.write(0, frames_of(1)[0])
    buffer.read(3 * SIZE // FRAME)
    assert sum(buffer.heard) == FRAME


@pytest.mark.parametrize(("jump", "ssrc"), [(10 * SIZE, 1), (-10 * SIZE, 1), (0, 2)])
def test_another_source_or_a_jump_begins_anew(jump: int, ssrc: int) -> None:
    buffer, frames = Buffer(), frames_of(2)
    buffer.write(1000, frames[0])
    assert buffer.flush()[-1] == 1
    buffer.write(1000 + jump, frames[1], ssrc)
    assert buffer.flush()[-1] == 2


@given(
    st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 1500), st.integers(0, 2)), max_size=30
    )
)
def test_any_packets_leave_the_buffer_whole(packets: list[tuple[int, int, int]]) -> None:
    buffer = Buffer()
    for timestamp, length, ssrc in packets:
        buffer.write(timestamp, np.ones(length, dtype=np.int16), ssrc)
        buffer.read()
    assert len(buffer.flush()) <= len(packets) * FRAME + SIZE + FRAME
