"""What a measurement ran on: numbers without it say nothing."""

from __future__ import annotations

import os
import platform
import sqlite3
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Processor, cores usable, memory in MiB, kernel and versions; no host name, no path."""
    return {
        "cpu": _proc_field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": _memory_mib(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def _memory_mib() -> int:
    total = _proc_field(Path("/proc/meminfo"), "MemTotal")  # "8036512 kB"
    return int(total.split()[0]) // 1024 if total else 0


def _proc_field(path: Path, name: str) -> str:
    if not path.exists():
        return ""
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
