"""/unsubscribe/<token>: what who reads a mail may do without a login, and nobody else with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from engine.config import WebsiteConfig
from engine.events import TransmissionEnded
from engine.model import Contact, DoNotContact, Service, User
from engine.store.base import Query
from engine.unsubscribes import Links
from tests.api.node import Node, made, running_node
from tests.support.engine import DEADLINE_S, config_in, running_engine

WEB = "https://node.example/"
ADA = "Ada@Example.org"
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture
async def nobody(node: Node) -> httpx.AsyncClient:
    return await node.speaking()


def path_of(node: Node, address: str = ADA, owner_id: int | None = None) -> str:
    """The link to unsubscribe an address by, as it leads to the test's own node."""
    seals = node.engine.unsubscribes._seals
    assert seals is not None
    return (
        Links("https://node.example", seals)
        .url(owner_id, address)
        .removeprefix("https://node.example")
    )


async def closed(node: Node) -> list[DoNotContact]:
    return await node.engine.store.find(DoNotContact, Query())


async def test_looking_changes_nothing(node: Node, nobody: httpx.AsyncClient) -> None:
    path = path_of(node)
    page = await nobody.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "a***@example.org" in page.text
    assert "ada" not in page.text.lower()
    assert '<form method="post">' in page.text
    head = await nobody.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert await closed(node) == []
    assert node.engine.statistics()["unsubscribes"] == {
        "looked_at": 2, "followed": 0, "refused": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"List-Unsubscribe=One-Click", "application/x-www-form-urlencoded"),
        (b'--x\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nx\r\n--x--',
         "multipart/form-data; boundary=x"),
        (b"", ""),
        (b"\0" * 100_000, "application/json"),
    ],
)  # fmt: skip
async def test_one_click_is_all_it_takes(
    node: Node, nobody: httpx.AsyncClient, content: bytes, kind: str
) -> None:
    with capture_logs() as logged:
        done = await nobody.post(path_of(node), content=content, headers={"Content-Type": kind})
    assert done.status_code == 200
    assert "set-cookie" not in done.headers
    assert "location" not in done.headers
    assert "a***@example.org" in done.text
    [line] = await closed(node)
    assert (line.address, line.service, line.reason) == (
        "ada@example.org", Service.EMAIL, "unsubscribed",
    )  # fmt: skip
    assert line.created_at is not None
    assert "ada" not in str(logged).lower()


async def test_following_it_again_is_the_same(node: Node, nobody: httpx.AsyncClient) -> None:
    path = path_of(node)
    for _ in range(3):
        assert (await nobody.post(path, data=ONE_CLICK)).status_code == 200
    assert len(await closed(node)) == 1
    assert node.engine.statistics()["unsubscribes"]["followed"] == 3
    assert node.engine.do_not_contact.closed_lately(None, Service.EMAIL, ADA)


async def test_the_page_lets_in_nothing_and_tells_nobody(
    node: Node, nobody: httpx.AsyncClient
) -> None:
    path = path_of(node, '"<img/src=x>"@example.org')
    for page in (await nobody.get(path), await nobody.post(path), await nobody.get(f"{path}x")):
        assert "<img" not in page.text
        assert "<script" not in page.text
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; form-action 'self'")
        assert "frame-ancestors 'none'" in policy
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-content-type-options"] == "nosniff"


async def test_links_that_are_none_of_ours(node: Node, nobody: httpx.AsyncClient) -> None:
    path = path_of(node)
    token = path.rpartition("/")[2]
    for wrong in ("x", token[:-1], token + "A", token[::-1], "a" * 4000, "%00", "é", f"{token}="):
        for ask in (nobody.get, nobody.post):
            refused = await ask(f"/unsubscribe/{wrong}")
            assert refused.status_code == 404, wrong
            assert "none of ours" in refused.text
    assert (await nobody.get("/unsubscribe/")).status_code == 404
    assert (await nobody.put(path)).status_code == 404
    assert (await nobody.delete(path)).status_code == 404
    assert await closed(node) == []
    assert node.engine.statistics()["unsubscribes"]["refused"] == 16


async def test_it_works_when_everything_is_deleted(node: Node, nobody: httpx.AsyncClient) -> None:
    store = node.engine.store
    owner = await store.insert(User(username="gone", password_hash="x"))  # noqa: S106
    contact = await store.insert(Contact(email=ADA, owner_id=owner.id))
    path = path_of(node, ADA, owner.id)
    await store.delete(Contact, contact.id)
    assert (await nobody.post(path)).status_code == 200
    [line] = await closed(node)
    assert line.owner_id == owner.id
    await store.delete(DoNotContact, line.id)
    await store.delete(User, owner.id)
    assert (await nobody.post(path)).status_code == 200
    assert [one.owner_id for one in await closed(node)] == [owner.id], "not closed for everybody"


