"""Mail fetched from a real Dovecot, and servers that no Dovecot is."""

from __future__ import annotations

import imaplib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from engine.errors import UnavailableError
from engine.model import Provider
from engine.store.journal import connect as journal_file
from gateways.smtp.bookmarks import mailbox_of
from gateways.smtp.imap import ImapPoller, addresses_of, sender_of
from gateways.smtp.intake import NO_ROOM, NOBODY, PUT_OFF, TAKEN, UNREADABLE, Reply
from gateways.smtp.journal import SCHEMA, Journal
from gateways.smtp.mailbox import LoginRefusedError, Mailbox, MailboxError
from gateways.smtp.settings import ImapSettings
from tests.support import LOCALHOST
from tests.support.mail.dovecot import Dovecot, dovecot

ALICE, USER, OTHER, PASSWORD = "alice@example.org", "box", "other", "s3cret"
HERS = ImapSettings(host="imap.example.org", username=USER, password=PASSWORD)
DEADLINE_S = 30.0
BIG = 10_000


class Gate:
    """Takes mail for Alice; answers in order where told to."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, str, list[str], int]] = []
        self.replies: list[Reply] = []

    async def wanted(self, recipient: str) -> bool:
        await trio.lowlevel.checkpoint()
        return recipient.lower() == ALICE

    async def take(
        self, raw: bytes, mail_from: str, recipients: Sequence[str], *, provider_id: int = 0
    ) -> list[Reply]:
        await trio.lowlevel.checkpoint()
        self.taken.append((raw, mail_from, list(recipients), provider_id))
        return [self.replies.pop(0) if self.replies else TAKEN]

    def subjects(self) -> list[bytes]:
        return [raw.partition(b"Subject: ")[2].partition(b"\r\n")[0] for raw, *_ in self.taken]


def _mail(subject: str, *, to: str = ALICE, size: int = 0) -> bytes:
    head = f"Return-Path: <s@example.net>\r\nDelivered-To: {to}\r\nSubject: {subject}\r\n\r\n"
    return head.encode() + b"x" * size + b"\r\n"


def _put(server: Dovecot, *mails: bytes, folder: str = "INBOX", user: str = USER) -> None:
    with imaplib.IMAP4(LOCALHOST, server.port, timeout=DEADLINE_S) as client:
        client.login(user, PASSWORD)
        for mail in mails:
            assert client.append(folder, "", "", mail)[0] == "OK"


def _flags(server: Dovecot, folder: str = "INBOX") -> list[bytes]:
    """The flags of each mail in a folder."""
    with imaplib.IMAP4(LOCALHOST, server.port, timeout=DEADLINE_S) as client:
        client.login(USER, PASSWORD)
        _, [count] = client.select(folder, readonly=True)
        if count == b"0":
            return []
        _, lines = client.fetch("1:*", "(FLAGS)")
        return [line for line in lines if isinstance(line, bytes)]


def _with_client(server: Dovecot, work: Callable[[imaplib.IMAP4], object]) -> None:
    with imaplib.IMAP4(LOCALHOST, server.port, timeout=DEADLINE_S) as client:
        client.login(USER, PASSWORD)
        work(client)


class Box:
    """A mailbox at a Dovecot and who reads it."""

    def __init__(self, server: Dovecot, gate: Gate, journal: Journal) -> None:
        self.server = server
        self.gate = gate
        self.journal = journal

    def poller(self, **fields: object) -> ImapPoller:
        settings = {
            "host": LOCALHOST,
            "port": self.server.tls_port,
            "username": USER,
            "password": PASSWORD,
        }
        return ImapPoller(
            _provider(),
            ImapSettings(**(settings | fields)),  # type: ignore[arg-type]
            self.gate,
            self.journal,
            ca_file=str(self.server.trusted),
            max_bytes=BIG,
        )

    async def look(self, **fields: object) -> None:
        with trio.fail_after(DEADLINE_S):
            await self.poller(**fields).look()

    async def put(self, *mails: bytes, **where: str) -> None:
        await trio.to_thread.run_sync(lambda: _put(self.server, *mails, **where))

    async def flags(self, folder: str = "INBOX") -> list[bytes]:
        return await trio.to_thread.run_sync(_flags, self.server, folder)


def _provider() -> Provider:
    return Provider(id=7, name="mail", type="smtp")


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    journal = Journal(tmp_path / "journal.db")
    await journal.open()
    async with dovecot(tmp_path / "dovecot", dict.fromkeys((USER, OTHER), PASSWORD)) as server:
        yield Box(server, Gate(), journal)
    await journal.aclose()


async def test_new_mail_is_taken_once_and_deleted(box: Box) -> None:
    await box.put(_mail("one"), _mail("two", to="nobody@example.org"), _mail("three"))
    await box.look()

    assert box.gate.subjects() == [b"one", b"three"]
    assert box.gate.taken[0][1:] == ("s@example.net", [ALICE], 7)
    # What nobody here wants is not ours to delete.
    assert len(await box.flags()) == 1
    await box.put(_mail("four"))
    await box.look()
    assert box.gate.subjects() == [b"one", b"three", b"four"]


async def test_what_is_kept_is_marked_and_not_taken_again(box: Box) -> None:
    await box.put(_mail("one"))
    await box.look(after="seen")
    await box.look(after="seen")

    assert box.gate.subjects() == [b"one"]
    [flags] = await box.flags()
    assert rb"\Seen" in flags


def _say_no(monkeypatch: pytest.MonkeyPatch, *without: bytes) -> None:
    """Servers without these extensions (RFC 6851, RFC 4315) are some that do not say them."""
    real = imaplib.IMAP4.capability

    def fewer(client: imaplib.IMAP4) -> tuple[str, list[bytes]]:
        kind, said = real(client)
        return kind, [b" ".join(one for one in b" ".join(said).split() if one not in without)]

    monkeypatch.setattr(imaplib.IMAP4, "capability", fewer)


@pytest.mark.parametrize("without", [(), (b"MOVE",), (b"MOVE", b"UIDPLUS")])
async def test_what_is_moved_is_in_the_other_folder(
    box: Box, without: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    _say_no(monkeypatch, *without)
    await trio.to_thread.run_sync(_with_client, box.server, lambda c: c.create("Done"))
    await box.put(_mail("one"))
    await box.look(after="move", move_to="Done")

    assert len(await box.flags("Done")) == 1
    left = await box.flags()
    assert left == [] or rb"\Deleted" in left[0]
    assert bool(left) == (b"UIDPLUS" in without)


@pytest.mark.parametrize("later", [PUT_OFF, NO_ROOM])
async def test_what_puts_mail_off_stops_the_round_and_the_mail_comes_again(
    box: Box, later: Reply
) -> None:
    box.gate.replies = [TAKEN, later]
    await box.put(_mail("one"), _mail("two"), _mail("three"))
    await box.look()
    assert box.gate.subjects() == [b"one", b"two"]

    await box.look()

    assert box.gate.subjects() == [b"one", b"two", b"two", b"three"]


async def test_what_is_refused_for_good_is_done(box: Box) -> None:
    box.gate.replies = [NOBODY, UNREADABLE]
    await box.put(_mail("one"), _mail("two"), _mail("three"))
    await box.look()
    await box.look()

    assert box.gate.subjects() == [b"one", b"two", b"three"]


async def test_what_is_too_big_stays_and_is_passed_by(box: Box) -> None:
    await box.put(_mail("big", size=BIG), _mail("small"))
    poller = box.poller(after="seen")
    await poller.look()
    await poller.look()

    assert box.gate.subjects() == [b"small"]
    assert poller.statistics()["too_big"] == 1
    big, small = await box.flags()
    assert rb"\Seen" not in big
    assert rb"\Seen" in small


async def test_many_mails_come_in_order(box: Box) -> None:
    await box.put(*(_mail(f"{number:03}") for number in range(230)))
    await box.look()

    assert box.gate.subjects() == [f"{number:03}".encode() for number in range(230)]


async def test_new_uids_show_all_again(box: Box) -> None:
    """A folder made anew (UIDVALIDITY, RFC 9051 §2.3.1.1): the arrival key tells repeats."""

    def anew(client: imaplib.IMAP4) -> None:
        client.delete("Other")
        client.create("Other")

    def fill() -> None:
        _put(box.server, _mail("one"), folder="Other")

    for _ in range(2):
        await trio.to_thread.run_sync(_with_client, box.server, anew)
        await trio.to_thread.run_sync(fill)
        await box.look(folder="Other", after="seen")
        await box.look(folder="Other", after="seen")

    assert box.gate.subjects() == [b"one", b"one"]


@pytest.mark.parametrize("other", [{"username": OTHER}, {"folder": "Other"}], ids=str)
async def test_another_mailbox_is_read_from_its_beginning(box: Box, other: dict[str, str]) -> None:
    """Servers may give every mailbox the same UIDVALIDITY: some give 1 to all."""
    user, folder = other.get("username", USER), other.get("folder", "INBOX")
    await box.server.set_uidvalidity(USER, "INBOX", 1)
    await box.server.set_uidvalidity(user, folder, 1)
    await box.put(_mail("one"), _mail("two"))
    await box.put(_mail("three"), user=user, folder=folder)
    await box.look(after="seen")
    await box.look(after="seen", **other)
    assert box.gate.subjects() == [b"one", b"two", b"three"]

    # What was read before the change is not read again after it was taken back.
    await box.put(_mail("four"))
    await box.look(after="seen")
    await box.look(after="seen", **other)
    assert box.gate.subjects() == [b"one", b"two", b"three", b"four"]


async def test_a_mailbox_of_the_release_before_is_read_on(box: Box, tmp_path: Path) -> None:
    """Its journal did not say which mailbox it was: the one of the settings, from now on."""
    for folder in ("INBOX", "Other"):
        await box.server.set_uidvalidity(USER, folder, 1)
        await box.put(_mail(f"{folder} one"), _mail(f"{folder} two"), folder=folder)
    old = journal_file(tmp_path / "old.db", SCHEMA[:1])
    old.execute("INSERT INTO imap (provider_id, uidvalidity, uid) VALUES (7, 1, 1)")
    old.close()
    box.journal = Journal(tmp_path / "old.db")
    await box.journal.open()
    await box.look(after="seen")
    await box.look(after="seen", folder="Other")
    await box.journal.aclose()

    assert box.gate.subjects() == [b"INBOX two", b"Other one", b"Other two"]


async def test_a_kill_before_it_was_booked_shows_it_to_the_intake_again(box: Box) -> None:
    await box.put(_mail("one"))
    with trio.CancelScope() as scope:

        async def take(*_: object, **__: object) -> list[Reply]:
            box.gate.taken.append((b"Subject: one\r\n", "", [], 7))
            scope.cancel()
            await trio.lowlevel.checkpoint()
            raise AssertionError

        box.gate.take = take  # type: ignore[method-assign]
        await box.look()
    del box.gate.take

    await box.look()

    assert box.gate.subjects() == [b"one", b"one"]


async def test_what_cannot_be_moved_holds_up_nothing_and_is_moved_later(box: Box) -> None:
    mails = [_mail(f"{number}") for number in range(5)]
    await box.put(*mails)
    poller = box.poller(after="move", move_to="Done")
    await poller.look()
    await poller.look()
    assert box.gate.subjects() == [f"{number}".encode() for number in range(5)]
    assert len(await box.flags()) == 5
    # One for each mail, and the second look leaves off after one of them.
    assert poller.statistics()["not_disposed"] == 6

    await trio.to_thread.run_sync(_with_client, box.server, lambda c: c.create("Done"))
    await poller.look()
    assert (len(await box.flags("Done")), await box.flags()) == (5, [])
    await poller.look()
    assert len(box.gate.taken) == 5
    assert poller.statistics()["not_disposed"] == 6


async def test_the_operator_sees_why_mails_stay(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    await box.put(_mail("one"))
    poller = box.poller(after="move", move_to="Done")
    looked = trio.Event()
    sleep = trio.sleep

    async def told(seconds: float) -> None:
        if seconds == 60.0:
            looked.set()
        await sleep(seconds)

    monkeypatch.setattr("gateways.smtp.imap.trio.sleep", told)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller.run)
            with trio.fail_after(DEADLINE_S):
                await looked.wait()
            nursery.cancel_scope.cancel()
    assert [log["event"] for log in logs] == ["smtp.imap_not_disposed"]
    assert "TRYCREATE" in poller.statistics()["fault"]


async def test_what_was_copied_and_cannot_be_removed_is_not_copied_again(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights to read and not to delete (RFC 4314): each try would leave another copy."""
    _say_no(monkeypatch, b"MOVE", b"UIDPLUS")
    uid = imaplib.IMAP4.uid

    def no_stores(client: imaplib.IMAP4, command: str, *args: str) -> tuple[str, list[Any]]:
        refused = ("NO", [b"[NOPERM] Permission denied"])
        return refused if command == "STORE" else uid(client, command, *args)

    monkeypatch.setattr(imaplib.IMAP4, "uid", no_stores)
    await trio.to_thread.run_sync(_with_client, box.server, lambda c: c.create("Done"))
    await box.put(_mail("one"), _mail("two"))
    poller = box.poller(after="move", move_to="Done")
    await poller.look()
    await poller.look()

    assert len(await box.flags("Done")) == 2
    assert poller.statistics()["not_disposed"] == 2


