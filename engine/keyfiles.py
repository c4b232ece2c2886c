"""Key files: made once, whole or not at all, for nobody's eyes but the owner's."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from engine.disk import sync
from engine.errors import InvalidError


def make(path: Path, content: Callable[[], bytes]) -> None:
    """Write ``content()`` to ``path`` (0600) where there is no such file yet; durable on return."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists():
        return
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content())
            file.flush()
            os.fsync(file.fileno())
        # A whole file or none, also when two nodes start on one directory.
        os.link(scratch, path)
    except FileExistsError:
        return
    finally:
        scratch.unlink()
    # Or a power cut takes away the key, and with it what was made with it.
    sync(path.parent)


def read(path: Path) -> bytes:
    """What is in it; ``InvalidError`` where others than the owner could read it too."""
    if path.stat().st_mode & 0o077:
        raise InvalidError(f"{path}: the key must be readable by its owner only (0600)")
    return path.read_bytes()
