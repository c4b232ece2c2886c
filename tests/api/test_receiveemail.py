"""Mails that came in, as clients see them: what receiveemail made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from engine.gateway import Reception
from engine.mail import MailFile
from tests.api.node import Node, made
from tests.support.mails import inbound


async def asked(client: httpx.AsyncClient, path: str) -> Any:
    response = await client.get(path)
    assert response.status_code == 200, response.text
    return response.json()


async def test_it_is_a_transmission_with_a_template_and_its_file(
    node: Node, tmp_path: Path
) -> None:
    account = await made(
        node.client, "/accounts", type="eaddress", email="Us@Example.net", active=1
    )
    assert not await node.engine.inbox.serves_mail("us@example.net")
    await made(node.client, "/programs/receiveemail", name="in", account_id=account)
    assert await node.engine.inbox.serves_mail("us@example.net")
    path = tmp_path / "0"
    path.write_bytes(b"%PDF-1.4 \x00\xff")
    file = MailFile(path, "Zoë.pdf", "application/pdf", 11)
    mail = inbound(files=(file,))
    assert await node.engine.inbox.receive_mail(mail) is Reception.TAKEN
    assert await node.engine.inbox.receive_mail(mail) is Reception.REPEATED
    [row] = await asked(node.client, "/emails")
    assert (row["direction"], row["status"], row["origin"]) == (
        "inbound", "completed", "receiveemail",
    )  # fmt: skip
    assert row["contact_email"] == "ada@example.org"
    results = await asked(node.client, f"/transmissions/{row['transmission_id']}/results")
    found = {(one["type"], one["name"]): one["data"] for one in results}
    assert found["application", "email_receive"] == "success"
    template = found["message", "template"]
    shown = await asked(node.client, f"/templates/{template}")
    assert (shown["subject"], shown["body"], shown["body_alt"]) == ("Re: News", "<p>Yes</p>", "Yes")
    media = await node.client.get(f"/templates/{template}/media")
    assert media.content == b"%PDF-1.4 \x00\xff"
    contact = await asked(node.client, f"/contacts/{found['contact', 'contact_new']}")
    assert (contact["first_name"], contact["last_name"]) == ("Ada", "Lovelace")
    # What came in is not for sending.
    again = await node.client.post(f"/transmissions/{row['transmission_id']}/send")
    assert again.status_code == 423
