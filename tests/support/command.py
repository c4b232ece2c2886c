"""The command line as an operator types it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import trio

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0


class Ran(NamedTuple):
    """A finished command."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Its output as exactly one JSON document."""
        assert self.code == 0, self.err
        return orjson.loads(self.out)


def environment(**more: str) -> dict[str, str]:
    """Ours without any setting of Outspool, plus ``more``."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("OUTSPOOL_")}
    return {**ours, "PYTHONPATH": str(ROOT), **more}


async def outspool(*arguments: str, cwd: Path, stdin: str = "", **env: str) -> Ran:
    """Run ``outspool`` with these arguments; raises ``TooSlowError`` where it does not end."""
    with trio.fail_after(DEADLINE_S):
        done = await trio.run_process(
            [sys.executable, "-m", "api.cli", *arguments],
            cwd=cwd,
            env=environment(**env),
            stdin=stdin.encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


async def serving(*arguments: str, cwd: Path, **env: str) -> trio.Process:
    """``outspool serve`` in the background; its stdout is a pipe. The caller ends it."""
    return await trio.lowlevel.open_process(
        [sys.executable, "-m", "api.cli", "serve", *arguments],
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
