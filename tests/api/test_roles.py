"""/roles and /permissions: what there is, and that a change holds for the next request."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from engine.access import PERMISSIONS, ROLES
from tests.api.node import Node, made
from tests.api.test_access import assert_refused


async def permission(node: Node, name: str) -> int:
    rows = (await node.client.get("/permissions", params={"name": name})).json()
    return next(int(row["permission_id"]) for row in rows if row["name"] == name)


async def custom_role(node: Node, *names: str) -> int:
    role_id = await made(node.client, "/roles", name="desk", description="at the desk")
    for name in names:
        path = f"/roles/{role_id}/permissions/{await permission(node, name)}"
        assert (await node.client.put(path)).status_code == 200
    return role_id


async def id_of(node: Node, name: str) -> int:
    return int((await node.client.get(f"/users/{name}")).json()["user_id"])


async def test_both_roles_and_every_permission_are_there(node: Node) -> None:
    roles = (await node.client.get("/roles")).json()
    assert [(role["role_id"], role["name"]) for role in roles] == [(1, "user"), (2, "admin")]
    assert {role["name"]: frozenset(role["permissions"].split(",")) for role in roles} == ROLES
    names = [row["name"] for row in (await node.client.get("/permissions")).json()]
    assert names == list(PERMISSIONS)


async def test_a_role_is_created_read_updated_and_deleted(node: Node) -> None:
    role_id = await made(node.client, "/roles", name="desk", description="at the desk")
    shown = (await node.client.get(f"/roles/{role_id}")).json()
    assert shown.items() >= {
        "role_id": role_id, "name": "desk", "description": "at the desk", "permissions": "",
    }.items()  # fmt: skip
    changed = (await node.client.put(f"/roles/{role_id}", json={**shown, "name": "door"})).json()
    assert (changed["name"], changed["description"]) == ("door", "at the desk")
    assert [r["role_id"] for r in (await node.client.get("/roles?name=oo")).json()] == [role_id]
    assert (await node.client.delete(f"/roles/{role_id}")).json() is True
    assert_refused(await node.client.get(f"/roles/{role_id}"), 404)


async def test_what_a_role_grants_holds_at_once(node: Node) -> None:
    role_id = await custom_role(node, "contact_list")
    ada = await node.user("ada")
    user_id = await id_of(node, "ada")
    assert_refused(await ada.get("/contacts"), 403)
    shown = await node.client.put(f"/users/{user_id}/roles/{role_id}")
    assert shown.json()["user_id"] == user_id
    assert (await ada.get("/contacts")).status_code == 200
    assert_refused(await ada.post("/contacts", json={"phone": "1"}), 403)
    create = await permission(node, "contact_create")
    granted = await node.client.put(f"/roles/{role_id}/permissions/{create}")
    assert granted.json()["permissions"] == "contact_create,contact_list"
    assert (await ada.post("/contacts", json={"phone": "1"})).status_code == 200
    assert (await node.client.delete(f"/roles/{role_id}/permissions/{create}")).status_code == 200
    assert_refused(await ada.post("/contacts", json={"phone": "1"}), 403)
    assert (await node.client.delete(f"/users/{user_id}/roles/{role_id}")).status_code == 200
    assert_refused(await ada.get("/contacts"), 403)


async def test_what_is_granted_beside_the_roles_holds_at_once(node: Node) -> None:
    ada = await node.user("ada")
    user_id = await id_of(node, "ada")
    listing = await permission(node, "contact_list")
    path = f"/users/{user_id}/permissions/{listing}"
    assert (await node.client.put(path)).json()["user_id"] == user_id
    assert (await node.client.put(path)).status_code == 200, "granting twice changes nothing"
    assert (await ada.get("/contacts")).status_code == 200
    rows = (await node.client.get(f"/users/{user_id}/permissions")).json()
    assert [row["name"] for row in rows] == ["contact_list"]
    assert (await node.client.delete(path)).status_code == 200
    assert_refused(await ada.get("/contacts"), 403)
    assert_refused(await node.client.delete(path), 404)


async def test_a_role_keeps_its_holders_when_its_name_changes(node: Node) -> None:
    role_id = await custom_role(node, "contact_list")
    ada = await node.user("ada", "desk")
    await node.client.put(f"/roles/{role_id}", json={"name": "door"})
    assert (await ada.get("/contacts")).status_code == 200
    rows = (await node.client.get(f"/users/{await id_of(node, 'ada')}/roles")).json()
    assert [row["name"] for row in rows] == ["door"]


async def test_a_role_somebody_has_stays(node: Node) -> None:
    role_id = await custom_role(node, "contact_list")
    ada = await node.user("ada", "desk")
    response = await node.client.delete(f"/roles/{role_id}")
    assert_refused(response, 417)
    assert "1 users have the role" in response.json()["error"]["message"]
    assert (await ada.get("/contacts")).status_code == 200
    await node.client.delete(f"/users/{await id_of(node, 'ada')}/roles/{role_id}")
    assert (await node.client.delete(f"/roles/{role_id}")).json() is True


@pytest.mark.parametrize("role_id", [1, 2])
async def test_the_built_in_roles_stay_and_keep_their_names(node: Node, role_id: int) -> None:
    assert_refused(await node.client.delete(f"/roles/{role_id}"), 417)
    assert_refused(await node.client.put(f"/roles/{role_id}", json={"name": "x"}), 417)
    changed = await node.client.put(f"/roles/{role_id}", json={"description": "mine"})
    assert changed.json()["description"] == "mine"


async def test_the_role_user_can_be_made_smaller(node: Node) -> None:
    ada = await node.user("ada", "user")
    path = f"/roles/1/permissions/{await permission(node, 'contact')}"
    assert (await node.client.delete(path)).status_code == 200
    assert_refused(await ada.get("/contacts"), 403)
    assert_refused(await node.client.delete(path), 404)


async def test_permissions_of_ones_own(node: Node) -> None:
    own = await made(node.client, "/permissions", name="crm_export", description="for the CRM")
    shown = (await node.client.get(f"/permissions/{own}")).json()
    assert shown == {
        "permission_id": own, "name": "crm_export", "description": "for the CRM",
    }  # fmt: skip
    assert_refused(await node.client.post("/permissions", json={"name": "crm_export"}), 417)
    role_id = await custom_role(node, "crm_export")
    assert_refused(await node.client.delete(f"/permissions/{own}"), 417)
    await node.client.delete(f"/roles/{role_id}/permissions/{own}")
    assert (await node.client.delete(f"/permissions/{own}")).json() is True
    assert_refused(await node.client.get(f"/permissions/{own}"), 404)
    assert_refused(await node.client.delete("/permissions/1"), 417)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/roles", {}, 412),
        ("/roles", {"name": "x" * 65}, 412),
        ("/roles", {"name": "2"}, 412),
        ("/roles", {"name": "admin"}, 417),
        ("/permissions", {}, 412),
        ("/permissions", {"name": "Contact List"}, 412),
        ("/permissions", {"name": "contact__list"}, 412),
        ("/permissions", {"name": "contact"}, 417),
    ],
)
async def test_what_is_refused(node: Node, path: str, body: dict[str, Any], status: int) -> None:
    assert_refused(await node.client.post(path, json=body), status)


async def test_ids_of_nothing_are_404(node: Node) -> None:
    user_id = await id_of(node, "admin")
    for verb, path in (
        ("GET", "/roles/99"), ("PUT", "/roles/99"), ("DELETE", "/roles/99"),
        ("GET", "/permissions/9999"), ("DELETE", "/permissions/9999"),
        ("PUT", "/roles/99/permissions/1"), ("PUT", "/roles/1/permissions/9999"),
        ("DELETE", "/roles/1/permissions/9999"), ("PUT", f"/users/{user_id}/roles/99"),
        ("DELETE", f"/users/{user_id}/roles/99"), ("PUT", "/users/99/roles/1"),
        ("PUT", f"/users/{user_id}/permissions/9999"), ("PUT", "/users/99/permissions/1"),
        ("DELETE", f"/users/{user_id}/permissions/1"),
    ):  # fmt: skip
        assert_refused(await node.client.request(verb, path, json={}), 404)


async def test_a_role_cannot_be_made_to_grant_what_its_editor_lacks(node: Node) -> None:
    keeper = await node.user("keeper", "admin")
    role_id = await made(keeper, "/roles", name="desk")
    reading = await permission(node, "contact_read")
    assert_refused(await keeper.put(f"/roles/{role_id}/permissions/{reading}"), 403)
    keeping = await permission(node, "provider_list")
    assert (await keeper.put(f"/roles/{role_id}/permissions/{keeping}")).status_code == 200


async def test_permissions_are_asked_for(node: Node) -> None:
    ada = await node.user("ada", "user")
    requests: list[httpx.Response] = [
        await ada.request(verb, path, json={"name": "x"})
        for verb, path in (
            ("GET", "/roles"), ("POST", "/roles"), ("GET", "/roles/1"), ("PUT", "/roles/1"),
            ("DELETE", "/roles/1"), ("PUT", "/roles/1/permissions/1"),
            ("DELETE", "/roles/1/permissions/1"), ("GET", "/permissions"),
            ("POST", "/permissions"), ("GET", "/permissions/1"), ("DELETE", "/permissions/1"),
        )
    ]  # fmt: skip
    for response in requests:
        assert_refused(response, 403)
