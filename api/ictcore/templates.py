"""/messages/templates: e-mails and their attachments."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from api.ictcore.fields import OWNER_FILTERS, Text, changes, read_body, seconds
from api.ictcore.lists import find
from api.ictcore.media import read_file, read_open, uploaded
from api.paging import Filter, integer, string
from api.routing import Ask, Created, Done, File, Item, Reply, Route, Rows, both
from engine.model import Template
from engine.store.base import Op

UPLOADS = ("application/octet-stream", "application/pdf", "text/plain", "text/html", "image/png",
           "base64")  # fmt: skip


class TemplateBody(msgspec.Struct, kw_only=True):
    """An e-mail as clients write it: the name is needed; attachments are a call of their own.

    ``body`` is HTML, ``body_alt`` plain text; each has a million characters at most.
    """

    name: Text = UNSET
    subject: Text = UNSET
    body: Text = UNSET
    body_alt: Text = UNSET
    type: Text = UNSET
    description: Text = UNSET


class TemplateView(msgspec.Struct, kw_only=True):
    """An e-mail as clients read it; ``length`` in bytes, ``attachment`` names split by commas.

    ``body`` is HTML. One that came in as plain text has it in ``body_alt`` and, escaped, in
    ``body``.
    """

    template_id: int
    message_id: int
    name: str
    subject: str
    body: str
    body_alt: str
    type: str
    description: str
    length: int
    attachment: str
    aAttachment: list[str]  # noqa: N815 - ICTCore's word
    user_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None


FILTERS = {
    "template_id": Filter("id", Op.EQ, integer),
    "name": Filter("name", Op.CONTAINS, string),
    "type": Filter("type", Op.CONTAINS, string),
    "subject": Filter("subject", Op.CONTAINS, string),
    "body": Filter("body", Op.CONTAINS, string),
    "body_alt": Filter("body_alt", Op.CONTAINS, string),
    "description": Filter("description", Op.CONTAINS, string),
    **OWNER_FILTERS,
}


def to_json(template: Template) -> TemplateView:
    """The template on the wire."""
    names = [str(one["name"]) for one in template.attachments]
    return TemplateView(
        template_id=template.id,
        message_id=template.id,
        name=template.name,
        subject=template.subject,
        body=template.body,
        body_alt=template.body_alt,
        type=template.type,
        description=template.description,
        length=_length(template),
        attachment=",".join(names),
        aAttachment=names,
        user_id=template.owner_id,
        created_by=template.owner_id,
        date_created=seconds(template.created_at),
        last_updated=seconds(template.updated_at),
    )


async def create(ask: Ask) -> Reply:
    """POST /messages/templates."""
    given = changes(await read_body(ask, TemplateBody, creating=True))
    template = await ask.engine.catalog.create(ask.who, Template(**{"name": "", **given}))
    return Created("template_id", template.id)


async def index(ask: Ask) -> Reply:
    """GET /messages/templates."""
    return await find(ask, Template, FILTERS, to_json)


async def show(ask: Ask) -> Reply:
    """GET /messages/templates/{template_id}."""
    return Item(to_json(await ask.engine.catalog.read(ask.who, Template, ask.id("template_id"))))


async def update(ask: Ask) -> Reply:
    """PUT /messages/templates/{template_id}."""
    given = changes(await read_body(ask, TemplateBody, creating=False))
    template = await ask.engine.catalog.update(ask.who, Template, ask.id("template_id"), given)
    return Item(to_json(template))


async def delete(ask: Ask) -> Reply:
    """DELETE /messages/templates/{template_id}."""
    await ask.engine.catalog.delete(ask.who, Template, ask.id("template_id"))
    return Done()


async def upload(ask: Ask) -> Reply:
    """PUT /messages/templates/{template_id}/media: takes the place of all attachments."""
    return await _attach(ask, replace=True)


async def append(ask: Ask) -> Reply:
    """POST /messages/templates/{template_id}/media: one more attachment."""
    return await _attach(ask, replace=False)


async def download(ask: Ask) -> Reply:
    """GET /messages/templates/{template_id}/media: the attachment; several as one ZIP."""
    template_id = ask.id("template_id")
    attachments = await ask.engine.messages.attachments(ask.who, template_id)
    if len(attachments) == 1:
        [one] = attachments
        return File(one.name, one.type, read_file(one.path), one.size)
    bundle = await ask.engine.messages.bundle(attachments)
    return File(f"template_{template_id}.zip", "application/zip", read_open(bundle))


async def _attach(ask: Ask, *, replace: bool) -> Reply:
    file, template_id = await uploaded(ask), ask.id("template_id")
    await ask.engine.messages.attach(
        ask.who, template_id, file.chunks, name=file.name, type=file.type, replace=replace
    )
    return Created("template_id", template_id, fresh=False)


def _length(template: Template) -> int:
    texts = (template.subject, template.body, template.body_alt)
    files = sum(int(one["size"]) for one in template.attachments)
    return sum(len(text.encode()) for text in texts) + files


_ALL = "/messages/templates"
_ONE = "/messages/templates/{template_id}"

ROUTES = both(
    "/messages",
    Route(verb="POST", path=_ALL, handler=create, summary="Create an e-mail template",
          answer=Created, view="template_id", body=TemplateBody),
    Route(verb="GET", path=_ALL, handler=index, summary="List e-mail templates",
          answer=Rows, view=TemplateView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read an e-mail template",
          answer=Item, view=TemplateView),
    Route(verb="PUT", path=_ONE, handler=update, summary="Update an e-mail template",
          answer=Item, view=TemplateView, body=TemplateBody),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete an e-mail template",
          answer=Done, statuses=(417,)),
    Route(verb="PUT", path=_ONE + "/media", handler=upload,
          summary="Upload the attachment, instead of all there are", answer=Created,
          view="template_id", body=UPLOADS, statuses=(411,)),
    Route(verb="POST", path=_ONE + "/media", handler=append, summary="Add an attachment",
          answer=Created, view="template_id", body=UPLOADS, statuses=(411,)),
    Route(verb="GET", path=_ONE + "/media", handler=download,
          summary="Download the attachment, several of them as ZIP", answer=File, view="*/*"),
)  # fmt: skip
