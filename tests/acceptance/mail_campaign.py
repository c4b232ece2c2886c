"""An operator's e-mail campaign over HTTP, and what a real mail server delivered beside it."""

from __future__ import annotations

import csv
import html
import io
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from email import policy
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import dkim
import httpx
import msgspec

from tests.acceptance import sms_campaign
from tests.acceptance.session import create
from tests.acceptance.sms_campaign import Outcome
from tests.support import LOCALHOST, free_port
from tests.support.mail.dkim_keys import Keys
from tests.support.mail.maildir import Arrived
from tests.support.mail.postfix import Postfix
from tests.support.node_process import config_text

every, outcome, read, start = (
    sms_campaign.every,
    sms_campaign.outcome,
    sms_campaign.read,
    sms_campaign.start,
)
SENDER, SENDER_NAME = "gruesse@example.org", "Ünïcode GmbH"
DOMAIN = "example.net"
SUBJECT = (
    "Grüße 😀 an [contact:first_name]: Nummer [contact:custom1], Äpfel und so weiter bis zum Ende"
)
BODY = """<html><body><h1>Hallo [contact:first_name] [contact:last_name]!</h1>
<p>Your code is <b>[contact:custom1]</b>. Straße, 5 €, 😀, = and =3D.</p>
.
.. A line that begins with dots
From the first to the last
<p>{long}</p><a href="https://example.org/?c=[contact:custom1]">Your page</a>
</body></html>
""".replace("{long}", "Lines may be as long as they like. " * 30)
NAMES = (
    ("Zoë😀", "Müller"),
    ('"><b>bold</b>', "O'Neil"),
    ('say "hello"', "a, b; c <d@e.org>"),
    ("مرحبا", "שלום"),
    ("Nguyễn", "Văn A\\B"),
    ("=?utf-8?q?fake?=", "(comment)"),
    ("José", ""),
)
FILES = (
    ("data.bin", "application/octet-stream", random.Random(1).randbytes(30_000)),
    ("Grüße.pdf", "application/pdf", b"%PDF-1.4\n" + random.Random(2).randbytes(3_000) + b"\n.\n"),
)


_FIRST_FILE = b"\r\nContent-Type: application/octet-stream"
"""Where the octets begin that all mails of a campaign share."""


class Person(msgspec.Struct, frozen=True):
    """A contact of a test campaign."""

    email: str
    first_name: str
    last_name: str
    code: str

    @property
    def name(self) -> str:
        """What the To header says."""
        return f"{self.first_name} {self.last_name}".strip()

    def text(self, template: str, escape: Callable[[str], str] = str) -> str:
        """What this contact shall read."""
        values = {"first_name": self.first_name, "last_name": self.last_name, "custom1": self.code}
        return re.sub(r"\[contact:(\w+)\]", lambda found: escape(values[found[1]]), template)


def people(count: int, domain: str = DOMAIN) -> list[Person]:
    """Contacts with addresses, names and codes of their own."""
    chosen = (NAMES[n % len(NAMES)] for n in range(count))
    return [Person(f"p{n}@{domain}", *name, f"{n:x}&<{n}>") for n, name in enumerate(chosen)]


def config(folder: Path, mta: Postfix | None, **sections: dict[str, Any]) -> Path:
    """The file of a node that trusts this Postfix and is on the web at its own address."""
    port = free_port()
    smtp = {"hostname": "node.example.org", "ca_file": str(mta.trusted) if mta else ""}
    given: dict[str, dict[str, Any]] = {
        "http": {"port": port},
        "dial": {"trunk_cooldown_s": 1.0},
        "website": {"url": f"http://{LOCALHOST}:{port}"},
        **sections,
        "smtp": {**smtp, **sections.get("smtp", {})},
    }
    path = folder / "outspool.toml"
    path.write_text(config_text(folder, **given))
    return path


async def provider(client: httpx.AsyncClient, port: int, **settings: Any) -> int:
    """A relay on this machine; ``username`` and ``password`` stand beside the settings."""
    relay: dict[str, Any] = {"name": "relay", "type": "smtp", "host": LOCALHOST, "port": port}
    relay |= {key: settings.pop(key) for key in ("username", "password") if key in settings}
    return await create(client, "/providers", "provider_id", {**relay, "settings": settings})


async def account(client: httpx.AsyncClient, address: str = SENDER, **fields: Any) -> int:
    """An account that sends and receives under this address."""
    given = {"type": "eaddress", "username": address, "email": address, "active": 1}
    given |= {"first_name": SENDER_NAME}
    return await create(client, "/accounts", "account_id", given | fields)


async def template(
    client: httpx.AsyncClient,
    *,
    subject: str = SUBJECT,
    body: str = BODY,
    body_alt: str = "",
    files: Sequence[tuple[str, str, bytes]] = (),
) -> int:
    """A template with these attachments."""
    given = {"name": "hello", "subject": subject, "body": body, "body_alt": body_alt}
    found = await create(client, "/messages/templates", "template_id", given)
    for name, kind, content in files:
        disposition = f"attachment; filename*=UTF-8''{quote(name)}"
        answer = await client.post(
            f"/messages/templates/{found}/media",
            content=content,
            headers={"Content-Type": kind, "Content-Disposition": disposition},
        )
        assert answer.status_code == 200, answer.text
    return found


async def campaign(
    client: httpx.AsyncClient,
    who: Iterable[Person],
    template_id: int,
    account_id: int,
    **fields: Any,
) -> int:
    """Program, group, CSV of contacts, campaign; its id. Not started."""
    program = await create(
        client, "/programs/sendemail", "program_id", {"name": "mail", "template_id": template_id}
    )
    return await again(client, who, program, account_id, **fields)


