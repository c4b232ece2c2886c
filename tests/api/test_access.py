"""Who may do what: credentials, permissions, other people's rows, the form of refusals."""

from __future__ import annotations

import base64
import json
from datetime import timedelta

import httpx
import pytest
from joserfc.jwk import RSAKey

from engine.auth import Tokens
from engine.clock import now
from engine.model import User
from engine.store.base import Condition, Op, Query
from tests.api.node import PASSWORD, Node, made, made_program


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


async def admin_of(node: Node) -> User:
    condition = Condition("username", Op.EQ, "admin")
    (user,) = await node.engine.store.find(User, Query(conditions=(condition,)))
    return user


def assert_refused(response: httpx.Response, status: int) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    assert body["error"]["code"] == status
    assert body["error"]["message"]


async def test_a_token_is_had_by_username_email_or_id(node: Node) -> None:
    nobody = await node.speaking()
    user = await admin_of(node)
    for name in ({"username": "admin"}, {"user_id": user.id}, {"username": str(user.id)}):
        response = await nobody.post("/authenticate", json={**name, "password": PASSWORD})
        assert response.status_code == 200
        token = response.json()["token"]
        shown = await node.speaking(Authorization=f"Bearer {token}")
        assert (await shown.get("/contacts")).status_code == 200


async def test_clients_can_read_the_token_themselves(node: Node) -> None:
    nobody = await node.speaking()
    credentials = {"username": "admin", "password": PASSWORD}
    token = (await nobody.post("/authenticate", json=credentials)).json()["token"]
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["username"] == "admin"
    assert claims["is_admin"] == "1"
    assert claims["user_id"] == str((await admin_of(node)).id)
    assert claims["exp"] - claims["iat"] == node.engine.config.http.token_lifetime_s


@pytest.mark.parametrize(
    "credentials",
    [
        {},
        {"username": "admin"},
        {"username": "admin", "password": ""},
        {"username": "admin", "password": "wrong"},
        {"username": "nobody", "password": PASSWORD},
        {"username": "admin", "password": "x" * 5000},
        {"password": PASSWORD},
    ],
)
async def test_wrong_credentials_are_refused_alike(node: Node, credentials: dict[str, str]) -> None:
    nobody = await node.speaking()
    response = await nobody.post("/authenticate", json=credentials)
    assert_refused(response, 401)
    assert "Basic" in response.headers["WWW-Authenticate"]


async def test_wrong_password_and_unknown_user_say_the_same(node: Node) -> None:
    nobody = await node.speaking()
    answers = [
        (await nobody.post("/authenticate", json={"username": name, "password": "x"})).text
        for name in ("admin", "nobody")
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Authorization", "Bearer {token}"),
        ("Authorization", "bearer {token}"),
        ("Authorization", "Bearer  {token}"),
        ("Authentication", "Bearer {token}"),
        ("Authorization", basic("admin", PASSWORD)),
    ],
)
async def test_every_accepted_form(node: Node, header: str, value: str) -> None:
    token = node.tokens.issue(await admin_of(node))
    client = await node.speaking(**{header: value.format(token=token)})
    assert (await client.get("/groups")).status_code == 200
    assert (await client.get("/groups")).status_code == 200, "remembered credentials work too"


async def test_a_blank_before_the_scheme_is_tolerated(node: Node) -> None:
    token = node.tokens.issue(await admin_of(node))
    request = f"GET /groups HTTP/1.1\r\nHost: x\r\nAuthorization:   Bearer {token}\r\n\r\n"
    async with await node.raw() as stream:
        await stream.send_all(request.encode())
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer x",
        "Bearer a.b.c",
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"admin").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        basic("admin", "wrong"),
        "Digest username=admin",
    ],
)
async def test_no_other_form_is(node: Node, value: str) -> None:
    client = await node.speaking(**({"Authorization": value} if value else {}))
    assert_refused(await client.get("/groups"), 401)


async def test_tokens_end_and_cannot_be_forged(node: Node) -> None:
    user = await admin_of(node)
    key = RSAKey.generate_key(2048)
    foreign = Tokens(key, lifetime_s=600, clock=now).issue(user)
    old = Tokens(
        node.tokens._key, lifetime_s=60, clock=lambda: now() - timedelta(seconds=61)
    ).issue(user)
    early = Tokens(
        node.tokens._key, lifetime_s=60, clock=lambda: now() + timedelta(seconds=30)
    ).issue(user)
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    payload = node.tokens.issue(user).split(".")[1]
    for token in (foreign, old, early, f"{unsigned}.{payload}."):
        client = await node.speaking(Authorization=f"Bearer {token}")
        assert_refused(await client.get("/groups"), 401)


async def test_a_disabled_user_is_out_at_once(node: Node) -> None:
    user = await admin_of(node)
    client = await node.speaking(Authorization=basic("admin", PASSWORD))
    assert (await client.get("/groups")).status_code == 200
    fields = {name: getattr(user, name) for name in user.__struct_fields__}
    await node.engine.store.update(User(**{**fields, "active": False}))
    assert_refused(await client.get("/groups"), 401)
    assert_refused(await node.client.get("/groups"), 401)


