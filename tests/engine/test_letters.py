"""Mails as gateways get them: what a campaign shares, what a contact gets, what gets in nowhere."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine import clock
from engine.config import Config, WebsiteConfig
from engine.errors import NotFoundError, NotReadyError
from engine.gateway import CallEnded
from engine.mail import MailMessage
from engine.model import Account, Contact, Program, Template, Text, User
from engine.previews import wording
from engine.results import ResultRow
from engine.seals import Seals
from engine.secrets import KeyRing
from engine.store import open_store
from engine.store.base import Begun, Candidate, Store
from engine.unsubscribes import PURPOSE, Links
from engine.work import Work, prepare
from tests.support.engine import config_in

EVIL = '"><script>\r\nBcc: x@example.com\u2028'
ADA = Contact(id=7, first_name=EVIL, last_name="Lovelace", email="ada@example.org")
BOB = Contact(id=8, first_name="Bob", email="bob@example.org")
BEGUN = Begun(spool_id=5, transmission_id=6, try_done=1)
LINKS = Links("https://node.example", Seals(KeyRing(b"k" * 32).derived(PURPOSE)))
TEMPLATE: dict[str, Any] = {
    "subject": "For [contact:first_name]\r\nX: y",
    "body": "<p>Hi [contact:first_name] [contact:fax] [account:phone]</p>",
    "body_alt": "Hi [contact:first_name]\n[unsubscribe:url]",
}


class Outbox:
    """A ``Mailer`` that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[MailMessage] = []

    async def send_mail(self, message: MailMessage) -> None:
        self.sent.append(message)

    def note(self, row: ResultRow) -> None:
        raise AssertionError(row)


class Ended(Outbox):
    """One whose network takes nothing."""

    async def send_mail(self, message: MailMessage) -> None:
        raise CallEnded


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_in(tmp_path)


@pytest.fixture
async def store(config: Config) -> AsyncIterator[Store]:
    async with open_store(config, clock=clock.now) as opened:
        yield opened


async def program_of(store: Store, **fields: Any) -> Program:
    template = await store.insert(Template(**({"name": "t"} | fields)))
    data = {"template_id": template.id}
    return await store.insert(Program(name="mailing", type="sendemail", data=data))


async def prepared(
    store: Store, config: Config, program: Program, *, links: Links | None = LINKS, **fields: Any
) -> Work:
    return await prepare(store, config, program.id, None, links=links, **fields)


async def sent(work: Work, *contacts: Contact) -> list[MailMessage]:
    """What the program hands over for each of them."""
    outbox = Outbox()
    for contact in contacts:
        await work.program_for(Candidate(contact=contact), BEGUN)(outbox)
    return outbox.sent


def joined(fixed: tuple[str, ...], values: tuple[str, ...]) -> str:
    """The text of a part, as a gateway makes it."""
    return "".join(a + b for a, b in zip(fixed, (*values, ""), strict=bool(fixed)))


def words_of(mail: MailMessage) -> dict[str, str]:
    return {
        "subject": mail.subject,
        "body": joined(mail.form.body, mail.body),
        "body_alt": joined(mail.form.body_alt, mail.body_alt),
    }


# --- forms -------------------------------------------------------------------------------------
async def test_mails_of_a_campaign_share_their_form_until_it_is_edited(
    store: Store, config: Config
) -> None:
    program = await program_of(store, **TEMPLATE)
    work = await prepared(store, config, program)
    ada, bob = await sent(work, ADA, BOB)
    assert ada.form is bob.form
    [again] = await sent(await prepared(store, config, program), BOB)
    assert again.form is not bob.form
    assert again.form == bob.form  # and so encoded once, where both are on their way


async def test_what_each_contact_gets_beside_it(store: Store, config: Config) -> None:
    ada, bob = await sent(
        await prepared(store, config, await program_of(store, **TEMPLATE)), ADA, BOB
    )
    assert bob.form.body == ("<p>Hi ", " [contact:fax] ", "</p>")
    assert bob.form.body_alt == ("Hi ", "\n", "")
    assert bob.body == ("Bob", "[account:phone]")
    assert bob.body_alt == ("Bob", bob.unsubscribe)
    assert (bob.subject, bob.to_name) == ("For Bob X: y", "Bob")
    assert ada.unsubscribe.startswith("https://node.example/unsubscribe/")
    assert ada.unsubscribe != bob.unsubscribe


