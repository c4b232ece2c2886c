"""What a real mail server delivered: the files of a Maildir, as it wrote them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import trio

_WRITTEN = {b"return-path": "sender", b"x-original-to": "recipient", b"delivered-to": "mailbox"}
"""Header lines that the delivering server puts before the mail."""


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """A mail that arrived: envelope, and ``raw`` as it came (lines end in CRLF)."""

    sender: str
    recipient: str
    raw: bytes


async def read_maildir(folder: Path) -> list[Arrived]:
    """Every mail in ``folder``, in the order of its arrival."""
    return await trio.to_thread.run_sync(_read, folder)


def count(folder: Path) -> int:
    """How many mails are there."""
    return sum(1 for part in ("new", "cur") for _ in _entries(folder / part))


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _read(folder: Path) -> list[Arrived]:
    files = [entry for part in ("new", "cur") for entry in _entries(folder / part)]
    return [arrived(entry.read_bytes()) for entry in sorted(files, key=_at)]


def _at(entry: Path) -> tuple[float, str]:
    return entry.stat().st_mtime, entry.name


def arrived(stored: bytes) -> Arrived:
    """Take the delivering server's own lines off."""
    found: dict[str, str] = {}
    rest = stored
    while True:
        line, _, after = rest.partition(b"\n")
        name, colon, value = line.partition(b":")
        key = _WRITTEN.get(name.lower())
        if not colon or key is None or key in found:
            break
        found[key] = value.decode().strip().strip("<>")
        rest = after
    raw = rest.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    recipient = found.get("recipient") or found.get("mailbox", "")
    return Arrived(sender=found.get("sender", ""), recipient=recipient, raw=raw)