async def test_permissions_are_asked_for(node: Node) -> None:
    nothing = await node.user("nothing")
    operator = await node.user("operator", "user")
    keeper = await node.user("keeper", "admin")
    for verb, path in (("GET", "/contacts"), ("POST", "/groups"), ("GET", "/statistics")):
        assert_refused(await nothing.request(verb, path, json={"name": "x"}), 403)
    # The user role works but does not keep trunks; the admin role alone keeps trunks only.
    assert (await operator.get("/contacts")).status_code == 200
    assert_refused(await operator.post("/providers", json={"name": "x", "host": "h"}), 403)
    assert_refused(await operator.get("/providers"), 403)
    assert (await keeper.get("/providers")).status_code == 200
    assert_refused(await keeper.get("/contacts"), 403)
    assert_refused(await keeper.post("/contacts", json={"phone": "1"}), 403)


async def test_rows_of_others_do_not_exist(node: Node) -> None:
    one, other = await node.user("one", "user"), await node.user("other", "user")
    contact = await made(one, "/contacts", phone="100")
    group = await made(one, "/groups", name="mine")
    program = await made_program(one)
    campaign = await made(one, "/campaigns", program_id=program, group_id=group)
    sent = await made(one, "/transmissions", program_id=program, contact_id=contact)
    for path in (
        f"/contacts/{contact}",
        f"/groups/{group}",
        f"/groups/{group}/contacts",
        f"/groups/{group}/csv",
        f"/programs/{program}",
        f"/programs/{program}/transmissions",
        f"/campaigns/{campaign}",
        f"/transmissions/{sent}",
        f"/transmissions/{sent}/status",
        f"/transmissions/{sent}/detail",
    ):
        assert (await one.get(path)).status_code == 200, path
        assert_refused(await other.get(path), 404)
        assert (await node.client.get(path)).status_code == 200, "the administrator sees all"
    for path in ("/contacts", "/groups", "/programs", "/campaigns", "/transmissions"):
        assert (await other.get(path)).json() == []
        assert len((await node.client.get(path)).json()) == 1
    for verb, path in (
        ("PUT", f"/contacts/{contact}"),
        ("DELETE", f"/contacts/{contact}"),
        ("PUT", f"/contacts/{contact}/link/{group}"),
        ("PUT", f"/campaigns/{campaign}/start"),
        ("POST", f"/transmissions/{sent}/send"),
        ("POST", f"/groups/{group}/csv"),
    ):
        assert_refused(await other.request(verb, path, content=b"{}"), 404)


async def test_an_administrators_import_belongs_to_the_owner_of_the_group(node: Node) -> None:
    one = await node.user("one", "user")
    group = await made(one, "/groups", name="mine")
    await node.client.post(f"/groups/{group}/csv", content=b"100\n")
    (contact,) = (await one.get(f"/groups/{group}/contacts")).json()
    assert contact["phone"] == "100"


async def test_ids_of_others_in_bodies_do_not_exist_either(node: Node) -> None:
    one, other = await node.user("one", "user"), await node.user("other", "user")
    contact = await made(one, "/contacts", phone="100")
    group = await made(one, "/groups", name="mine")
    program = await made_program(one)
    recording = (await one.get("/messages/recordings")).json()[0]["recording_id"]
    account = (await one.get("/accounts")).json()[0]["account_id"]
    own_group = await made(other, "/groups", name="own")
    own_program = await made_program(other)
    for path, body in (
        ("/programs/voicemessage", {"name": "x", "recording_id": recording}),
        ("/campaigns", {"program_id": program, "group_id": own_group}),
        ("/campaigns", {"program_id": own_program, "group_id": group}),
        ("/campaigns", {"program_id": own_program, "group_id": own_group, "account_id": account}),
        ("/transmissions", {"program_id": own_program, "contact_id": contact}),
        ("/transmissions", {"program_id": program, "phone": "1"}),
    ):
        assert_refused(await other.post(path, json=body), 404)
    assert (await other.get("/contacts")).json() == [], "a refusal leaves nothing behind"


async def test_unknown_paths_and_verbs_are_404_before_anything_else(node: Node) -> None:
    nobody = await node.speaking()
    for verb, path in (
        ("GET", "/"),
        ("GET", "/nope"),
        ("GET", "/contacts/"),
        ("GET", "//contacts"),
        ("GET", "/contacts/abc"),
        ("GET", "/contacts/-1"),
        ("DELETE", "/contacts"),
        ("PATCH", "/contacts/1"),
        ("OPTIONS", "/contacts"),
        ("PUT", "/programs"),
        ("GET", "/campaigns/1/start"),
    ):
        assert_refused(await nobody.request(verb, path), 404)


async def test_ids_no_row_can_have_are_404(node: Node) -> None:
    for number in (0, 1, 2**63 - 1, 2**63, 10**30):
        assert_refused(await node.client.get(f"/contacts/{number}"), 404)


async def test_every_answer_carries_a_request_id(node: Node) -> None:
    given = await node.client.get("/healthz", headers={"X-Request-Id": "abc-1"})
    assert given.headers["X-Request-Id"] == "abc-1"
    made_up = await node.client.get("/nope", headers={"X-Request-Id": "a b"})
    assert made_up.headers["X-Request-Id"] != "a b"
    assert len(made_up.headers["X-Request-Id"]) == 32
