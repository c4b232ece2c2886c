"""/users: who may log in; what they see of each other, and what they can do to each other."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

from engine.model import Campaign, CampaignStatus, User
from engine.store.base import Condition, Op, Query
from tests.api.node import PASSWORD, Node, made
from tests.api.test_access import assert_refused, basic
from tests.support.engine import add_campaign

NEW = "another word"
ADA = {
    "username": "ada", "password": PASSWORD, "first_name": "Ada", "last_name": "Lovelace",
    "phone": "3001234567", "email": "ada@example.com", "address": "1 Way", "company": "Engines",
    "country_id": 49, "language_id": "en", "timezone_id": 3600, "active": 1,
}  # fmt: skip


async def id_of(node: Node, name: str) -> int:
    response = await node.client.get(f"/users/{name}")
    assert response.status_code == 200, response.text
    return int(response.json()["user_id"])


async def with_permissions(node: Node, name: str, *permissions: str) -> httpx.AsyncClient:
    """A client that may do exactly this."""
    client = await node.user(name)
    user_id = await id_of(node, name)
    for permission in permissions:
        await grant(node, user_id, permission)
    return client


async def grant(node: Node, user_id: int, permission: str) -> None:
    (row,) = [
        row
        for row in (await node.client.get(f"/permissions?name={permission}")).json()
        if row["name"] == permission
    ]
    path = f"/users/{user_id}/permissions/{row['permission_id']}"
    assert (await node.client.put(path)).status_code == 200


async def logs_in(node: Node, name: str, password: str) -> bool:
    nobody = await node.speaking()
    body = {"username": name, "password": password}
    return (await nobody.post("/authenticate", json=body)).status_code == 200


# --- the guide's calls -------------------------------------------------------------------------
async def test_a_user_is_created_read_listed_updated_and_deleted(node: Node) -> None:
    user_id = await made(node.client, "/users", **ADA)
    shown = (await node.client.get(f"/users/{user_id}")).json()
    assert shown.items() >= {k: v for k, v in ADA.items() if k != "password"}.items()
    assert shown["user_id"] == user_id
    assert (await node.client.get("/users", params={"username": "ada"})).json() == [shown]
    changed = await node.client.put(f"/users/{user_id}", json={**shown, "company": "Ltd", "x": 1})
    assert changed.status_code == 200, changed.text
    assert changed.json()["company"] == "Ltd"
    assert changed.json()["username"] == "ada"
    assert (await node.client.delete(f"/users/{user_id}")).json() is True
    assert_refused(await node.client.get(f"/users/{user_id}"), 404)


async def test_no_reply_holds_a_password_or_its_hash(node: Node) -> None:
    user_id = await made(node.client, "/users", **ADA)
    for reply in (
        await node.client.get("/users"),
        await node.client.get(f"/users/{user_id}"),
        await node.client.put(f"/users/{user_id}", json={"company": "x"}),
        await node.client.put(f"/users/{user_id}/password", json={"password": NEW}),
        await node.client.put(f"/users/{user_id}/roles/2"),
        await node.client.get("/users/csv"),
        await (await node.speaking()).post(
            "/authenticate", json={"username": "ada", "password": NEW}
        ),
    ):
        assert reply.status_code == 200, reply.text
        assert "argon2" not in reply.text
        assert PASSWORD not in reply.text
        assert NEW not in reply.text


@pytest.mark.parametrize("word", ["password", "passwd"])
async def test_a_new_user_has_the_role_user_and_can_work_at_once(node: Node, word: str) -> None:
    await made(node.client, "/users", username="ada", **{word: PASSWORD})
    ada = await node.speaking(Authorization=basic("ada", PASSWORD))
    for path in ("/contacts", "/groups", "/campaigns", "/transmissions", "/accounts", "/users"):
        assert (await ada.get(path)).status_code == 200, path
    user_id = (await ada.get("/users")).json()[0]["user_id"]
    roles = (await ada.get(f"/users/{user_id}/roles")).json()
    assert [role["name"] for role in roles] == ["user"]


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ({"roles": ["admin"]}, ["admin"]),
        ({"roles": ["user", 2]}, ["user", "admin"]),
        ({"role_id": "2"}, ["admin"]),
        ({"roles": [], "role_id": ""}, ["user"]),
    ],
)
async def test_roles_can_be_asked_for(node: Node, asked: dict[str, Any], got: list[str]) -> None:
    user_id = await made(node.client, "/users", username="ada", **asked)
    roles = (await node.client.get(f"/users/{user_id}/roles")).json()
    assert [role["name"] for role in roles] == got


async def test_a_user_is_born_with_an_account_that_follows_it(node: Node) -> None:
    user_id = await made(node.client, "/users", **ADA)
    (account,) = (await node.client.get(f"/users/{user_id}/accounts")).json()
    same = ("username", "first_name", "last_name", "phone", "email", "active")
    assert {name: account[name] for name in same} == {name: ADA[name] for name in same}
    assert account["type"] == "account"
    assert account["user_id"] == user_id
    await node.client.put(
        f"/users/{user_id}", json={"phone": "3007654321", "email": "a@example.org"}
    )
    (account,) = (await node.client.get(f"/users/{user_id}/accounts?type=account")).json()
    assert (account["phone"], account["email"]) == ("3007654321", "a@example.org")
    assert (await node.client.get(f"/users/{user_id}/accounts?type=did")).json() == []


async def test_a_refused_user_leaves_no_account_behind(node: Node) -> None:
    await made(node.client, "/users", **ADA)
    before = (await node.client.get("/accounts")).json()
    for body in (
        {"username": "ada"},
        {"username": "eve", "email": "ada@example.com"},
    ):
        assert_refused(await node.client.post("/users", json=body), 417)
    assert (await node.client.get("/accounts")).json() == before


async def test_nobody_takes_the_name_another_logs_in_by(node: Node) -> None:
    await made(node.client, "/users", **ADA)
    for body in (
        {"username": "ada@example.com"},
        {"username": "x@example.com", "email": "ada@example.com"},
    ):
        assert_refused(await node.client.post("/users", json=body), 417)
    both = await made(node.client, "/users", username="e@example.com", email="e@example.com")
    await made(node.client, "/users", username="f@example.com")
    for body in ({"email": "ada@example.com"}, {"email": "f@example.com"}):
        assert_refused(await node.client.put(f"/users/{both}", json=body), 417)
    kept = await node.client.put(f"/users/{both}", json={"email": "e@example.com", "company": "x"})
    assert kept.status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "username"),
        ({"username": " "}, "username"),
        ({"username": "a:b"}, "username"),
        ({"username": "a\nb"}, "username"),
        ({"username": "x" * 65}, "username"),
        ({"username": "a", "password": "x" * 1025}, "password"),
        ({"username": "a", "email": "nowhere"}, "email"),
        ({"username": "a", "phone": "not a number"}, "phone"),
        ({"username": "a", "country_id": 5000}, "country_id"),
        ({"username": "a", "timezone_id": 60_000}, "timezone_id"),
        ({"username": "a", "country_id": "Atlantis"}, "country_id"),
        ({"username": "a", "active": "perhaps"}, "active"),
        ({"username": "a", "roles": ["king"]}, "roles"),
        ({"username": "a", "roles": 7}, "roles"),
    ],
)
async def test_what_a_user_cannot_be_is_named(node: Node, body: dict[str, Any], field: str) -> None:
    response = await node.client.post("/users", json=body)
    assert_refused(response, 412)
    assert field in response.json()["error"]["message"]


async def test_users_are_found_by_every_filter_of_theirs(node: Node) -> None:
    user_id = await made(node.client, "/users", **ADA)
    await made(node.client, "/users", username="bob", active=0)
    for name in ("username", "phone", "email", "first_name", "last_name"):
        found = (await node.client.get("/users", params={name: str(ADA[name])})).json()
        assert [user["user_id"] for user in found] == [user_id], name
    for query, names in (
        (f"user_id={user_id}", ["ada"]),
        ("active=0", ["bob"]),
        ("sort=-username", ["bob", "admin", "ada"]),
        (f"created_by={await id_of(node, 'admin')}", ["ada", "bob"]),
        ("before=1", []),
        ("after=1", ["admin", "ada", "bob"]),
    ):
        found = (await node.client.get(f"/users?{query}")).json()
        assert [user["username"] for user in found] == names, query


async def test_a_user_is_found_by_name_or_address_too(node: Node) -> None:
    user_id = await made(node.client, "/users", **ADA)
    for name in ("ada", "ada@example.com"):
        assert (await node.client.get(f"/users/{name}")).json()["user_id"] == user_id
    assert_refused(await node.client.get("/users/nobody"), 404)


# --- passwords ---------------------------------------------------------------------------------
async def test_a_new_password_counts_and_ends_what_the_old_one_began(node: Node) -> None:
    user_id = await made(node.client, "/users", **ADA)
    nobody = await node.speaking()
    login = {"username": "ada", "password": PASSWORD}
    token = (await nobody.post("/authenticate", json=login)).json()["token"]
    ada = await node.speaking(Authorization=f"Bearer {token}")
    by_name = await node.speaking(Authorization=basic("ada", PASSWORD))
    assert (await by_name.get("/contacts")).status_code == 200
    changed = await ada.put(f"/users/{user_id}/password", json={"password": NEW})
    assert changed.status_code == 200, changed.text
    assert changed.json()["user_id"] == user_id
    assert_refused(await ada.get("/contacts"), 401)
    assert_refused(await by_name.get("/contacts"), 401)
    assert not await logs_in(node, "ada", PASSWORD)
    assert await logs_in(node, "ada", NEW)


async def test_a_password_must_be_given(node: Node) -> None:
    user_id = await made(node.client, "/users", **ADA)
    for body in ({}, {"password": ""}, {"password": None}):
        response = await node.client.put(f"/users/{user_id}/password", json=body)
        assert_refused(response, 412)
        assert "password" in response.json()["error"]["message"]
    assert await logs_in(node, "ada", PASSWORD)


async def test_an_update_with_an_empty_password_keeps_it(node: Node) -> None:
    user_id = await made(node.client, "/users", **ADA)
    await node.client.put(f"/users/{user_id}", json={"passwd": "", "password": "", "company": "x"})
    assert await logs_in(node, "ada", PASSWORD)
    await node.client.put(f"/users/{user_id}", json={"passwd": NEW})
    assert await logs_in(node, "ada", NEW)


async def test_a_user_without_a_password_cannot_log_in(node: Node) -> None:
    await made(node.client, "/users", username="ada")
    for password in ("", " ", "ada"):
        assert not await logs_in(node, "ada", password)


async def test_nobody_changes_the_password_of_somebody_else_with_user_password_alone(
    node: Node,
) -> None:
    other = await made(node.client, "/users", **ADA)
    await node.user("bob", "user")
    bob = await node.speaking(Authorization=basic("bob", PASSWORD))
    assert_refused(await bob.put(f"/users/{other}/password", json={"password": NEW}), 403)
    seeing = await with_permissions(
        node, "seeing", "user_password", "user_admin", "user_read", "user_list"
    )
    assert_refused(await seeing.put(f"/users/{other}/password", json={"password": NEW}), 403)
    updating = await with_permissions(node, "updating", "user_password", "user_update")
    assert_refused(await updating.put(f"/users/{other}", json={"password": NEW}), 403)
    assert await logs_in(node, "ada", PASSWORD)
    own = await id_of(node, "bob")
    assert (await bob.put(f"/users/{own}/password", json={"password": NEW})).status_code == 200


async def test_a_user_made_inactive_is_out_at_once_and_its_tokens_stay_void(node: Node) -> None:
    ada = await node.user("ada", "user")
    user_id = await id_of(node, "ada")
    assert (await ada.get("/contacts")).status_code == 200
    assert (await node.client.put(f"/users/{user_id}", json={"active": 0})).status_code == 200
    assert_refused(await ada.get("/contacts"), 401)
    assert (await node.client.put(f"/users/{user_id}", json={"active": 1})).status_code == 200
    assert_refused(await ada.get("/contacts"), 401)
    assert await logs_in(node, "ada", PASSWORD)


# --- who sees whom -----------------------------------------------------------------------------
async def test_without_user_admin_one_sees_oneself_only(node: Node) -> None:
    ada = await node.user("ada", "user")
    bob = await id_of(node, "admin")
    assert [user["username"] for user in (await ada.get("/users")).json()] == ["ada"]
    assert (await ada.get("/users", params={"username": "admin"})).json() == []
    own = await id_of(node, "ada")
    assert (await ada.get(f"/users/{own}")).status_code == 200
    for path in (f"/users/{bob}", "/users/admin", f"/users/{bob}/accounts"):
        assert_refused(await ada.get(path), 404)
    for path in (f"/users/{bob}/roles", f"/users/{bob}/permissions", "/users/csv"):
        assert_refused(await ada.get(path), 403)
    for path in (f"/users/{own}/roles", f"/users/{own}/permissions", f"/users/{own}/accounts"):
        assert (await ada.get(path)).status_code == 200, path


async def test_whoever_makes_users_sees_those(node: Node) -> None:
    seller = await node.user("seller", "user")
    seller_id = await id_of(node, "seller")
    for permission in ("user_create", "user_list", "user_update", "user_delete"):
        await grant(node, seller_id, permission)
    await made(node.client, "/users", username="stranger")
    own = await made(seller, "/users", username="customer")
    names = [user["username"] for user in (await seller.get("/users")).json()]
    assert names == ["seller", "customer"]
    assert (await seller.put(f"/users/{own}", json={"company": "x"})).status_code == 200
    stranger = await id_of(node, "stranger")
    for verb in ("GET", "PUT", "DELETE"):
        assert_refused(await seller.request(verb, f"/users/{stranger}", json={}), 404)


# --- rank --------------------------------------------------------------------------------------
async def test_nobody_grants_what_he_does_not_hold(node: Node) -> None:
    keeper = await node.user("keeper", "admin")
    keeper_id = await id_of(node, "keeper")
    ada = await made(keeper, "/users", username="ada")
    contact = (await node.client.get("/permissions?name=contact_read")).json()[0]["permission_id"]
    # Neither to himself, nor to somebody by whom he would see everybody's contacts.
    assert_refused(await keeper.put(f"/users/{keeper_id}/roles/1"), 403)
    assert_refused(await keeper.put(f"/users/{keeper_id}/permissions/{contact}"), 403)
    assert_refused(await keeper.put(f"/users/{ada}/roles/2"), 403)
    assert_refused(await keeper.put(f"/roles/2/permissions/{contact}"), 403)
    both = {"username": "eve", "roles": ["user", "admin"]}
    assert_refused(await keeper.post("/users", json=both), 403)
    assert_refused(await keeper.get("/contacts"), 403)
    # What he holds he grants.
    eve = await made(keeper, "/users", username="eve", roles=["admin"])
    assert (await keeper.delete(f"/users/{eve}/roles/2")).status_code == 200
    assert (await keeper.put(f"/users/{eve}/roles/1")).status_code == 200


async def test_nobody_manages_whom_he_is_below(node: Node) -> None:
    keeper = await node.user("keeper", "admin")
    chief = await id_of(node, "admin")
    for verb, path, body in (
        ("PUT", f"/users/{chief}/password", {"password": NEW}),
        ("PUT", f"/users/{chief}", {"password": NEW}),
        ("PUT", f"/users/{chief}", {"active": 0}),
        ("DELETE", f"/users/{chief}", {}),
        ("DELETE", f"/users/{chief}/roles/1", {}),
    ):
        assert_refused(await keeper.request(verb, path, json=body), 403)
    assert await logs_in(node, "admin", PASSWORD)
    ordinary = await made(node.client, "/users", **ADA)
    changed = await keeper.put(f"/users/{ordinary}/password", json={"password": NEW})
    assert changed.status_code == 200


# --- no lock-out -------------------------------------------------------------------------------
async def test_the_last_administrator_stays(node: Node) -> None:
    chief = await id_of(node, "admin")
    update = (await node.client.get("/permissions?name=user_admin")).json()[0]["permission_id"]
    for verb, path, body in (
        ("DELETE", f"/users/{chief}", {}),
        ("PUT", f"/users/{chief}", {"active": 0}),
        ("DELETE", f"/users/{chief}/roles/2", {}),
        ("DELETE", f"/roles/2/permissions/{update}", {}),
    ):
        response = await node.client.request(verb, path, json=body)
        assert_refused(response, 417)
        assert "Nobody would be left" in response.json()["error"]["message"]
    assert (await node.client.get("/users")).status_code == 200
    # One who cannot log in is none.
    await made(node.client, "/users", username="ghost", roles=["user", "admin"])
    assert_refused(await node.client.delete(f"/users/{chief}"), 417)
    await made(node.client, "/users", **{**ADA, "roles": ["user", "admin"]})
    assert (await node.client.delete(f"/users/{chief}")).json() is True
    assert_refused(await node.client.get("/users"), 401)


async def test_two_administrators_cannot_delete_each_other_at_once(node: Node) -> None:
    other = await node.user("other", "user", "admin")
    chief_id, other_id = await id_of(node, "admin"), await id_of(node, "other")
    statuses: list[int] = []

    async def delete(client: httpx.AsyncClient, user_id: int) -> None:
        statuses.append((await client.delete(f"/users/{user_id}")).status_code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(delete, node.client, other_id)
        nursery.start_soon(delete, other, chief_id)
    assert statuses.count(200) == 1
    assert await node.engine.store.count(User, Query()) == 1


# --- deleting ----------------------------------------------------------------------------------
async def test_what_a_deleted_user_owned_stays_for_administrators(node: Node) -> None:
    user_id = await made(node.client, "/users", **ADA)
    ada = await node.speaking(Authorization=basic("ada", PASSWORD))
    contact = await made(ada, "/contacts", phone="100")
    (account,) = (await ada.get("/accounts")).json()
    assert (await node.client.delete(f"/users/{user_id}")).json() is True
    assert_refused(await ada.get("/contacts"), 401)
    kept = (await node.client.get(f"/contacts/{contact}")).json()
    assert kept["user_id"] == user_id
    retired = (await node.client.get(f"/accounts/{account['account_id']}")).json()
    assert (retired["active"], retired["username"]) == (0, "")
    again = await made(node.client, "/users", **ADA)
    assert again > user_id
    reborn = await node.speaking(Authorization=basic("ada", PASSWORD))
    assert (await reborn.get("/contacts")).json() == [], "a new user of the same name is another"


async def test_a_user_whose_campaign_runs_stays_until_it_is_stopped(node: Node) -> None:
    user_id = await made(node.client, "/users", **ADA)
    campaign = await add_campaign(node.engine, 1, owner_id=user_id)
    at = node.engine.clock()
    await node.engine.store.set_campaign_status(campaign.id, CampaignStatus.RUNNING, at)
    assert_refused(await node.client.delete(f"/users/{user_id}"), 423)
    assert await logs_in(node, "ada", PASSWORD)
    await node.engine.store.set_campaign_status(campaign.id, CampaignStatus.PAUSED, at)
    assert (await node.client.delete(f"/users/{user_id}")).json() is True
    kept = await node.engine.store.get(Campaign, campaign.id)
    assert kept is not None
    assert kept.owner_id == user_id


async def test_permissions_are_asked_for(node: Node) -> None:
    nothing = await node.user("nothing")
    own = await id_of(node, "nothing")
    for verb, path in (
        ("GET", "/users"), ("POST", "/users"), ("GET", f"/users/{own}"),
        ("PUT", f"/users/{own}"), ("DELETE", f"/users/{own}"),
        ("PUT", f"/users/{own}/password"), ("GET", f"/users/{own}/accounts"),
        ("GET", f"/users/{own}/roles"), ("PUT", f"/users/{own}/roles/1"),
        ("DELETE", f"/users/{own}/roles/1"), ("GET", f"/users/{own}/permissions"),
        ("PUT", f"/users/{own}/permissions/1"), ("DELETE", f"/users/{own}/permissions/1"),
        ("GET", "/users/csv"), ("POST", "/users/csv"),
    ):  # fmt: skip
        response = await nothing.request(verb, path, json={"username": "x", "password": "y"})
        assert_refused(response, 403)
    condition = Condition("username", Op.EQ, "x")
    assert await node.engine.store.find(User, Query(conditions=(condition,))) == []
