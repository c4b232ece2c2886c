"""What the intake answers, and what it leaves behind."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import trio

from engine.gateway import Reception
from engine.mail import InboundMail, MailAddress
from engine.results import ResultRow
from gateways.smtp.bounces import Matcher
from gateways.smtp.intake import (
    DROPPED,
    MAX_AT_ONCE,
    NO_ROOM,
    NOBODY,
    PUT_OFF,
    SCRATCH,
    TAKEN,
    UNREADABLE,
    Intake,
)
from gateways.smtp.parsed import Parsed, ParsedFile
from gateways.smtp.room import EVERY_S, NoRoomError
from gateways.smtp.verp import Verp
from tests.gateways.smtp.incoming import ALICE, BOB, PATTERN, SENDER, Ledger, Post, Raw
from tests.gateways.smtp.test_verp import Keys

AT = datetime(2026, 1, 1, tzinfo=UTC)
FILES = (ParsedFile(0, "a.pdf", "application/pdf", 3), ParsedFile(1, "", "text/x", 5))


class House:
    """An intake with nothing real but its folder."""

    def __init__(
        self,
        folder: Path,
        answer: Parsed | None = None,
        *,
        repeat_within_s: float = 60.0,
        min_free_bytes: int = 0,
    ) -> None:
        self.folder = folder
        self.post, self.readers, self.ledger = Post(), Raw(answer), Ledger()
        self.verp = Verp(Keys())
        self.matcher = Matcher(self.verp, self.ledger)
        self.matcher.serve([PATTERN, ""])
        self.intake = Intake(
            inbox=self.post,
            readers=self.readers,
            matcher=self.matcher,
            books=self.ledger,
            data=folder,
            clock=lambda: AT,
            repeat_within_s=repeat_within_s,
            min_free_bytes=min_free_bytes,
        )

    def left(self) -> list[Path]:
        """Files and folders that are still there."""
        folder = self.folder / SCRATCH
        return list(folder.iterdir()) if folder.exists() else []


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_a_mail_goes_in_as_the_engine_takes_it(tmp_path: Path) -> None:
    house = House(
        tmp_path,
        Parsed(
            subject="Hällo",
            source=MailAddress("from@example.net", "Fröm"),
            message_id="<1@example.net>",
            body="<p>x</p>",
            body_alt="x",
            cut=("files", "html"),
        ),
    )

    assert await house.intake.take(b"raw", SENDER, [ALICE], provider_id=7) == [TAKEN]

    [mail] = house.post.mails
    assert msgspec.structs.replace(mail, key="") == InboundMail(
        provider_id=7,
        source=MailAddress("from@example.net", "Fröm"),
        destination=ALICE,
        subject="Hällo",
        body="<p>x</p>",
        body_alt="x",
        message_id="<1@example.net>",
        at=AT,
        key="",
        repeat_within_s=60.0,
        rows=(
            ResultRow("email", "from", "from@example.net"),
            ResultRow("email", "message_id", "<1@example.net>"),
            ResultRow("email", "cut", "files,html"),
        ),
    )
    assert house.left() == []


@pytest.mark.parametrize(
    ("written", "envelope", "source"),
    [
        ("a@example.net", "b@example.net", "a@example.net"),
        ("", "b@example.net", "b@example.net"),
        ("not an address", "b@example.net", "b@example.net"),
        ("a@b\r\nBcc: c@d", "", ""),
        ("", "", ""),
    ],
)
async def test_the_source_is_its_from_or_the_envelope(
    tmp_path: Path, written: str, envelope: str, source: str
) -> None:
    house = House(tmp_path, Parsed(source=MailAddress(written)))
    await house.intake.take(b"raw", envelope, [ALICE])

    assert house.post.mails[0].source.address == source


async def test_each_recipient_has_a_reply_of_its_own(house: House) -> None:
    house.post.down.add(BOB)
    token = house.verp.address(PATTERN, 7)

    replies = await house.intake.take(b"raw", SENDER, [ALICE, BOB, "x@example.org", token])

    assert replies == [TAKEN, PUT_OFF, NOBODY, DROPPED]
    assert house.left() == []


async def test_the_same_mail_again_is_a_repeat_for_its_recipient_only(house: House) -> None:
    await house.intake.take(b"raw", SENDER, [ALICE])
    again = await house.intake.take(b"raw", SENDER, [ALICE.upper(), BOB])
    await house.intake.take(b"raw", "else@example.net", [ALICE])
    await house.intake.take(b"other", SENDER, [ALICE])

    assert again == [TAKEN, TAKEN]
    # Whose it is, and whether he has it, the engine knows.
    assert len({mail.key for mail in house.post.mails}) == 3
    assert house.post.mails[0].key == house.post.mails[1].key
    assert [mail.destination for mail in house.post.mails] == [ALICE, BOB, ALICE, ALICE]


@pytest.mark.parametrize(
    ("parsed", "within_s"),
    [
        (Parsed(message_id="<1@x>"), 86_400.0),
        (Parsed(date="Thu, 1 Jan 2026 12:00:00 +0000"), 86_400.0),
        (Parsed(), 300.0),
    ],
)
async def test_mails_that_only_look_alike_are_repeats_for_minutes(
    tmp_path: Path, parsed: Parsed, within_s: float
) -> None:
    """A device's alarm of today is not the one of yesterday."""
    house = House(tmp_path, parsed, repeat_within_s=86_400.0)
    await house.intake.take(b"raw", SENDER, [ALICE])

    assert house.post.mails[0].repeat_within_s == within_s


