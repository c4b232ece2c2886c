"""The processes that read strangers' mail: whatever a mail does, the next one is read."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from engine.config import SmtpConfig
from engine.errors import InvalidError, UnavailableError
from gateways.smtp import reader
from gateways.smtp import readers as module
from gateways.smtp.parsed import Parsed
from gateways.smtp.reader import LENGTH, Answer, Request
from gateways.smtp.readers import Readers
from tests.gateways.smtp.corpus import CORPUS, file_part, mail, mixed
from tests.support import wait_until

GOOD = mail(b"Subject: good")
DEADLINE_S = 60.0


@asynccontextmanager
async def reading(**changes: object) -> AsyncIterator[Readers]:
    """Readers that run; afterwards no process of theirs is left, not even a zombie."""
    config = msgspec.structs.replace(SmtpConfig(), **{"readers": 1, **changes})
    before = children()
    found = Readers(config)
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(found.run)
            yield found
            nursery.cancel_scope.cancel()
    assert children() == before


def children() -> set[int]:
    """Processes whose parent we are, zombies included."""
    own = f"{os.getpid()}"
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended while we looked
            if fields[1] == own:
                found.add(int(entry.name))
    return found


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


async def good(readers: Readers, scratch: Path) -> None:
    """The next mail is read."""
    assert (await readers.read(GOOD, scratch)).subject == "good"


async def test_files_are_in_the_scratch_folder_and_nowhere_else(tmp_path: Path) -> None:
    raw = mixed(
        file_part(b'attachment; filename="../../x"', b"QUJD"),
        file_part(b'attachment; filename="/etc/y"', b"REVG"),
    )
    scratch = tmp_path / "a" / "b"
    scratch.mkdir(parents=True)
    async with reading() as readers:
        parsed = await readers.read(raw, scratch)
    assert [(file.name, file.size) for file in parsed.files] == [("x", 3), ("y", 3)]
    found = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*")}
    assert set(found) == {"a", "a/b", "a/b/0", "a/b/1"}
    assert [found[name].read_bytes() for name in ("a/b/0", "a/b/1")] == [b"ABC", b"DEF"]
    assert found["a/b/0"].stat().st_mode & 0o077 == 0


async def test_the_whole_corpus_passes_one_process(tmp_path: Path) -> None:
    async with reading() as readers:
        processes = children()
        for number, hostile in enumerate(CORPUS):
            scratch = tmp_path / str(number)
            scratch.mkdir()
            parsed = await readers.read(hostile.raw, scratch)
            assert parsed.cut == hostile.cut, hostile.name
        assert children() == processes
        assert readers.statistics()["read"] == len(CORPUS)


async def test_a_mail_of_25_mb_is_read(tmp_path: Path) -> None:
    octets = b"QUJD" * 18 + b"\r\n"
    raw = mixed(file_part(b"attachment; filename=a", octets * (24_900_000 // len(octets))))
    async with reading() as readers:
        parsed = await readers.read(raw, tmp_path)
        assert parsed.files[0].size > 18_000_000
        with pytest.raises(InvalidError):
            await readers.read(raw + b"x" * 200_000, tmp_path)


async def test_memory_is_bounded_and_the_next_mail_is_read(tmp_path: Path) -> None:
    raw = mixed(file_part(b"attachment; filename=a", b"Q" * 20_000_000))
    async with reading(read_memory_bytes=80_000_000) as readers:
        with pytest.raises(InvalidError, match="memory"):
            await readers.read(raw, tmp_path)
        await good(readers, tmp_path)
        assert readers.statistics()["unreadable_memory"] == 1


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Readers that never answer, until the fixture is called: then they are real ones again."""
    program = tmp_path / "programs" / "silent.py"
    program.parent.mkdir()
    program.write_text("import signal\nsignal.pause()\n")
    monkeypatch.setenv("PYTHONPATH", str(program.parent))
    real = module._MODULE
    monkeypatch.setattr(module, "_MODULE", "silent")
    return lambda: monkeypatch.setattr(module, "_MODULE", real)


