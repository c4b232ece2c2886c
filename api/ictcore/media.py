"""Uploads and downloads of messages, the same way for every kind.

Clients send a file as it is under any label, as a data URL labelled ``base64``, or in a multipart
envelope that may be labelled as what is inside it (specs/ictcore-client-calls.md part 0 #15). The
bytes tell; nothing is held in memory but a first piece.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

import msgspec
import trio

from api.routing import Ask
from engine.errors import InvalidError
from engine.filenames import given_name

_BASE64 = "base64"
_PLAIN = "text/plain"  # of a part that does not say (RFC 2046 §5.1)
_CHUNK_BYTES = 65_536
_HEAD_BYTES = 4096
_ENVELOPE_BYTES = 8192  # that an upload may have beyond what is in it
_NOISE = re.compile(rb'[\s"]+')
_BOUNDARY = re.compile(rb"--([^\r\n]{1,200})\r?\n")
_SPACED = re.compile(rb"[\s\"']*")


class Upload(msgspec.Struct, frozen=True):
    """The file itself, piece by piece, and what the client calls it ("" = nothing)."""

    chunks: AsyncIterator[bytes]
    name: str = ""
    type: str = ""


async def uploaded(ask: Ask) -> Upload:
    """The file in a request's body, out of whatever it is wrapped in.

    ``TooLargeError`` at once where the announced length is too much. ``InvalidError`` for what is
    labelled base64 and is none, here or while it is read.
    """
    label = ask.request.headers.get("Content-Type", "")
    kind = label.partition(";")[0].strip().lower()
    limit = ask.engine.config.http.max_media_bytes + _ENVELOPE_BYTES
    # Base64 is a third longer, and a half where it stands in lines.
    chunks = ask.request.body_chunks(limit * 3 // 2 if kind == _BASE64 else limit)
    upload = await unwrapped(chunks, kind)
    if upload.name:
        return upload
    disposition = ask.request.headers.get("Content-Disposition", "")
    # The server reads headers as Latin-1, so this is what was sent.
    name = given_name(disposition.encode("latin-1", "replace"))
    return msgspec.structs.replace(upload, name=name or "")


async def unwrapped(chunks: AsyncIterator[bytes], kind: str) -> Upload:
    """The file in ``chunks``, which are labelled as of this kind. Raises ``InvalidError``."""
    head, rest = await _begun(chunks)
    if kind == _BASE64:
        return _from_data_url(head, rest)
    return _from_envelope(head, rest) or Upload(_Joined(head, rest), "", kind)


async def read_file(path: Path) -> AsyncIterator[bytes]:
    """A file in pieces."""
    async with await trio.open_file(path, "rb") as file:
        while chunk := await file.read(_CHUNK_BYTES):
            yield chunk


async def read_open(file: IO[bytes]) -> AsyncIterator[bytes]:
    """An open file in pieces; it is closed at the end."""
    with file:
        while chunk := await trio.to_thread.run_sync(file.read, _CHUNK_BYTES):
            yield chunk


# --- what it is wrapped in -----------------------------------------------------------------------


async def _begun(chunks: AsyncIterator[bytes]) -> tuple[bytes, AsyncIterator[bytes]]:
    """The first piece, large enough to tell, and the rest."""
    head = b""
    async for chunk in chunks:
        head += chunk
        if len(head) >= _HEAD_BYTES:
            break
    return head, chunks


def _from_data_url(head: bytes, rest: AsyncIterator[bytes]) -> Upload:
    spaced = _SPACED.match(head)
    body = head[spaced.end() :] if spaced else head
    kind = ""
    if body[:5].lower() == b"data:":
        label, comma, body = body.partition(b",")
        if not comma or not label.lower().rstrip().endswith(b";base64"):
            raise InvalidError("media: not a data URL in base64")
        kind = label[5:].partition(b";")[0].decode("ascii", "replace")
    return Upload(_Decoded(body, rest), "", kind)


def _from_envelope(head: bytes, rest: AsyncIterator[bytes]) -> Upload | None:
    """The first file of a multipart body (RFC 2046 §5.1.1), or its first part; None if it is none.

    All headers up to that file have to be in the first piece.
    """
    first = _BOUNDARY.match(head)
    if first is None:
        return None
    mark = b"--" + first[1].rstrip()
    parts = list(
        re.finditer(rb"(?:^|\n)" + re.escape(mark) + rb"\s*?\n((?:[^\r\n]+\r?\n)+)\r?\n", head)
    )
    if not parts:
        return None
    names = [given_name(_field(part[1], b"content-disposition")) for part in parts]
    place = next((place for place, name in enumerate(names) if name is not None), 0)
    kind = _field(parts[place][1], b"content-type").partition(b";")[0].decode("latin-1")
    body = head[parts[place].end() :]
    return Upload(
        _Until(b"\n" + mark, body, rest), names[place] or "", kind.strip().lower() or _PLAIN
    )


def _field(block: bytes, name: bytes) -> bytes:
    """A header field of a part, unfolded lines and all; b"" where there is none."""
    value = rb"[ \t]*:([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)"
    found = re.search(rb"^" + name + value, block, re.IGNORECASE | re.MULTILINE)
    return found[1] if found else b""


class _Joined(AsyncIterator[bytes]):
    """A first piece and the rest."""

    def __init__(self, head: bytes, rest: AsyncIterator[bytes]) -> None:
        self._head = head
        self._rest = rest

    async def __anext__(self) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        return await self._rest.__anext__()


class _Decoded(AsyncIterator[bytes]):
    """Base64 (RFC 4648 §4) as bytes; blanks, line ends and quotes do not count."""

    def __init__(self, head: bytes, rest: AsyncIterator[bytes]) -> None:
        self._chunks = _Joined(head, rest)
        self._left = b""
        self._ended = False

    async def __anext__(self) -> bytes:
        while not self._ended:
            try:
                text = self._left + _NOISE.sub(b"", await self._chunks.__anext__())
            except StopAsyncIteration:
                self._ended = True
                text = self._left + b"=" * (-len(self._left) % 4)
            whole = len(text) // 4 * 4
            self._left = text[whole:]
            if whole:
                return _decoded(text[:whole])
        raise StopAsyncIteration


def _decoded(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise InvalidError(f"media: not base64 ({error})") from None


class _Until(AsyncIterator[bytes]):
    """What comes before ``mark``; the line end before it is not a part of it either."""

    def __init__(self, mark: bytes, head: bytes, rest: AsyncIterator[bytes]) -> None:
        self._mark = mark
        self._chunks = _Joined(head, rest)
        self._held = b""
        self._ended = False

    async def __anext__(self) -> bytes:
        while not self._ended:
            try:
                self._held += await self._chunks.__anext__()
            except StopAsyncIteration:
                return self._last(self._held)
            end = self._held.find(self._mark)
            if end >= 0:
                return self._last(self._held[:end].removesuffix(b"\r"))
            # The mark, and the line end before it, may have come in part.
            safe = len(self._held) - len(self._mark) - 1
            if safe > 0:
                ready, self._held = self._held[:safe], self._held[safe:]
                return ready
        raise StopAsyncIteration

    def _last(self, piece: bytes) -> bytes:
        self._ended = True
        return piece
