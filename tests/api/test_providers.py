"""/providers and /accounts over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.model import Account, Provider
from tests.api.node import Node, made

SECRET = "s3cret-passphrase"  # noqa: S105


async def test_the_guides_provider(node: Node) -> None:
    """As the guide types it: numbers for prefix and port, text for settings, 1 and 0 for flags."""
    body = {
        "name": "trunk", "gateway_flag": 8, "service_flag": 3, "node_id": 1, "host": "192.0.2.1",
        "port": 8080, "username": "me", "password": SECRET, "dialstring": "", "prefix": 12,
        "settings": '{"transport": "TCP", "cps": "5", "channels": 30, "codec": "PCMA"}',
        "register": 1, "weight": 10, "type": "SIP", "active": "1",
    }  # fmt: skip
    provider = await made(node.client, "/providers", **body)
    shown = (await node.client.get(f"/providers/{provider}")).json()
    assert shown["prefix"] == "12"
    assert (shown["port"], shown["register"], shown["active"], shown["weight"]) == (8080, 1, 1, 10)
    assert (shown["transport"], shown["calls_per_second"], shown["channels"]) == ("tcp", 5, 30)
    assert json.loads(shown["settings"]) == {"codec": "PCMA"}
    assert shown["type"] == "sip"


async def test_passwords_go_in_and_never_out(node: Node) -> None:
    provider = await made(
        node.client, "/providers", name="t", host="h", username="u", password=SECRET
    )
    account = await made(
        node.client, "/accounts", username="a", passwd=SECRET, passwd_pin=SECRET[:9]
    )
    for path in (f"/providers/{provider}", f"/accounts/{account}"):
        answers = [
            await node.client.get(path),
            await node.client.get(path.rsplit("/", 1)[0]),
            await node.client.put(path, json={"password": "", "passwd": ""}),
            await node.client.put(path, json={"password": "\x00" + SECRET, "passwd": "\x00"}),
        ]
        for answer in answers:
            assert SECRET[:9] not in answer.text
            assert "pass" not in answer.text.replace("passwd:", "").replace("password:", "")
    secrets = node.engine.catalog.secrets
    kept = await node.engine.store.get(Provider, provider)
    assert kept is not None
    assert kept.password != SECRET
    opened = await secrets.opened(kept)
    assert opened.password == SECRET, "an empty one in a form means: as it is"
    kept_account = await node.engine.store.get(Account, account)
    assert kept_account is not None
    assert (await secrets.opened(kept_account)).passwd == SECRET


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"host": ""}, "host"),
        ({"host": "a b"}, "host"),
        ({"host": "a\r\nb"}, "host"),
        ({"host": "http://x"}, "host"),
        ({"type": "pigeon"}, "type"),
        ({"port": 0}, "port"),
        ({"port": 70_000}, "port"),
        ({"port": "sip"}, "port"),
        ({"transport": "sctp"}, "transport"),
        ({"settings": "plain words"}, "settings"),
        ({"settings": [1]}, "settings"),
        ({"settings": {"cps": "many"}}, "cps"),
        ({"settings": {"x": "y" * 20_000}}, "settings"),
        ({"cps": -1}, "calls_per_second"),
        ({"channels": -1}, "channels"),
        ({"weight": 0}, "weight"),
        ({"service_flag": 16}, "service_flag"),
        ({"register": "perhaps"}, "register"),
        ({"dialstring": "{number}\r\nX: y"}, "dialstring"),
    ],
)
async def test_a_bad_provider_is_refused_by_its_field(
    node: Node, change: dict[str, Any], field: str
) -> None:
    body = {"name": "trunk", "host": "192.0.2.1", **change}
    response = await node.client.post("/providers", json=body)
    assert response.status_code == 412, response.text
    assert field in response.json()["error"]["message"]


async def test_providers_are_edited_found_and_deleted(node: Node) -> None:
    tls = await made(node.client, "/providers", name="a", host="h1", transport="tls")
    plain = await made(node.client, "/providers", name="b", host="h2", active=0, settings=[])
    assert (await node.client.get(f"/providers/{tls}")).json()["port"] == 5061
    assert (await node.client.get(f"/providers/{plain}")).json()["port"] == 5060
    for args, expected in (
        ({"active": 1}, [tls]),
        ({"active": 0}, [plain]),
        ({"service_flag": 1}, [tls, plain]),
        ({"service_flag": 4}, []),
        ({"host": "h2"}, [plain]),
        ({"type": "loopback"}, []),
    ):
        rows = (await node.client.get("/providers", params=args)).json()
        assert [row["provider_id"] for row in rows] == expected
    after = await node.client.put(f"/providers/{plain}", json={"active": True, "prefix": "00|"})
    assert (after.json()["active"], after.json()["prefix"]) == (1, "00|")
    assert (await node.client.delete(f"/providers/{plain}")).json() is True
    assert (await node.client.get(f"/providers/{plain}")).status_code == 404


# specs/ictcore.md §2.10, §4.1
@pytest.mark.parametrize(
    ("type_", "service_flag", "port"),
    [
        ("SIP", 3, 5060), ("Smpp", 4, 2775), ("SMTP", 8, 25), ("http", 4, 80), ("emailcmd", 8, 25),
        ("loopback", 3, 5060),
    ],
)  # fmt: skip
async def test_a_type_brings_its_service_and_port(
    node: Node, type_: str, service_flag: int, port: int
) -> None:
    provider = await made(node.client, "/providers", name="t", type=type_, host="192.0.2.9")
    shown = (await node.client.get(f"/providers/{provider}")).json()
    assert (shown["service_flag"], shown["port"]) == (service_flag, port)
    assert shown["type"] == type_.lower()
    found = (await node.client.get("/providers", params={"type": type_})).json()
    assert [row["provider_id"] for row in found] == [provider]
    other = await made(
        node.client, "/providers", name="o", type=type_, host="192.0.2.9", service_flag=1, port=99
    )
    shown = (await node.client.get(f"/providers/{other}")).json()
    assert (shown["service_flag"], shown["port"]) == (1, 99), "what is said is said"


async def test_slow_mail_does_not_use_up_the_channels_of_calls(node: Node) -> None:
    direct = await made(node.client, "/providers", name="mx", type="smtp")
    shown = (await node.client.get(f"/providers/{direct}")).json()
    assert (shown["host"], shown["channels"]) == ("", 200), "no host is direct MX"
    own = await made(node.client, "/providers", name="own", type="smtp", channels=0)
    assert (await node.client.get(f"/providers/{own}")).json()["channels"] == 0
    sip = await made(node.client, "/providers", name="sip", type="sip", host="h")
    assert (await node.client.get(f"/providers/{sip}")).json()["channels"] == 0


async def test_a_type_without_a_gateway_here_carries_nothing(node: Node) -> None:
    """This node runs the loopback gateway alone."""
    smpp = await made(node.client, "/providers", name="m", type="smpp", host="h", service_flag=15)
    loop = await made(node.client, "/providers", name="l", type="loopback")
    trunks = node.engine.statistics()["dispatcher"]["trunks"]
    assert list(trunks) == [loop]
    shown = (await node.client.get(f"/providers/{smpp}")).json()
    assert (shown["active"], shown["service_flag"]) == (1, 15)


async def test_what_its_gateway_cannot_work_with_is_refused(node: Node) -> None:
    body = {"name": "l", "type": "loopback", "settings": {"bussy": 0.5}}
    refused = await node.client.post("/providers", json=body)
    assert (refused.status_code, "bussy" in refused.text) == (412, True)
    provider = await made(node.client, "/providers", name="l", type="loopback")
    changed = await node.client.put(f"/providers/{provider}", json={"settings": {"busy": -1}})
    assert changed.status_code == 412
    shown = (await node.client.get(f"/providers/{provider}")).json()
    assert json.loads(shown["settings"] or "{}") == {}


async def test_a_change_holds_at_once(node: Node) -> None:
    def trunks() -> dict[int, Any]:
        found: dict[int, Any] = node.engine.statistics()["dispatcher"]["trunks"]
        return found

    provider = await made(node.client, "/providers", name="l", type="loopback", channels=1)
    path = f"/providers/{provider}"
    assert trunks()[provider]["channels"] == 1
    await node.client.put(path, json={"channels": 7, "cps": 2.5})
    assert (trunks()[provider]["channels"], trunks()[provider]["calls_per_second"]) == (7, 2.5)
    await node.client.put(path, json={"active": 0})
    assert trunks() == {}
    await node.client.put(path, json={"active": 1})
    assert list(trunks()) == [provider]
    await node.client.delete(path)
    assert trunks() == {}


async def test_secrets_in_settings_go_in_and_never_out(node: Node) -> None:
    settings = {"codec": "PCMA", "api_key": SECRET, "smtp": {"password": SECRET, "port": 25}}
    provider = await made(
        node.client, "/providers", name="t", host="192.0.2.9", settings=json.dumps(settings)
    )
    path = f"/providers/{provider}"
    shown = (await node.client.get(path)).json()
    assert json.loads(shown["settings"]) == {"codec": "PCMA", "smtp": {"port": 25}}
    written_back = await node.client.put(path, json={**shown, "name": "u"})
    assert SECRET not in written_back.text
    stored = await node.engine.store.get(Provider, provider)
    assert stored is not None
    assert SECRET not in str(stored.settings)
    assert (await node.engine.catalog.secrets.opened(stored)).settings == settings
    assert SECRET not in (await node.client.get("/api/providers")).text


async def test_lists_spell_providers_as_deployed_servers_do(node: Node) -> None:
    await made(node.client, "/providers", name="t", type="SIP", host="192.0.2.1", weight=5)
    (row,) = (await node.client.get("/api/providers")).json()
    assert (row["type"], row["service_flag"], row["port"]) == ("sip", "3", "5060")
    assert "password" not in row
