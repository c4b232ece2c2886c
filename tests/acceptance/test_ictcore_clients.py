"""The flows of ICTCore's existing clients, against a node as an operator runs it.

The letters are those of the tables in specs/ictcore-client-calls.md.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.ictcore_clients import (
    FINAL,
    JSON,
    Browser,
    N8n,
    Php,
    Strict,
    pdf,
    wav,
)
from tests.support import wait_until
from tests.support.node_process import PASSWORD, config_text, node_process

BASIC = "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
LOGIN = {"username": "admin", "password": PASSWORD}


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A connection to a running node that has a trunk for calls."""
    config = tmp_path / "outspool.toml"
    config.write_text(config_text(tmp_path, node={"gateways": ["loopback"]}))
    async with (
        node_process(config) as node,
        httpx.AsyncClient(base_url=node.url, timeout=30) as client,
    ):
        admin = Strict(client, Authorization=BASIC)
        await admin.integer("POST", "/providers", {"name": "trunk", "type": "loopback"})
        yield client


async def token_of(http: httpx.AsyncClient) -> str:
    answer = await http.post("/api/authenticate", json=LOGIN)
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    assert isinstance(token, str)
    return token


async def call_program(n8n: N8n) -> Any:
    """A voice message that can be sent; made as n8n makes things."""
    recording = n8n.id(await n8n.call("POST", "/recordings", {"name": "hello"}), "recording_id")
    path = f"/recordings/{recording}/media"
    sent = await n8n.send("PUT", path, wav(), {"Content-Type": "audio/x-wav"})
    sent.raise_for_status()
    body = {"name": "call", "recording_id": recording}
    return n8n.id(await n8n.call("POST", "/programs/voicemessage", body), "program_id")


# --- A: n8n-nodes-ictcore ------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
async def test_n8n_credentials(http: httpx.AsyncClient, scheme: str) -> None:
    header = BASIC if scheme == "Basic" else f"Bearer {await token_of(http)}"
    n8n = N8n(http, Authorization=header)
    assert await n8n.call("GET", "/contacts") == []


async def test_n8n_prepares_a_fax(http: httpx.AsyncClient) -> None:
    n8n = N8n(http, Authorization=BASIC)
    body: dict[str, Any] = {"phone": "4930123456", "first_name": "4930123456"}
    contact = n8n.id(await n8n.call("POST", "/contacts", body), "contact_id", "id")
    document = n8n.id(
        await n8n.call("POST", "/messages/documents", {"name": "offer.pdf"}), "document_id", "id"
    )
    await n8n.upload(document, pdf(), "application/pdf")
    body = {"name": "n8n fax offer.pdf", "document_id": document}
    program = n8n.id(await n8n.call("POST", "/programs/sendfax", body), "program_id", "id")
    body = {"contact_id": contact, "program_id": program}
    transmission = n8n.id(await n8n.call("POST", "/transmissions", body), "transmission_id", "id")
    status = await n8n.call("GET", f"/transmissions/{transmission}/status")
    assert status == "pending"
    (fax,) = await n8n.list("/faxes")
    assert fax["transmission_id"] == str(transmission)
    # Nothing carries a fax on this node: the sending says so, and n8n shows it to its user.
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await n8n.call("POST", f"/transmissions/{transmission}/send")
    assert refused.value.response.status_code in (404, 423)
    assert refused.value.response.json()["error"]["message"]


async def test_n8n_downloads_a_fax(http: httpx.AsyncClient) -> None:
    n8n = N8n(http, Authorization=BASIC)
    document = n8n.id(await n8n.call("POST", "/messages/documents", {"name": "d"}), "document_id")
    await n8n.upload(document, pdf(), "application/pdf")
    response = await n8n.send("GET", f"/documents/{document}/media", headers={"Accept": JSON})
    assert response.status_code == 200
    assert response.content.startswith(b"%PDF-")
    assert "filename=" in response.headers["content-disposition"]


