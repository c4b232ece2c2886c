"""What the demo campaign is made of: a generated recording and made-up contacts."""

from __future__ import annotations

import array
import io
import math
import wave

RATE_HZ = 16_000
# A small rising and falling tune (Hz), a quarter of a second each: nobody's recorded voice needed.
TUNE_HZ = (392, 440, 494, 523, 587, 523, 494, 440)
NOTE_S = 0.25

FIRST_NAMES = ("Ada", "Blaise", "Claude", "Donald", "Edsger", "Frances", "Grace", "Hedy")
LAST_NAMES = ("Ampere", "Bell", "Curie", "Darwin", "Euler", "Faraday", "Gauss")


def recording() -> bytes:
    """A two-second tune as 16 kHz mono WAV; the node converts it as it would any upload."""
    samples = array.array("h")
    length = int(RATE_HZ * NOTE_S)
    for frequency_hz in TUNE_HZ:
        for n in range(length):
            # Fading in and out of each note keeps clicks away.
            loudness = 9000 * math.sin(math.pi * n / length)
            samples.append(int(loudness * math.sin(2 * math.pi * frequency_hz * n / RATE_HZ)))
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes(samples.tobytes())
    return file.getvalue()


def contacts_csv(count: int) -> bytes:
    """``count`` contacts as the API's CSV: nine columns, most of them empty."""
    lines = ["phone,first_name,last_name,email,address,custom1,custom2,custom3,description"]
    for n in range(count):
        first, last = FIRST_NAMES[n % len(FIRST_NAMES)], LAST_NAMES[n % len(LAST_NAMES)]
        # +999 is no country's code: nobody is ever called by mistake.
        lines.append(f"+999555{n:06d},{first},{last},{first.lower()}{n}@example.com,,,,,")
    return ("\n".join(lines) + "\n").encode()
