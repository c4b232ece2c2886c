"""``outspool demo``, as ``make run`` runs it, only shorter."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest
import trio

from tests.support import wait_for_line
from tests.support.command import environment, outspool

CONTACTS = 30


@pytest.mark.slow
async def test_the_demo_dials_everybody_and_the_carrier_agrees(tmp_path: Path) -> None:
    ran = await outspool("demo", "--contacts", str(CONTACTS), cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert f"{CONTACTS} contacts imported from CSV" in ran.out
    assert f"completed: {CONTACTS}/{CONTACTS} done" in ran.out
    all_row = re.search(r"all\s+│\s+(\d+)\s+│\s+(\d+)", ran.out)
    assert all_row is not None, ran.out
    assert int(all_row[1]) == CONTACTS
    assert f"the carrier counted {all_row[2]} calls, as many as the node dialled" in ran.out
    assert "/openapi.json" in ran.out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_interrupted_demo_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "api.cli", "demo"],
        cwd=tmp_path,
        env=environment(),
        stdout=-1,
        stderr=-1,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    await wait_for_line(process.stdout, "dialled")
    process.send_signal(number)
    with trio.fail_after(30):
        # Node and carrier hold our pipes: their end is the pipes' end.
        async for _ in process.stdout:
            pass
        assert await process.wait() != 0