async def test_n8n_contacts(http: httpx.AsyncClient) -> None:
    n8n = N8n(http, Authorization=BASIC)
    body = {"phone": "100", "first_name": "Ada", "email": "", "custom1": "x"}
    contact = n8n.id(await n8n.call("POST", "/contacts", body), "contact_id", "id")
    changed = await n8n.call("PUT", f"/contacts/{contact}", {"last_name": "Lovelace"})
    assert changed["first_name"] == "Ada"
    assert (await n8n.call("GET", f"/contacts/{contact}"))["last_name"] == "Lovelace"
    assert [row["phone"] for row in await n8n.list("/contacts", first_name="da")] == ["100"]
    assert await n8n.call("DELETE", f"/contacts/{contact}") is True


async def test_n8n_groups_and_campaigns(http: httpx.AsyncClient) -> None:
    n8n = N8n(http, Authorization=BASIC)
    group = n8n.id(await n8n.call("POST", "/groups", {"name": "people"}), "group_id", "id")
    for phone in ("100", "200"):
        contact = await n8n.call("POST", "/contacts", {"phone": phone})
        assert await n8n.call("PUT", f"/contacts/{contact}/link/{group}")
    assert len(await n8n.list(f"/groups/{group}/contacts")) == 2
    assert len(await n8n.list("/groups")) == 1
    body = {"program_id": str(await call_program(n8n)), "group_id": str(group), "cpm": 1}
    campaign = n8n.id(await n8n.call("POST", "/campaigns", body), "campaign_id", "id")
    # At one call a minute it cannot end before it is stopped.
    assert await n8n.call("PUT", f"/campaigns/{campaign}/start") == str(campaign)
    assert await n8n.call("PUT", f"/campaigns/{campaign}/stop") == str(campaign)
    await n8n.call("PUT", f"/campaigns/{campaign}", {"cpm": 6000})
    assert await n8n.call("PUT", f"/campaigns/{campaign}/start") == str(campaign)
    await until_status(n8n, f"/campaigns/{campaign}", {"completed"})
    assert [row["campaign_id"] for row in await n8n.list("/campaigns")] == [str(campaign)]
    assert await n8n.call("DELETE", f"/campaigns/{campaign}") is True
    assert await n8n.call("DELETE", f"/groups/{group}") is True


async def test_n8n_sends_waits_and_reads(http: httpx.AsyncClient) -> None:
    n8n = N8n(http, Authorization=BASIC)
    contact = await n8n.call("POST", "/contacts", {"phone": "100", "first_name": "100"})
    body = {"contact_id": contact, "program_id": await call_program(n8n)}
    transmission = await n8n.call("POST", "/transmissions", body)
    assert isinstance(await n8n.call("POST", f"/transmissions/{transmission}/send"), int)

    async def done() -> bool:
        return await n8n.is_done(transmission)

    await wait_until(done, "n8n sees the end of the transmission")
    shown = await n8n.call("GET", f"/transmissions/{transmission}")
    assert shown["status"] in FINAL
    assert shown["contact_phone"] == "100"
    assert isinstance(await n8n.list(f"/transmissions/{transmission}/result"), list)
    assert len(await n8n.list("/transmissions")) == len(await n8n.list("/calls")) == 1
    counts = await n8n.call("GET", "/statistics")
    assert counts["transmission_total"] == "1"
    with pytest.raises(httpx.HTTPStatusError, match="423"):
        await n8n.call("POST", f"/transmissions/{transmission}/retry")
    assert await n8n.call("DELETE", f"/contacts/{contact}") is True
    assert (await n8n.call("GET", f"/transmissions/{transmission}"))["contact_id"] is None


async def test_n8n_asks_for_what_is_a_switchboards(http: httpx.AsyncClient) -> None:
    n8n = N8n(http, Authorization=BASIC)
    for verb, path in (("POST", "/call/originate"), ("GET", "/fpbx_extensions"), ("GET", "/cdr")):
        with pytest.raises(httpx.HTTPStatusError, match="404"):
            await n8n.call(verb, path)