async def test_attachments_are_where_a_gateway_finds_them(
    store: Store, config: Config, tmp_path: Path
) -> None:
    kept = {"path": "media/a.pdf", "name": "Preise.pdf", "type": "application/pdf", "size": 9}
    program = await program_of(store, body="x", attachments=(kept,))
    [mail] = await sent(await prepared(store, config, program), BOB)
    [file] = mail.form.attachments
    assert file.path == (tmp_path / "media/a.pdf").absolute()
    assert (file.name, file.type, file.size) == ("Preise.pdf", "application/pdf", 9)


@pytest.mark.parametrize(
    ("fields", "body", "body_alt"),
    [
        ({"body": "<p>Hi&nbsp;[contact:first_name]</p>"}, "<p>Hi&nbsp;Bob</p>", "Hi Bob"),
        ({"body": "<p>a</p>", "body_alt": " \n"}, "<p>a</p>", "a"),
        ({"body_alt": "Hi [contact:first_name]"}, "", "Hi Bob"),
        ({"body": "a < b", "type": "plain"}, "", "a < b"),
        ({"body": "a < b", "body_alt": "c", "type": "TXT"}, "", "c"),
        ({"body": "<img src='x'>"}, "<img src='x'>", ""),
        ({"body": "[contact:first_name]"}, "Bob", "Bob"),
    ],
)
async def test_parts_that_are_made_and_parts_that_are_missing(
    store: Store, config: Config, fields: dict[str, str], body: str, body_alt: str
) -> None:
    [mail] = await sent(await prepared(store, config, await program_of(store, **fields)), BOB)
    assert words_of(mail) | {"subject": ""} == {"subject": "", "body": body, "body_alt": body_alt}
    assert (mail.form.body == ()) == (body == "")
    assert (mail.form.body_alt == ()) == (body_alt == "")


async def test_a_long_body_is_made_plain_in_a_thread(store: Store, config: Config) -> None:
    program = await program_of(store, body="<p>a [contact:first_name]</p>" * 2000)
    [mail] = await sent(await prepared(store, config, program), BOB)
    assert words_of(mail)["body_alt"] == "\n\n".join(["a Bob"] * 2000)


@pytest.mark.parametrize("fields", [{}, {"body": " \n"}, {"subject": "x", "body_alt": "\t"}])
async def test_a_template_that_says_nothing_is_refused(
    store: Store, config: Config, fields: dict[str, str]
) -> None:
    program = await program_of(store, **fields)
    with pytest.raises(NotReadyError, match=f"Template {program.data['template_id']} has no text"):
        await prepared(store, config, program)


async def test_a_template_that_is_gone(store: Store, config: Config) -> None:
    program = await program_of(store, body="x")
    await store.delete(Template, program.data["template_id"])
    with pytest.raises(NotFoundError, match="Template not found"):
        await prepared(store, config, program)


async def test_a_network_that_takes_nothing_is_no_error_of_the_program(
    store: Store, config: Config
) -> None:
    work = await prepared(store, config, await program_of(store, body="x"))
    with pytest.raises(CallEnded):
        await work.program_for(Candidate(contact=BOB), BEGUN)(Ended())


# --- what cannot be injected ---------------------------------------------------------------------
async def test_no_name_opens_a_tag_or_ends_a_header(store: Store, config: Config) -> None:
    [mail] = await sent(await prepared(store, config, await program_of(store, **TEMPLATE)), ADA)
    assert mail.body[0] == html.escape(EVIL)
    assert "<script" not in words_of(mail)["body"]
    for header in (mail.subject, mail.to_name, mail.unsubscribe):
        assert len(f".{header}.".splitlines()) == 1
    assert mail.subject == 'For "><script> Bcc: x@example.com  X: y'
    assert mail.to_name == '"><script> Bcc: x@example.com  Lovelace'


