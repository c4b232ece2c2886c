"""Messages that come in: read, joined, durable before they are answered, taken once."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.bus import Bus
from engine.catalog import Catalog
from engine.do_not_contact import DoNotContacts
from engine.errors import InvalidError, UnavailableError
from engine.gateway import InboundText, Reception, Report, TextKind, TextMessage
from engine.inbound import Inbound
from engine.model import Account, Contact, Program, Provider, Service, Text, Transmission
from engine.results import ResultRow
from engine.store import open_store
from engine.store.base import Query, Store
from gateways.smpp import parts, text
from gateways.smpp.events import Delivered
from gateways.smpp.inbound import INCOMPLETE_S, OK, RX_P_APPN, RX_T_APPN, Receiver, key_of
from gateways.smpp.journal import Journal
from gateways.smpp.pdu import Address, ShortMessage, Tag
from gateways.smpp.settings import SmppSettings
from tests.support.engine import config_in
from tests.support.inbox import NoMail, Tray

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PROVIDER = Provider(id=3, name="smsc", type="smpp", service=Service.SMS, host="127.0.0.1")
SETTINGS = SmppSettings()
US, ADA = Address("4930111", 1, 1), Address("4917012345", 1, 1)
YES = ShortMessage(source=ADA, destination=US, octets=b"Yes")


class Watch:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> datetime:
        return self.at


class Sick(Tray):
    """An inbox that refuses what it is told to refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.reception = Reception.TAKEN

    async def receive(self, message: InboundText) -> Reception:
        if self.error is not None:
            raise self.error
        reception = await super().receive(message)
        return self.reception if reception is Reception.TAKEN else reception


@asynccontextmanager
async def journal_in(folder: Path) -> AsyncIterator[Journal]:
    journal = Journal(folder / "smpp.db", inline=True)
    await journal.open()
    try:
        yield journal
    finally:
        await journal.aclose()


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with journal_in(tmp_path) as opened:
        yield opened


@pytest.fixture
def inbox() -> Sick:
    return Sick()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
async def receiver(journal: Journal, inbox: Sick, watch: Watch) -> Receiver:
    return Receiver(PROVIDER, SETTINGS, journal, inbox, watch)


async def give(receiver: Receiver, *messages: ShortMessage, session: str = "a") -> list[int]:
    return await receiver.handle(
        [(session, Delivered(number, message)) for number, message in enumerate(messages)]
    )


def long(words: str, reference: int = 7, **changes: object) -> list[ShortMessage]:
    """``words`` in as many parts as it takes, as a handset sends them."""
    given = msgspec.convert(changes, SmppSettings)
    return text.compose(
        TextMessage(text=words), source=ADA, destination=US, settings=given,
        reference=1, part_reference=reference,
    )  # fmt: skip


# --- single messages ------------------------------------------------------------------------------
async def test_a_message_is_handed_in_whole(receiver: Receiver, inbox: Sick) -> None:
    assert await give(receiver, YES) == [OK]
    [message] = inbox.texts
    assert (message.source, message.destination) == (ADA.digits, US.digits)
    assert (message.text, message.kind, message.at) == ("Yes", TextKind.PLAIN, NOON)
    assert message.provider is PROVIDER
    assert message.rows == ()


async def test_alphabets(receiver: Receiver, inbox: Sick) -> None:
    smiles = msgspec.structs.replace(YES, data_coding=8, octets="Да 😀".encode("utf-16-be"))
    octets = msgspec.structs.replace(YES, data_coding=4, octets=b"\x06\x05\x04")
    payload = msgspec.structs.replace(YES, octets=b"", tlvs=((int(Tag.MESSAGE_PAYLOAD), b"long"),))
    assert await give(receiver, smiles, octets, payload) == [OK] * 3
    assert [(one.text, one.kind) for one in inbox.texts] == [
        ("Да 😀", TextKind.UNICODE),
        ("060504", TextKind.BINARY),
        ("long", TextKind.PLAIN),
    ]


@pytest.mark.parametrize(
    ("reception", "status"),
    [(Reception.TAKEN, OK), (Reception.REPEATED, OK), (Reception.UNWANTED, RX_P_APPN)],
)
async def test_the_status_says_what_became_of_it(
    receiver: Receiver, inbox: Sick, reception: Reception, status: int
) -> None:
    inbox.reception = reception
    assert await give(receiver, YES) == [status]