async def until_status(n8n: N8n, path: str, wanted: set[str]) -> None:
    async def reached() -> bool:
        return (await n8n.call("GET", path))["status"] in wanted

    await wait_until(reached, f"{path} is {wanted}")


# --- B: ictfax-mcp, and the Rust and NestJS senders ----------------------------------------------


async def test_mcp_sends_a_document(http: httpx.AsyncClient) -> None:
    anybody = N8n(http)
    refused = await http.post("/api/authenticate", json={**LOGIN, "password": "wrong"})
    assert refused.status_code == 401
    assert refused.json()["error"]["message"]
    login = await anybody.call("POST", "/authenticate", LOGIN)
    mcp = N8n(http, Authorization=f"Bearer {login['token']}")
    document = await mcp.call("POST", "/documents", {"name": "offer"})
    path = f"/documents/{document}/media"
    (await mcp.send("POST", path, pdf(), {"Content-Type": "application/pdf"})).raise_for_status()
    contact = await mcp.call("POST", "/contacts", {"first_name": "Ada", "phone": "100"})
    body: dict[str, Any] = {"name": "fax", "document_id": document}
    program = await mcp.call("POST", "/programs/sendfax", body)
    body = {
        "title": "Offer",
        "contact_id": contact,
        "program_id": program,
        "account_id": 1,
        "direction": "outbound",
    }
    transmission = await mcp.call("POST", "/transmissions", body)
    shown = await mcp.call("GET", f"/transmissions/{transmission}")
    assert (shown["status"], shown["title"]) == ("pending", "Offer")
    assert "pages" in shown
    assert len(await mcp.list("/transmissions")) == 1


async def test_the_guides_slip_of_a_header_is_enough(http: httpx.AsyncClient) -> None:
    rust = N8n(http, Authentication=f"Bearer {await token_of(http)}")
    assert await rust.call("GET", "/transmissions") == []


# --- C: ICTFax-ts --------------------------------------------------------------------------------

MADE = {
    "programs": ("voicemessage", {"name": "p", "recording_id": "{recording}"}),
    "transmissions": ("", {"program_id": "{program}", "contact_id": "{contact}"}),
    "contacts": ("", {"phone": "1"}),
    "messages/documents": ("", {"name": "d"}),
    "accounts": ("", {"username": "900", "phone": "900"}),
    "users": ("", {"username": "u", "email": "u@example.com", "password": "correct horse 9"}),
    "providers": ("", {"name": "other", "type": "SIP", "host": "carrier.example.com"}),
}


async def test_ts_login_is_typed(http: httpx.AsyncClient) -> None:
    shown = await N8n(http).call("POST", "/authenticate", LOGIN)
    assert isinstance(shown["user_id"], str)
    assert isinstance(shown["active"], str)
    assert isinstance(shown["expires_in"], int)
    assert shown["token_type"] == "Bearer"  # noqa: S105 - OAuth's word, no secret
    assert shown["scope"]


@pytest.mark.parametrize("kind", MADE)
async def test_ts_verbs_of_every_kind(http: httpx.AsyncClient, kind: str) -> None:
    headers = {"Accept": "application/json, text/plain, */*"}
    ts = N8n(http, Authorization=f"Bearer {await token_of(http)}", **headers)
    known = {"program": await call_program(ts)}
    known["recording"] = (await ts.list("/recordings"))[0]["recording_id"]
    known["contact"] = await ts.call("POST", "/contacts", {"phone": "100"})
    word, fields = MADE[kind]
    body = {name: value.format(**known) for name, value in fields.items()}
    made = await ts.call("POST", f"/{kind}/{word}".removesuffix("/"), body)
    assert isinstance(made, int)
    assert not isinstance(made, bool)
    shown = await ts.call("GET", f"/{kind}/{made}")
    assert isinstance(shown, dict)
    assert isinstance(await ts.call("PUT", f"/{kind}/{made}", shown), dict)
    assert isinstance(await ts.list(f"/{kind}"), list)
    assert await ts.call("DELETE", f"/{kind}/{made}") is True
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        await ts.call("GET", f"/{kind}/{made}")