async def test_without_room_nothing_is_read_and_nobody_asked(tmp_path: Path) -> None:
    house = House(tmp_path, min_free_bytes=2**62)
    token = house.verp.address(PATTERN, 7)

    for recipient in (ALICE, "x@example.org", token):
        with pytest.raises(NoRoomError):
            await house.intake.wanted(recipient)
        assert await house.intake.take(b"raw", SENDER, [recipient, BOB]) == [NO_ROOM] * 2
    assert NO_ROOM.later
    assert (house.readers.seen, house.post.asked) == ([], [])
    assert house.left() == list(tmp_path.iterdir()) == []


async def test_room_is_looked_for_again_before_each_recipient(
    tmp_path: Path, autojump_clock: object
) -> None:
    class Filling(Post):
        async def receive_mail(self, mail: InboundMail) -> Reception:
            reception = await super().receive_mail(mail)
            tmp_path.rename(tmp_path.with_name("elsewhere"))
            await trio.sleep(EVERY_S)
            return reception

    house = House(tmp_path, min_free_bytes=1)
    house.intake._inbox = Filling()
    assert await house.intake.take(b"raw", SENDER, [ALICE, BOB]) == [TAKEN, NO_ROOM]


class Mover(Post):
    """Moves the files, as an engine may."""

    def __init__(self, target: Path) -> None:
        super().__init__()
        self.target = target

    async def receive_mail(self, mail: InboundMail) -> Reception:
        for file in mail.files:
            assert file.path.is_absolute()
            file.path.rename(self.target / f"{mail.destination}-{file.path.name}")
        return await super().receive_mail(mail)


async def test_every_recipient_gets_the_files(tmp_path: Path) -> None:
    house = House(tmp_path, Parsed(files=FILES))
    kept = tmp_path / "kept"
    kept.mkdir()
    house.intake._inbox = Mover(kept)

    assert await house.intake.take(b"raw", SENDER, [ALICE, BOB]) == [TAKEN, TAKEN]

    sizes = {path.name: path.stat().st_size for path in kept.iterdir()}
    assert sizes == {f"{ALICE}-0": 3, f"{ALICE}-1": 5, f"{BOB}-0": 3, f"{BOB}-1": 5}
    assert house.left() == []


async def test_what_cannot_be_read_is_refused_and_nothing_is_left(house: House) -> None:
    assert await house.intake.take(Raw.MARK, SENDER, [ALICE, BOB]) == [UNREADABLE] * 2
    assert house.post.mails == []
    assert house.left() == []


async def test_a_full_disk_puts_it_off(house: House) -> None:
    (house.folder / "media").mkdir()
    (house.folder / SCRATCH).write_text("no folder can be made here")

    assert await house.intake.take(b"raw", SENDER, [ALICE]) == [PUT_OFF]


async def test_what_comes_beyond_a_hundred_at_once_is_put_off(house: House) -> None:
    house.readers.gate = trio.Event()
    replies = []

    async def take(number: int) -> None:
        replies.extend(await house.intake.take(b"%d" % number, SENDER, [ALICE]))

    async with trio.open_nursery() as nursery:
        for number in range(MAX_AT_ONCE):
            nursery.start_soon(take, number)
        await trio.testing.wait_all_tasks_blocked()
        while len(house.readers.seen) < MAX_AT_ONCE:
            await trio.testing.wait_all_tasks_blocked()
        assert await house.intake.take(b"more", SENDER, [ALICE, BOB]) == [PUT_OFF] * 2
        house.readers.gate.set()

    assert replies == [TAKEN] * MAX_AT_ONCE
    assert await house.intake.take(b"more", SENDER, [ALICE]) == [TAKEN]


async def test_cancelling_leaves_no_file(tmp_path: Path) -> None:
    house = House(tmp_path, Parsed(files=FILES))
    house.readers.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.intake.take, b"raw", SENDER, [ALICE])
        while not house.readers.seen:
            await trio.testing.wait_all_tasks_blocked()
        assert len(house.left()) == 1
        nursery.cancel_scope.cancel()

    assert house.left() == []
    assert house.intake.statistics()["at_once"] == 0


async def test_what_a_killed_run_left_is_removed(house: House) -> None:
    (house.folder / SCRATCH / "old" / "for0").mkdir(parents=True)
    await house.intake.open()

    assert house.left() == []


async def test_who_is_wanted(house: House) -> None:
    wanted = house.intake.wanted
    token = house.verp.address(PATTERN, 7)

    assert await wanted(ALICE)
    assert await wanted(token.upper())
    assert not await wanted(token.replace("b+", "c+"))
    asked = len(house.post.asked)
    for wrong in ("", "x" * 321, "a\0b@example.org", "a\n@example.org", "a\udcff@example.org"):
        assert not await wanted(wrong)
    assert set(house.post.asked[asked:]) <= {""}
