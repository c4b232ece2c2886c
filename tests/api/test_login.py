"""/authenticate: what a login says, how it ends, and how often it may fail."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from engine.config import LoginConfig
from tests.api.node import PASSWORD, Node, made, running_node
from tests.api.test_access import assert_refused, basic

LOGIN = {"username": "admin", "password": PASSWORD}


async def test_a_login_says_who_one_is(node: Node) -> None:
    user_id = await made(
        node.client, "/users", username="ada", password=PASSWORD, first_name="Ada",
        phone="300123", email="ada@example.com", country_id=49,
    )  # fmt: skip
    nobody = await node.speaking()
    body = {"email": "ada@example.com", "password": PASSWORD, "remember": True}
    reply = (await nobody.post("/authenticate", json=body)).json()
    assert reply["token"] == reply["access_token"]
    assert reply.items() >= {
        "token_type": "Bearer", "scope": "All", "expires_in": 86_400, "user_id": user_id,
        "username": "ada", "first_name": "Ada", "last_name": "", "phone": "300123",
        "email": "ada@example.com", "company": "", "country": "49", "country_id": 49, "active": 1,
    }.items()  # fmt: skip
    for name in ("first_name", "last_name", "email", "phone", "company", "country"):
        assert reply[name] is None or isinstance(reply[name], str), name


@pytest.mark.parametrize("word", ["hash", "password_hash"])
async def test_an_md5_is_no_password(node: Node, word: str) -> None:
    nobody = await node.speaking()
    body = {"username": "admin", word: "5f4dcc3b5aa765d61d8327deb882cf99"}
    assert_refused(await nobody.post("/authenticate", json=body), 401)


async def logged_in(node: Node) -> httpx.AsyncClient:
    reply = await (await node.speaking()).post("/authenticate", json=LOGIN)
    return await node.speaking(Authorization=f"Bearer {reply.json()['token']}")


async def test_logging_out_ends_the_token_and_no_other(node: Node) -> None:
    first, second = await logged_in(node), await logged_in(node)
    assert (await first.post("/authenticate/cancel")).json() is True
    assert_refused(await first.get("/contacts"), 401)
    assert (await second.get("/contacts")).status_code == 200
    assert (await first.post("/authenticate/cancel")).json() is True


async def test_logging_out_needs_no_login(node: Node) -> None:
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": basic("admin", "wrong")}):
        client = await node.speaking(**headers)
        assert (await client.post("/authenticate/cancel")).json() is True


async def test_too_many_failures_are_refused_with_a_time_to_come_back(node: Node) -> None:
    nobody = await node.speaking()
    wrong = {"username": "nobody", "password": "wrong"}
    for _ in range(node.engine.config.login.failures_per_account):
        assert_refused(await nobody.post("/authenticate", json=wrong), 401)
    refused = await nobody.post("/authenticate", json=wrong)
    assert_refused(refused, 423)
    assert "try again later" in refused.json()["error"]["message"]
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    by_name = await node.speaking(Authorization=basic("nobody", "wrong"))
    assert_refused(await by_name.get("/contacts"), 423)
    assert (await nobody.post("/authenticate", json=LOGIN)).status_code == 200
    assert (await node.client.get("/contacts")).status_code == 200, "tokens are no logins"


async def test_wrong_basic_credentials_count_too(node: Node) -> None:
    client = await node.speaking(Authorization=basic("admin", "wrong"))
    for _ in range(node.engine.config.login.failures_per_account):
        assert_refused(await client.get("/contacts"), 401)
    assert_refused(await client.get("/contacts"), 423)


async def test_an_address_that_fails_with_many_names_has_to_wait(node: Node) -> None:
    nobody = await node.speaking()
    for number in range(node.engine.config.login.failures_per_address):
        wrong = {"username": f"user {number}", "password": "wrong"}
        assert_refused(await nobody.post("/authenticate", json=wrong), 401)
    assert_refused(await nobody.post("/authenticate", json=LOGIN), 423)


async def test_behind_a_proxy_of_ours_everybody_has_an_address_of_his_own(tmp_path: Path) -> None:
    async with running_node(tmp_path, trusted_proxies=("127.0.0.1",)) as node:
        attacker = await node.speaking(**{"X-Forwarded-For": "1.1.1.1, 203.0.113.9"})
        wrong = {"username": "admin", "password": "wrong"}
        for _ in range(LoginConfig().failures_per_account):
            assert_refused(await attacker.post("/authenticate", json=wrong), 401)
        assert_refused(await attacker.post("/authenticate", json=LOGIN), 423)
        same = await node.speaking(**{"X-Forwarded-For": "8.8.8.8, 203.0.113.9"})
        assert_refused(await same.post("/authenticate", json=LOGIN), 423)
        owner = await node.speaking(**{"X-Forwarded-For": "198.51.100.7"})
        assert (await owner.post("/authenticate", json=LOGIN)).status_code == 200


async def test_nobody_chooses_his_address_without_a_proxy_of_ours(node: Node) -> None:
    wrong = {"username": "admin", "password": "wrong"}
    for number in range(node.engine.config.login.failures_per_account):
        client = await node.speaking(**{"X-Forwarded-For": f"10.0.0.{number}"})
        assert_refused(await client.post("/authenticate", json=wrong), 401)
    client = await node.speaking(**{"X-Forwarded-For": "10.0.1.1"})
    assert_refused(await client.post("/authenticate", json=wrong), 423)


async def test_the_same_below_api(node: Node) -> None:
    nobody = await node.speaking(Accept="application/json")
    reply = (await nobody.post("/api/authenticate", json=LOGIN)).json()
    assert reply["expires_in"] == 86_400
    assert reply["user_id"].isdigit()
    for name in ("first_name", "last_name", "email", "phone", "company", "country"):
        assert reply[name] is None or isinstance(reply[name], str), name
    ada = await node.client.post("/api/users", json={"username": "ada"})
    assert isinstance(ada.json(), int)
    path = f"/api/users/{ada.json()}"
    assert (await node.client.put(f"{path}/roles/2")).json() is True
    assert (await node.client.get(path)).json()["user_id"] == str(ada.json())
    assert (await node.client.delete(path)).json() is True
