"""Mails to our accounts: whose they are, what is kept of them and of their files."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from engine.bus import Bus
from engine.errors import InvalidError, UnavailableError
from engine.events import SpoolChanged, TransmissionEnded
from engine.gateway import Reception
from engine.inbound import ANONYMOUS
from engine.inbound_mail import PROGRAM, InboundMails
from engine.mail import MailAddress, MailFile
from engine.model import (
    Account,
    Contact,
    Direction,
    Program,
    Service,
    Spool,
    SpoolResult,
    Template,
    Transmission,
    TransmissionStatus,
)
from engine.results import ResultRow
from engine.store import open_store
from engine.store.arrival import Arrival, Kept, Served
from engine.store.base import Query, Store
from engine.uploads import FOLDER, MediaFolder
from tests.support.engine import config_in
from tests.support.mails import NOON, inbound

US = "us@example.net"


class Scene(msgspec.Struct, frozen=True):
    """The engine's side of inbound mail on a real store."""

    store: Store
    mails: InboundMails
    bus: Bus
    folder: Path

    async def account(self, email: str = US, *, served: bool = True, **fields: Any) -> Account:
        given: dict[str, Any] = {"email": email, "active": True, "owner_id": 7}
        account = await self.store.insert(Account(**(given | fields)))
        if served:
            data = {"account_id": account.id}
            await self.store.insert(Program(name="in", type=PROGRAM, data=data))
        return account

    def file(self, name: str, content: bytes) -> MailFile:
        """A file as a reader leaves it, far from where media are kept."""
        path = self.folder / "scratch" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return MailFile(path, name, "application/pdf", len(content))

    def media(self) -> list[bytes]:
        """What is kept, complete or not."""
        return sorted(p.read_bytes() for p in (self.folder / FOLDER).rglob("*") if p.is_file())

    async def the(self, kind: Any) -> Any:
        [found] = await self.store.find(kind, Query())
        return found


def mails_of(store: Store, folder: Path, bus: Bus | None = None) -> InboundMails:
    return InboundMails(store, lambda: NOON, bus or Bus(), MediaFolder(config_in(folder)))


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with open_store(config_in(tmp_path)) as store:
        bus = Bus()
        yield Scene(store, mails_of(store, tmp_path, bus), bus, tmp_path)


# --- keeping --------------------------------------------------------------------------------------
async def test_a_mail_is_kept_as_ictcore_keeps_it(scene: Scene) -> None:
    account = await scene.account()
    row = ResultRow("email", "from", "Ada Lovelace <ada@example.org>")
    with scene.bus.subscribe() as events:
        assert await scene.mails.receive(inbound(rows=(row,))) is Reception.TAKEN
        spool_told, told = await events.get(), await events.get()
    transmission = await scene.the(Transmission)
    assert transmission.direction is Direction.INBOUND
    assert transmission.status is TransmissionStatus.COMPLETED
    assert (transmission.account_id, transmission.owner_id) == (account.id, 7)
    assert (transmission.service, transmission.origin) == (Service.EMAIL, "receiveemail")
    contact = await scene.the(Contact)
    assert (contact.email, contact.first_name, contact.last_name, contact.owner_id) == (
        "ada@example.org", "Ada", "Lovelace", 7,
    )  # fmt: skip
    template = await scene.the(Template)
    assert (template.subject, template.body, template.body_alt) == ("Re: News", "<p>Yes</p>", "Yes")
    assert (template.type, template.attachments, template.owner_id) == ("html", (), 7)
    spool = await scene.the(Spool)
    assert (spool.destination, spool.response, spool.ended_at) == (US, "received", NOON)
    rows = {(r.type, r.name): r.data for r in await scene.store.find(SpoolResult, Query())}
    assert rows == {
        ("application", "email_receive"): "success",
        ("message", "template"): str(template.id),
        ("contact", "contact_new"): str(contact.id),
        ("email", "from"): "Ada Lovelace <ada@example.org>",
    }
    assert isinstance(spool_told, SpoolChanged)
    assert isinstance(told, TransmissionEnded)
    assert told.transmission_id == transmission.id


