"""The command line against a real node that dials through the loopback gateway."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.session import tone_wav
from tests.api.node import made
from tests.support.command import Ran, outspool
from tests.support.node_process import PASSWORD, NodeProcess, config_text, node_process

CONTACTS = 40


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeProcess]:
    config = tmp_path / "node.toml"
    config.write_text(config_text(tmp_path, node={"gateways": ["loopback"]}))
    async with node_process(config) as running:
        yield running


async def ask(node: NodeProcess, cwd: Path, *arguments: str, password: str = PASSWORD) -> Ran:
    return await outspool(*arguments, cwd=cwd, OUTSPOOL_URL=node.url, OUTSPOOL_PASSWORD=password)


async def prepared(node: NodeProcess, **script: Any) -> tuple[int, int]:
    """A provider, a program and a group of contacts; the ids of the last two."""
    async with node.client() as client:
        await made(
            client, "/providers", name="script", type="loopback", host="here", settings=script
        )
        recording_id = await made(client, "/messages/recordings", name="tone")
        media = f"/messages/recordings/{recording_id}/media"
        (await client.put(media, content=tone_wav(0.2))).raise_for_status()
        program_id = await made(
            client, "/programs/voicemessage", name="tone", recording_id=recording_id
        )
        group_id = await made(client, "/groups", name="people")
        lines = "".join(f"49{n:08d}\n" for n in range(CONTACTS))
        (await client.post(f"/groups/{group_id}/csv", content=lines)).raise_for_status()
    return program_id, group_id


async def test_a_campaign_from_creation_to_its_records(node: NodeProcess, tmp_path: Path) -> None:
    program_id, group_id = await prepared(node, busy=0.3, no_answer=0.1, no_answer_s=0.1)
    created = await ask(
        node, tmp_path, "campaign", "create", "--program", str(program_id),
        "--group", str(group_id), "--cpm", "6000", "--tries", "2", "--json",
    )  # fmt: skip
    campaign = created.json()
    assert (campaign["status"], campaign["cpm"], campaign["try_allowed"]) == ("new", 6000, 2)
    number = str(campaign["campaign_id"])
    started = await ask(node, tmp_path, "campaign", "start", number)
    assert (started.code, started.out) == (0, f"campaign {number} started\n")

    watched = (await ask(node, tmp_path, "campaign", "watch", number, "--json")).json()
    assert (watched["status"], watched["done"], watched["up"]) == ("completed", CONTACTS, 0)

    records = (
        await ask(node, tmp_path, "cdr", "--campaign", number, "--limit", "1000", "--json")
    ).json()
    assert len(records) == watched["dialled"] == CONTACTS + watched["retries"]
    by_cause = Counter(record["disposition"] for record in records)
    assert by_cause["answered"] == watched["answered"]
    assert by_cause["busy"] == watched["busy"]
    assert by_cause["no_answer"] == watched["no_answer"]
    assert {record["campaign_id"] for record in records} == {campaign["campaign_id"]}

    table = await ask(node, tmp_path, "cdr", "--campaign", number, "--status", "failed")
    assert table.code == 0
    assert "completed" not in table.out
    listed = (await ask(node, tmp_path, "campaign", "list", "--json")).json()
    assert [row["campaign_id"] for row in listed] == [campaign["campaign_id"]]


async def test_watching_without_a_terminal_prints_plain_lines(
    node: NodeProcess, tmp_path: Path
) -> None:
    program_id, group_id = await prepared(node)
    created = await ask(
        node, tmp_path, "campaign", "create", "--program", str(program_id),
        "--group", str(group_id), "--cpm", "60000", "--start", "--json",
    )  # fmt: skip
    watched = await ask(node, tmp_path, "campaign", "watch", str(created.json()["campaign_id"]))
    assert watched.code == 0
    last = watched.out.splitlines()[-1]
    assert last.startswith(f"completed: {CONTACTS}/{CONTACTS} done, {CONTACTS} dialled (0 retries)")
    assert "\x1b" not in watched.out


async def test_one_message_is_sent_and_awaited(node: NodeProcess, tmp_path: Path) -> None:
    program_id, _ = await prepared(node)
    sent = await ask(
        node,
        tmp_path,
        "send",
        "--program",
        str(program_id),
        "--phone",
        "4912345",
        "--wait",
        "--json",
    )
    seen = sent.json()
    assert (seen["status"], seen["response"]) == ("completed", "answered")


async def test_one_mail_is_sent_and_awaited(node: NodeProcess, tmp_path: Path) -> None:
    async with node.client() as client:
        await made(client, "/providers", name="script", type="loopback", host="here",
                   service_flag=8)  # fmt: skip
        template_id = await made(client, "/messages/templates", name="hi", subject="hi", body="hi")
        program = {"name": "hi", "template_id": template_id}
        program_id = await made(client, "/programs/sendemail", **program)
    to = ("--program", str(program_id), "--email", "ann@example.net")
    seen = (await ask(node, tmp_path, "send", *to, "--wait", "--json")).json()
    assert (seen["status"], seen["response"]) == ("completed", "accepted")
    assert seen["contact_email"] == "ann@example.net"


@pytest.mark.parametrize(
    "receiver",
    [(), ("--phone", "1", "--email", "ann@example.net"), ("--phone", "1", "--contact", "1")],
)
async def test_a_message_has_one_receiver(tmp_path: Path, receiver: tuple[str, ...]) -> None:
    ran = await outspool("send", "--program", "1", *receiver, cwd=tmp_path)
    assert ran.code == 2
    assert "give one of --phone, --email and --contact" in ran.err


async def test_stopping_a_campaign(node: NodeProcess, tmp_path: Path) -> None:
    program_id, group_id = await prepared(node)
    created = await ask(
        node, tmp_path, "campaign", "create", "--program", str(program_id),
        "--group", str(group_id), "--cpm", "1", "--start", "--json",
    )  # fmt: skip
    number = str(created.json()["campaign_id"])
    assert (await ask(node, tmp_path, "campaign", "stop", number)).code == 0
    shown = (await ask(node, tmp_path, "campaign", "show", number, "--json")).json()
    assert shown["status"] == "paused"
    again = await ask(node, tmp_path, "campaign", "stop", number)
    assert again.code == 1
    assert "423" in again.err


@pytest.mark.parametrize(
    ("arguments", "password", "expected"),
    [
        (("campaign", "show", "99"), PASSWORD, "404 Campaign not found"),
        (("campaign", "list"), "wrong", "401"),
        (("campaign", "list", "--url", "http://127.0.0.1:1"), PASSWORD, "cannot reach"),
        (("campaign", "list", "--url", "nonsense"), PASSWORD, "outspool: "),
    ],
)
async def test_expected_failures_are_one_line(
    node: NodeProcess, tmp_path: Path, arguments: tuple[str, ...], password: str, expected: str
) -> None:
    ran = await ask(node, tmp_path, *arguments, password=password)
    assert (ran.code, ran.out) == (1, "")
    assert expected in ran.err
    assert len(ran.err.splitlines()) == 1


async def test_a_password_is_needed(tmp_path: Path) -> None:
    ran = await outspool("campaign", "list", cwd=tmp_path)
    assert ran.code == 1
    assert "OUTSPOOL_PASSWORD" in ran.err


async def test_users_of_a_running_node_are_left_alone(node: NodeProcess, tmp_path: Path) -> None:
    ran = await outspool("user", "list", "--data", str(tmp_path / "data"), cwd=tmp_path)
    assert ran.code == 1
    assert "in use" in ran.err


async def test_users_of_a_stopped_node(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))

    async def user(*arguments: str, stdin: str = "") -> Ran:
        return await outspool("user", *arguments, *data, cwd=tmp_path, stdin=stdin)

    added = await user("add", "eve", "--role", "user", "--role", "admin", stdin="first\n")
    assert (added.code, added.out) == (0, "user eve added, id 1\n")
    assert (await user("add", "eve", stdin="again\n")).code == 1
    assert (await user("add", "bob", "--role", "king", stdin="x\n")).code == 1
    assert (await user("add", "bob")).err == "outspool: no password on standard input\n"
    assert (await user("disable", "eve")).code == 0
    (row,) = (await user("list", "--json")).json()
    assert row == {
        "user_id": 1,
        "username": "eve",
        "email": "",
        "roles": ["user", "admin"],
        "active": False,
    }
    assert (await user("enable", "eve")).code == 0
    assert (await user("password", "eve", stdin=f"{PASSWORD}\n")).code == 0
    assert (await user("password", "nobody", stdin="x\n")).code == 1

    config = tmp_path / "node.toml"
    config.write_text(config_text(tmp_path, node={"gateways": ["loopback"]}))
    async with node_process(config) as node:
        listed = await outspool(
            "campaign", "list", "--json", cwd=tmp_path,
            OUTSPOOL_URL=node.url, OUTSPOOL_USER="eve", OUTSPOOL_PASSWORD=PASSWORD,
        )  # fmt: skip
    assert listed.json() == []


async def test_migrate_makes_a_store_that_a_node_opens(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = await outspool("migrate", "--data", str(data), cwd=tmp_path)
    assert (first.code, first.out) == (0, f"{data}: schema is up to date\n")
    again = await outspool("migrate", "--data", str(data), cwd=tmp_path)
    assert again.code == 0
    listed = await outspool("user", "list", "--data", str(data), "--json", cwd=tmp_path)
    assert listed.json() == []
