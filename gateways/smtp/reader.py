"""``python -m gateways.smtp.reader``: reads strangers' mail in a process that may be killed.

Frames on stdin and stdout: four octets of length, then JSON (a ``Request``) one way, msgpack (an
``Answer``) the other. It gets a mail's bytes from a file and writes attachments beside it, so a
frame is small. Limits are set before the first mail is touched; whatever is over them ends here.
"""

from __future__ import annotations

import errno
import os
import resource
import struct
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from gateways.smtp.guess import guessed
from gateways.smtp.mime import read
from gateways.smtp.parsed import Parsed

LENGTH = struct.Struct(">I")
MAX_FRAME = 32_000_000
"""Two texts of a million characters with four octets each, and what comes with them."""

_MAX_FILES_OPEN = 32
_NO_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """``memory_bytes``: address space. ``cpu_s``: of one mail. ``file_bytes``: of one file."""

    memory_bytes: int
    cpu_s: int
    file_bytes: int


class Request(msgspec.Struct, frozen=True):
    """Read the mail at ``raw``; its files go to ``scratch``, named by their index."""

    raw: str
    scratch: str


class Answer(msgspec.Struct, frozen=True):
    """``error`` "" = it was read; else why not. ``ours``: for no fault of the mail."""

    parsed: Parsed | None = None
    error: str = ""
    ours: bool = False


def main() -> None:
    """Read mails until stdin ends."""
    frames, answers = _channels()
    limits = msgspec.json.decode(sys.argv[1], type=Limits)
    _confine(limits)
    while request := _request(frames):
        _allow_cpu(limits.cpu_s)
        answer = msgspec.msgpack.encode(_answer(request))
        answers.write(LENGTH.pack(len(answer)) + answer)
        answers.flush()


def _channels() -> tuple[BinaryIO, BinaryIO]:
    """Stdin and stdout; what a library prints goes to stderr and spoils no frame."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sys.stdin.buffer, answers


def _confine(limits: Limits) -> None:
    os.umask(0o077)
    for what, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, _MAX_FILES_OPEN),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _allow_cpu(seconds: int) -> None:
    """For the next mail; beyond it the kernel ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + 1 + seconds
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def _request(frames: BinaryIO) -> Request | None:
    head = frames.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return msgspec.json.decode(frames.read(LENGTH.unpack(head)[0]), type=Request)


def _answer(request: Request) -> Answer:
    scratch = Path(request.scratch)

    def save(index: int, octets: bytes) -> None:
        with (scratch / str(index)).open("xb") as file:
            file.write(octets)

    try:
        return Answer(read(Path(request.raw).read_bytes(), save, guessed))
    except MemoryError:
        return Answer(error="memory")
    except OSError as error:
        return Answer(error=type(error).__name__, ours=error.errno in _NO_DISK)
    except Exception as error:  # noqa: BLE001 - a mail that breaks its reader is unreadable, no more
        return Answer(error=type(error).__name__)


if __name__ == "__main__":
    main()