@pytest.mark.parametrize(
    ("error", "status"),
    [(UnavailableError("full"), RX_T_APPN), (InvalidError("odd", field="data"), RX_P_APPN)],
)
async def test_what_cannot_be_kept(
    receiver: Receiver, inbox: Sick, error: Exception, status: int
) -> None:
    inbox.error = error
    assert await give(receiver, YES) == [status]
    inbox.error = None
    assert await give(receiver, YES) == [OK]
    assert len(inbox.texts) == 1


async def test_messages_of_one_sender_stay_in_order(receiver: Receiver, inbox: Sick) -> None:
    people = [Address(f"49170{number}", 1, 1) for number in range(10)]
    said = [
        msgspec.structs.replace(YES, source=who, octets=str(turn).encode())
        for turn in range(5)
        for who in people
    ]
    assert await give(receiver, *said) == [OK] * len(said)
    for who in people:
        own = [one.text for one in inbox.texts if one.source == who.digits]
        assert own == ["0", "1", "2", "3", "4"]


def test_a_key_tells_messages_apart() -> None:
    others = [
        msgspec.structs.replace(YES, octets=b"yes"),
        msgspec.structs.replace(YES, source=US),
        msgspec.structs.replace(YES, destination=ADA),
        msgspec.structs.replace(YES, data_coding=8),
        msgspec.structs.replace(YES, esm_class=text.UDHI),
        msgspec.structs.replace(YES, tlvs=((int(Tag.USER_MESSAGE_REFERENCE), b"\0\1"),)),
        *long("x" * 400, 7),
        *long("x" * 400, 8),
        *long("x" * 400, 7, concatenation="sar"),
    ]
    keys = {key_of(one) for one in (YES, *others)}
    assert len(keys) == len(others) + 1
    stamped = msgspec.structs.replace(YES, tlvs=((0x1400, b"12:00:01"),), priority=1)
    assert key_of(stamped) == key_of(YES)


# --- long messages --------------------------------------------------------------------------------
WORDS = "Grüße an alle {€} " * 25 + "Ende"
EMOJI = "😀𝄞é" * 60


@pytest.mark.parametrize("concatenation", ["udh8", "udh16", "sar"])
@pytest.mark.parametrize("words", [WORDS, EMOJI])
async def test_parts_are_joined(
    receiver: Receiver, inbox: Sick, concatenation: str, words: str
) -> None:
    sent = long(words, concatenation=concatenation)
    assert len(sent) > 2
    assert await give(receiver, *sent) == [OK] * len(sent)
    [message] = inbox.texts
    assert message.text == words
    assert message.rows == (ResultRow("sms", "parts", str(len(sent))),)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), extra=st.lists(st.integers(0, 5), max_size=6))
async def test_in_any_order_and_more_than_once(seed: int, extra: Sequence[int]) -> None:
    sent = long(WORDS) + long(EMOJI, 8)
    again = [sent[number % len(sent)] for number in extra]
    order = [*sent, *again]
    random.Random(seed).shuffle(order)
    inbox, journal = Sick(), Journal(Path(":memory:"), inline=True)
    await journal.open()
    receiver = Receiver(PROVIDER, SETTINGS, journal, inbox, Watch())
    for message in order:
        assert await give(receiver, message) == [OK]
    await journal.aclose()
    assert sorted(one.text for one in inbox.texts) == sorted([WORDS, EMOJI])


async def test_a_pair_cut_between_two_parts_is_whole_again(receiver: Receiver, inbox: Sick) -> None:
    octets = "ab😀cd".encode("utf-16-be")
    for number, piece in ((2, octets[6:]), (1, octets[:6])):
        header = bytes((5, 0, 3, 9, 2, number))
        part = ShortMessage(
            source=ADA, destination=US, esm_class=text.UDHI, data_coding=8, octets=header + piece
        )
        assert await give(receiver, part) == [OK]
    assert [one.text for one in inbox.texts] == ["ab😀cd"]


async def test_senders_and_references_are_apart(receiver: Receiver, inbox: Sick) -> None:
    one, two = long("a" * 200, 1), long("b" * 200, 2)
    other = [
        msgspec.structs.replace(part, source=Address("49170999", 1, 1))
        for part in long("c" * 200, 1)
    ]
    mixed = [message for triple in zip(one, two, other, strict=True) for message in triple]
    assert await give(receiver, *mixed) == [OK] * 6
    assert sorted(message.text[0] for message in inbox.texts) == ["a", "b", "c"]