async def test_what_was_taken_before_a_kill_is_disposed_of_after_it(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    await box.put(_mail("one"))
    with trio.CancelScope() as scope, monkeypatch.context() as patch:
        patch.setattr(Mailbox, "dispose", lambda *_: trio.from_thread.run_sync(scope.cancel))
        await box.look()
    assert scope.cancelled_caught
    assert len(await box.flags()) == 1

    await box.look()

    assert await box.flags() == []
    assert box.gate.subjects() == [b"one"]


async def test_what_was_left_of_a_folder_that_is_no_more_is_forgotten(box: Box) -> None:
    """Its UIDs are other mails' now (RFC 9051 §2.3.1.1)."""
    await box.server.set_uidvalidity(USER, "INBOX", 1)
    await box.put(_mail("one"), _mail("two"))
    await box.look(after="move", move_to="Done")
    await box.server.set_uidvalidity(USER, "INBOX", 2)
    box.gate.replies = [NOBODY, TAKEN]
    await box.look()

    assert len(await box.flags()) == 1, "the one that nobody wants"


async def test_a_wrong_password_is_told_from_a_server_that_is_down(box: Box) -> None:
    with pytest.raises(LoginRefusedError):
        await box.look(password=PASSWORD[1:])
    with pytest.raises(MailboxError):
        await box.look(folder="Nowhere")
    with pytest.raises(MailboxError, match="Refused"):
        await box.look(port=1)


async def test_a_certificate_of_nobody_we_trust_ends_it(box: Box) -> None:
    box.server.trusted = Path(ssl.get_default_verify_paths().cafile or "")
    with pytest.raises(MailboxError, match="CERTIFICATE_VERIFY_FAILED"):
        await box.look()
    await box.look(verify_tls=False)


@pytest.mark.parametrize("tls", ["starttls", "never"])
async def test_other_ways_to_connect(box: Box, tls: str) -> None:
    await box.put(_mail("one"))
    await box.look(tls=tls, port=box.server.port)

    assert box.gate.subjects() == [b"one"]


# --- no Dovecot -----------------------------------------------------------------------------------
@asynccontextmanager
async def _server(*lines: bytes) -> AsyncIterator[int]:
    """Says these lines, one for each that comes, then nothing more."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):  # we are told to go away, as we should be
                for line in lines:
                    await stream.send_all(line)
                    if not await stream.receive_some(1000):
                        return
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, handle, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    made = Journal(tmp_path / "journal.db")
    await made.open()
    yield made
    await made.aclose()


def _poller(port: int, journal: Journal) -> ImapPoller:
    settings = ImapSettings(host=LOCALHOST, port=port, username=USER, tls="never", poll_s=5)
    return ImapPoller(_provider(), settings, Gate(), journal)


async def test_cancelling_ends_a_wait_for_a_silent_server(journal: Journal) -> None:
    async with _server(b"* OK hello\r\n") as port:
        poller = _poller(port, journal)
        with trio.move_on_after(0.5) as scope:
            await poller.look()

        assert scope.cancelled_caught
        assert poller._thread.borrowed_tokens == 0


@pytest.mark.parametrize("garbage", [b"\0\0\0\r\n", b"* BYE\r\n", b"* OK\r\n+" + b"x" * 2_000_000])
async def test_garbage_is_a_failure_like_any_other(journal: Journal, garbage: bytes) -> None:
    async with _server(garbage, b"* BAD\r\n\0\r\n", b"") as port:
        with trio.fail_after(DEADLINE_S), pytest.raises(MailboxError):
            await _poller(port, journal).look()


async def test_a_literal_beyond_what_was_asked_is_not_read(journal: Journal) -> None:
    async with _server(
        b"* OK [CAPABILITY IMAP4rev1] hello\r\n", b"* OK {99999999999}\r\n", b"", b""
    ) as port:
        with trio.fail_after(DEADLINE_S), pytest.raises(MailboxError, match="literal"):
            await _poller(port, journal).look()


async def test_failures_are_waited_for_longer_each_time(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without threads: ``look`` is replaced, so that time can be virtual."""
    waits: list[float] = []
    poller = _poller(1, journal)
    failures: list[Exception] = [MailboxError("x"), RuntimeError("ours"), UnavailableError("y")]
    outcomes: list[Exception | None] = [*failures * 3, None, LoginRefusedError("no")]

    async def look() -> None:
        if outcome := outcomes.pop(0):
            raise outcome

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if not outcomes:
            raise KeyboardInterrupt

    monkeypatch.setattr(poller, "look", look)
    monkeypatch.setattr("gateways.smtp.imap.trio.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        await poller.run()

    assert [round(wait / 5 / 2**n, 0) for n, wait in enumerate(waits[:6])] == [1.0] * 6
    assert 240 <= waits[8] <= 360
    assert waits[9:] == [5.0, 900.0]


# --- which mailbox ---
@pytest.mark.parametrize(
    "same",
    [
        {"host": "IMAP.Example.org"},
        {"folder": "inbox"},
        {"port": 993},
        {"port": 143, "tls": "starttls"},  # two doors to one server
        {"password": "another", "poll_s": 5.0, "after": "seen", "verify_tls": False},
    ],
    ids=str,
)
def test_what_leads_to_the_same_mailbox(same: dict[str, Any]) -> None:
    assert mailbox_of(msgspec.structs.replace(HERS, **same)) == mailbox_of(HERS)


@pytest.mark.parametrize(
    "other",
    [{"host": "imap.example.net"}, {"username": "Box"}, {"folder": "Spam"}, {"port": 1143}],
    ids=str,
)
def test_what_leads_to_another_mailbox(other: dict[str, Any]) -> None:
    assert mailbox_of(msgspec.structs.replace(HERS, **other)) != mailbox_of(HERS)


# --- headers --------------------------------------------------------------------------------------
def test_addresses_come_in_the_order_of_what_they_are_worth() -> None:
    raw = (
        b'To: Bob <bob@example.org>,\r\n\t"x" <carol@example.org>\r\n'
        b"X-Original-To: b@example.org\r\nDelivered-To: a@example.org\r\n"
        b"Return-Path: <>\r\n\r\nTo: body@example.org\r\n"
    )

    assert list(addresses_of(raw)) == [
        "a@example.org",
        "b@example.org",
        "bob@example.org",
        "carol@example.org",
    ]
    assert sender_of(raw) == ""


@given(st.binary(max_size=500))
def test_any_octets_are_read(noise: bytes) -> None:
    assert len(list(addresses_of(b"To: " + noise))) <= 20
    sender_of(b"Return-Path: " + noise)


def test_a_flood_of_addresses_is_cut() -> None:
    raw = b"To: " + b"a@example.org," * 5000 + b"\r\n" + b"Cc: x@example.org\r\n" * 5000

    assert len(list(addresses_of(raw))) <= 20