# --- D: accounts and DIDs, as the GUIs use them --------------------------------------------------


async def test_gui_dids_and_extensions(http: httpx.AsyncClient) -> None:
    gui = Browser(http, Authorization=f"Bearer {await token_of(http)}")
    did = await gui.parsed("POST", "/dids", {"username": "4930", "phone": "4930"})
    extension = await gui.parsed("POST", "/extensions", {"username": "600", "passwd": "x1y2z3"})
    assert isinstance(did, int)
    (row,) = await gui.parsed("GET", "/dids")
    assert (row["account_id"], row["type"]) == (str(did), "did")
    assert [r["account_id"] for r in await gui.parsed("GET", "/extensions")] == [str(extension)]
    users = await gui.parsed("GET", "/users")
    assert row["created_by"] in [user["user_id"] for user in users]


async def test_gui_settings_are_truths(http: httpx.AsyncClient) -> None:
    gui = Browser(http, Authorization=BASIC)
    account = await gui.parsed("POST", "/accounts", {"username": "900", "active": ""})
    path = f"/accounts/{account}/settings/emailtofax_coversheet"
    missing = await gui.send("GET", path)
    assert missing.status_code == 404
    assert await gui.parsed("PUT", path, {"value": "body"}) is True
    assert await gui.parsed("GET", path) is True
    assert await gui.parsed("DELETE", path) is True
    assert (await gui.send("GET", path)).status_code == 404


async def test_gui_gives_a_did_to_a_user(http: httpx.AsyncClient) -> None:
    gui = Browser(http, Authorization=BASIC)
    did = await gui.parsed("POST", "/dids", {"username": "4930", "phone": "4930"})
    body = {"username": "ada", "email": "ada@example.com", "password": "correct horse 9"}
    user = await gui.parsed("POST", "/users", body)
    assert await gui.parsed("PUT", f"/accounts/{did}/users/{user}", []) is True
    (row,) = await gui.parsed("GET", f"/users/{user}/accounts?type=did")
    assert row["account_id"] == str(did)
    assert row["created_by"] == str(user)
    assert await gui.parsed("DELETE", f"/accounts/{did}/users") is True
    assert await gui.parsed("GET", f"/users/{user}/accounts?type=did") == []


async def test_gui_binds_a_program_to_a_did(http: httpx.AsyncClient) -> None:
    gui = Browser(http, Authorization=BASIC)
    did = await gui.parsed("POST", "/dids", {"username": "4930", "phone": "4930"})
    program = await gui.parsed("PUT", f"/accounts/{did}/programs/faxtoemail", {})
    assert isinstance(program, int)
    assert await gui.parsed("DELETE", f"/accounts/{did}/programs/faxtoemail") is True


# --- E: the strict sender; F: the extension; PHP -------------------------------------------------


async def test_strict_sender(http: httpx.AsyncClient) -> None:
    go = Strict(http, Authorization=f"Bearer {await token_of(http)}")
    contact = await go.integer("POST", "/contacts", {"phone": "100", "is_print": 0})
    document = await go.integer("POST", "/messages/documents", {"name": "offer"})
    path = f"/messages/documents/{document}/media"
    head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="o.pdf"\r\n\r\n'
    labelled = {"Content-Type": "application/pdf"}
    uploaded = await go.send("PUT", path, head + pdf() + b"\r\n--b--\r\n", labelled)
    assert uploaded.status_code == 200
    body: dict[str, Any] = {"name": "fax", "document_id": document, "is_coverpage": 1}
    program = await go.integer("POST", "/programs/sendfax", body)
    body = {"program_id": program, "contact_id": contact, "origin": "api", "try_allowed": ""}
    await go.integer("POST", "/transmissions", body)
    names = ("contacts", "documents", "programs", "transmissions", "faxes", "accounts", "users")
    for name in (*names, "providers", "groups", "campaigns", "recordings", "roles", "permissions"):
        rows = await go.rows(f"/{name}")
        assert rows or name not in names, name


