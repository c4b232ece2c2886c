"""Files that nobody owns go, in their time; what a row names stays, whatever else happens."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from engine import sweeper as module
from engine.auth import ROLES, Principal
from engine.catalog import Catalog
from engine.clock import now
from engine.errors import UnavailableError
from engine.messages import Messages
from engine.model import Document, Recording, Template
from engine.store import open_store
from engine.store.base import Query, Store
from engine.store.migrations import upgrade
from engine.sweeper import Sweeper
from engine.uploads import FOLDER, MARK, MediaFolder
from tests.support import wait_until
from tests.support.engine import DEADLINE_S, config_in, running_engine

US = Principal(user_id=1, username="us", permissions=ROLES["user"])
OVER_AN_HOUR_S = 3700.0


class Scene:
    """A media folder beside a real store, and who sweeps it."""

    def __init__(self, store: Store, data: Path) -> None:
        self.store = store
        self.data = data
        self.media = data / FOLDER
        self.folder = MediaFolder(config_in(data))
        self.sweeper = Sweeper(config_in(data), store)
        for name in ("incoming", "retired"):
            (self.media / name).mkdir(parents=True, exist_ok=True)

    def file(self, extension: str = "attachment", *, old: bool = True) -> str:
        """A file of ours; its relative path."""
        path = self.media / f"{uuid4().hex}.{extension}"
        path.write_bytes(b"x")
        if old:
            aged(path)
        return f"{FOLDER}/{path.name}"

    def files(self) -> set[str]:
        """Relative paths of what is kept."""
        return {f"{FOLDER}/{path.name}" for path in _plain(self.media)}

    async def hour(self) -> None:
        """A sweep, an hour, another sweep."""
        await self.sweeper.sweep()
        aged(*(self.media / "retired").iterdir())
        await self.sweeper.sweep()


def aged(*paths: Path) -> None:
    """As if they had been there for over an hour."""
    then = time.time() - OVER_AN_HOUR_S
    for path in paths:
        os.utime(path, (then, then), follow_symlinks=False)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with open_store(config_in(tmp_path)) as store:
        await Sweeper(config_in(tmp_path), store).sweep()  # the start of its node
        yield Scene(store, tmp_path)


def attached(*paths: str) -> Template:
    files = [{"path": path, "name": "a", "type": "b/c", "size": 1} for path in paths]
    return Template(name="t", attachments=tuple(files))


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


# --- what goes and what stays ---------------------------------------------------------------------
async def test_what_a_row_names_stays(scene: Scene) -> None:
    named = [scene.file("wav") for _ in range(7)]
    await scene.store.insert(Recording(name="r", media_path=named[0], original_path=named[1]))
    await scene.store.insert(Document(name="d", media_path=named[2], original_path=named[3]))
    await scene.store.insert(attached(*named[4:]))
    await scene.store.insert(Template(name="none"))
    await scene.store.insert(Recording(name="none"))
    await scene.hour()
    assert scene.files() == {*named}
    assert scene.sweeper.statistics() == {"rounds": 2, "orphans": 0, "removed": 0}


async def test_an_orphan_goes_an_hour_after_it_was_found(scene: Scene) -> None:
    old = {scene.file("attachment"), scene.file("original.mp3"), scene.file("pdf")}
    young = scene.file(old=False)
    with capture_logs() as logs:
        await scene.sweeper.sweep()
        await scene.sweeper.sweep()
    assert logs == [{"event": "media_orphaned", "files": 3, "log_level": "warning"}]
    assert scene.files() == {*old, young}, "a call that was begun may still play it"
    aged(*(scene.media / "retired").iterdir())
    await scene.sweeper.sweep()
    assert scene.files() == {young}
    assert not list((scene.media / "retired").iterdir())
    assert scene.sweeper.statistics() == {"rounds": 3, "orphans": 3, "removed": 3}


async def test_what_is_not_ours_is_left_alone(scene: Scene, tmp_path: Path) -> None:
    outside = tmp_path / f"{uuid4().hex}.wav"
    outside.write_bytes(b"theirs")
    aged(outside)
    link = scene.media / f"{uuid4().hex}.wav"
    link.symlink_to(outside)
    folder = scene.media / f"{uuid4().hex}.pdf"
    folder.mkdir()
    names = ("notes.txt", ".nfs00", "a.wav", f"{uuid4().hex}", f"{uuid4().hex}.wav.bak")
    foreign = [scene.media / name for name in (*names, f"x{uuid4().hex}.wav")]
    for path in foreign:
        path.write_bytes(b"x")
    aged(link, folder, *foreign)
    inner = scene.media / "elsewhere" / f"{uuid4().hex}.wav"
    inner.parent.mkdir()
    inner.write_bytes(b"x")
    aged(inner)
    before = {*scene.media.rglob("*")}
    await scene.hour()
    assert {*scene.media.rglob("*")} == before
    assert outside.read_bytes() == b"theirs"


async def test_links_beside_what_comes_and_goes_are_left_alone(
    scene: Scene, tmp_path: Path
) -> None:
    outside = tmp_path / "theirs.wav"
    outside.write_bytes(b"theirs")
    name = f"{uuid4().hex}.wav"
    links = [scene.media / inner / name for inner in ("retired", "incoming")]
    for link in links:
        link.symlink_to(outside)
    aged(outside, *links)
    await scene.hour()
    assert all(link.is_symlink() for link in links)
    assert outside.read_bytes() == b"theirs"


async def test_superseded_files_stay_for_an_hour(scene: Scene) -> None:
    superseded, abandoned = scene.file("wav"), scene.media / "incoming" / "cut off"
    abandoned.write_bytes(b"half")
    await scene.folder.retire(superseded, "", "media/gone.wav")
    await scene.sweeper.sweep()
    assert scene.files() == {superseded}, "a call may be about to play it"
    assert abandoned.exists(), "it may be coming in"
    aged(*(scene.media / "retired").iterdir(), abandoned)
    await scene.sweeper.sweep()
    assert [path for path in scene.media.rglob("*") if path.is_file()] == [scene.media / MARK]


async def test_more_than_one_slice(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 3)
    asked: list[int] = []
    unnamed = scene.store.unnamed

    async def counted(paths: Sequence[str]) -> list[str]:
        asked.append(len(paths))
        return await unnamed(paths)

    monkeypatch.setattr(scene.store, "unnamed", counted)
    named = {scene.file() for _ in range(5)}
    await scene.store.insert(attached(*named))
    for _ in range(5):
        scene.file()
    await scene.hour()
    assert scene.files() == named
    # Ten files; five marks; the five that are left.
    assert asked == [3, 3, 3, 1, 3, 2, 3, 2]


async def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    async with open_store(config_in(tmp_path)) as store:
        sweeper = Sweeper(config_in(tmp_path), store)
        await sweeper.sweep()
        assert sweeper.statistics()["rounds"] == 1


@pytest.mark.parametrize("error", [UnavailableError("slow"), OSError("I/O")], ids=["store", "disk"])
async def test_a_round_that_failed_is_made_up_for(
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    error: Exception,
) -> None:
    autojump_clock.autojump_threshold = 0.02  # the store works in real threads
    orphan, done = scene.file(), trio.Event()
    unnamed, sweep = scene.store.unnamed, scene.sweeper.sweep

    async def refused(paths: Sequence[str]) -> list[str]:
        monkeypatch.setattr(scene.store, "unnamed", unnamed)
        raise error

    async def told() -> None:
        await sweep()
        done.set()

    monkeypatch.setattr(scene.store, "unnamed", refused)
    monkeypatch.setattr(scene.sweeper, "sweep", told)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.sweeper.run)
            await done.wait()
            nursery.cancel_scope.cancel()
    assert [log["event"] for log in logs] == ["media_sweep_waits", "media_orphaned"]
    assert (scene.media / "retired" / Path(orphan).name).exists()


# --- whose folder it is ---------------------------------------------------------------------------
ERROR = "media_of_another_store"


async def test_the_folder_of_another_store_is_left_alone(scene: Scene, tmp_path: Path) -> None:
    superseded, _ = scene.file(), scene.file()
    await scene.folder.retire(superseded)
    (scene.media / "incoming" / "cut off").write_bytes(b"half")
    aged(*(path for path in scene.media.rglob("*") if path.is_file()))
    before = {*scene.media.rglob("*")}
    async with open_store(config_in(tmp_path / "other")) as other:
        wrong = Scene(other, scene.data)
        with capture_logs() as logs:
            await wrong.hour()
        assert [(log["event"], log["log_level"]) for log in logs] == [(ERROR, "error")]
        assert {*scene.media.rglob("*")} == before
        assert wrong.sweeper.statistics() == {"rounds": 0, "orphans": 0, "removed": 0}

        # The right folder comes back, and goes once more: that is said again.
        (scene.media / MARK).rename(tmp_path / "away")
        (scene.media / MARK).write_text((await other.identity()).uid)
        await wrong.sweeper.sweep()
        (tmp_path / "away").rename(scene.media / MARK)
        with capture_logs() as logs:
            await wrong.hour()
        assert [log["event"] for log in logs] == [ERROR]
        assert wrong.sweeper.statistics()["rounds"] == 1


@pytest.mark.parametrize("age_s", [60.0, OVER_AN_HOUR_S])
async def test_a_fresh_store_beside_a_folder_of_the_release_before_takes_nothing(
    tmp_path: Path, age_s: float
) -> None:
    async with open_store(config_in(tmp_path)) as store:
        scene = Scene(store, tmp_path)
        kept = {scene.file() for _ in range(3)}
        then = time.time() - age_s
        for path in _plain(scene.media):
            os.utime(path, (then, then))
        with capture_logs() as logs:
            await scene.hour()
        aged(*_plain(scene.media))
        await scene.hour()
        assert scene.files() == kept
        assert [log["event"] for log in logs] == [ERROR]
        assert not (scene.media / MARK).exists()


async def test_a_folder_whose_files_the_store_names_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation of the release before, or one whose mark was not copied with the files."""
    monkeypatch.setattr(module, "SLICE", 3)
    async with open_store(config_in(tmp_path)) as store:
        scene = Scene(store, tmp_path)
        named, *_ = [scene.file() for _ in range(10)]
        await store.insert(Recording(name="r", media_path=named))
        await scene.hour()
        assert scene.files() == {named}
        assert (scene.media / MARK).read_text().strip() == (await store.identity()).uid


