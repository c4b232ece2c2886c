"""Audio for tests: a signal that shows every cut, and comparisons of what was sent and heard.

Decoding is libsndfile's, so that our own codec is not its own judge.
"""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import scipy.signal
import soundfile

Samples = npt.NDArray[np.int16]

RATE = 8000
_SUBTYPES = {0: "ULAW", 8: "ALAW"}


def chirp(seconds: float, *, low_hz: float = 300, high_hz: float = 3400) -> Samples:
    """A sweep through the telephone band: no two places sound alike, so a slip or cut shows."""
    count = round(seconds * RATE)
    time = np.arange(count) / RATE
    wave = scipy.signal.chirp(time, low_hz, max(seconds, 0.001), high_hz, method="linear")
    return np.asarray(np.round(wave * 12000), dtype=np.int16)


def write_wav(path: Path, samples: Samples) -> Path:
    """8 kHz mono 16-bit, as the node keeps its recordings."""
    soundfile.write(path, samples, RATE, subtype="PCM_16", format="WAV")
    return path


def read_wav(path: Path) -> Samples:
    """Raises ``AssertionError`` for anything but 8 kHz mono 16-bit."""
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16"), info
    samples, _ = soundfile.read(path, dtype="int16")
    return np.asarray(samples, dtype=np.int16)


def decode(data: bytes, payload_type: int) -> Samples:
    """G.711 as libsndfile reads it; payload type 0 is µ-law, 8 is A-law."""
    samples, _ = soundfile.read(
        io.BytesIO(data), dtype="int16", format="RAW", channels=1, samplerate=RATE,
        subtype=_SUBTYPES[payload_type],
    )  # fmt: skip
    return np.asarray(samples, dtype=np.int16)


def encode(samples: Samples, payload_type: int) -> bytes:
    """G.711 as libsndfile writes it."""
    out = io.BytesIO()
    soundfile.write(out, samples, RATE, format="RAW", subtype=_SUBTYPES[payload_type])
    return out.getvalue()


class Match(msgspec.Struct, frozen=True):
    """How well ``heard`` holds ``sent``.

    ``start`` is where it begins, ``correlation`` over all of it, ``worst`` of its half seconds
    (a cut end shows here), ``spectrum_db`` the mean difference of the two spectra in the band.
    """

    start: int
    correlation: float
    worst: float
    spectrum_db: float


def compare(sent: Samples, heard: Samples) -> Match:
    """Find ``sent`` in ``heard``; raises ``AssertionError`` where it is not there in full."""
    assert len(heard) >= len(sent), f"{len(heard)} samples heard, {len(sent)} sent"
    reference, signal = sent.astype(float), heard.astype(float)
    match = scipy.signal.correlate(signal, reference, mode="full", method="fft")
    start = int(np.argmax(match)) - (len(sent) - 1)
    assert 0 <= start <= len(heard) - len(sent), f"cut: begins at {start} of {len(heard)}"
    part = signal[start : start + len(sent)]
    halves = range(0, max(len(sent) - RATE // 4, 1), RATE // 2)
    worst = min(_correlation(reference[i : i + RATE // 2], part[i : i + RATE // 2]) for i in halves)
    return Match(start, _correlation(reference, part), worst, _spectrum_db(reference, part))


def _correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def _spectrum_db(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    window = min(256, len(one))
    frequencies, first = scipy.signal.welch(one, RATE, nperseg=window)
    _, second = scipy.signal.welch(other, RATE, nperseg=window)
    band = (frequencies > 400) & (frequencies < 3300)
    ratio = 10 * np.log10((second[band] + 1e-9) / (first[band] + 1e-9))
    return float(np.mean(np.abs(ratio)))