async def test_its_files_are_kept_where_messages_have_theirs(scene: Scene) -> None:
    await scene.account()
    files = (scene.file("a.pdf", b"one"), scene.file("b.pdf", b"two"))
    assert await scene.mails.receive(inbound(files=files)) is Reception.TAKEN
    template = await scene.the(Template)
    assert [(one["name"], one["type"], one["size"]) for one in template.attachments] == [
        ("a.pdf", "application/pdf", 3), ("b.pdf", "application/pdf", 3),
    ]  # fmt: skip
    kept = [(scene.folder / one["path"]).read_bytes() for one in template.attachments]
    assert kept == [b"one", b"two"]
    assert scene.media() == [b"one", b"two"]
    # The next recipient of the same mail wants them too.
    assert all(one.path.exists() for one in files)


async def test_two_recipients_have_one_each(scene: Scene) -> None:
    await scene.account()
    await scene.account("them@example.net", owner_id=8)
    files = (scene.file("a.pdf", b"one"),)
    for address in (US, "them@example.net"):
        mail = inbound(destination=address, files=files)
        assert await scene.mails.receive(mail) is Reception.TAKEN
    templates = await scene.store.find(Template, Query())
    assert [one.owner_id for one in templates] == [7, 8]
    assert templates[0].attachments[0]["path"] != templates[1].attachments[0]["path"]
    assert scene.media() == [b"one", b"one"]


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("Yes\n  it is", "<pre>Yes\n  it is</pre>"),
        (
            "<script>alert('1')</script> &amp;",
            "<pre>&lt;script&gt;alert('1')&lt;/script&gt; &amp;amp;</pre>",
        ),
        ("a </pre><b>", "<pre>a &lt;/pre&gt;&lt;b&gt;</pre>"),
        ("&", "<pre>&amp;</pre>"),
        ("", ""),
    ],
)
async def test_plain_text_alone_is_the_body_and_no_markup(
    scene: Scene, text: str, body: str
) -> None:
    """Clients show a body as HTML."""
    await scene.account()
    assert await scene.mails.receive(inbound(body="", body_alt=text)) is Reception.TAKEN
    template = await scene.the(Template)
    assert (template.type, template.body, template.body_alt) == ("plain", body, text)


@pytest.mark.parametrize("shift", range(5))
async def test_escaped_text_is_cut_between_its_characters(scene: Scene, shift: int) -> None:
    await scene.account()
    text = "x" * shift + "&" * 1_000_000
    assert await scene.mails.receive(inbound(body="", body_alt=text)) is Reception.TAKEN
    body = (await scene.the(Template)).body
    assert re.fullmatch(r"<pre>x{0,4}(?:&amp;)+</pre>", body)
    assert 1_000_000 - 5 < len(body) <= 1_000_000


async def test_whatever_is_too_long_is_cut(scene: Scene) -> None:
    await scene.account()
    mail = inbound(
        subject="s" * 1000, body="b" * 1_000_001, body_alt="t" * 1_000_001,
        source=MailAddress(f"{'a' * 64}@{'b' * 60}.{'c' * 60}.{'d' * 60}.org", "n" * 500),
    )  # fmt: skip
    assert await scene.mails.receive(mail) is Reception.TAKEN
    template, contact = await scene.the(Template), await scene.the(Contact)
    assert (len(template.subject), len(template.body), len(template.body_alt)) == (
        255, 1_000_000, 1_000_000,
    )  # fmt: skip
    assert len(template.name) == 128
    assert len((await scene.the(Transmission)).title) <= 255
    assert (len(contact.first_name), contact.last_name) == (64, "")
    assert contact.email == mail.source.address