@pytest.mark.parametrize("age_s", [-3600.0, 3600.0], ids=["younger", "older"])
async def test_a_store_of_the_release_before_is_as_old_as_its_first_row(
    tmp_path: Path, age_s: float
) -> None:
    """All that it named is deleted, and files are still there: its own if it was there first."""
    upgrade(tmp_path / "outspool.db", "0005")
    born = int((time.time() - OVER_AN_HOUR_S - age_s) * 1e6)
    with closing(sqlite3.connect(tmp_path / "outspool.db")) as connection:
        connection.execute(
            "INSERT INTO contact_group (uid, created_at, updated_at, name, description,"
            " contact_total) VALUES (zeroblob(16), ?, 0, '', '', 0)",
            (born,),
        )
        connection.commit()
    async with open_store(config_in(tmp_path)) as store:
        scene = Scene(store, tmp_path)
        orphan = scene.file()
        await scene.hour()
        assert scene.files() == (set() if age_s > 0 else {orphan})


async def test_a_mark_that_says_nothing_is_nobodys(scene: Scene) -> None:
    orphan = scene.file()
    (scene.media / MARK).write_text("")
    await scene.hour()
    assert scene.files() == {orphan}


# --- beside uploads -------------------------------------------------------------------------------
async def test_a_row_that_comes_very_late_still_has_its_file(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploads held between file and row for over an hour, while a sweep takes them for orphans."""
    catalog = Catalog(scene.store, now, config_in(scene.data))
    messages, update = Messages(catalog), scene.store.update
    template = await catalog.create(US, Template(name="news", body="x"))
    held, go_on = trio.Event(), trio.Event()

    async def late(row: Template) -> Template:
        held.set()
        await go_on.wait()
        return await update(row)

    monkeypatch.setattr(scene.store, "update", late)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_attach, messages, template, b"late")
        await held.wait()
        aged(*(scene.data / path for path in scene.files()))
        await scene.sweeper.sweep()
        assert scene.sweeper.statistics()["orphans"] == 1
        go_on.set()
    await scene.hour()
    [one] = (await catalog.read(US, Template, template.id)).attachments
    assert (scene.data / one["path"]).read_bytes() == b"late"
    assert not list((scene.media / "retired").iterdir())


async def test_uploads_go_on_while_it_sweeps(scene: Scene) -> None:
    catalog = Catalog(scene.store, now, config_in(scene.data))
    messages = Messages(catalog)
    rows = [await catalog.create(US, Template(name=f"{n}", body="x")) for n in range(4)]
    orphans = [scene.file() for _ in range(50)]
    done = trio.Event()

    async def sweeping() -> None:
        while not done.is_set():
            await scene.hour()

    async def upload(row: Template) -> None:
        for turn in range(8):
            await _attach(messages, row, f"{row.id} {turn}".encode())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweeping)
        async with trio.open_nursery() as uploads:
            for row in rows:
                uploads.start_soon(upload, row)
        done.set()
    await scene.hour()
    named = [row.attachments[0]["path"] for row in await scene.store.find(Template, Query())]
    kept = sorted((scene.data / path).read_bytes() for path in named)
    assert kept == sorted(f"{row.id} 7".encode() for row in rows)
    assert scene.files() == {*named}
    assert not {*orphans} & scene.files()


async def _attach(messages: Messages, row: Template, data: bytes) -> None:
    await messages.attach(US, row.id, chunks(data), name="a", type="b/c", replace=True)


# --- kill -9 --------------------------------------------------------------------------------------
@pytest.mark.parametrize(("way", "files"), [("mail", 1), ("recording", 2), ("attachment", 1)])
async def test_killed_between_file_and_row(tmp_path: Path, way: str, files: int) -> None:
    await _start_of_a_node(tmp_path, lambda counts: counts["orphans"] == 0)
    command = [sys.executable, "-m", "tests.engine.sweep_victim", str(tmp_path), way]
    with trio.fail_after(DEADLINE_S):
        process = await trio.lowlevel.open_process(command, stdout=-1)
        try:
            assert process.stdout is not None
            assert await process.stdout.receive_some() == b"kept\n"
        finally:
            process.send_signal(signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.wait()
    left = _plain(tmp_path / FOLDER)
    assert len(left) == files, "nobody was left to remove them"
    aged(*left)
    await _start_of_a_node(tmp_path, lambda counts: counts["orphans"] == files)
    assert _plain(tmp_path / FOLDER) == left
    aged(*(tmp_path / FOLDER / "retired").iterdir())
    await _start_of_a_node(tmp_path, lambda counts: counts["removed"] == files)
    assert _plain(tmp_path / FOLDER) == []


def _plain(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.is_dir() and path.name != MARK)


async def _start_of_a_node(data: Path, seen: Callable[[dict[str, int]], bool]) -> None:
    async with running_engine(config_in(data)) as engine:

        async def swept() -> bool:
            return bool(engine.statistics()["sweeper"]["rounds"])

        await wait_until(swept, "a round")
        assert seen(engine.statistics()["sweeper"])
