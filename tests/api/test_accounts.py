"""/accounts, /dids, /extensions and what hangs on an account, over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from engine.accounts import INBOUND
from engine.config import ProvisioningConfig
from engine.model import Account, Program, Subscription, Transmission, User
from engine.store.base import Condition, Op, Query
from tests.api.node import Node, made, made_program

SECRET = "s3cret-passphrase"  # noqa: S105


async def account_of(client: httpx.AsyncClient, **fields: Any) -> int:
    return await made(client, "/accounts", **fields)


async def answer(response: httpx.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json()


async def user_id_of(node: Node, name: str) -> int:
    named = Query(conditions=(Condition("username", Op.EQ, name),))
    (user,) = await node.engine.store.find(User, named)
    return user.id


async def programs_of(client: httpx.AsyncClient, account: int) -> list[int]:
    rows = await answer(await client.get(f"/accounts/{account}/programs"))
    return [row["program_id"] for row in rows]


# --- the row itself ------------------------------------------------------------------------------
async def test_the_guides_account(node: Node) -> None:
    account = await account_of(
        node.client, type="did", username="shop", passwd=SECRET, passwd_pin=1234, phone=4420,
        active=1, settings={"emailtofax_coversheet": "body"}, timezone="Europe/Berlin",
    )  # fmt: skip
    shown = await answer(await node.client.get(f"/accounts/{account}"))
    assert (shown["type"], shown["phone"], shown["active"]) == ("did", "4420", 1)
    assert shown["settings"] == {"emailtofax_coversheet": "body"}
    assert shown["timezone"] == "Europe/Berlin"
    assert not {"passwd", "passwd_pin"} & set(shown)
    found = await answer(await node.client.get("/accounts?type=did&active=yes&timezone=ignored"))
    assert [row["account_id"] for row in found] == [account]
    assert await answer(await node.client.delete(f"/accounts/{account}")) is True
    await answer(await node.client.get(f"/accounts/{account}"), 404)


async def test_type_and_name_are_for_good(node: Node) -> None:
    account = await account_of(node.client, type="Extension")
    path = f"/accounts/{account}"
    named = await answer(await node.client.put(path, json={"username": "1001", "type": "did"}))
    assert (named["username"], named["type"]) == ("1001", "extension")
    again = await answer(await node.client.put(path, json={**named, "phone": "1"}))
    assert (again["username"], again["phone"]) == ("1001", "1"), "a GUI sends back what it read"
    kept = await answer(await node.client.put(path, json={"username": ""}))
    assert kept["username"] == "1001"
    refused = await answer(await node.client.put(path, json={"username": "1002"}), 412)
    assert "username" in refused["error"]["message"]


async def test_one_name_a_type(node: Node) -> None:
    await account_of(node.client, type="did", username="shop")
    twin = await node.client.post("/accounts", json={"type": "did", "username": "shop"})
    await answer(twin, 417)
    await account_of(node.client, type="extension", username="shop")
    await account_of(node.client, type="did")
    await account_of(node.client, type="did")  # no name is no twin


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"type": "fridge"}, "type"),
        ({"phone": "call me"}, "phone"),
        ({"email": "nowhere"}, "email"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "../etc/passwd"}, "timezone"),
        ({"settings": {"x": "y" * 20_000}}, "settings"),
        ({"settings": {"sender_id": "ACME Söhne"}}, "sender_id"),
        ({"settings": {"sender_id": ["ACME"]}}, "sender_id"),
        ({"username": "a\r\nb"}, "username"),
        ({"passwd": "x" * 129}, "passwd"),
    ],
)
async def test_a_bad_field_is_named(node: Node, fields: dict[str, Any], name: str) -> None:
    refused = await answer(await node.client.post("/accounts", json=fields), 412)
    assert name in refused["error"]["message"]


@pytest.mark.parametrize(("path", "type_"), [("/dids", "did"), ("/extensions", "extension")])
async def test_accounts_of_one_type(node: Node, path: str, type_: str) -> None:
    await account_of(node.client, username="plain")
    one = await made(node.client, path, username="x", phone="77", type="account")
    rows = await answer(await node.client.get(path))
    assert [(row["account_id"], row["type"]) for row in rows] == [(one, type_)]
    assert await answer(await node.client.get(path, params={"phone": "8"})) == []
    operator = await node.user("operator", "user")
    assert await answer(await operator.get(path)) == [], "not the operator's"
    await answer(await operator.post(path, json={"username": "y"}), 403)


async def test_dids_and_users_spell_the_owner_alike(node: Node) -> None:
    """A GUI compares ``users[].user_id`` with ``dids[].created_by`` by type and value."""
    await made(node.client, "/dids", username="x")
    (did,) = await answer(await node.client.get("/dids"))
    assert did["created_by"] == await user_id_of(node, "admin")
    (classic,) = await answer(await node.client.get("/api/dids"))
    assert classic["created_by"] == str(did["created_by"])


# --- programs ------------------------------------------------------------------------------------
async def test_subscribing_to_programs(node: Node) -> None:
    account = await account_of(node.client, username="a")
    first, second = await made_program(node.client), await made_program(node.client)
    for program in (first, second, first):
        shown = await answer(await node.client.put(f"/accounts/{account}/programs/{program}"))
        assert shown["account_id"] == account
    assert await programs_of(node.client, account) == [first, second]
    gone = await answer(await node.client.delete(f"/accounts/{account}/programs/{first}"))
    assert gone["account_id"] == account
    await answer(await node.client.delete(f"/accounts/{account}/programs/{first}"), 404)
    assert await programs_of(node.client, account) == [second]
    await answer(await node.client.delete(f"/accounts/{account}/programs"))
    assert await programs_of(node.client, account) == []
    await answer(await node.client.get(f"/programs/{second}"))  # the program itself stays


async def test_subscribing_as_deployed_servers_answer(node: Node) -> None:
    account = await account_of(node.client, username="a")
    program = await made_program(node.client)
    path = f"/api/accounts/{account}/programs"
    assert await answer(await node.client.put(f"{path}/{program}")) == program
    assert await answer(await node.client.delete(f"{path}/{program}")) is True
    assert await answer(await node.client.delete(path)) is True


@pytest.mark.parametrize("path", ["programs/999", "programs/nonsense"])
async def test_no_such_program(node: Node, path: str) -> None:
    account = await account_of(node.client)
    refused = await node.client.put(f"/accounts/{account}/{path}")
    assert refused.status_code in (404, 412), refused.text
    await answer(await node.client.delete(f"/accounts/{account}/{path}"), 404)


async def test_nobody_elses_programs_or_accounts(node: Node) -> None:
    mine = await account_of(node.client)
    program = await made_program(node.client)
    operator = await node.user("operator", "user")
    (own,) = await answer(await operator.get("/accounts"))
    await answer(await operator.put(f"/accounts/{mine}/programs/{program}"), 404)
    await answer(await operator.put(f"/accounts/{own['account_id']}/programs/{program}"), 404)
    await answer(await operator.get(f"/accounts/{mine}/programs"), 404)
    await answer(await operator.put(f"/accounts/{mine}/settings/x", json={"value": 1}), 404)
    await answer(await operator.get(f"/accounts/{mine}/provisioning"), 404)


@pytest.mark.parametrize("type_", INBOUND)
async def test_a_program_of_an_inbound_type(node: Node, type_: str) -> None:
    account = await account_of(node.client, username="a")
    path = f"/accounts/{account}/programs/{type_}"
    shown = await answer(await node.client.put(path))
    assert shown["account_id"] == account
    (program,) = await answer(await node.client.get(f"/accounts/{account}/programs"))
    assert program["type"] == type_
    again = await answer(await node.client.put(f"/api{path}"))
    assert again == program["program_id"], "one of a type, as often as it is asked for"
    stored = await node.engine.store.get(Program, again)
    assert stored is not None
    assert stored.data == {"account_id": account}
    await answer(await node.client.delete(path))
    await answer(await node.client.delete(path), 404)
    await answer(await node.client.get(f"/programs/{again}"), 404)


async def test_only_inbound_types_are_made_for_an_account(node: Node) -> None:
    account = await account_of(node.client)
    refused = await node.client.put(f"/accounts/{account}/programs/voicemessage")
    assert "type" in (await answer(refused, 412))["error"]["message"]
    operator = await node.user("operator", "user")
    (own,) = await answer(await operator.get("/accounts"))
    await answer(await operator.put(f"/accounts/{own['account_id']}/programs/receivefax"))
    assert len(await programs_of(operator, own["account_id"])) == 1


async def made_for(node: Node, account: int) -> int:
    """A program that exists for one account, as the inbound types do."""
    program = await node.engine.store.insert(
        Program(
            name="in", type="receivefax", data={"account_id": account},
            owner_id=await user_id_of(node, "admin"),
        )
    )  # fmt: skip
    return program.id


async def test_a_deleted_account_takes_its_own_programs_along(node: Node) -> None:
    account = await account_of(node.client)
    other, program = await made_program(node.client), await made_for(node, account)
    await answer(await node.client.put(f"/accounts/{account}/programs/{other}"))
    assert await programs_of(node.client, account) == [other, program]
    await answer(await node.client.delete(f"/accounts/{account}"))
    store = node.engine.store
    assert await store.get(Program, program) is None
    assert await store.get(Program, other) is not None
    assert await store.find(Subscription, Query()) == []


async def test_a_program_with_a_history_outlives_its_account(node: Node) -> None:
    account = await account_of(node.client)
    program = await made_for(node, account)
    used = await made_program(node.client)
    sent = await made(node.client, "/transmissions", program_id=used, phone="1")
    await _serve(node, sent, program)
    await answer(await node.client.delete(f"/accounts/{account}"))
    kept = await node.engine.store.get(Program, program)
    assert kept is not None
    assert kept.data == {}, "made for nobody"


async def _serve(node: Node, transmission_id: int, program_id: int) -> None:
    """Let a transmission be one of another program, as if that had received it."""
    stored = await node.engine.store.get(Transmission, transmission_id)
    assert stored is not None
    await node.engine.store.update(msgspec.structs.replace(stored, program_id=program_id))


async def test_an_account_of_a_campaign_stays(node: Node) -> None:
    account = await account_of(node.client)
    group = await made(node.client, "/groups", name="g")
    program = await made_program(node.client)
    await made(node.client, "/campaigns", program_id=program, group_id=group, account_id=account)
    await node.user("other", "user")
    other = await user_id_of(node, "other")
    for verb, path in (
        ("DELETE", f"/accounts/{account}"),
        ("DELETE", f"/accounts/{account}/users"),
        ("PUT", f"/accounts/{account}/users/{other}"),
    ):
        refused = await answer(await node.client.request(verb, path), 417)
        assert "campaign" in refused["error"]["message"]


# --- owner ---------------------------------------------------------------------------------------
async def test_an_account_changes_hands(node: Node) -> None:
    account = await account_of(node.client, type="did", username="d")
    program = await made_program(node.client)
    await answer(await node.client.put(f"/accounts/{account}/programs/{program}"))
    heir = await node.user("heir", "user")
    heir_id = await user_id_of(node, "heir")
    shown = await answer(await node.client.put(f"/accounts/{account}/users/{heir_id}"))
    assert (shown["user_id"], shown["created_by"]) == (heir_id, heir_id)
    assert [row["account_id"] for row in await answer(await heir.get("/dids"))] == [account]
    assert await programs_of(node.client, account) == [], "programs stay with their owner"
    classic = f"/api/accounts/{account}/users"
    assert await answer(await node.client.delete(classic)) is True
    assert await answer(await heir.get("/dids")) == []
    await answer(await heir.get(f"/accounts/{account}"), 404)
    nobodys = await answer(await node.client.get(f"/accounts/{account}"))
    assert nobodys["user_id"] is None
    assert await answer(await node.client.put(f"{classic}/{heir_id}")) is True
    shown = await answer(await node.client.delete(f"/accounts/{account}/users"))
    assert (shown["account_id"], shown["user_id"]) == (account, None)


async def test_who_gets_an_account_must_be_there(node: Node) -> None:
    account = await account_of(node.client)
    await answer(await node.client.put(f"/accounts/{account}/users/999"), 404)
    sleeper = await node.engine.store.insert(User(username="sleeper", active=False))
    refused = await answer(await node.client.put(f"/accounts/{account}/users/{sleeper.id}"), 412)
    assert "not active" in refused["error"]["message"]


async def test_who_may_give_accounts_away(node: Node) -> None:
    operator = await node.user("operator", "user")
    (own,) = await answer(await operator.get("/accounts"))
    path = f"/accounts/{own['account_id']}/users"
    await answer(await operator.put(f"{path}/{await user_id_of(node, 'admin')}"), 403)
    await answer(await operator.delete(path), 403)


# --- settings ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        (b'{"value": "sendcover"}', "application/json", "sendcover"),
        (b'{"data": 7}', "application/json", 7),
        (b'{"value": {"a": [1]}}', "application/json", {"a": [1]}),
        (b'"body"', "application/json", "body"),
        (b"0", "application/json", 0),
        (b"false", "application/json; charset=utf-8", False),
        (b"just words", "text/plain", "just words"),
        (b"value=form", "application/x-www-form-urlencoded", "form"),
    ],
)
async def test_a_setting(node: Node, body: bytes, kind: str, value: Any) -> None:
    account = await account_of(node.client, settings={"kept": 1})
    path = f"/accounts/{account}/settings/coverpage"
    put = await node.client.put(path, content=body, headers={"Content-Type": kind})
    assert (await answer(put))["settings"] == {"kept": 1, "coverpage": value}
    assert await answer(await node.client.get(path)) == {"value": value}
    assert await answer(await node.client.get(f"/api{path}")) is True
    assert await answer(await node.client.delete(path)) is True
    gone = await answer(await node.client.get(path), 404)
    assert gone["error"]["message"] == "Setting not found"
    await answer(await node.client.delete(path), 404)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b'{"other": 1}', b'{"value": null}'])
async def test_a_setting_needs_a_value(node: Node, body: bytes) -> None:
    account = await account_of(node.client)
    put = await node.client.put(f"/accounts/{account}/settings/x", content=body)
    await answer(put, 417)


@pytest.mark.parametrize("name", ["a b", "é", "x" * 65, "a%0d%0ab", "a'b"])
async def test_a_setting_has_a_plain_name(node: Node, name: str) -> None:
    account = await account_of(node.client)
    put = await node.client.put(f"/accounts/{account}/settings/{name}", json={"value": 1})
    await answer(put, 412)


@pytest.mark.parametrize("sender", ["ACME", "+49 30 123456", 80800, "0049301234567"])
async def test_a_sender_that_an_sms_can_have_is_kept(node: Node, sender: str | int) -> None:
    account = await account_of(node.client)
    path = f"/accounts/{account}/settings/sender_id"
    put = await answer(await node.client.put(path, json={"value": sender}))
    assert put["settings"] == {"sender_id": sender}


@pytest.mark.parametrize("sender", ["ACME Söhne", "Twelve chars", "+1234567890123456", True, 1.5])
async def test_a_sender_that_no_sms_can_have_is_refused(node: Node, sender: Any) -> None:
    account = await account_of(node.client)
    path = f"/accounts/{account}/settings/sender_id"
    refused = await answer(await node.client.put(path, json={"value": sender}), 412)
    assert "sender_id" in refused["error"]["message"]
    await answer(await node.client.get(path), 404)


async def test_settings_of_an_update_are_merged(node: Node) -> None:
    account = await account_of(node.client, settings={"a": 1, "b": 2})
    path = f"/accounts/{account}"
    after = await answer(await node.client.put(path, json={"settings": {"b": 3, "c": 4}}))
    assert after["settings"] == {"a": 1, "b": 3, "c": 4}
    after = await answer(await node.client.put(path, json={"settings": []}))
    assert after["settings"] == {"a": 1, "b": 3, "c": 4}, "PHP's empty map"


# --- provisioning --------------------------------------------------------------------------------
async def test_what_a_phone_is_told(node: Node) -> None:
    account = await made(node.client, "/extensions", username="1001", passwd=SECRET, phone="1001")
    told = await answer(await node.client.get(f"/accounts/{account}/provisioning"))
    assert (told["username"], told["password"], told["callerid"]) == ("1001", SECRET, "1001")
    expected = ProvisioningConfig()
    assert (told["host"], told["port"], told["wss"]) == ("127.0.0.1", expected.port, expected.wss)
    assert told["dialplan"] == {"agent_login": "*1001", "voicemail": "*78"}
    assert told["account"]["account_id"] == account
    assert SECRET not in str(told["account"])


async def test_a_password_is_for_who_may_set_it(node: Node) -> None:
    account = await made(node.client, "/extensions", username="1001", passwd=SECRET)
    reader = await node.user("reader", "user")
    reader_id = await user_id_of(node, "reader")
    await answer(await node.client.put(f"/accounts/{account}/users/{reader_id}"))
    told = await answer(await reader.get(f"/accounts/{account}/provisioning"))
    assert told["password"] == SECRET
    stored = await node.engine.store.get(Account, account)
    assert stored is not None
    assert SECRET not in stored.passwd
