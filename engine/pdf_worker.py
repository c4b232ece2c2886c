"""Reads documents in a process of its own, because they come from anywhere.

``python -m engine.pdf_worker pdf|tiff|png|jpeg SOURCE TARGET MAX_PAGES [BEFORE]`` writes SOURCE as
PDF to TARGET, behind the pages of BEFORE, and prints what it is as JSON: ``pages``, ``size_x`` and
``size_y`` (of the first page, points), or ``refused`` with a reason. Anything else on the way out
means that the document is not one that can be read. ``… run PROGRAM ARGUMENT …`` becomes PROGRAM,
with limits.

Limits and their reasons: an image of 30000 x 30000 needs 1 GB, nested forms never end, a hundred
thousand pages fit into a few bytes.
"""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pypdfium2
from PIL import Image, ImageOps, ImageSequence

MEMORY_BYTES = 1_500_000_000
CPU_S = 10
OFFICE_MEMORY_BYTES = 8_000_000_000  # it maps far more than it uses
OFFICE_CPU_S = 60
_FILE_BYTES = 512_000_000
_OPEN_FILES = 256
_MAX_PIXELS = 100_000_000
_POINTS = 72  # an inch
_A4 = (595.0, 842.0)
_A3_LONG = 1191.0  # a larger page is no page but pixels whose size nobody wrote down
_DPI = range(20, 2401)
_DISK_FULL = 74  # sysexits.h EX_IOERR
_WHITE = (255, 255, 255)


class Refused(Exception):  # noqa: N818 - an answer
    """The document is not taken; the message says why."""


def limit(memory_bytes: int, cpu_s: int) -> None:
    """Let this process, and what it becomes, take no more."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def build(kind: str, source: Path, target: Path, max_pages: int, before: Path | None) -> Any:
    """Write the PDF; what it is."""
    result = pypdfium2.PdfDocument.new()
    if before is not None:
        _add(result, pypdfium2.PdfDocument(before), max_pages)
    if kind == "pdf":
        _add(result, _opened(source), max_pages)
    else:
        for page in _pictures(kind, source):
            _add(result, pypdfium2.PdfDocument(page), max_pages)
    if not len(result):
        raise Refused("there is no page in this document")
    size_x, size_y = result[0].get_size()
    result.save(target)
    return {"pages": len(result), "size_x": round(size_x, 2), "size_y": round(size_y, 2)}


def _opened(source: Path) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(source)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Refused("the document is protected by a password") from None
        raise Refused("the document is damaged") from None


def _add(result: pypdfium2.PdfDocument, more: pypdfium2.PdfDocument, max_pages: int) -> None:
    if len(result) + len(more) > max_pages:
        raise Refused(f"the document has more than {max_pages} pages")
    for number in range(len(more)):
        # Its content is read here once, so that what never ends does not end here.
        more[number].close()
    result.import_pages(more)
    more.close()


def _pictures(kind: str, source: Path) -> Iterator[bytes]:
    """Every picture of a file as a PDF of one page; one at a time, they are large."""
    Image.MAX_IMAGE_PIXELS = _MAX_PIXELS
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        with Image.open(source, formats=(kind.upper(),)) as image:
            for frame in ImageSequence.Iterator(image):
                yield _page(frame)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Refused(f"a picture has more than {_MAX_PIXELS} pixels") from None


def _page(frame: Image.Image) -> bytes:
    if frame.width * frame.height > _MAX_PIXELS:
        raise Refused(f"a picture has more than {_MAX_PIXELS} pixels")
    picture = _upright(frame)
    page = io.BytesIO()
    # Black and white goes in as Group 4, bit for bit; the rest as JPEG.
    quality = {} if picture.mode == "1" else {"quality": 90}
    picture.save(page, "PDF", dpi=_dots_per_inch(picture, frame), **quality)
    return page.getvalue()


def _upright(frame: Image.Image) -> Image.Image:
    """The picture the way it was taken, on white, in a mode that a PDF knows."""
    turned = ImageOps.exif_transpose(frame) or frame
    if turned.mode in ("1", "L", "RGB"):
        return turned
    if turned.mode.startswith("I;16"):
        return turned.point(lambda value: value / 256).convert("L")
    if not turned.has_transparency_data:
        return turned.convert("L" if turned.mode in ("I", "F") else "RGB")
    solid = turned.convert("RGBA")
    paper = Image.new("RGB", solid.size, _WHITE)
    paper.paste(solid, mask=solid.getchannel("A"))
    return paper


def _dots_per_inch(picture: Image.Image, frame: Image.Image) -> tuple[float, float]:
    """What the file says (a fax has other dots across than down), else what fits on A4."""
    across, down = (float(value) for value in frame.info.get("dpi", (0, 0)))
    if picture.size != frame.size:
        across, down = down, across
    if round(across) in _DPI and round(down) in _DPI:
        long = max(picture.width / across, picture.height / down) * _POINTS
        if long <= _A3_LONG:
            return across, down
    fitting = max(pixels * _POINTS / room for pixels, room in zip(picture.size, _A4, strict=True))
    return fitting, fitting


def main(arguments: list[str]) -> int:
    """The command line; 0 with an answer on stdout."""
    if arguments[0] == "run":
        limit(OFFICE_MEMORY_BYTES, OFFICE_CPU_S)
        os.execvp(arguments[1], arguments[1:])  # noqa: S606 - no shell, that is the point
    kind, source, target, max_pages, *before = arguments
    limit(MEMORY_BYTES, CPU_S)
    try:
        answer = build(
            kind, Path(source), Path(target), int(max_pages), Path(before[0]) if before else None
        )
    except Refused as refusal:
        answer = {"refused": str(refusal)}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return _DISK_FULL
        raise
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
