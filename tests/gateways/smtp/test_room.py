"""Room for mail: the disk is asked now and then, and its answer holds until it is asked again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio.testing

from gateways.smtp.room import EVERY_S, NoRoomError, Room


async def test_so_much_must_be_free(tmp_path: Path) -> None:
    total = shutil.disk_usage(tmp_path).total

    await Room(tmp_path, 1).check()
    with pytest.raises(NoRoomError):
        await Room(tmp_path, total + 1).check()


async def test_without_a_floor_the_disk_is_not_asked(tmp_path: Path) -> None:
    await Room(tmp_path / "none", 0).check()


async def test_the_answer_holds_for_a_while(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    room = Room(folder, 1)
    await room.check()
    folder.rmdir()
    await room.check()
    mock_clock.jump(EVERY_S)
    for _ in range(2):
        with pytest.raises(NoRoomError):
            await room.check()
    folder.mkdir()
    with pytest.raises(NoRoomError):
        await room.check()
    mock_clock.jump(EVERY_S)
    await room.check()