async def test_time_is_bounded_and_the_next_mail_is_read(
    silent: Callable[[], None], scratch: Path
) -> None:
    async with reading(read_timeout_s=3.0) as readers:
        before = children()
        with pytest.raises(UnavailableError, match="time"):
            await readers.read(GOOD, scratch)
        assert not before & children()
        silent()
        await good(readers, scratch)


async def test_a_mail_that_takes_its_time_again_and_again_is_refused(
    silent: object, scratch: Path
) -> None:
    """Twice it may have been ours: a machine that swaps, or is paused."""
    async with reading(read_timeout_s=0.2) as readers:
        for error in (UnavailableError, UnavailableError, InvalidError):
            with pytest.raises(error, match="time"):
                await readers.read(GOOD, scratch)
        with pytest.raises(UnavailableError, match="time"):
            await readers.read(GOOD + b"another", scratch)
        assert readers.statistics()["unreadable_time"] == 4


async def test_a_reader_that_is_paused_from_outside_costs_no_mail(tmp_path: Path) -> None:
    async with reading(read_timeout_s=3.0) as readers:
        await good(readers, tmp_path)
        [process] = children()
        os.kill(process, signal.SIGSTOP)
        with pytest.raises(UnavailableError):
            await readers.read(GOOD, tmp_path)
        await good(readers, tmp_path)


async def test_a_reader_that_is_killed_from_outside_costs_no_mail(
    silent: Callable[[], None], scratch: Path
) -> None:
    async def read(readers: Readers) -> None:
        with pytest.raises(UnavailableError, match="broken"):
            await readers.read(GOOD, scratch)

    async with reading() as readers:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, readers)
            await _busy(readers, scratch)
            [process] = children()
            os.kill(process, signal.SIGKILL)
        silent()
        await good(readers, scratch)