async def test_a_preview_is_what_is_sent(store: Store, config: Config) -> None:
    body = "<p>[contact:first_name]</p><a href='[unsubscribe:url]'>no</a> [website:title]"
    program = await program_of(store, subject="[program:name]", body=body)
    [mail] = await sent(await prepared(store, config, program), ADA)
    texts = await wording(store, config, program)
    assert texts.preview(ADA, None, LINKS, None) == words_of(mail)
    assert mail.unsubscribe in words_of(mail)["body_alt"]


# --- senders and owners --------------------------------------------------------------------------
async def test_a_mail_is_from_the_accounts_address_and_name(store: Store, config: Config) -> None:
    account = await store.insert(
        Account(
            username="a", phone="100", email="sales@example.org", first_name="Sales",
            last_name="Desk", settings={"sender_id": "ACME"},
        )
    )  # fmt: skip
    mailing = await program_of(store, body="x")
    work = await prepare(store, config, mailing.id, account.id)
    assert (work.caller_id, work.caller_name) == ("sales@example.org", "Sales Desk")
    text = await store.insert(Text(name="t", data="x"))
    sms = await store.insert(Program(name="s", type="sendsms", data={"text_id": text.id}))
    assert (await prepare(store, config, sms.id, account.id)).caller_id == "ACME"


async def test_links_are_of_whose_the_campaign_is(store: Store, config: Config) -> None:
    user = await store.insert(User(username="u"))
    program = await program_of(store, body="x")
    [mail] = await sent(await prepared(store, config, program, owner_id=user.id), BOB)
    assert mail.unsubscribe == LINKS.url(user.id, BOB.email)
    assert mail.unsubscribe != LINKS.url(None, BOB.email)


@pytest.mark.parametrize(
    ("url", "sound"),
    [
        ("https://node.example", True), ("https://node.example/mail/", True),
        ("http://localhost:8080", True), ("http://127.0.0.1:8080/x", True),
        ("http://node.example", False), ("http://localhost.example", False), ("", False),
        ("https://node.example/?a=", False), ("https://node.example/#a", False),
        ("https://a b", False), ("https://a\r\nBcc: x", False), ("https://a>", False),
        ("node.example", False), ("javascript:x", False), ("https://node@evil.example", False),
    ],
)  # fmt: skip
async def test_where_links_can_lead(
    store: Store,
    config: Config,
    url: str,
    sound: bool,  # noqa: FBT001
) -> None:
    links = Links(url, Seals(KeyRing(b"k" * 32).derived(PURPOSE)))
    [mail] = await sent(
        await prepared(store, config, await program_of(store, body="x"), links=links), BOB
    )
    assert mail.unsubscribe.startswith(f"{url.rstrip('/')}/unsubscribe/") is sound
    assert sound or not mail.unsubscribe
    program = await program_of(store, body="x [unsubscribe:url]")
    if sound:
        [mail] = await sent(await prepared(store, config, program, links=links), BOB)
        assert words_of(mail)["body"] == f"x {html.escape(mail.unsubscribe)}"
    else:
        with pytest.raises(NotReadyError, match=r"\[unsubscribe:url\].*website\.url"):
            await prepared(store, config, program, links=links)


@pytest.mark.parametrize("part", ["subject", "body", "body_alt"])
async def test_a_link_that_leads_nowhere_is_not_sent(
    store: Store, config: Config, part: str
) -> None:
    program = await program_of(store, **{"body": "x", part: "no more: [unsubscribe:url]"})
    for links in (None, Links("http://node.example", Seals(KeyRing(b"k" * 32).derived(PURPOSE)))):
        with pytest.raises(NotReadyError, match=r"website\.url"):
            await prepared(store, config, program, links=links)


def test_a_link_of_an_ordinary_address_is_short() -> None:
    token = LINKS.url(2**31, f"{'a' * 40}@{'b' * 30}.example").rpartition("/")[2]
    assert len(token) <= 160
    assert WebsiteConfig().url == "", "a node as it comes has no links to offer"