async def again(
    client: httpx.AsyncClient, who: Iterable[Person], program: int, account_id: int, **fields: Any
) -> int:
    """One more campaign of a program; its id. Not started."""
    given = {"program_id": program, "account_id": account_id, "group_id": await group(client, who)}
    return await create(
        client, "/campaigns", "campaign_id", {**given, "cpm": 6_000_000, "try_allowed": 1, **fields}
    )


async def group(client: httpx.AsyncClient, who: Iterable[Person]) -> int:
    """A group of these contacts, by CSV."""
    found = await create(client, "/groups", "group_id", {"name": "people"})
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    for n, p in enumerate(who):
        # Cells that spreadsheets would run have an apostrophe in front: an export writes it too.
        first = f"'{p.first_name}" if p.first_name.startswith("=") else p.first_name
        writer.writerow((f"49177{n:07d}", first, p.last_name, p.email, "", p.code, "", "", ""))
    answer = await client.post(
        f"/groups/{found}/csv",
        content=lines.getvalue().encode(),
        headers={"Content-Type": "text/csv"},
    )
    assert answer.status_code == 200, answer.text
    return found


# --- what arrived --------------------------------------------------------------------------------


def parsed(raw: bytes) -> EmailMessage:
    """The mail as the standard library reads it."""
    return BytesParser(policy=policy.default).parsebytes(raw)


def assert_each_once_and_intact(
    mails: Sequence[Arrived], who: Sequence[Person], *, files: bool = True
) -> None:
    """One mail for each person, word for word, whatever is in their names.

    Attachments of mails that end in the same octets are read once.
    """
    times = Counter(mail.recipient for mail in mails)
    wanted = Counter(person.email for person in who)
    assert times == wanted, f"missing {wanted - times}, too many {times - wanted}"
    by_address = {person.email: person for person in who}
    ids, ends = set(), set()
    for mail in mails:
        text, attached, end = mail.raw.partition(_FIRST_FILE)
        assert bool(attached) is files
        if end not in ends:
            ends.add(end)
            assert_whole(parsed(mail.raw), files=files)
        message = parsed(text)
        assert_reads(message, by_address[mail.recipient])
        ids.add(message["Message-ID"])
    assert len(ids) == len(who), "Message-IDs are not unique"


def assert_whole(message: EmailMessage, *, files: bool) -> None:
    """A mail that breaks no rule, with its attachments."""
    assert not message.defects
    assert not [part for part in message.walk() if part.defects]
    assert [_file(part) for part in message.iter_attachments()] == (list(FILES) if files else [])


def assert_reads(message: EmailMessage, person: Person) -> None:
    """Headers and both texts of one person's mail."""
    assert message["Subject"] == person.text(SUBJECT)
    (to,) = message["To"].addresses
    assert (to.addr_spec, to.display_name) == (person.email, person.name)
    (sender,) = message["From"].addresses
    assert (sender.addr_spec, sender.display_name) == (SENDER, SENDER_NAME)
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert _text(message, "html").rstrip() == person.text(BODY, html.escape).rstrip()
    alternative = _text(message, "plain")
    assert f"Hallo {person.first_name} {person.last_name}!" in alternative
    assert person.code in alternative


def _text(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None, kind
    content = part.get_content()
    assert isinstance(content, str)
    return content.replace("\r\n", "\n")


def _file(part: MIMEPart) -> tuple[str, str, bytes]:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return part.get_filename() or "", part.get_content_type(), content


def unsubscribe_url(mail: Arrived) -> str:
    """What the List-Unsubscribe header says."""
    return str(parsed(mail.raw)["List-Unsubscribe"]).strip().removeprefix("<").removesuffix(">")


def path_of(url: str) -> str:
    """Its path."""
    return urlsplit(url).path


def assert_signed(mails: Sequence[Arrived], keys: Keys, *, sample: int) -> None:
    """RSA on every mail, Ed25519 on ``sample`` of them, by dkimpy."""
    step = max(len(mails) // sample, 1)
    for number, mail in enumerate(mails):
        signed = dkim.DKIM(mail.raw)
        kinds = [keys.kind_of(value) for name, value in signed.headers if name == _SIGNATURE]
        assert sorted(kinds) == sorted(keys.kinds), mail.recipient
        for index, kind in enumerate(kinds):
            if kind == "rsa" or number % step == 0:
                assert signed.verify(idx=index, dnsfunc=keys.txt), (mail.recipient, kind)


_SIGNATURE = b"DKIM-Signature"


def assert_counts_agree(found: Outcome, contacts: int) -> None:
    """Campaign, transmissions, spools and statistics: one story."""
    assert (found.campaign["contact_total"], found.campaign["contact_done"]) == (contacts, contacts)
    assert found.campaign["successful"] + found.campaign["failed"] == contacts
    assert len({row["contact_id"] for row in found.transmissions}) == contacts
    assert len(found.transmissions) == contacts
    ended = Counter(row["status"] for row in found.spools)
    assert set(ended) <= {"completed", "failed"}
    assert ended["completed"] == found.campaign["successful"]
    assert found.statistics["transmission_active"] == 0


async def rows_of(client: httpx.AsyncClient, spool: dict[str, Any]) -> dict[str, str]:
    """Result rows of a spool by name; of several of a name, the last."""
    rows = await every(client, f"/spools/{spool['spool_id']}/result")
    return {row["name"]: row["data"] for row in rows}