@pytest.mark.parametrize(
    "address", ["", "<>", "nobody", f"{'a' * 300}@example.org", "a\r\nb@example.org", "a\0@b.c"]
)
async def test_whoever_cannot_be_answered_is_anonymous(scene: Scene, address: str) -> None:
    await scene.account()
    for number in range(2):
        mail = inbound(source=MailAddress(address, "X"), key=str(number))
        assert await scene.mails.receive(mail) is Reception.TAKEN
    contact = await scene.the(Contact)
    assert (contact.phone, contact.email) == (ANONYMOUS, "")


async def test_who_wrote_before_is_not_made_again(scene: Scene) -> None:
    await scene.account()
    known = await scene.store.insert(Contact(email="ADA@example.ORG", owner_id=7))
    assert await scene.mails.receive(inbound()) is Reception.TAKEN
    assert (await scene.the(Transmission)).contact_id == known.id
    assert await scene.store.find(Contact, Query()) == [known]


async def test_one_account_has_a_mail_once_however_often_it_is_named(scene: Scene) -> None:
    await scene.account()
    await scene.account("them@example.net")
    files = (scene.file("a.pdf", b"one"),)
    seen = [
        await scene.mails.receive(inbound(destination=address, files=files))
        for address in (US, "us+1@example.net", "US+2@example.net", "them@example.net")
    ]
    assert seen == [Reception.TAKEN, Reception.REPEATED, Reception.REPEATED, Reception.TAKEN]
    assert scene.media() == [b"one", b"one"]
    assert len(await scene.store.find(Transmission, Query())) == 2


# --- whose it is ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ours", "asked"),
    [
        (US, "US@Example.NET"),
        ("Us@Example.Net", US),
        (US, "us+news@example.net"),
        ("us@bücher.example", "us@xn--bcher-kva.example"),
        ("us@xn--bcher-kva.example", "us@bücher.example"),
    ],
)
async def test_an_address_however_it_is_written(scene: Scene, ours: str, asked: str) -> None:
    account = await scene.account(ours)
    assert await scene.mails.serves(asked)
    assert await scene.mails.receive(inbound(destination=asked)) is Reception.TAKEN
    transmission, spool = await scene.the(Transmission), await scene.the(Spool)
    assert (transmission.account_id, spool.destination) == (account.id, asked)


@pytest.mark.parametrize("address", ["", "@", "us", "them@example.net", "us@example.net\0", "<>"])
async def test_nobody_takes_it(scene: Scene, address: str) -> None:
    await scene.account()
    await scene.account("", served=True)
    await scene.account("them@example.net", served=False)
    await scene.account("them@example.net", active=False)
    with capture_logs() as logs:
        mail = inbound(destination=address, files=(scene.file("a", b"1"),))
        assert await scene.mails.receive(mail) is Reception.UNWANTED
    assert not await scene.mails.serves(address)
    assert await scene.store.find(Transmission, Query()) == []
    assert scene.media() == []
    assert "us@" not in str(logs)


async def test_of_two_accounts_the_one_that_is_served_takes_it(scene: Scene) -> None:
    await scene.account(type="eaddress", served=False)
    taker = await scene.account(owner_id=8)
    await scene.account(owner_id=9)
    assert await scene.mails.receive(inbound()) is Reception.TAKEN
    assert (await scene.the(Transmission)).account_id == taker.id


# --- once -----------------------------------------------------------------------------------------
async def test_handed_in_again_it_is_a_repeat_and_its_files_go(scene: Scene) -> None:
    await scene.account()
    for expected in (Reception.TAKEN, Reception.REPEATED):
        mail = inbound(files=(scene.file("a.pdf", b"one"),))
        assert await scene.mails.receive(mail) is expected
    assert scene.media() == [b"one"]
    await scene.the(Template)
    fresh = inbound(key="another")
    assert await scene.mails.receive(fresh) is Reception.TAKEN


