"""/messages/templates and their attachments over HTTP."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.api.node import Node, made, running_node

PATH = "/messages/templates"


def named(name: str, **headers: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"', **headers}


async def names_of(node: Node, template: int) -> list[str]:
    names: list[str] = (await node.client.get(f"{PATH}/{template}")).json()["aAttachment"]
    return names


async def test_crud_on_both_paths(node: Node) -> None:
    body = "<p>Dear [contact:first_name],\r\n\t…</p>"
    one = await made(
        node.client, PATH, name="News", subject="January", body=body, body_alt="Dear\n…"
    )
    two = await made(node.client, "/templates", name="bare", type="txt", description="of May")
    shown = (await node.client.get(f"/templates/{one}")).json()
    assert (shown["body"], shown["body_alt"], shown["subject"]) == (body, "Dear\n…", "January")
    assert shown["length"] == len(("January" + body + "Dear\n…").encode())
    assert (shown["attachment"], shown["aAttachment"], shown["message_id"]) == ("", [], one)
    for params, found in (
        ({"name": "EWS"}, [one]),
        ({"subject": "jan"}, [one]),
        ({"body": "[contact:first"}, [one]),
        ({"body_alt": "dear"}, [one]),
        ({"type": "tx"}, [two]),
        ({"description": "may"}, [two]),
        ({"template_id": two}, [two]),
        ({"created_by": shown["user_id"]}, [one, two]),
    ):
        rows = (await node.client.get("/templates", params=params)).json()
        assert [row["template_id"] for row in rows] == found, params
    changed = await node.client.put(f"{PATH}/{one}", json={**shown, "subject": ""})
    assert (changed.json()["subject"], changed.json()["body"]) == ("", body)
    assert (await node.client.delete(f"{PATH}/{two}")).json() is True
    assert (await node.client.get(f"/templates/{two}")).status_code == 404


async def test_a_body_may_be_a_megabyte(node: Node) -> None:
    template = await made(node.client, PATH, name="long", body="x" * 1_000_000)
    assert (await node.client.get(f"{PATH}/{template}")).json()["length"] == 1_000_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("subject", "a\r\nBcc: everybody@example.com"), ("subject", "x" * 256),
        ("name", "a\nb"), ("body", "x" * 1_000_001), ("body_alt", "a\x00"), ("type", "a/b"),
    ],
)  # fmt: skip
async def test_a_field_that_cannot_be_is_named(node: Node, field: str, value: Any) -> None:
    response = await node.client.post(PATH, json={"name": "n", field: value})
    assert response.status_code == 412
    assert field in response.json()["error"]["message"]


async def test_one_attachment_is_downloaded_as_it_came(node: Node) -> None:
    template = await made(node.client, PATH, name="n")
    nothing = await node.client.get(f"{PATH}/{template}/media")
    assert nothing.status_code == 404
    assert nothing.json()["error"]["message"] == "Template file not found"
    content = b"<p>terms</p>\r\n" * 20_000
    response = await node.client.put(
        f"{PATH}/{template}/media",
        content=content,
        headers=named("Terms 2026.html", **{"Content-Type": "text/html; charset=utf-8"}),
    )
    assert response.json() == {"template_id": template}
    media = await node.client.get(f"/templates/{template}/media")
    assert media.content == content
    assert media.headers["Content-Type"].startswith("text/html")
    assert 'filename="Terms 2026.html"' in media.headers["Content-Disposition"]
    shown = (await node.client.get(f"{PATH}/{template}")).json()
    assert (shown["attachment"], shown["length"]) == ("Terms 2026.html", len(content))


async def test_several_attachments_are_downloaded_as_a_zip(node: Node) -> None:
    template = await made(node.client, PATH, name="n")
    files = {"a.txt": b"one", "b.pdf": b"%PDF- two", "2 a.txt": b"three"}
    for name, content in (("a.txt", b"one"), ("b.pdf", b"%PDF- two")):
        await node.client.post(f"{PATH}/{template}/media", content=content, headers=named(name))
    await node.client.post(f"{PATH}/{template}/media", content=b"x" * 9, headers=named("a.txt"))
    assert await names_of(node, template) == ["a.txt", "b.pdf", "a.txt"]
    media = await node.client.get(f"{PATH}/{template}/media")
    assert media.headers["Content-Type"] == "application/zip"
    assert f'filename="template_{template}.zip"' in media.headers["Content-Disposition"]
    archive = zipfile.ZipFile(io.BytesIO(media.content))
    assert archive.namelist() == ["a.txt", "b.pdf", "3 a.txt"]
    assert archive.read("b.pdf") == files["b.pdf"]
    assert archive.read("3 a.txt") == b"x" * 9


async def test_put_takes_the_place_of_all(node: Node) -> None:
    template = await made(node.client, PATH, name="n")
    for name in ("a.txt", "b.txt"):
        await node.client.post(f"{PATH}/{template}/media", content=b"x", headers=named(name))
    await node.client.put(f"{PATH}/{template}/media", content=b"y", headers=named("c.txt"))
    assert await names_of(node, template) == ["c.txt"]
    assert (await node.client.get(f"{PATH}/{template}/media")).content == b"y"
    edited = await node.client.put(f"{PATH}/{template}", json={"subject": "s", "attachment": ""})
    assert edited.json()["attachment"] == "c.txt", "attachments have calls of their own"


async def test_ten_attachments_and_not_one_more(node: Node) -> None:
    template = await made(node.client, PATH, name="n")

    async def attach(number: int) -> None:
        await node.client.post(
            f"{PATH}/{template}/media", content=b"x", headers=named(f"{number}.txt")
        )

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(attach, number)
    assert set(await names_of(node, template)) == {f"{number}.txt" for number in range(10)}
    response = await node.client.post(f"{PATH}/{template}/media", content=b"x")
    assert response.status_code == 412
    kept = list((node.engine.config.data_path / "media").glob("*.attachment"))
    assert len(kept) == 10


async def test_sizes_are_limited_one_by_one_and_together(tmp_path: Path) -> None:
    async with running_node(tmp_path, max_media_bytes=100_000) as node:
        template = await made(node.client, PATH, name="n")
        for size, status in ((100_001, 413), (60_000, 200), (60_000, 413), (40_000, 200)):
            response = await node.client.post(f"{PATH}/{template}/media", content=bytes(size))
            assert response.status_code == status, size
        assert (await node.client.get(f"{PATH}/{template}")).json()["length"] == 100_000
        empty = await node.client.post(f"{PATH}/{template}/media", content=b"")
        assert empty.status_code == 411


@pytest.mark.parametrize(
    ("headers", "name", "type_"),
    [
        ({}, "attachment_1.bin", "application/octet-stream"),
        ({"Content-Type": "application/pdf"}, "attachment_1.pdf", "application/pdf"),
        ({"Content-Type": "a/b\x07; evil"}, "attachment_1.bin", "application/octet-stream"),
        (named("../../etc/passwd"), "passwd", ""),
        (named("C:\\\\Users\\\\x\\\\Report.DOC"), "Report.DOC", ""),
        (named("..."), "attachment_1.bin", ""),
        (named("x" * 300 + ".pdf"), "x" * 124 + ".pdf", ""),
        (named("a<b>|c?.txt"), "abc.txt", ""),
        ({"Content-Disposition": "attachment; filename*=UTF-8''Gr%C3%BC%0D%0A%E2%80%AEx.txt"},
         "Grüx.txt", ""),
        (named("März.pdf"), "März.pdf", ""),
        ({"Content-Disposition": b'attachment; filename="M\xe4rz.pdf"'}, "März.pdf", ""),
        ({"Content-Disposition": "attachment; filename*=idna''x"}, "x", ""),
        ({"Content-Disposition": "attachment; filename*=punycode''a%FFb"}, "aÿb", ""),
        ({"Content-Disposition": "attachment; filename*=undefined''x"}, "x", ""),
        ({"Content-Disposition": "attachment; filename*=unicode_escape''%5Cud800.pdf"},
         "ud800.pdf", ""),
        ({"Content-Disposition": "attachment; filename*=UTF-8''%ED%A0%80.pdf"}, "í\xa0.pdf", ""),
        ({"Content-Disposition": "attachment; filename*=ISO-8859-1''%C3%A4; filename=x"}, "Ã¤", ""),
        ({"Content-Disposition": "attachment; filename*0*=utf-8''a%20; filename*1=b.txt"},
         "a b.txt", ""),
        ({"Content-Disposition": 'x; a="; filename=no"; FileName=yes; filename=no'}, "yes", ""),
    ],
)  # fmt: skip
async def test_names_and_types_are_made_harmless(
    node: Node, headers: dict[str, str | bytes], name: str, type_: str
) -> None:
    template = await made(node.client, PATH, name="n")
    raw = {key: v if isinstance(v, bytes) else v.encode() for key, v in headers.items()}
    path = f"{PATH}/{template}/media"
    answer = await node.client.put(path, content=b"x", headers=raw)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    assert await names_of(node, template) == [name]
    media = await node.client.get(f"{PATH}/{template}/media")
    assert media.headers["Content-Type"].startswith(type_)


async def test_a_form_upload_keeps_its_name(node: Node) -> None:
    template = await made(node.client, PATH, name="n")
    files = {"file": ("offer.csv", b"--a\r\n1,2\r\n", "text/csv")}
    response = await node.client.post(f"/api/templates/{template}/media", files=files)
    assert response.json() == str(template)
    media = await node.client.get(f"/api/templates/{template}/media")
    assert media.content == b"--a\r\n1,2\r\n"
    assert 'filename="offer.csv"' in media.headers["Content-Disposition"]


async def test_a_template_in_use_is_not_deleted(node: Node) -> None:
    template = await made(node.client, PATH, name="n")
    await made(node.client, "/programs/sendemail", name="mail", template_id=template)
    assert (await node.client.delete(f"{PATH}/{template}")).status_code == 417


async def test_attachments_of_others_are_not_there(node: Node) -> None:
    template = await made(node.client, PATH, name="n")
    await node.client.put(f"{PATH}/{template}/media", content=b"secret")
    stranger = await node.user("stranger", "user")
    assert (await stranger.get(f"{PATH}/{template}/media")).status_code == 404
    assert (await stranger.put(f"{PATH}/{template}/media", content=b"x")).status_code == 404
    assert (await node.client.get(f"{PATH}/{template}/media")).content == b"secret"
