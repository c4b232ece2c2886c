"""/messages/documents and their pages over HTTP, on both mounts, in every wrapping clients use."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.api.node import Node, made, running_node
from tests.support.papers import A4, endless_pdf, fax, image_file, page_sizes, pdf, picture

PATH = "/messages/documents"
LETTER = (612, 792)
PDF = pdf(A4, (300, 200))


async def pages_of(node: Node, document: int) -> list[tuple[int, int]]:
    media = await node.client.get(f"/documents/{document}/media")
    assert media.status_code == 200, media.text
    return list(page_sizes(media.content))


@pytest.mark.parametrize(
    ("upload", "pages"),
    [
        (PDF, [A4, (300, 200)]),
        (fax(2), [(610, 840)] * 2),
        (image_file(picture(), "PNG", dpi=(200, 200)), [(144, 108)]),
        (image_file(picture(mode="RGB"), "JPEG", dpi=(200, 200)), [(144, 108)]),
    ],
    ids=["pdf", "tiff", "png", "jpeg"],
)
@pytest.mark.parametrize("label", ["application/pdf", "image/tiff", "text/plain", ""])
async def test_the_bytes_decide_what_a_document_is(
    node: Node, upload: bytes, pages: list[tuple[int, int]], label: str
) -> None:
    document = await made(node.client, PATH, name="invoice")
    response = await node.client.put(
        f"{PATH}/{document}/media", content=upload, headers={"Content-Type": label}
    )
    assert response.json() == {"document_id": document}, response.text
    media = await node.client.get(f"{PATH}/{document}/media")
    assert media.headers["Content-Type"] == "application/pdf"
    assert media.headers["Content-Length"] == str(len(media.content))
    assert f'filename="document_{document}.pdf"' in media.headers["Content-Disposition"]
    assert page_sizes(media.content) == pages
    shown = (await node.client.get(f"{PATH}/{document}")).json()
    assert (shown["pages"], shown["type"]) == (len(pages), "pdf")
    assert (round(shown["size_x"]), round(shown["size_y"])) == pages[0]
    assert shown["file_name"] == f"document_{document}.pdf"


async def test_put_replaces_and_post_adds(node: Node) -> None:
    document = await made(node.client, PATH, name="invoice")
    for upload in (pdf(LETTER), fax(1), pdf(A4)):
        response = await node.client.post(f"{PATH}/{document}/media", content=upload)
        assert response.json() == {"document_id": document}, response.text
    assert await pages_of(node, document) == [LETTER, (610, 840), A4]
    assert (await node.client.get(f"{PATH}/{document}")).json()["pages"] == 3
    await node.client.put(f"{PATH}/{document}/media", content=pdf((300, 200)))
    assert await pages_of(node, document) == [(300, 200)]


def wrapped(mime: str, content: bytes, *, fields: bytes = b"", eol: bytes = b"\r\n") -> bytes:
    mark = b"--------------------------d74496d66958873e"
    return eol.join(
        [
            *([mark, b'Content-Disposition: form-data; name="a"', b"", fields] if fields else []),
            mark,
            b'Content-Disposition: form-data; name="file"; filename="a.pdf"',
            b"Content-Type: " + mime.encode(),
            b"",
            content,
            mark + b"--",
            b"",
        ]
    )


WRAPPINGS: dict[str, tuple[str, bytes]] = {
    "base64": ("base64", b"data:application/pdf;base64," + base64.b64encode(PDF)),
    "base64 in quotes": ("base64", b'"data:application/pdf;base64,%b"' % base64.b64encode(PDF)),
    "base64 in lines": ("Base64; x=y", b"data:;base64," + base64.encodebytes(PDF)),
    "base64 without a url": ("base64", base64.b64encode(PDF)),
    "base64 without padding": ("base64", base64.b64encode(PDF).rstrip(b"=")),
    "multipart": ("multipart/form-data; boundary=x", wrapped("application/pdf", PDF)),
    "multipart mislabelled": ("application/pdf", wrapped("application/pdf", PDF)),
    "multipart after a field": ("", wrapped("application/pdf", PDF, fields=b"hello")),
    "multipart with bare line ends": ("", wrapped("application/pdf", PDF, eol=b"\n")),
    "something before it": ("application/pdf", b"X-Nothing: 1\r\n\r\n" + PDF),
}


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize("kind", WRAPPINGS)
async def test_every_wrapping_is_taken_off(node: Node, kind: str, prefix: str) -> None:
    label, body = WRAPPINGS[kind]
    document = await made(node.client, PATH, name="invoice")
    response = await node.client.put(
        f"{prefix}{PATH}/{document}/media", content=body, headers={"Content-Type": label}
    )
    assert response.status_code == 200, response.text
    assert await pages_of(node, document) == [A4, (300, 200)]


async def test_a_wrapped_upload_of_many_pieces_arrives_whole(node: Node) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (500, 500, 3), np.uint8)
    upload = image_file(Image.fromarray(noise), "PNG")
    assert len(upload) > 500_000
    document, seen = await made(node.client, "/documents", name="photo"), set[Path]()
    for label, body in (
        ("base64", b"data:image/png;base64," + base64.encodebytes(upload)),
        ("", wrapped("image/png", upload)),
    ):

        async def piecewise(body: bytes = body) -> Any:
            for start in range(0, len(body), 10_007):
                yield body[start : start + 10_007]

        response = await node.client.put(
            f"/documents/{document}/media", content=piecewise(), headers={"Content-Type": label}
        )
        assert response.status_code == 200, response.text
        originals = (node.engine.config.data_path / "media").glob("*.original.png")
        [new] = set(originals) - seen
        assert new.read_bytes() == upload
        seen.add(new)


@pytest.mark.parametrize(
    ("label", "body", "status", "words"),
    [
        ("application/pdf", b"", 411, "no file uploaded"),
        ("base64", b"", 411, "no file uploaded"),
        ("base64", b"data:application/pdf;base64,", 411, "no file uploaded"),
        ("base64", b"data:application/pdf;base64,!!!!", 412, "base64"),
        ("base64", b"data:application/pdf,plain", 412, "base64"),
        ("application/pdf", b"plain text", 415, "PDF, TIFF, PNG and JPEG are known"),
        ("application/pdf", b"PK\x03\x04 [Content_Types].xml", 415, "LibreOffice"),
        ("application/pdf", b"%PDF-1.7 and nothing", 412, "damaged"),
        ("application/pdf", PDF[:200], 412, "damaged"),
        ("application/pdf", endless_pdf(), 412, "too much work"),
        ("application/pdf", pdf(*[(9, 9)] * 501), 412, "more than 500 pages"),
    ],
)
async def test_what_cannot_be_faxed_is_refused(
    node: Node, label: str, body: bytes, status: int, words: str
) -> None:
    document = await made(node.client, PATH, name="invoice")
    for send in (node.client.put, node.client.post):
        response = await send(
            f"{PATH}/{document}/media",
            content=body,
            headers={"Content-Type": label},
            timeout=60,  # what takes too much work takes a while
        )
        assert response.status_code == status, response.text
        assert words in response.json()["error"]["message"]
    missing = await node.client.get(f"{PATH}/{document}/media")
    assert missing.status_code == 404
    assert missing.json()["error"]["message"] == "Document media not found"


async def test_sizes_are_limited_before_and_after_unwrapping(tmp_path: Path) -> None:
    async with running_node(tmp_path, max_media_bytes=100_000) as node:
        document = await made(node.client, PATH, name="invoice")
        for label, body in (
            ("application/pdf", b"%PDF-" + bytes(100_001)),
            ("application/pdf", b"%PDF-" + bytes(500_001)),
            ("base64", base64.b64encode(b"%PDF-" + bytes(100_001))),
            ("", wrapped("application/pdf", b"%PDF-" + bytes(100_001))),
        ):
            response = await node.client.put(
                f"{PATH}/{document}/media", content=body, headers={"Content-Type": label}
            )
            assert response.status_code == 413, response.text


async def test_crud_and_filters(node: Node) -> None:
    one = await made(node.client, PATH, name="Invoice", description="of May", quality="fine")
    two = await made(node.client, "/documents", name="offer", type="tif")
    shown = (await node.client.get(f"/documents/{one}")).json()
    assert (shown["quality"], shown["resolution_x"], shown["resolution_y"]) == ("fine", 204, 196)
    assert (shown["pages"], shown["file_name"], shown["message_id"]) == (0, "", one)
    for params, found in (
        ({"name": "OIC"}, [one]),
        ({"description": "may"}, [one]),
        ({"type": "tif"}, [two]),
        ({"document_id": two}, [two]),
        ({"after": shown["date_created"]}, [one, two]),
        ({"before": 1}, []),
        ({"created_by": shown["user_id"]}, [one, two]),
        ({"sort": "-document_id"}, [two, one]),
    ):
        rows = (await node.client.get(PATH, params=params)).json()
        assert [row["document_id"] for row in rows] == found, params
    changed = await node.client.put(f"{PATH}/{one}", json={**shown, "quality": "ultra"})
    assert (changed.json()["resolution_x"], changed.json()["resolution_y"]) == (408, 391)
    assert changed.json()["description"] == "of May"
    assert (await node.client.delete(f"/documents/{one}")).json() is True
    assert (await node.client.get(f"{PATH}/{one}")).status_code == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("name", "x" * 129), ("name", "two\r\nlines"), ("quality", "best"),
        ("type", "a/b"), ("type", "x" * 9), ("description", "x" * 256), ("name", {}),
    ],
)  # fmt: skip
async def test_a_field_that_cannot_be_is_named(node: Node, field: str, value: Any) -> None:
    response = await node.client.post(PATH, json={"name": "n", field: value})
    assert response.status_code == 412
    assert field in response.json()["error"]["message"]


async def test_the_classic_mount_speaks_its_own_way(node: Node) -> None:
    created = await node.client.post("/api/documents", json={"name": "invoice"})
    document = int(created.content)
    uploaded = await node.client.put(f"/api/messages/documents/{document}/media", content=PDF)
    assert uploaded.json() == str(document)
    [row] = (await node.client.get("/api/documents")).json()
    assert (row["document_id"], row["pages"], row["size_x"]) == (str(document), "2", "595")
    assert (await node.client.delete(f"/api/messages/documents/{document}")).json() is True


async def test_a_document_in_use_is_not_deleted(node: Node) -> None:
    other = await made(node.client, PATH, name="other")
    document = await made(node.client, PATH, name="invoice")
    program = await made(node.client, "/programs/sendfax", name="fax", document_id=document)
    refused = await node.client.delete(f"{PATH}/{document}")
    assert refused.status_code == 417
    assert f"program {program}" in refused.json()["error"]["message"]
    assert (await node.client.delete(f"{PATH}/{other}")).json() is True
    await node.client.put(
        f"/programs/{program}", json={"document_id": await made(node.client, PATH, name="new")}
    )
    assert (await node.client.delete(f"{PATH}/{document}")).json() is True


async def test_documents_of_others_are_not_there(node: Node) -> None:
    document = await made(node.client, PATH, name="invoice")
    await node.client.put(f"{PATH}/{document}/media", content=PDF)
    stranger = await node.user("stranger", "user")
    for response in (
        await stranger.get(f"{PATH}/{document}"),
        await stranger.get(f"{PATH}/{document}/media"),
        await stranger.put(f"{PATH}/{document}/media", content=PDF),
        await stranger.post(f"{PATH}/{document}/media", content=PDF),
        await stranger.delete(f"{PATH}/{document}"),
        await stranger.post("/programs/sendfax", json={"name": "x", "document_id": document}),
    ):
        assert response.status_code == 404, response.text
    assert (await stranger.get(PATH)).json() == []