async def test_what_uses_up_its_processor_time_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "burner.py").write_text(
        "import resource, sys\nsys.stdin.buffer.read(4)\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (1, 9))\n"
        "while True:\n    pass\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(module, "_MODULE", "burner")
    async with reading() as readers:
        with pytest.raises(InvalidError, match="cpu"):
            await readers.read(GOOD, tmp_path)


async def test_of_mails_that_lost_their_reader_the_last_ones_are_known(
    silent: object, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LOST", 2)
    async with reading(read_timeout_s=0.2) as readers:
        for mail_ in (b"1", b"2", b"1", b"3", b"2", b"3", b"2"):
            with pytest.raises(UnavailableError):
                await readers.read(mail_, scratch)
        with pytest.raises(InvalidError):
            await readers.read(b"2", scratch)


async def test_a_cancelled_read_ends_its_process(silent: Callable[[], None], scratch: Path) -> None:
    async with reading() as readers:
        before = children()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(readers.read, GOOD, scratch)
            await _busy(readers, scratch)
            nursery.cancel_scope.cancel()
        assert not before & children()
        assert not list(scratch.iterdir())
        silent()
        await good(readers, scratch)


async def _busy(readers: Readers, scratch: Path) -> None:
    async def there() -> bool:
        return (scratch / "raw").exists() and not readers.statistics()["waiting"]

    await wait_until(there, "the mail is being read", deadline_s=DEADLINE_S)


async def test_a_process_that_died_idle_costs_no_mail(tmp_path: Path) -> None:
    async with reading() as readers:
        await good(readers, tmp_path)
        [process] = children()
        os.kill(process, 9)

        async def dead() -> bool:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            return fields[0] == "Z"

        await wait_until(dead, "the process is dead", deadline_s=DEADLINE_S)
        await good(readers, tmp_path)


async def test_no_process_is_a_mail_put_off(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    async with reading() as readers:
        with pytest.raises(UnavailableError):
            await readers.read(GOOD, scratch)
        monkeypatch.undo()
        await good(readers, scratch)


async def test_processes_are_replaced_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAILS_PER_PROCESS", 2)
    async with reading() as readers:
        seen = set()
        for _ in range(6):
            await good(readers, tmp_path)
            seen |= children()
    assert len(seen) == 3


_FRAMES = {
    "no msgpack": LENGTH.pack(3) + b"\xc1\xc1\xc1",
    "something else": LENGTH.pack(2) + b"\x91\x01",
    "too long": LENGTH.pack(2**32 - 1),
    "half": LENGTH.pack(100) + b"x",
    "nothing": b"",
}


@pytest.mark.parametrize("frame", _FRAMES.values(), ids=_FRAMES.keys())
async def test_what_is_no_answer_replaces_the_process(
    frame: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "babbler.py"
    program.write_text(
        "import sys\nsys.stdin.buffer.read(4)\n"
        f"sys.stdout.buffer.write({frame!r})\nsys.stdout.flush()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    real = module._MODULE
    monkeypatch.setattr(module, "_MODULE", "babbler")
    async with reading() as readers:
        for error in (UnavailableError, UnavailableError, InvalidError):
            with pytest.raises(error, match="broken"):
                await readers.read(GOOD, tmp_path)
        monkeypatch.setattr(module, "_MODULE", real)
        await good(readers, tmp_path)


async def test_no_more_than_a_hundred_wait(
    silent: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    async with reading() as readers:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                scratch = tmp_path / str(number)
                scratch.mkdir()
                nursery.start_soon(readers.read, GOOD, scratch)

            async def full() -> bool:
                return bool(readers.statistics()["waiting"] == 2)

            await wait_until(full, "two mails wait", deadline_s=DEADLINE_S)
            with pytest.raises(UnavailableError):
                await readers.read(GOOD, tmp_path)
            nursery.cancel_scope.cancel()
        silent()
        await good(readers, tmp_path)


async def test_nobody_waits_for_ever(
    silent: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.05)
    async with reading() as readers, trio.open_nursery() as nursery:
        nursery.start_soon(readers.read, GOOD, tmp_path)
        await _busy(readers, tmp_path)
        with pytest.raises(UnavailableError):
            await readers.read(GOOD, tmp_path)
        nursery.cancel_scope.cancel()


async def test_who_reads_when_it_ends_is_told(silent: object, scratch: Path) -> None:
    outcomes: list[Parsed | None] = []

    async def read(readers: Readers) -> None:
        with pytest.raises(UnavailableError):
            outcomes.append(await readers.read(GOOD, scratch))
        outcomes.append(None)

    async with trio.open_nursery() as nursery, reading() as readers:
        nursery.start_soon(read, readers)
        await _busy(readers, scratch)
    assert outcomes == [None]
    with pytest.raises(UnavailableError):
        await readers.read(GOOD, scratch)


def test_what_breaks_the_reading_is_an_answer(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answered(raw: Path) -> Answer:
        answer = reader._answer(Request(str(raw), str(scratch)))
        return msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=Answer)

    def exhausted(*_: object) -> Parsed:
        raise MemoryError

    raw = scratch / "raw"
    raw.write_bytes(mixed(file_part(b"attachment; filename=a", b"QUJD")))
    assert answered(raw).error == ""
    assert answered(raw).error == "FileExistsError"  # a file that is there is never written over
    assert answered(scratch / "none").error == "FileNotFoundError"
    monkeypatch.setattr(reader, "read", exhausted)
    assert answered(raw).error == "memory"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EFBIG])
def test_a_full_disk_is_no_fault_of_the_mail(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """But a file of it that is too big is."""

    def failing(*_: object) -> Parsed:
        raise OSError(number, "as the disk says")

    (scratch / "raw").write_bytes(GOOD)
    monkeypatch.setattr(reader, "read", failing)
    answer = reader._answer(Request(str(scratch / "raw"), str(scratch)))
    assert answer.ours == (number != errno.EFBIG)


async def test_a_mail_that_a_full_disk_kept_from_being_read_is_put_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = msgspec.msgpack.encode(Answer(error="OSError", ours=True))
    (tmp_path / "full.py").write_text(
        "import sys\nsys.stdin.buffer.read(4)\n"
        f"sys.stdout.buffer.write({LENGTH.pack(len(answer)) + answer!r})\nsys.stdout.flush()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(module, "_MODULE", "full")
    async with reading() as readers:
        for _ in range(4):
            with pytest.raises(UnavailableError, match="OSError"):
                await readers.read(GOOD, tmp_path)
