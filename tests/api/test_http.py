"""The HTTP layer under both mounts: how requests are spelled, labelled, refused; CORS; headers."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from engine.config import load
from engine.errors import InvalidError
from tests.api.node import PASSWORD, Node, made, running_node

GUI = "https://gui.example.com"


async def body_of(node: Node, path: str, content: bytes, content_type: str | None) -> str:
    """The name of a group made from this body, read back."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = await node.client.post(path, content=content, headers=headers)
    assert response.status_code == 200, response.text
    group_id = response.json()
    if isinstance(group_id, dict):
        group_id = group_id["group_id"]
    name = (await node.client.get(f"/groups/{group_id}")).json()["name"]
    assert isinstance(name, str)
    return name


# --- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/groups", "/api/groups"])
@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b'{"name": "people"}', None),
        (b'{"name": "people"}', ""),
        (b'{"name": "people"}', "application/json"),
        (b'{"name": "people"}', "application/json; charset=utf-8"),
        (b'{"name": "people"}', "Application/JSON;charset=UTF-8"),
        (b'{"name": "people"}', "text/plain"),
        (b'\xef\xbb\xbf{"name": "people"}', "application/json"),
        (b'{"name": "people"}', "application/x-www-form-urlencoded"),
        (b"name=people", "application/x-www-form-urlencoded"),
        (b"name=people&other=", "application/x-www-form-urlencoded; charset=utf-8"),
        (b'{"name": "people", "group_id": 1, "colour": ["red"], "is_print": ""}', None),
    ],
)
async def test_every_label_of_a_body(
    node: Node, path: str, content: bytes, content_type: str | None
) -> None:
    assert await body_of(node, path, content, content_type) == "people"


@pytest.mark.parametrize("path", ["/contacts/{}", "/api/contacts/{}"])
@pytest.mark.parametrize(
    "content", [b"", b"[]", b'""', b"{}", b"null", b"{nonsense", b"\xff", b"7"]
)
async def test_a_body_without_fields_changes_nothing(node: Node, path: str, content: bytes) -> None:
    contact_id = await made(node.client, "/contacts", phone="1", first_name="Ada")
    response = await node.client.put(path.format(contact_id), content=content)
    assert response.status_code == 200, response.text
    assert (await node.client.get(f"/contacts/{contact_id}")).json()["first_name"] == "Ada"


# --- verbs and paths -----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["DELETE", "delete"])
async def test_a_post_may_be_another_verb_by_header(node: Node, verb: str) -> None:
    contact_id = await made(node.client, "/contacts", phone="1")
    headers = {"X-HTTP-Method-Override": verb}
    response = await node.client.post(f"/api/contacts/{contact_id}", headers=headers)
    assert response.json() is True
    assert (await node.client.get(f"/contacts/{contact_id}")).status_code == 404


async def test_a_post_may_be_another_verb_by_query(node: Node) -> None:
    contact_id = await made(node.client, "/contacts", phone="1")
    changed = await node.client.post(f"/api/contacts/{contact_id}?method=PUT", json={"phone": "2"})
    assert changed.json()["phone"] == "2"
    assert (await node.client.post(f"/api/contacts/{contact_id}?method=PATCH")).status_code == 404


@pytest.mark.parametrize("override", ["PUT", "DELETE", "POST", "GET", ""])
async def test_only_a_post_may_be_another_verb(node: Node, override: str) -> None:
    contact_id = await made(node.client, "/contacts", phone="1")
    headers = {"X-HTTP-Method-Override": override}
    path = f"/api/contacts/{contact_id}?method={override}"
    assert (await node.client.put(path, headers=headers)).status_code == 200
    assert (await node.client.get(path, headers=headers)).status_code == 200
    created = await node.client.post(
        "/api/contacts", json={"phone": "2"}, headers={"X-HTTP-Method-Override": "POST"}
    )
    assert created.json() == contact_id + 1


async def test_the_guides_mount_takes_verbs_as_they_are(node: Node) -> None:
    contact_id = await made(node.client, "/contacts", phone="1")
    headers = {"X-HTTP-Method-Override": "DELETE"}
    response = await node.client.post(f"/contacts/{contact_id}?method=DELETE", headers=headers)
    assert response.status_code == 404
    assert (await node.client.get(f"/contacts/{contact_id}")).status_code == 200
    assert (await node.client.get("/contacts.json")).status_code == 404