async def test_no_file_of_a_repeat_is_looked_at(scene: Scene) -> None:
    await scene.account()
    assert await scene.mails.receive(inbound(files=(scene.file("a", b"1"),))) is Reception.TAKEN
    gone = inbound(files=(MailFile(scene.folder / "none", "n", "x/y", 1),))
    assert await scene.mails.receive(gone) is Reception.REPEATED
    with pytest.raises(UnavailableError):
        await scene.mails.receive(msgspec.structs.replace(gone, repeat_within_s=0.0))


class Crashing:
    """A store that fails at the commit of an arrival, as a full disk does."""

    def __init__(self, store: Store, error: BaseException) -> None:
        self._store = store
        self._error = error
        self.reached = trio.Event()

    async def served_address(self, address: str, program_type: str) -> list[Served]:
        return await self._store.served_address(address, program_type)

    async def came(self, provider_id: int, key: str, since: datetime) -> bool:
        return await self._store.came(provider_id, key, since)

    async def receive(self, _: Arrival) -> Kept | None:
        self.reached.set()
        raise self._error


@pytest.mark.parametrize("error", [UnavailableError("full"), InvalidError("x", field="body")])
async def test_between_the_files_and_the_commit(scene: Scene, error: Exception) -> None:
    await scene.account()
    crashing: Any = Crashing(scene.store, error)
    mail = inbound(files=(scene.file("a.pdf", b"one"),))
    with pytest.raises(type(error)):
        await mails_of(crashing, scene.folder).receive(mail)
    assert crashing.reached.is_set()
    assert scene.media() == []
    # The sender tries again.
    assert await scene.mails.receive(mail) is Reception.TAKEN
    assert scene.media() == [b"one"]


async def test_cancelled_between_the_files_and_the_commit(scene: Scene) -> None:
    class Hanging(Crashing):
        async def receive(self, _: Arrival) -> Kept | None:
            self.reached.set()
            await trio.sleep_forever()

    await scene.account()
    hanging: Any = Hanging(scene.store, Exception())
    mail = inbound(files=(scene.file("a.pdf", b"one"),))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mails_of(hanging, scene.folder).receive, mail)
        with trio.fail_after(20):
            await hanging.reached.wait()
        assert scene.media() == [b"one"]
        nursery.cancel_scope.cancel()
    assert scene.media() == []


async def test_a_file_that_is_gone_puts_the_mail_off(scene: Scene) -> None:
    await scene.account()
    files = (scene.file("a.pdf", b"one"), MailFile(scene.folder / "none", "n", "x/y", 1))
    with pytest.raises(UnavailableError):
        await scene.mails.receive(inbound(files=files))
    assert scene.media() == []
    assert await scene.store.find(Template, Query()) == []


async def test_an_account_that_goes_meanwhile_is_looked_up_again(scene: Scene) -> None:
    class Editing(Crashing):
        async def receive(self, arrival: Arrival) -> Kept | None:
            if not self.reached.is_set():
                self.reached.set()
                assert await self._store.delete(Account, arrival.account_id)
            return await self._store.receive(arrival)

    first, second = await scene.account(served=False), await scene.account(owner_id=8)
    await scene.store.insert(Program(name="x", type=PROGRAM, data={"account_id": first.id}))
    editing: Any = Editing(scene.store, Exception())
    mail = inbound(files=(scene.file("a.pdf", b"one"),))
    assert await mails_of(editing, scene.folder).receive(mail) is Reception.TAKEN
    assert (await scene.the(Transmission)).account_id == second.id
    assert scene.media() == [b"one"]


async def test_what_is_always_going_is_put_off(scene: Scene) -> None:
    await scene.account()
    crashing: Any = Crashing(scene.store, InvalidError("gone", field="account_id"))
    with pytest.raises(UnavailableError):
        await mails_of(crashing, scene.folder).receive(inbound())
