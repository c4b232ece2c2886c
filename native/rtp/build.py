"""Compiles the RTP engine into ``native.rtp._rtp`` (cffi's API mode; setup.py calls this).

The headers are the C compiler's and cffi's at once: without their preprocessor lines they are
plain declarations.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import cffi

HERE = Path(__file__).parent
HEADERS = ("shared.h", "packet.h", "g711.h", "dtmf.h", "wav.h", "jitter.h", "engine.h")
SOURCES = (
    "clip.c", "control.c", "dtmf.c", "engine.c", "g711.c", "jitter.c", "packet.c", "receive.c",
    "recorder.c", "send.c", "session.c", "wav.c", "worker.c",
)  # fmt: skip


def declarations() -> str:
    """All headers as cffi understands them."""
    text = "\n".join((HERE / name).read_text() for name in HEADERS)
    return re.sub(r"^#(?!define \w+ (0x)?[0-9a-f]+$).*$", "", text, flags=re.MULTILINE)


ffi = cffi.FFI()
ffi.cdef(declarations() + "\nvoid free(void *);")
ffi.set_source(
    "native.rtp._rtp",
    '#include "rtp.h"',
    # Relative to the repository root, where setuptools runs; absolute ones are refused by it.
    sources=[os.path.relpath(HERE / name) for name in SOURCES],
    depends=[os.path.relpath(path) for path in sorted(HERE.glob("*.h"))],
    include_dirs=[os.path.relpath(HERE)],
    define_macros=[("_GNU_SOURCE", None)],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers"],
    extra_link_args=["-pthread"],
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
