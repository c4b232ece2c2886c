"""Documents: PDF, TIFF, PNG and JPEG (and, with LibreOffice, Office files) become one PDF.

What a file is, is decided by its bytes. It is read in a process of its own that can be killed: see
``engine.pdf_worker``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog
import trio

from engine.config import MediaConfig
from engine.errors import InvalidError, UnavailableError, UnsupportedMediaError
from engine.uploads import MediaFolder

log = structlog.get_logger("engine.documents")

_PDF_WITHIN = 1024  # bytes; what stands before the header is somebody's envelope
_HEAD_BYTES = 4096
_SIGNATURES = (
    ("tiff", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ("png", (b"\x89PNG\r\n\x1a\n",)),
    ("jpeg", (b"\xff\xd8\xff",)),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP = b"PK\x03\x04"
_OFFICE_PARTS = (b"[Content_Types].xml", b"_rels/", b"vnd.oasis.opendocument")
_EXTENSION = {"pdf": "pdf", "tiff": "tif", "png": "png", "jpeg": "jpg", "office": "office"}
_READERS = 2  # processes at once
_DISK_FULL = 74
# Nothing of ours that is secret may be in the environment of what reads strangers' files.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ")
# For LibreOffice: no macros, and nothing fetched from the network because a document asks for it.
_OFFICE_SETTINGS = """\
<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry">
<item oor:path="/org.openoffice.Office.Common/Security/Scripting">
<prop oor:name="DisableMacrosExecution" oor:op="fuse"><value>true</value></prop></item>
<item oor:path="/org.openoffice.Office.Common/Security/Scripting">
<prop oor:name="BlockUntrustedRefererLinks" oor:op="fuse"><value>true</value></prop></item>
</oor:items>
"""


class Pages(msgspec.Struct, frozen=True, kw_only=True):
    """An upload on disk; paths are relative to the data directory, sizes in points.

    Of pages that were added to what was there before, no single file is the original.
    """

    media_path: str
    original_path: str = ""
    original_type: str = ""
    pages: int
    size_x: float
    size_y: float


class _Answer(msgspec.Struct, frozen=True):
    """What ``engine.pdf_worker`` prints."""

    pages: int = 0
    size_x: float = 0.0
    size_y: float = 0.0
    refused: str = ""


class Documents:
    """Takes in documents."""

    def __init__(self, folder: MediaFolder, config: MediaConfig) -> None:
        self._folder = folder
        self._config = config
        self._readers = trio.CapacityLimiter(_READERS)

    async def take(self, part: Path) -> Pages:
        """Take in an upload (the file moves); both files are durable when it returns.

        Raises ``UnsupportedMediaError`` (of no kind we know), ``InvalidError`` (damaged, protected,
        too long, too much work).
        """
        async with self._folder.scratch() as target:
            kind = await self._kind(part)
            answer = await self._read(kind, part, target, None)
            extension = _EXTENSION[kind]
            media, original = await self._folder.keep(
                (target, "pdf"), (part, f"original.{extension}")
            )
            return Pages(
                media_path=media,
                original_path=original,
                original_type=extension,
                pages=answer.pages,
                size_x=answer.size_x,
                size_y=answer.size_y,
            )

    async def join(self, before: str, part: Path) -> Pages:
        """The pages at ``before`` (relative) and those of an upload after them, in a new file."""
        async with self._folder.scratch() as target:
            kind = await self._kind(part)
            answer = await self._read(kind, part, target, self._folder.path(before))
            [media] = await self._folder.keep((target, "pdf"))
            return Pages(
                media_path=media,
                pages=answer.pages,
                size_x=answer.size_x,
                size_y=answer.size_y,
            )

    async def _kind(self, part: Path) -> str:
        async with await trio.open_file(part, "rb") as file:
            kind = kind_of(await file.read(_HEAD_BYTES))
        if kind == "" or (kind == "office" and not self._office()):
            raise UnsupportedMediaError(
                "Document media upload failed, invalid file type (PDF, TIFF, PNG and JPEG are "
                f"known{'' if kind == '' else '; Office documents need LibreOffice on the server'})"
            )
        return kind

    def _office(self) -> str | None:
        program = self._config.office_program
        return shutil.which(program) if program else None

    async def _read(self, kind: str, part: Path, target: Path, before: Path | None) -> _Answer:
        async with self._readers:
            if kind == "office":
                with tempfile.TemporaryDirectory() as folder:
                    source = await self._from_office(part, Path(folder))
                    return await self._to_pdf("pdf", source, target, before)
            return await self._to_pdf(kind, part, target, before)

    async def _to_pdf(self, kind: str, part: Path, target: Path, before: Path | None) -> _Answer:
        arguments = [kind, str(part), str(target), str(self._config.max_document_pages)]
        arguments += [] if before is None else [str(before)]
        done = await _run(arguments, self._config.document_timeout_s)
        if done.returncode == _DISK_FULL:
            raise UnavailableError("The media could not be stored: no room on the disk")
        if done.returncode:
            _log_failure("document_not_read", done)
            raise InvalidError("media: the document is damaged, or reading it takes too much work")
        answer = msgspec.json.decode(done.stdout, type=_Answer)
        if answer.refused:
            raise InvalidError(f"media: {answer.refused}")
        return answer

    async def _from_office(self, part: Path, folder: Path) -> Path:
        settings = folder / "profile" / "user" / "registrymodifications.xcu"
        settings.parent.mkdir(parents=True)
        settings.write_text(_OFFICE_SETTINGS)
        profile = f"-env:UserInstallation={(folder / 'profile').as_uri()}"
        command = [str(self._office()), profile, "--headless", "--norestore", "--convert-to", "pdf"]
        command += ["--outdir", str(folder), str(part)]
        done = await _run(["run", *command], self._config.office_timeout_s, HOME=str(folder))
        made = folder / f"{part.stem}.pdf"
        if done.returncode or not made.exists():
            _log_failure("office_document_not_read", done)
            raise InvalidError("media: the Office document cannot be turned into PDF")
        return made


def kind_of(head: bytes) -> str:
    """pdf, tiff, png, jpeg or office by the first bytes of a file, "" where it is none of them."""
    for kind, signatures in _SIGNATURES:
        if head.startswith(signatures):
            return kind
    if b"%PDF-" in head[:_PDF_WITHIN]:
        return "pdf"
    is_office = head.startswith(_OLE) or (
        head.startswith(_ZIP) and any(part in head for part in _OFFICE_PARTS)
    )
    return "office" if is_office else ""


async def _run(
    arguments: list[str], timeout_s: float, **more: str
) -> subprocess.CompletedProcess[bytes]:
    """Run ``engine.pdf_worker``; it, and all that it started, is gone when this returns."""
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | more
    with trio.move_on_after(timeout_s):
        return await trio.run_process(
            [sys.executable, "-m", "engine.pdf_worker", *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment,
            start_new_session=True,
            deliver_cancel=_kill_all,
        )
    raise InvalidError(f"media: reading the document took longer than {timeout_s:g} s")


async def _kill_all(process: trio.Process) -> None:
    """The process is the leader of its group: its children go with it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _log_failure(event: str, done: subprocess.CompletedProcess[bytes]) -> None:
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    log.info(event, returncode=done.returncode, cause=last[0][:200] if last else "")