async def test_extension_parses_for_itself(http: httpx.AsyncClient) -> None:
    agent = Browser(http, Authorization=BASIC)
    first = await agent.parsed("POST", "/contacts", {"phone": "1", "email": ""})
    second = await agent.parsed("POST", "/contacts", {"phone": "2"})
    newest_first = list(reversed(await agent.parsed("GET", "/contacts")))
    assert [row["contact_id"] for row in newest_first] == [str(second), str(first)]
    document = await agent.parsed("POST", "/documents", {"name": "page"})
    url = b"data:application/pdf;base64," + base64.b64encode(pdf())
    path = f"/documents/{document}/media"
    response = await agent.send("PUT", path, url, {"Content-Type": "base64", "Accept": "*/*"})
    assert response.status_code == 200, response.text
    assert response.text == f'"{document}"'


async def test_php_school_calls_its_parents(http: httpx.AsyncClient) -> None:
    php = Php(http, Authorization=BASIC)
    contact = await php.call("POST", "/contacts", {"phone": "100", "email": "", "description": ""})
    group = await php.call("POST", "/groups", {"name": "parents", "description": ""})
    assert await php.call("PUT", f"/contacts/{contact}/link/{group}")
    recording = await php.call("POST", "/messages/recordings", {"name": "news"})
    path = f"/messages/recordings/{recording}/media"
    recording = await php.upload(path, wav(), "audio/wav")
    body = {"name": "news", "recording_id": recording}
    program = await php.call("POST", "/programs/voicemessage", body)
    body = {
        "program_id": program,
        "group_id": group,
        "delay": "",
        "try_allowed": "",
        "account_id": 1,
        "status": "",
    }
    campaign = await php.call("POST", "/campaigns", body)
    assert await php.call("PUT", f"/campaigns/{campaign}/start") == str(campaign)
    refused = await php.send("GET", "/contacts/999")
    assert refused.json()["error"]["message"] == "Contact not found"


# --- G: the guide's own shapes -------------------------------------------------------------------


async def test_a_client_of_the_guide(http: httpx.AsyncClient) -> None:
    http.headers["Authorization"] = f"Bearer {await token_of(http)}"

    async def reply(verb: str, path: str, **body: Any) -> Any:
        response = await http.request(verb, path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    contact = (await reply("POST", "/contacts", phone="100"))["contact_id"]
    recording = (await reply("POST", "/messages/recordings", name="hello"))["recording_id"]
    media = f"/messages/recordings/{recording}/media"
    (await http.put(media, content=wav(), headers={"Content-Type": "audio/wav"})).raise_for_status()
    body: dict[str, Any] = {"name": "call", "recording_id": recording}
    program = (await reply("POST", "/programs/voicemessage", **body))["program_id"]
    body = {"program_id": program, "contact_id": contact}
    transmission = (await reply("POST", "/transmissions", **body))["transmission_id"]
    path = f"/transmissions/{transmission}"
    assert isinstance((await reply("PUT", path + "/schedule", delay=3600))["schedule_id"], int)
    await reply("DELETE", path + "/schedule")
    assert isinstance((await reply("POST", path + "/send"))["spool_id"], int)
    account = (await reply("POST", "/accounts", username="900"))["account_id"]
    path = f"/accounts/{account}/settings/coverpage"
    await reply("PUT", path, value="sendcover")
    assert (await reply("GET", path))["value"] == "sendcover"
    ids = (contact, recording, program, transmission, account)
    assert [type(value) for value in ids] == [int] * 5