async def test_a_path_may_end_in_json(node: Node) -> None:
    contact_id = await made(node.client, "/contacts", phone="1")
    for path in (f"/api/contacts/{contact_id}.json", "/api/contacts.json?phone=1"):
        response = await node.client.get(path, headers={"Accept": "*/*"})
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/api/nothing"),
        ("GET", "/api"),
        ("GET", "/api/"),
        ("PATCH", "/api/contacts"),
        ("DELETE", "/api/contacts"),
        ("GET", "/api/contacts/one"),
        ("GET", "/api/campaigns/1/pause"),
        ("OPTIONS", "/api/contacts"),
        ("GET", "/nothing"),
        ("GET", "/apiary"),
        ("POST", "/contacts/1"),
    ],
)
async def test_what_does_not_exist_is_said_before_who_asks(
    node: Node, verb: str, path: str
) -> None:
    nobody = await node.speaking()
    response = await nobody.request(verb, path)
    assert response.status_code == 404
    assert response.json() == {"error": {"code": 404, "message": "Not Found"}}


async def test_a_get_deletes_nothing(node: Node) -> None:
    contact_id = await made(node.client, "/contacts", phone="1")
    for path in (f"/api/contacts/{contact_id}?method=DELETE", f"/api/contacts/{contact_id}/delete"):
        await node.client.get(path)
    assert (await node.client.get(f"/contacts/{contact_id}")).status_code == 200


# --- credentials ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/groups", "/api/groups"])
@pytest.mark.parametrize(
    "headers",
    [
        "Authorization: Bearer {token}",
        "Authorization:   Bearer {token}",
        "Authorization: Basic {basic}",
        "Authentication: Bearer {token}",
        "Authentication: nonsense\r\nAuthorization: Bearer {token}",
    ],
)
async def test_every_form_of_credentials(node: Node, path: str, headers: str) -> None:
    token = node.client.headers["Authorization"].removeprefix("Bearer ")
    basic = httpx.BasicAuth("admin", PASSWORD)._auth_header.removeprefix("Basic ")
    sent = headers.format(token=token, basic=basic)
    async with await node.raw() as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n{sent}\r\n\r\n".encode())
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "labelled"),
    [
        (None, False),
        ("*/*", False),
        ("text/html, */*;q=0.8", False),
        ("application/json;q=0.9", False),
        ("application/*", False),
        ("application/json-seq", False),
        ("application/json", True),
        ("application/json, text/plain, */*", True),
        ("text/html,application/json", True),
    ],
)
async def test_the_label_of_classic_json(node: Node, accept: str | None, *, labelled: bool) -> None:
    client = await node.speaking(Authorization=node.client.headers["Authorization"])
    del client.headers["Accept"]
    headers = {} if accept is None else {"Accept": accept}
    expected = "application/json" if labelled else "text/plain; charset=utf-8"
    for path, status in (("/api/contacts", 200), ("/api/contacts/99", 404)):
        response = await client.get(path, headers=headers)
        assert response.status_code == status
        assert response.headers["content-type"] == expected
        response.json()
    asked = await client.get("/api/contacts?format=json", headers=headers)
    assert asked.headers["content-type"] == "application/json"
    guides = await client.get("/contacts", headers=headers)
    assert guides.headers["content-type"] == "application/json"


async def test_classic_replies_are_not_cached(node: Node) -> None:
    for path in ("/api/contacts", "/api/contacts/99", "/api/groups/sample/csv"):
        response = await node.client.get(path)
        assert response.headers["cache-control"] == "no-cache, must-revalidate"
        assert response.headers["expires"] == "0"
    assert (await node.client.get("/contacts")).headers["cache-control"] == "no-store"


# --- other origins -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/contacts", "/api/contacts", "/api/contacts/99", "/api/nothing"])
async def test_a_listed_origin_may_call(tmp_path: Path, path: str) -> None:
    async with running_node(tmp_path, cors_origins=("https://other.example.com", GUI)) as node:
        response = await node.client.get(path, headers={"Origin": GUI})
        assert response.headers["access-control-allow-origin"] == GUI
        assert response.headers["access-control-allow-credentials"] == "true"
        assert response.headers["vary"] == "Origin"
        exposed = response.headers["access-control-expose-headers"]
        for name in ("Content-Disposition", "Content-Length", "Link", "X-Total-Count"):
            assert name in exposed.split(", ")
        stranger = await node.client.get(path, headers={"Origin": GUI + ".evil.example"})
        assert allowed(stranger) == []
        assert stranger.headers["vary"] == "Origin"
        assert allowed(await node.client.get(path)) == []