async def test_a_reference_used_anew_is_another_message(receiver: Receiver, inbox: Sick) -> None:
    old, new = long("a" * 200), long("b" * 200)
    await give(receiver, old[0], *new)
    assert [message.text for message in inbox.texts] == ["b" * 200]
    await give(receiver, *long("c" * 200))
    assert [message.text[0] for message in inbox.texts] == ["b", "c"]


async def test_the_last_part_delivered_again_is_no_new_message(
    receiver: Receiver, inbox: Sick, watch: Watch
) -> None:
    sent = long(WORDS)
    await give(receiver, *sent)
    watch.at += timedelta(seconds=60)
    assert await give(receiver, sent[-1], session="b") == [OK]
    watch.at += timedelta(seconds=INCOMPLETE_S)
    await receiver.sweep()
    assert len(inbox.texts) == 1


async def test_parts_outlive_the_process(
    journal: Journal, inbox: Sick, watch: Watch, tmp_path: Path
) -> None:
    sent = long(WORDS)
    before = Receiver(PROVIDER, SETTINGS, journal, inbox, watch)
    await give(before, *sent[:2])
    async with journal_in(tmp_path) as reopened:
        after = Receiver(PROVIDER, SETTINGS, reopened, inbox, watch)
        await give(after, *sent[2:])
    assert [one.text for one in inbox.texts] == [WORDS]


async def test_while_the_store_is_full_the_last_part_is_put_off(
    receiver: Receiver, inbox: Sick
) -> None:
    sent = long(WORDS)
    inbox.error = UnavailableError("full")
    assert await give(receiver, *sent) == [OK] * (len(sent) - 1) + [RX_T_APPN]
    inbox.error = None
    assert await give(receiver, sent[-1]) == [OK]
    assert [one.text for one in inbox.texts] == [WORDS]


async def test_nobody_wants_it_part_for_part(receiver: Receiver, inbox: Sick) -> None:
    sent = long(WORDS)
    inbox.reception = Reception.UNWANTED
    assert await give(receiver, *sent) == [OK] * (len(sent) - 1) + [RX_P_APPN]


async def test_what_stays_incomplete_is_handed_in_as_it_is(
    receiver: Receiver, inbox: Sick, watch: Watch
) -> None:
    sent = long("a" * 153 + "b" * 153 + "c" * 153 + "d" * 10)
    await give(receiver, sent[0], sent[2])
    watch.at += timedelta(seconds=INCOMPLETE_S - 1)
    await receiver.sweep()
    assert inbox.texts == []
    watch.at += timedelta(seconds=1)
    await receiver.sweep()
    [message] = inbox.texts
    assert message.text == "a" * 153 + "…" + "c" * 153 + "…"
    assert message.rows == (
        ResultRow("sms", "parts", "4"),
        ResultRow("sms", "parts_missing", "2,4"),
    )
    await receiver.sweep()
    assert len(inbox.texts) == 1


async def test_a_store_that_is_full_gets_the_incomplete_ones_later(
    receiver: Receiver, inbox: Sick, watch: Watch
) -> None:
    sent = long(WORDS)
    await give(receiver, sent[0])
    watch.at += timedelta(seconds=INCOMPLETE_S)
    inbox.error = UnavailableError("full")
    with pytest.raises(UnavailableError):
        await receiver.sweep()
    # What comes now belongs to a message of its own.
    inbox.error = None
    await give(receiver, *sent[1:])
    assert inbox.texts == []
    await receiver.sweep()
    assert [one.text[:5] for one in inbox.texts] == [WORDS[:5]]


async def test_the_sweeper_sweeps(
    receiver: Receiver, inbox: Sick, watch: Watch, autojump_clock: trio.testing.MockClock
) -> None:
    await give(receiver, long(WORDS)[0])
    async with trio.open_nursery() as nursery:
        inbox.error = UnavailableError("full")
        watch.at += timedelta(seconds=INCOMPLETE_S)
        nursery.start_soon(receiver.run)
        await trio.testing.wait_all_tasks_blocked()
        assert inbox.texts == []
        inbox.error = None
        await inbox.until(texts=1)
        nursery.cancel_scope.cancel()
    assert autojump_clock.current_time() > 0


async def test_one_sender_cannot_fill_the_disk(
    receiver: Receiver, inbox: Sick, journal: Journal
) -> None:
    for reference in range(3 * parts.SETS_PER_SOURCE):
        await give(receiver, long("x" * 200, reference)[0])
    other = msgspec.structs.replace(long("y" * 200)[0], source=Address("49170999", 1, 1))
    await give(receiver, other)
    await receiver.sweep()
    assert len(inbox.texts) == 2 * parts.SETS_PER_SOURCE
    [waiting] = await journal.read(
        lambda c: c.execute("SELECT count(*) FROM inbound_set WHERE done_at IS NULL").fetchone()
    )
    assert waiting == parts.SETS_PER_SOURCE + 1


