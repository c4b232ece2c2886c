"""The listener with peers that mean harm: it stays up, bounded, and others are served meanwhile."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from gateways.smtp.intake import NOBODY, PUT_OFF, TAKEN, UNREADABLE
from gateways.smtp.session import one_of
from gateways.smtp.session_caps import Budget, Seats, Tally, peer_of
from tests.gateways.smtp.incoming import (
    ALICE,
    DEADLINE_S,
    SENDER,
    Desk,
    Peer,
    Raw,
    codes,
    listening,
)
from tests.support import wait_until

MANY = 600


@asynccontextmanager
async def peer_from(desk: Desk, host: str) -> AsyncIterator[Peer]:
    """A peer with this address of 127/8."""
    raw = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with raw:
        await raw.bind((host, 0))
        await raw.connect(("127.0.0.1", desk.port))
        yield Peer(trio.SocketStream(raw))


async def _until_empty(desk: Desk) -> None:
    async def empty() -> bool:
        return bool(desk.listener.statistics()["sessions"] == 0)

    await wait_until(empty, "no session is left")


async def still_works(desk: Desk) -> None:
    """Somebody else is served, and nothing is held any more."""
    async with peer_from(desk, "127.9.9.9") as good:
        await good.hello()
        assert await good.mail(ALICE, text=b"%d\r\n" % random.getrandbits(64)) == str(TAKEN)
        assert (await good.say("QUIT")).startswith("221")
    await _until_empty(desk)
    statistics = desk.listener.statistics()
    assert statistics["free_bytes"] == 268_435_456
    assert "faults" not in statistics


# --- connections and time -------------------------------------------------------------------------
async def test_six_hundred_idle_connections_leave_room_for_others(tmp_path: Path) -> None:
    async with (
        listening(tmp_path, listen_connections=50, listen_connections_per_address=40) as desk,
        AsyncExitStack() as stack,
    ):
        replies = []
        for _ in range(MANY):
            peer = await stack.enter_async_context(desk.peer())
            replies.append((await peer.reply())[:9])

        assert replies.count("421 4.3.2") == MANY - 40
        await _still_works_beside(desk)
        assert desk.listener.statistics()["sessions"] == 40

        await stack.enter_async_context(_seats_taken(desk, 10))
        async with peer_from(desk, "127.8.8.8") as late:
            assert (await late.reply()).startswith("421 4.3.2")


@asynccontextmanager
async def _seats_taken(desk: Desk, count: int) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for number in range(count):
            peer = await stack.enter_async_context(peer_from(desk, f"127.7.7.{number + 1}"))
            assert (await peer.reply()).startswith("220")
        yield


async def _still_works_beside(desk: Desk) -> None:
    async with peer_from(desk, "127.9.9.9") as good:
        await good.hello()
        assert await good.mail(ALICE) == str(TAKEN)
        await good.say("QUIT")
        assert await good.reply() == ""

    async def gone() -> bool:
        return bool(desk.listener.statistics()["sessions"] == 40)

    await wait_until(gone, "the good one is gone")


async def test_who_says_nothing_is_sent_away(tmp_path: Path) -> None:
    async with listening(tmp_path, listen_idle_s=0.3) as desk:
        async with desk.peer() as silent, desk.peer() as slow:
            assert (await silent.reply()).startswith("220")
            assert (await silent.reply()).startswith("421 4.4.2")
            assert await silent.reply() == ""
            # A byte now and then is no command.
            assert await drip(slow, b"E") == ["220", "421"]
        await still_works(desk)


async def drip(peer: Peer, piece: bytes, every_s: float = 0.05) -> list[str]:
    """Send a piece again and again until the other side ends it; the codes of what it said."""
    replies: list[str] = []

    async def drip() -> None:
        while True:
            try:
                await peer.stream.send_all(piece)
            except trio.BrokenResourceError:
                return
            await trio.sleep(every_s)  # the attack itself

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        while reply := await peer.reply():
            replies.append(reply[:3])
        nursery.cancel_scope.cancel()
    return replies


async def flood(peer: Peer, piece: bytes) -> None:
    """Send it again and again until the other side has ended it."""
    with suppress(trio.BrokenResourceError), trio.fail_after(DEADLINE_S):
        while True:
            await peer.stream.send_all(piece)


async def test_a_mail_that_trickles_in_ends_with_the_session(tmp_path: Path) -> None:
    async with listening(tmp_path, listen_idle_s=0.5, listen_session_s=1.5) as desk:
        async with desk.peer() as peer:
            await peer.hello()
            await peer.envelope(ALICE)
            assert (await peer.say("DATA")).startswith("354")
            assert await drip(peer, b"x\r\n") == ["421"]
        assert desk.post.mails == []
        await still_works(desk)


async def test_who_does_not_read_is_cut_off(tmp_path: Path) -> None:
    async with listening(tmp_path, listen_session_s=1.0) as desk:
        async with desk.peer() as peer:
            await flood(peer, b"NOOP\r\n" * 1000)
        await still_works(desk)


async def test_a_session_that_is_too_long_gets_the_answer_to_its_mail_first(
    tmp_path: Path,
) -> None:
    readers = Raw()
    readers.gate = trio.Event()
    async with listening(tmp_path, readers, listen_session_s=0.5) as desk, desk.peer() as peer:
        await peer.hello()
        await peer.envelope(ALICE)
        await peer.say("DATA")
        await peer.stream.send_all(b"Hi\r\n.\r\n")
        [session] = desk.listener._shared.sessions

        async def due() -> bool:
            return bool(session._last_words)

        await wait_until(due, "its time is over")
        readers.gate.set()
        assert await peer.reply() == str(TAKEN)
        assert (await peer.reply()).startswith("421 4.4.2")


# --- commands -------------------------------------------------------------------------------------
async def test_ten_wrong_commands_are_enough(tmp_path: Path) -> None:
    async with listening(tmp_path) as desk:
        async with desk.peer() as peer:
            await peer.hello()
            assert codes([await peer.say("NONSENSE") for _ in range(4)]) == [500] * 4
            assert codes([await peer.say("MAIL") for _ in range(6)]) == [501] * 5 + [421]
            assert await peer.reply() == ""
        await still_works(desk)


async def test_harvesting_addresses_ends_at_twenty(tmp_path: Path) -> None:
    async with listening(tmp_path) as desk:
        async with desk.peer() as peer:
            await peer.hello()
            await peer.say(f"MAIL FROM:<{SENDER}>")
            guesses = [await peer.say(f"RCPT TO:<{n}@example.org>") for n in range(20)]
            assert codes(guesses) == [550] * 19 + [421]
            assert await peer.reply() == ""
        await still_works(desk)


async def test_eight_thousand_recipients_are_a_hundred(tmp_path: Path) -> None:
    async with listening(tmp_path) as desk:
        async with desk.peer() as peer:
            assert desk.post.addresses is not None
            desk.post.addresses |= {f"{n}@example.org" for n in range(8000)}
            await peer.hello()
            await peer.say(f"MAIL FROM:<{SENDER}>")
            seen: list[str] = []
            for number in range(8000):
                seen.append(await peer.say(f"RCPT TO:<{number}@example.org>"))
                if seen[-1].startswith("421"):
                    break
            assert codes(seen[:102]) == [250] * 100 + [452] * 2
            assert len(seen) < 1000
        await still_works(desk)


async def test_commands_behind_the_last_word_are_not_obeyed(tmp_path: Path) -> None:
    async with listening(tmp_path) as desk:
        async with desk.peer() as peer:
            await peer.hello()
            burst = b"NONSENSE\r\n" * 4 + b"MAIL\r\n" * 6
            mail = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{ALICE}>\r\nDATA\r\nx\r\n.\r\n"
            await peer.stream.send_all(burst + mail.encode())
            seen = []
            while reply := await peer.reply():
                seen.append(reply)
            assert codes(seen) == [500] * 4 + [501] * 5 + [421]
        assert desk.post.mails == []
        await still_works(desk)


@pytest.mark.parametrize(
    "line",
    [
        b"MAIL FROM:<" + b"a" * 400 + b"@example.net>",
        b"MAIL FROM:<a\0b@example.net>",
        b"MAIL FROM:<a\rRCPT TO:<b@example.net>>",
        b"MAIL FROM:" + b"(" * 480,
        b"MAIL FROM:<a@example.net> SIZE=99999999999999999999",
        b"MAIL FROM:<a@example.net> SIZE=-1",
        b"MAIL FROM:<a@example.net> SIZE=\xb2",
        b"MAIL FROM:<a@example.net> RET=HDRS ENVID=x",
        b"MAIL FROM:a@example.net",
        b"MAIL FROM:<a@example.net",
        b"MAIL FROM:<\xff@example.net> SMTPUTF8",
        b"\xff\xfe\xfd",
        b"\0" * 100,
        b"X" * 100_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS without STARTTLS
        b"GET / HTTP/1.1",
        b"AUTH PLAIN AHgAeA==",
        b"BDAT 5 LAST",
        b"STARTTLS",
    ],
)
async def test_a_line_of_harm_is_refused_and_the_session_goes_on(
    tmp_path: Path, line: bytes
) -> None:
    async with listening(tmp_path) as desk:
        async with desk.peer() as peer:
            await peer.hello()
            assert (await peer.say(line))[:1] in ("4", "5")
            assert await peer.mail(ALICE) == str(TAKEN)
        await still_works(desk)


async def test_garbage_of_a_hundred_kinds(tmp_path: Path) -> None:
    """Whatever comes: an answer or an end, and nobody else notices."""
    dice = random.Random(5)
    commands = [b"EHLO x", b"MAIL FROM:<>", b"RCPT TO:<alice@example.org>", b"DATA", b"STARTTLS"]
    noise = [b".", b"RSET", b"QUIT", b"AUTH", b"\0", b"\r", b"\n", b"\xff" * 9, b"x" * 1500]
    words = commands + noise
    async with listening(tmp_path, listen_idle_s=5.0) as desk:
        for _ in range(100):
            async with desk.peer() as peer:
                burst = b"".join(
                    dice.choice(words) + dice.choice([b"\r\n", b"\r\n", b"\n", b"\r", b""])
                    for _ in range(dice.randrange(1, 40))
                )
                with trio.fail_after(DEADLINE_S):
                    await peer.stream.send_all(burst + b"\r\n.\r\n")
                    await peer.stream.send_eof()
                    while await peer.reply():
                        pass
        await still_works(desk)


# --- parts ----------------------------------------------------------------------------------------
def test_one_reply_for_all_recipients() -> None:
    assert one_of([TAKEN, NOBODY]) == TAKEN
    assert one_of([TAKEN, PUT_OFF, UNREADABLE]) == PUT_OFF
    assert one_of([NOBODY, UNREADABLE]) == NOBODY


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_seats_are_never_more_than_there_are(moves: list[tuple[str, bool]]) -> None:
    seats = Seats(5, 3)
    taken = {"a": 0, "b": 0, "c": 0}
    for peer, comes in moves:
        if comes:
            fits = sum(taken.values()) < 5 and taken[peer] < 3
            assert seats.take(peer) == fits
            taken[peer] += fits
        elif taken[peer]:
            seats.leave(peer)
            taken[peer] -= 1
        assert seats.count == sum(taken.values())


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40)), max_size=30))
def test_a_budget_is_never_overdrawn(wanted: list[tuple[str, int]]) -> None:
    budget = Budget(100, 60)
    taken = [(peer, octets) for peer, octets in wanted if budget.take(peer, octets)]
    held = {peer: sum(octets for who, octets in taken if who == peer) for peer in "ab"}

    assert budget.free == 100 - sum(held.values()) >= 0
    for peer in "ab":
        assert held[peer] <= 60
        assert budget.left(peer) == min(budget.free, 60 - held[peer])
    for peer, octets in taken:
        budget.give_back(peer, octets)
    assert budget.left("a") == budget.left("b") == 60
    assert budget.free == 100
    assert not budget._held


def test_a_peer_is_its_address_or_its_network() -> None:
    assert peer_of("192.0.2.1") == peer_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert peer_of("2001:db8::1") == peer_of("2001:db8:0:0:ffff::1%eth0")
    assert peer_of("2001:db8::1") != peer_of("2001:db8:0:1::1")
    assert peer_of("") == ""


def test_a_session_that_works_may_go_on() -> None:
    tally = Tally()
    for _ in range(100):
        for _ in range(103):
            assert tally.answered("250 OK") == ""
        tally.mail_taken()
