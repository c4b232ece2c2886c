"""What an upload is wrapped in comes off, however its bytes are cut into pieces."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from api.ictcore.media import unwrapped
from engine.errors import InvalidError
from engine.filenames import given_name, safe_name
from tests.api.node import Node, made
from tests.support.papers import pdf

CUTS = st.lists(st.integers(1, 50), min_size=1, max_size=20)


class Pieces(AsyncIterator[bytes]):
    """``data`` in pieces of these sizes, again and again."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = data
        self._sizes = sizes
        self._turn = 0

    async def __anext__(self) -> bytes:
        if not self._data:
            raise StopAsyncIteration
        size = self._sizes[self._turn % len(self._sizes)]
        self._turn += 1
        piece, self._data = self._data[:size], self._data[size:]
        return piece


def taken(data: bytes, sizes: list[int], kind: str = "") -> tuple[bytes, str, str]:
    async def take() -> tuple[bytes, str, str]:
        upload = await unwrapped(Pieces(data, sizes), kind)
        content = b"".join([piece async for piece in upload.chunks])
        return content, upload.name, upload.type

    return trio.run(take)


@given(st.binary(max_size=9000), CUTS)
def test_what_is_not_wrapped_comes_as_it_is(data: bytes, sizes: list[int]) -> None:
    if not data.startswith(b"--"):
        assert taken(data, sizes, "image/png") == (data, "", "image/png")


@given(st.binary(max_size=9000), CUTS, st.sampled_from([0, 4, 61, 76]), st.booleans())
def test_base64_comes_back(data: bytes, sizes: list[int], line: int, padded: object) -> None:
    text = base64.b64encode(data) if padded else base64.b64encode(data).rstrip(b"=")
    if line:
        text = b"\r\n".join(text[start : start + line] for start in range(0, len(text), line))
    assert taken(b"data:image/png;base64," + text, sizes, "base64") == (data, "", "image/png")


@given(st.binary(max_size=300), CUTS)
def test_what_is_no_base64_is_refused(data: bytes, sizes: list[int]) -> None:
    with pytest.raises(InvalidError, match="base64"):
        taken(b"data:;base64,QUJD=QUJD" + data, sizes, "base64")


@given(st.binary(max_size=9000), st.binary(min_size=1, max_size=40), CUTS, st.booleans())
def test_the_file_of_a_form_comes_out(
    data: bytes, boundary: bytes, sizes: list[int], first: object
) -> None:
    mark = b"--" + boundary.hex().encode()
    field = b'%b\r\nContent-Disposition: form-data; name="a"\r\n\r\nvalue\r\n' % mark
    file = (
        b'%b\r\nContent-Disposition: form-data; name="f"; filename="x.bin"\r\n'
        b"Content-Type: image/png\r\n\r\n%b\r\n" % (mark, data)
    )
    if b"\n" + mark in data:
        return
    body = (file + field if first else field + file) + mark + b"--\r\n"
    assert taken(body, sizes) == (data, "x.bin", "image/png")


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ('filename="März.pdf"'.encode(), "März.pdf"),  # as browsers and curl -F send it
        (b'filename="M\xe4rz.pdf"', "März.pdf"),
        (b"\r\n filename*=idna''x", "x"),
        (b"filename*=undefined''x", "x"),
        (rb'filename="say \"hi\\.txt"', 'say "hi\\.txt'),
        (b'filename="C:\\dir\\x.pdf"', "C:\\dir\\x.pdf"),
    ],
)
def test_the_name_of_a_part_is_read_as_it_was_sent(parameters: bytes, name: str) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="f"; %b\r\n'
        b"content-type: Application/PDF; x=y\r\n\r\nx\r\n--b--\r\n" % parameters
    )
    assert taken(body, [4096]) == (b"x", name, "application/pdf")


@given(st.binary(max_size=200))
def test_any_name_is_read(name: bytes) -> None:
    for field in (b"x; filename=%b", b'x; filename="%b"', b"x; filename*=%b", b"x; filename*0*=%b"):
        safe_name(given_name(field % name) or "").encode()


async def test_uploads_of_one_document_at_once_leave_one(node: Node) -> None:
    document = await made(node.client, "/documents", name="n")
    sizes = [(200 + number, 300) for number in range(4)]
    answers: list[httpx.Response] = []

    async def upload(size: tuple[int, int]) -> None:
        path = f"/documents/{document}/media"
        answers.append(await node.client.put(path, content=pdf(size), timeout=60))

    async with trio.open_nursery() as nursery:
        for size in sizes:
            nursery.start_soon(upload, size)
    assert {answer.status_code for answer in answers} == {200}
    shown = (await node.client.get(f"/documents/{document}")).json()
    assert (shown["size_x"], shown["size_y"]) in sizes
    retired = node.engine.config.data_path / "media" / "retired"
    assert len(list(retired.iterdir())) == 6, "a PDF and its original for each that was replaced"
