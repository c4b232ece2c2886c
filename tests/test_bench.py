"""Benches cannot rot: each runs for a moment and says what it measured; no figure is judged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import trio

from bench.__main__ import NAMES
from tests.support.command import ROOT, environment

DEADLINE_S = 240.0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
async def test_a_bench_still_measures(name: str, tmp_path: Path) -> None:
    with trio.fail_after(DEADLINE_S):
        done = await trio.run_process(
            [sys.executable, "-m", "bench", name, "--smoke", "--json"],
            cwd=tmp_path,
            env=environment(),
            capture_stdout=True,
        )
    report = orjson.loads(done.stdout)
    assert list(report) == ["name", "machine", "results", "targets"]
    assert report["name"] == name
    assert report["machine"]["cores"] >= 1
    assert report["results"]
    for target in report["targets"]:
        assert list(target) == ["name", "target", "measured", "met"]


def test_an_unknown_bench_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "nothing"], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 2
