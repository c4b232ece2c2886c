"""One row of every kind that belongs to somebody: what a stranger must not see, change or use."""

from __future__ import annotations

import io
from typing import Any

import httpx
import msgspec
from PIL import Image

from api.web import DIALECTS
from engine.clock import now
from engine.model import (
    Account,
    Campaign,
    Contact,
    Document,
    DoNotContact,
    Entity,
    Group,
    Program,
    Provider,
    Recording,
    Role,
    Spool,
    SpoolResult,
    SpoolStatus,
    Subscription,
    Task,
    Template,
    Text,
    Transmission,
    TransmissionStatus,
    User,
)
from engine.store.base import Condition, ContactRow, Op, Query
from tests.api.node import Node, sound
from tests.api.permissions import ROLES

KINDS: tuple[type[Entity], ...] = (
    Account, Campaign, Contact, Document, DoNotContact, Group, Program, Provider, Recording, Role,
    Spool,
    SpoolResult, Subscription, Task, Template, Text, Transmission, User,
)  # fmt: skip
# All that one's own work can need, and the right to see everybody's of nothing.
EXTRA = frozenset({"account", "provider"})
GRANTED = ROLES["user"] | EXTRA
_MEDIA_KINDS = ("recording", "document", "template")


class Belongings(msgspec.Struct, frozen=True):
    """A user's client, and the ids of its rows by the name of the id."""

    user: User
    client: httpx.AsyncClient
    ids: dict[str, int | str]
    marker: str  # in every text of every row

    async def rows(self, node: Node) -> dict[str, list[Any]]:
        """All there is of this user's, as the store has it."""
        own = Query(conditions=(Condition("owner_id", Op.EQ, self.user.id),))
        found: dict[str, list[Any]] = {
            kind.__name__: list(await node.engine.store.find(kind, own)) for kind in KINDS
        }
        found["User"] = [await node.engine.store.get(User, self.user.id)]
        group = int(self.ids["group_id"])
        found["members"] = [
            one.contact.id for one in await node.engine.store.export_contacts(group, 0, 100)
        ]
        return found


async def belongings(node: Node, name: str) -> Belongings:
    """A user ``name`` with one row of every kind; what can have media has some."""
    insert = node.engine.store.insert
    user = await insert(
        User(username=name, email=f"{name}@example.com", roles=("user",),
             permissions=tuple(sorted(EXTRA)))
    )  # fmt: skip
    token = node.tokens.issue(user)
    client = await node.speaking(Authorization=f"Bearer {token}", Accept="application/json")
    ids = await _rows(node, user, name)
    ids |= {"user_id": user.id, "username": name}
    await node.engine.providers_changed()
    await _upload(client, ids)
    return Belongings(user, client, ids, name)


async def _rows(node: Node, user: User, name: str) -> dict[str, int | str]:
    store = node.engine.store
    own: dict[str, Any] = {"owner_id": user.id, "created_at": now(), "updated_at": now()}
    named = {**own, "name": name}
    account = await store.insert(
        Account(
            **own, username=name, first_name=name, phone=f"+49{user.id:09}", active=True,
            email=f"{name}@example.com", settings={"word": name},
        )
    )  # fmt: skip
    group = await store.insert(Group(**named))
    await store.import_contacts(
        group.id, user.id, [ContactRow(phone=f"+43{user.id:09}", first_name=name)], now()
    )
    (linked,) = await store.export_contacts(group.id, 0, 10)
    closed = await store.insert(DoNotContact(**own, address=f"{name}@example.com", reason=name))
    document = await store.insert(Document(**named))
    recording = await store.insert(Recording(**named))
    template = await store.insert(Template(**named, subject=name, body=name))
    text = await store.insert(Text(**named, data=name))
    program = await store.insert(
        Program(**named, type="voicemessage", data={"recording_id": recording.id})
    )
    await store.insert(Subscription(**own, account_id=account.id, program_id=program.id))
    provider = await store.insert(Provider(**named, type="loopback", host=name))
    at: dict[str, Any] = {"account_id": account.id, "program_id": program.id}
    campaign = await store.insert(Campaign(**own, **at, group_id=group.id, source=name))
    transmission = await store.insert(
        Transmission(
            **own, **at, contact_id=linked.contact.id, title=name, response=name,
            status=TransmissionStatus.PENDING,
        )
    )  # fmt: skip
    spool = await store.insert(
        Spool(
            **own, transmission_id=transmission.id, account_id=account.id, destination=name,
            status=SpoolStatus.FAILED, response=name, spooled_at=now(), ended_at=now(),
        )
    )  # fmt: skip
    result = await store.insert(
        SpoolResult(**own, spool_id=spool.id, type="info", name=name, data=name)
    )
    for type_, target, action in (
        ("transmission", transmission.id, "send"),
        ("campaign", campaign.id, "start"),
    ):
        await store.insert(
            Task(**own, type=type_, action=action, target_id=target, account_id=account.id,
                 year="2999", note=name)
        )  # fmt: skip
    return {
        "do_not_contact_id": closed.id,
        "account_id": account.id, "group_id": group.id, "contact_id": linked.contact.id,
        "document_id": document.id, "recording_id": recording.id, "template_id": template.id,
        "text_id": text.id, "program_id": program.id, "provider_id": provider.id,
        "campaign_id": campaign.id, "transmission_id": transmission.id, "spool_id": spool.id,
        "spool_result_id": result.id, "parent_id": program.id, "extension_id": account.id,
        "did_id": account.id,
    }  # fmt: skip


async def _upload(client: httpx.AsyncClient, ids: dict[str, int | str]) -> None:
    paths = {route.path for route in DIALECTS["ictcore"].routes}
    for kind in _MEDIA_KINDS:
        if f"/messages/{kind}s/{{{kind}_id}}/media" in paths:
            content, content_type = media(kind)
            response = await client.put(
                f"/messages/{kind}s/{ids[f'{kind}_id']}/media",
                content=content,
                headers={"Content-Type": content_type},
            )
            assert response.status_code == 200, response.text


def media(kind: str) -> tuple[bytes, str]:
    """A small file of a kind of message, and its media type."""
    if kind == "recording":
        return sound("WAV", rate=8000, channels=1), "audio/wav"
    if kind == "document":
        file = io.BytesIO()
        Image.new("1", (204, 196), 1).save(file, "PDF")
        return file.getvalue(), "application/pdf"
    return b"an attachment", "text/plain"
