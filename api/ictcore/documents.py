"""/messages/documents: fax messages and their pages."""

from __future__ import annotations

import msgspec
import trio
from msgspec import UNSET

from api.ictcore.fields import OWNER_FILTERS, Text, changes, plain, read_body, seconds
from api.ictcore.lists import find
from api.ictcore.media import read_file, uploaded
from api.paging import Filter, integer, string
from api.routing import Ask, Created, Done, File, Item, Reply, Route, Rows, both
from engine.model import Document
from engine.store.base import Op

UPLOADS = ("application/pdf", "image/tiff", "image/png", "image/jpeg", "application/octet-stream",
           "base64")  # fmt: skip


class DocumentBody(msgspec.Struct, kw_only=True):
    """A document as clients write it: the name is needed; its pages are a call of its own.

    ``quality`` is basic, standard, fine, super, superior or ultra.
    """

    name: Text = UNSET
    description: Text = UNSET
    type: Text = UNSET
    quality: Text = UNSET


class DocumentView(msgspec.Struct, kw_only=True):
    """A document as clients read it; ``file_name`` "" without media, sizes of the first page."""

    document_id: int
    message_id: int
    name: str
    description: str
    type: str
    file_name: str
    pages: int
    size_x: float
    size_y: float
    quality: str
    resolution_x: int
    resolution_y: int
    user_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None


FILTERS = {
    "document_id": Filter("id", Op.EQ, integer),
    "name": Filter("name", Op.CONTAINS, string),
    "type": Filter("type", Op.CONTAINS, string),
    "description": Filter("description", Op.CONTAINS, string),
    **OWNER_FILTERS,
}


def to_json(document: Document) -> DocumentView:
    """The document on the wire."""
    return DocumentView(
        document_id=document.id,
        message_id=document.id,
        name=document.name,
        description=document.description,
        type=document.type,
        file_name=_file_name(document.id) if document.media_path else "",
        pages=document.pages,
        size_x=plain(document.size_x),
        size_y=plain(document.size_y),
        quality=document.quality,
        resolution_x=document.resolution_x,
        resolution_y=document.resolution_y,
        user_id=document.owner_id,
        created_by=document.owner_id,
        date_created=seconds(document.created_at),
        last_updated=seconds(document.updated_at),
    )


async def create(ask: Ask) -> Reply:
    """POST /messages/documents."""
    given = changes(await read_body(ask, DocumentBody, creating=True))
    document = await ask.engine.catalog.create(ask.who, Document(**{"name": "", **given}))
    return Created("document_id", document.id)


async def index(ask: Ask) -> Reply:
    """GET /messages/documents."""
    return await find(ask, Document, FILTERS, to_json)


async def show(ask: Ask) -> Reply:
    """GET /messages/documents/{document_id}."""
    return Item(to_json(await ask.engine.catalog.read(ask.who, Document, ask.id("document_id"))))


async def update(ask: Ask) -> Reply:
    """PUT /messages/documents/{document_id}."""
    given = changes(await read_body(ask, DocumentBody, creating=False))
    document = await ask.engine.catalog.update(ask.who, Document, ask.id("document_id"), given)
    return Item(to_json(document))


async def delete(ask: Ask) -> Reply:
    """DELETE /messages/documents/{document_id}."""
    await ask.engine.catalog.delete(ask.who, Document, ask.id("document_id"))
    return Done()


async def upload(ask: Ask) -> Reply:
    """PUT /messages/documents/{document_id}/media: takes the place of what was there."""
    file, document_id = await uploaded(ask), ask.id("document_id")
    await ask.engine.messages.set_media(ask.who, Document, document_id, file.chunks)
    return Created("document_id", document_id, fresh=False)


async def append(ask: Ask) -> Reply:
    """POST /messages/documents/{document_id}/media: comes after the pages that were there."""
    file, document_id = await uploaded(ask), ask.id("document_id")
    await ask.engine.messages.add_media(ask.who, Document, document_id, file.chunks)
    return Created("document_id", document_id, fresh=False)


async def download(ask: Ask) -> Reply:
    """GET /messages/documents/{document_id}/media: all pages as one PDF."""
    document_id = ask.id("document_id")
    path = await ask.engine.messages.media(ask.who, Document, document_id)
    size = (await trio.Path(path).stat()).st_size
    return File(_file_name(document_id), "application/pdf", read_file(path), size)


def _file_name(document_id: int) -> str:
    return f"document_{document_id}.pdf"


_ALL = "/messages/documents"
_ONE = "/messages/documents/{document_id}"

ROUTES = both(
    "/messages",
    Route(verb="POST", path=_ALL, handler=create, summary="Create a document",
          answer=Created, view="document_id", body=DocumentBody),
    Route(verb="GET", path=_ALL, handler=index, summary="List documents",
          answer=Rows, view=DocumentView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read a document",
          answer=Item, view=DocumentView),
    Route(verb="PUT", path=_ONE, handler=update, summary="Update a document",
          answer=Item, view=DocumentView, body=DocumentBody),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete a document", answer=Done,
          statuses=(417,)),
    Route(verb="PUT", path=_ONE + "/media", handler=upload,
          summary="Upload a PDF, TIFF, PNG or JPEG file", answer=Created, view="document_id",
          body=UPLOADS, statuses=(411, 415)),
    Route(verb="POST", path=_ONE + "/media", handler=append,
          summary="Add the pages of a PDF, TIFF, PNG or JPEG file", answer=Created,
          view="document_id", body=UPLOADS, statuses=(411, 415)),
    Route(verb="GET", path=_ONE + "/media", handler=download, summary="Download as PDF",
          answer=File, view="application/pdf"),
)  # fmt: skip