@pytest.mark.parametrize("path", ["/contacts", "/api/contacts", "/api/nothing"])
async def test_a_preflight_needs_no_credentials(tmp_path: Path, path: str) -> None:
    async with running_node(tmp_path, cors_origins=(GUI,)) as node:
        nobody = await node.speaking()
        asked = {
            "Origin": GUI,
            "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        response = await nobody.options(path, headers=asked)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["access-control-allow-origin"] == GUI
        methods = response.headers["access-control-allow-methods"].split(", ")
        assert {"GET", "POST", "PUT", "DELETE", "OPTIONS"} <= set(methods)
        names = response.headers["access-control-allow-headers"].lower().split(", ")
        assert {"authorization", "content-type", "x-requested-with"} <= set(names)
        stranger = await nobody.options(path, headers={**asked, "Origin": "https://evil.example"})
        assert (stranger.status_code, stranger.content) == (200, b"")
        assert allowed(stranger) == []


async def test_any_origin_never_has_credentials(tmp_path: Path) -> None:
    async with running_node(tmp_path, cors_origins=("*", GUI)) as node:
        anybody = await node.client.get("/api/contacts", headers={"Origin": "https://x.example"})
        assert anybody.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in anybody.headers
        listed = await node.client.get("/api/contacts", headers={"Origin": GUI})
        assert listed.headers["access-control-allow-origin"] == GUI
        assert listed.headers["access-control-allow-credentials"] == "true"
        star = await node.client.get("/api/contacts", headers={"Origin": "*"})
        assert star.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in star.headers


async def test_without_origins_nothing_is_said(node: Node) -> None:
    response = await node.client.get("/api/contacts", headers={"Origin": GUI})
    assert allowed(response) == []
    preflight = await node.client.options("/api/contacts", headers={"Origin": GUI})
    assert preflight.status_code == 404


def allowed(response: httpx.Response) -> list[str]:
    return [name for name in response.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("origin", ["gui.example.com", "https://gui.example.com/", "https://a b"])
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(InvalidError, match="is no origin"):
        load(None, {}, {"http": {"cors_origins": [origin]}})


def test_origins_come_from_the_environment_too() -> None:
    listed = load(None, {"OUTSPOOL_HTTP_CORS_ORIGINS": f"{GUI}, chrome-extension://abc"}, {})
    assert listed.http.cors_origins == (GUI, "chrome-extension://abc")
    assert load(None, {"OUTSPOOL_HTTP_CORS_ORIGINS": ""}, {}).http.cors_origins == ()


# --- headers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/contacts", "/api/contacts", "/api/nothing"])
async def test_every_request_has_a_name(node: Node, path: str) -> None:
    own = await node.client.get(path, headers={"X-Request-Id": "client-7.a_B"})
    assert own.headers["x-request-id"] == "client-7.a_B"
    for bad in (b"", b"a b", b"x" * 65, b'a"b', b"\xc3\xa9"):
        response = await node.client.get(path, headers={b"X-Request-Id": bad})
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])
        assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("mount", ["", "/api"])
@pytest.mark.parametrize("ending", ["%0d%0aX-Evil:%201", "%0aX-Evil:1", "%00", "%E2%80%A8x"])
async def test_nothing_of_a_request_ends_a_header(node: Node, mount: str, ending: str) -> None:
    for phone in ("1", "2"):
        await made(node.client, "/contacts", phone=phone)
    requests = (
        f"{mount}/contacts?limit=1&first_name={ending}&x={ending}",
        f"{mount}/contacts?limit=1&other={ending}",
        f"{mount}/{ending}",
        f"{mount}/programs/{ending}",
    )
    for path in requests:
        response = await node.client.get(path)
        assert response.status_code in (200, 404, 412), response.text
        assert "x-evil" not in response.headers
    listed = await node.client.get(requests[1])
    assert re.fullmatch(r'<[!-~]+>; rel="next"', listed.headers["link"])