async def test_a_store_that_takes_nothing_says_later(node: Node, nobody: httpx.AsyncClient) -> None:
    path = path_of(node)
    await node.engine.store.aclose()
    refused = await nobody.post(path, data=ONE_CLICK)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "60"
    assert "try again" in refused.text
    assert (await nobody.get(path)).status_code == 200


# --- from the mail to the list -------------------------------------------------------------------
@pytest.fixture
async def listed(tmp_path: Path) -> AsyncIterator[Node]:
    """A node that is on the web, as far as its mails know."""
    async with running_node(tmp_path, website=WebsiteConfig(url=WEB)) as running:
        yield running


async def mailing(client: httpx.AsyncClient) -> int:
    await made(client, "/providers", name="p", type="loopback", service_flag=8)
    template = await made(
        client, "/templates", name="n", subject="s",
        body="<a href='[unsubscribe:url]'>[contact:first_name]</a>",
    )  # fmt: skip
    return await made(client, "/programs/sendemail", name="mail", template_id=template)


async def sent(node: Node, program: int, contact: int) -> dict[str, object]:
    one = await made(node.client, "/transmissions", program_id=program, contact_id=contact)
    with node.engine.bus.subscribe(100) as events:
        answer = await node.client.post(f"/transmissions/{one}/send")
        if answer.status_code in {200, 201}:
            with trio.fail_after(DEADLINE_S):
                while not isinstance(await events.get(), TransmissionEnded):
                    pass
    found: dict[str, object] = (await node.client.get(f"/transmissions/{one}")).json()
    return found


async def test_who_followed_the_link_gets_no_more(listed: Node) -> None:
    client = listed.client
    program = await mailing(client)
    ada = await made(client, "/contacts", first_name="Ada", email=ADA)
    bob = await made(client, "/contacts", first_name="Bob", email="bob@example.org")
    assert (await sent(listed, program, ada))["status"] == "completed"
    group = await made(client, "/groups", name="people")
    for contact in (ada, bob):
        assert (await client.put(f"/contacts/{contact}/link/{group}")).status_code == 200
    campaign = await made(client, "/campaigns", program_id=program, group_id=group)
    check = (await client.post(f"/campaigns/{campaign}/check")).json()
    assert (check["dialable"], check["skipped"], check["problems"]) == (2, {}, [])
    link = check["preview"]["words"]["body"].split("'")[1]
    assert link.startswith("https://node.example/unsubscribe/")
    assert link in check["preview"]["words"]["body_alt"]
    nobody = await listed.speaking()
    assert (await nobody.post(httpx.URL(link).path, data=ONE_CLICK)).status_code == 200
    row = await sent(listed, program, ada)
    assert (row["status"], row["response"]) == ("invalid", "do_not_contact")
    check = (await client.post(f"/campaigns/{campaign}/check")).json()
    assert (check["dialable"], check["skipped"]) == (1, {"do_not_contact": 1})
    [line] = (await client.get("/do_not_contact")).json()
    assert (line["email"], line["reason"]) == ("ada@example.org", "unsubscribed")
    assert (await client.delete(f"/do_not_contact/{line['do_not_contact_id']}")).json() is True
    assert (await sent(listed, program, ada))["status"] == "completed"


async def test_links_survive_a_restart(tmp_path: Path) -> None:
    config = config_in(tmp_path, website=WebsiteConfig(url=WEB))
    async with running_engine(config) as engine:
        assert engine.unsubscribes.links is not None
        token = engine.unsubscribes.links.url(None, ADA).rpartition("/")[2]
    async with running_engine(config) as engine:
        found = await engine.unsubscribes.unsubscribe(token)
        assert found is not None
        assert found.address == "ada@example.org"


async def test_a_node_that_has_not_started_says_later(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        path = path_of(node)
        node.engine.unsubscribes._seals = None
        nobody = await node.speaking()
        assert (await nobody.get(path)).status_code == 503
        assert (await nobody.post(path)).status_code == 503


async def test_what_would_offer_a_link_that_leads_nowhere_is_not_started(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        client = node.client
        program = await mailing(client)
        ada = await made(client, "/contacts", first_name="Ada", email=ADA)
        group = await made(client, "/groups", name="people")
        assert (await client.put(f"/contacts/{ada}/link/{group}")).status_code == 200
        campaign = await made(client, "/campaigns", program_id=program, group_id=group)
        check = (await client.post(f"/campaigns/{campaign}/check")).json()
        assert check["ready"] == 0
        [problem] = check["problems"]
        assert "[unsubscribe:url]" in problem
        refused = await client.put(f"/campaigns/{campaign}/start")
        assert refused.status_code == 423
        assert problem in refused.text
        one = await made(client, "/transmissions", program_id=program, contact_id=ada)
        assert (await client.post(f"/transmissions/{one}/send")).status_code == 423