async def test_what_is_done_is_forgotten(
    receiver: Receiver, journal: Journal, watch: Watch
) -> None:
    await give(receiver, *long(WORDS))
    watch.at += timedelta(seconds=SETTINGS.redelivery_s)
    await receiver.sweep()
    for table in ("inbound_set", "inbound_part"):
        [left] = await journal.read(
            lambda c, table=table: c.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[misc]  # noqa: S608
        )
        assert left == 0


@settings(max_examples=200, deadline=None)
@given(
    octets=st.binary(max_size=254), coding=st.integers(0, 255), esm=st.integers(0, 255),
    tlvs=st.lists(st.tuples(st.sampled_from([int(tag) for tag in Tag]), st.binary(max_size=5))),
)  # fmt: skip
async def test_whatever_comes_is_answered(
    octets: bytes, coding: int, esm: int, tlvs: list[tuple[int, bytes]]
) -> None:
    journal = Journal(Path(":memory:"), inline=True)
    await journal.open()
    receiver = Receiver(PROVIDER, SETTINGS, journal, Sick(), Watch())
    message = ShortMessage(
        source=ADA, destination=US, octets=octets, data_coding=coding, esm_class=esm,
        tlvs=tuple(tlvs),
    )  # fmt: skip
    assert await give(receiver, message) == [OK]
    await journal.aclose()


# --- with the engine ------------------------------------------------------------------------------
class Dying(NoMail, Inbound):
    """Dies after the engine has it and before the SMSC is answered."""

    async def receive(self, message: InboundText) -> Reception:
        await super().receive(message)
        raise trio.BrokenResourceError

    async def report(self, reports: Sequence[Report]) -> None:
        raise AssertionError(reports)


class Living(NoMail, Inbound):
    async def report(self, reports: Sequence[Report]) -> None:
        raise AssertionError(reports)


@asynccontextmanager
async def engine_store(folder: Path) -> AsyncIterator[tuple[Store, dict[str, Any]]]:
    config = config_in(folder)
    async with open_store(config) as store:
        catalog = Catalog(store, lambda: NOON, config)
        yield store, {
            "store": store, "config": config, "clock": lambda: NOON, "bus": Bus(),
            "do_not_contact": DoNotContacts(catalog),
        }  # fmt: skip


async def reachable(store: Store) -> None:
    account = await store.insert(Account(phone=f"+{US.digits}", active=True))
    await store.insert(Program(name="in", type="receivesms", data={"account_id": account.id}))


@pytest.mark.parametrize("sent", [[YES], long(WORDS)], ids=["short", "long"])
async def test_a_crash_before_the_answer_doubles_nothing(
    journal: Journal, tmp_path: Path, watch: Watch, sent: list[ShortMessage]
) -> None:
    async with engine_store(tmp_path) as (store, given):
        await reachable(store)
        dying = Dying(**given)
        with pytest.raises(ExceptionGroup) as caught:
            await give(Receiver(PROVIDER, SETTINGS, journal, dying, watch), *sent)
        assert caught.group_contains(trio.BrokenResourceError)
        # The node starts again; what was not answered is delivered once more.
        watch.at += timedelta(seconds=30)
        living = Living(**given)
        after = Receiver(PROVIDER, SETTINGS, journal, living, watch)
        assert await give(after, sent[-1], session="b") == [OK]
        assert len(await store.find(Transmission, Query())) == 1
        assert len(await store.find(Text, Query())) == 1
        assert len(await store.find(Contact, Query())) == 1
        await after.sweep()
        assert len(await store.find(Text, Query())) == 1


async def test_redelivered_on_the_next_connection(
    journal: Journal, tmp_path: Path, watch: Watch
) -> None:
    async with engine_store(tmp_path) as (store, given):
        await reachable(store)
        receiver = Receiver(PROVIDER, SETTINGS, journal, Living(**given), watch)
        assert await give(receiver, YES, YES) == [OK, OK]
        assert len(await store.find(Text, Query())) == 2
        receiver.ended("a")
        assert await give(receiver, YES, session="b") == [OK]
        assert len(await store.find(Text, Query())) == 2
        assert await give(receiver, YES, session="b") == [OK]
        assert len(await store.find(Text, Query())) == 3
