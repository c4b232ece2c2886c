"""Documents become one PDF, in a process that hostile ones cannot get the better of."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from engine.config import HttpConfig, MediaConfig
from engine.documents import Documents, Pages, kind_of
from engine.errors import InvalidError, UnsupportedMediaError
from engine.uploads import MediaFolder
from tests.engine.test_media import files, pieces
from tests.support import wait_until
from tests.support.engine import config_in
from tests.support.papers import (
    A4,
    endless_pdf,
    fax,
    image_file,
    page_sizes,
    pdf,
    picture,
    rendered,
)


class Desk:
    """Documents of a node that was configured for the test."""

    def __init__(self, data: Path, **media: Any) -> None:
        config = config_in(
            data, media=MediaConfig(**media), http=HttpConfig(max_media_bytes=5_000_000)
        )
        self.folder = MediaFolder(config)
        self.documents = Documents(self.folder, config.media)

    async def take(self, data: bytes) -> Pages:
        async with self.folder.received(pieces(data, 10_000)) as part:
            return await self.documents.take(part)

    async def join(self, before: Pages, data: bytes) -> Pages:
        async with self.folder.received(pieces(data, 10_000)) as part:
            return await self.documents.join(before.media_path, part)

    def bytes_of(self, made: Pages) -> bytes:
        return self.folder.path(made.media_path).read_bytes()


async def test_a_pdf_keeps_its_pages(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    data = pdf(A4, (300, 200))
    made = await desk.take(data)
    assert (made.pages, made.size_x, made.size_y) == (2, 595, 842)
    assert page_sizes(desk.bytes_of(made)) == [A4, (300, 200)]
    assert (made.original_type, desk.folder.path(made.original_path).read_bytes()) == ("pdf", data)


async def test_what_stands_before_a_pdf_is_left_out(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    made = await desk.take(b"some envelope\r\n\r\n" + pdf())
    assert desk.bytes_of(made).startswith(b"%PDF-")
    assert made.pages == 1


async def test_a_fax_tiff_becomes_pages_of_its_size_dot_for_dot(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    data = fax(3)
    made = await desk.take(data)
    (tmp_path / "fax.tif").write_bytes(data)
    with Image.open(tmp_path / "fax.tif") as tiff:
        sent = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(tiff)]
    assert (made.pages, made.original_type) == (3, "tif")
    # 1728 dots at 204 an inch, 1143 at 98.
    assert page_sizes(desk.bytes_of(made)) == [(610, 840)] * 3
    document = pypdfium2.PdfDocument(desk.bytes_of(made))
    for number, expected in enumerate(sent):
        [inside] = document[number].get_objects()
        kept = np.asarray(inside.get_bitmap().to_pil().convert("L"))
        assert np.array_equal(kept, expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
async def test_png_pictures_of_every_mode(tmp_path: Path, mode: str) -> None:
    desk = Desk(tmp_path)
    made = await desk.take(image_file(picture(mode=mode), "PNG"))
    assert (made.pages, made.size_x) == (1, 595), "without a resolution it fits on A4"
    shown = np.asarray(rendered(desk.bytes_of(made), 0))
    assert shown[20:60, 20:60].max() < 70
    assert shown[-20:, -20:].min() > 200


async def test_a_transparent_picture_is_on_white_paper(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    made = await desk.take(image_file(Image.new("RGBA", (100, 100), (0, 0, 0, 0)), "PNG"))
    assert np.asarray(rendered(desk.bytes_of(made), 0)).min() > 250


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"dpi": (200, 200)}, (144, 108)),
        ({"dpi": (200, 100)}, (144, 216)),
        ({"dpi": (20, 20)}, (595, 446)),  # 20 inches: nobody meant that
        ({}, (595, 446)),
    ],
)
async def test_jpeg_pictures_and_their_resolution(
    tmp_path: Path, options: dict[str, Any], size: tuple[int, int]
) -> None:
    desk = Desk(tmp_path)
    made = await desk.take(image_file(picture(mode="RGB"), "JPEG", **options))
    assert page_sizes(desk.bytes_of(made)) == [size]


async def test_a_photo_is_turned_the_way_it_was_taken(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn right
    made = await desk.take(image_file(picture(mode="RGB"), "JPEG", exif=exif, dpi=(200, 100)))
    assert page_sizes(desk.bytes_of(made)) == [(216, 144)]


async def test_pages_are_added(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    first = await desk.take(pdf((300, 200)))
    second = await desk.join(first, fax(2))
    third = await desk.join(second, image_file(picture(), "PNG", dpi=(200, 200)))
    assert (third.pages, third.size_x, third.size_y) == (4, 300, 200)
    assert page_sizes(desk.bytes_of(third)) == [(300, 200), (610, 840), (610, 840), (144, 108)]
    assert third.original_path == ""
    assert page_sizes(desk.bytes_of(first)) == [(300, 200)], "a fax may be about to send it"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"%PDF-1.7 and then nothing", "damaged"),
        (pdf()[:200], "damaged"),
        (image_file(picture(), "PNG")[:300], "damaged"),
        (fax(2)[:900], "damaged"),
        (pdf(*[(9, 9)] * 11), "more than 10 pages"),
        (fax(11), "more than 10 pages"),
        (image_file(Image.new("1", (30_000, 30_000)), "PNG"), "pixels"),
        (endless_pdf(), "too much work"),
    ],
)
async def test_what_cannot_be_read_is_refused_and_leaves_nothing(
    tmp_path: Path, data: bytes, why: str
) -> None:
    with pytest.raises(InvalidError, match=why):
        await Desk(tmp_path, max_document_pages=10).take(data)
    assert files(tmp_path) == set()


async def test_added_pages_count_with_those_before(tmp_path: Path) -> None:
    desk = Desk(tmp_path, max_document_pages=3)
    first = await desk.take(pdf(A4, A4))
    with pytest.raises(InvalidError, match="more than 3 pages"):
        await desk.join(first, pdf(A4, A4))


@pytest.mark.parametrize(
    "data", [b"hello", b"GIF89a", b"PK\x03\x04 any zip", b"\x00" * 2000, b"%!PS-Adobe-3.0"]
)
async def test_other_kinds_are_refused_with_those_that_are_taken(
    tmp_path: Path, data: bytes
) -> None:
    with pytest.raises(UnsupportedMediaError, match="PDF, TIFF, PNG and JPEG are known"):
        await Desk(tmp_path).take(data)


async def test_a_slow_reader_is_killed(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="longer than"):
        await Desk(tmp_path, document_timeout_s=0.001).take(pdf())
    assert files(tmp_path) == set()


# --- Office documents ----------------------------------------------------------------------------

OFFICE = b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00" + b"[Content_Types].xml" + bytes(100)

# What LibreOffice is asked for, done by a program that needs no LibreOffice.
OFFICE_PROGRAM = """#!{python}
import os, pathlib, sys
arguments = sys.argv[1:]
profile = next(a for a in arguments if a.startswith("-env:UserInstallation=file://"))
settings = pathlib.Path(profile.removeprefix("-env:UserInstallation=file://")) / "user"
assert "DisableMacrosExecution" in (settings / "registrymodifications.xcu").read_text()
assert not [name for name in os.environ if name.startswith("OUTSPOOL")]
folder = pathlib.Path(arguments[arguments.index("--outdir") + 1])
source = pathlib.Path(arguments[-1])
{action}
"""


def office_program(folder: Path, action: str) -> str:
    program = folder / "office"
    program.write_text(OFFICE_PROGRAM.format(python=sys.executable, action=action))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


@pytest.mark.parametrize("data", [OFFICE, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)])
async def test_office_documents_need_libreoffice(tmp_path: Path, data: bytes) -> None:
    for program in ("", "no-such-program-anywhere"):
        with pytest.raises(UnsupportedMediaError, match="need LibreOffice on the server"):
            await Desk(tmp_path, office_program=program).take(data)


async def test_office_documents_are_turned_into_pdf(tmp_path: Path) -> None:
    ready = tmp_path / "made.pdf"
    ready.write_bytes(pdf((300, 200), A4))
    action = f"import shutil; shutil.copy({str(ready)!r}, folder / (source.stem + '.pdf'))"
    desk = Desk(tmp_path, office_program=office_program(tmp_path, action))
    made = await desk.take(OFFICE)
    assert (made.pages, made.original_type) == (2, "office")
    assert page_sizes(desk.bytes_of(made)) == [(300, 200), A4]


@pytest.mark.parametrize("action", ["sys.exit(1)", "pass"])
async def test_an_office_document_that_cannot_be_turned_is_refused(
    tmp_path: Path, action: str
) -> None:
    desk = Desk(tmp_path, office_program=office_program(tmp_path, action))
    with pytest.raises(InvalidError, match="cannot be turned into PDF"):
        await desk.take(OFFICE)


async def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    report = tmp_path / "children"
    action = (
        "import subprocess, time\n"
        "child = subprocess.Popen(['sleep', '300'])\n"
        f"open({str(report)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(300)"
    )
    desk = Desk(tmp_path, office_program=office_program(tmp_path, action), office_timeout_s=2)
    with pytest.raises(InvalidError, match="longer than 2 s"):
        await desk.take(OFFICE)
    child = Path(f"/proc/{report.read_text()}/stat")

    async def is_over() -> bool:
        return not child.exists() or child.read_text().split()[2] == "Z"

    await wait_until(is_over, "the child of the killed program is gone")


@given(st.binary(max_size=1100))
def test_any_bytes_are_of_one_kind_or_of_none(head: bytes) -> None:
    assert kind_of(head) in {"", "pdf", "tiff", "png", "jpeg", "office"}
    expected = b"%PDF-" in (head + b"%PDF-")[:1024]
    assert (kind_of(b"x" + head[:-1] + b"%PDF-") == "pdf") is expected
