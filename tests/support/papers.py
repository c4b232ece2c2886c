"""Documents of every kind a test can upload, and a look at the PDF that became of them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pypdfium2
from PIL import Image, ImageDraw

A4 = (595, 842)


def pdf(*sizes: tuple[float, float]) -> bytes:
    """A PDF with pages of these sizes in points (one of A4 without any)."""
    document = pypdfium2.PdfDocument.new()
    for width, height in sizes or (A4,):
        document.new_page(width, height)
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def picture(
    text: str = "fax", *, mode: str = "L", size: tuple[int, int] = (400, 300)
) -> Image.Image:
    """A picture with something dark on it."""
    image = Image.new("RGB", size, (255, 255, 255))
    ImageDraw.Draw(image).rectangle((10, 10, size[0] // 2, size[1] // 2), fill=(20, 20, 20))
    ImageDraw.Draw(image).text((20, size[1] - 40), text, fill=(0, 0, 0))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def image_file(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def fax(pages: int) -> bytes:
    """A TIFF as fax machines write it: Group 4, standard resolution."""
    frames = [picture(f"page {n}", mode="1", size=(1728, 1143)) for n in range(pages)]
    return image_file(
        frames[0], "TIFF", save_all=True, append_images=frames[1:], compression="group4",
        dpi=(204, 98),
    )  # fmt: skip


def page_sizes(document: bytes) -> Sequence[tuple[int, int]]:
    """Width and height of every page, in whole points."""
    opened = pypdfium2.PdfDocument(document)
    return [(round(page.get_width()), round(page.get_height())) for page in opened]


def rendered(document: bytes, page: int, *, width: int = 200) -> Image.Image:
    """A page as a grey picture of that width."""
    opened = pypdfium2.PdfDocument(document)[page]
    image: Image.Image = opened.render(scale=width / opened.get_width()).to_pil().convert("L")
    return image


def endless_pdf(depth: int = 40) -> bytes:
    """A small PDF whose page never ends: every form draws the next one ten times."""
    forms = range(4, 4 + depth)
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R "
        b"/Resources << /XObject << /F 4 0 R >> >> >>" % (4 + depth),
        4 + depth: _stream(b"/F Do ", b""),
    }
    for number in forms:
        following = number + 1 if number + 1 in forms else number
        drawing = b"/F Do " * 10 if following != number else b"0 0 m 9 9 l S "
        extra = b"/Type /XObject /Subtype /Form /BBox [0 0 595 842] " + (
            b"/Resources << /XObject << /F %d 0 R >> >> " % following
        )
        objects[number] = _stream(drawing, extra)
    return _assembled(objects)


def _stream(content: bytes, extra: bytes) -> bytes:
    return b"<< %s/Length %d >> stream\n%s\nendstream" % (extra, len(content), content)


def _assembled(objects: dict[int, bytes]) -> bytes:
    """Objects as a PDF file (ISO 32000-1 §7.5)."""
    body, places = b"%PDF-1.7\n", {}
    for number in sorted(objects):
        places[number] = len(body)
        body += b"%d 0 obj\n%s\nendobj\n" % (number, objects[number])
    table = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    table += b"".join(b"%010d 00000 n \n" % places[number] for number in sorted(places))
    trailer = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    return body + table + trailer % (len(objects) + 1, len(body))
