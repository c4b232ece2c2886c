"""/docs: complete by itself, and nothing in it that a strict policy would have to allow."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from api.docs import FILES
from tests.api.node import Node


class References(HTMLParser):
    """What a page refers to, and the scripts and styles that stand in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside: list[str] = []
        self._in = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag
        self.found += [value for name, value in attrs if name in ("src", "href") and value]
        self.inside += [name for name, _ in attrs if name == "style" or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self._in in ("script", "style") and data.strip():
            self.inside.append(data)


@pytest.fixture
async def nobody(node: Node) -> httpx.AsyncClient:
    return await node.speaking()


async def test_the_page_holds_no_script_and_refers_to_nothing_outside(
    nobody: httpx.AsyncClient,
) -> None:
    response = await nobody.get("/docs")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    page = References(response.text)
    assert page.inside == []
    assert page.found
    for reference in page.found:
        parts = urlsplit(reference)
        assert (parts.scheme, parts.netloc) == ("", "")
        assert not reference.startswith("/"), "it must work below a prefix"


async def test_everything_it_refers_to_is_there(nobody: httpx.AsyncClient) -> None:
    page = References((await nobody.get("/docs")).text)
    script = (await nobody.get("/docs/start.js")).text
    (document,) = re.findall(r'\burl: "([^"]+)"', script)
    for reference in (*page.found, document):
        response = await nobody.get(urljoin("/docs", reference))
        assert response.status_code == 200, reference
        assert response.content, reference
    assert (await nobody.get(urljoin("/docs", document))).json()["openapi"] == "3.1.0"


async def test_the_files_are_what_they_say(nobody: httpx.AsyncClient) -> None:
    for name, content_type in FILES.items():
        response = await nobody.get(f"/docs/{name}")
        assert response.headers["content-type"] == content_type
        assert "immutable" in response.headers["cache-control"]
    assert b"SwaggerUIBundle" in (await nobody.get("/docs/swagger-ui-bundle.js")).content
    assert (await nobody.get("/docs/favicon-32x32.png")).content.startswith(b"\x89PNG")


async def test_nobody_is_asked_to_validate_the_document(nobody: httpx.AsyncClient) -> None:
    script = (await nobody.get("/docs/start.js")).text
    assert "validatorUrl: null" in script
    assert "://" not in script


async def test_a_strict_policy_holds(nobody: httpx.AsyncClient) -> None:
    for path in ("/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js"):
        headers = (await nobody.get(path)).headers
        policy = dict(
            part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/docs/",
        "/docs/index.css",
        "/docs/swagger-editor.js",
        "/docs/..",
        "/docs/%2e%2e%2fcore.py",
        "/docs/../core.py",
        "/docs/swagger-ui.css%00",
    ],
)
async def test_nothing_else_is_served(nobody: httpx.AsyncClient, path: str) -> None:
    response = await nobody.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == 404


async def test_the_page_is_not_sent_twice(nobody: httpx.AsyncClient) -> None:
    first = await nobody.get("/docs")
    again = await nobody.get("/docs", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = await nobody.get("/docs", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200
