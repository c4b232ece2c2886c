"""The text of a mail, from peers that mean harm: whole or refused, bounded, and others go on."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from gateways.smtp.intake import TAKEN
from gateways.smtp.session import PIECE_BYTES
from tests.gateways.smtp.incoming import ALICE, DEADLINE_S, SENDER, Raw, listening
from tests.gateways.smtp.test_listener_hostile import drip, flood, peer_from, still_works
from tests.support import wait_until


@pytest.mark.parametrize(
    "end", [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n"]
)
async def test_what_some_take_for_the_end_is_refused_whole(tmp_path: Path, end: bytes) -> None:
    """SMTP smuggling: a second mail in the first, for a server that reads lines another way."""
    inner = f"MAIL FROM:<admin@example.org>\r\nRCPT TO:<{ALICE}>\r\nDATA\r\nevil\r\n"
    async with listening(tmp_path) as desk:
        async with desk.peer() as peer:
            await peer.hello()
            reply = await peer.mail(ALICE, text=b"first" + end + inner.encode())
            assert reply.startswith("554 5.6.0")
            assert desk.post.mails == []
            assert await peer.mail(ALICE) == str(TAKEN)
        await still_works(desk)


async def test_a_mail_too_big_is_refused_while_it_comes(tmp_path: Path) -> None:
    async with listening(tmp_path, max_message_bytes=10_000) as desk:
        async with desk.peer() as peer:
            assert "SIZE 10000" in await peer.hello()
            assert (await peer.say(f"MAIL FROM:<{SENDER}> SIZE=10001")).startswith("552")
            assert (await peer.mail(ALICE, text=b"x" * 98 + b"\r\n")).startswith("250")
            assert (await peer.mail(ALICE, text=(b"x" * 98 + b"\r\n") * 101)).startswith("552")
            await peer.envelope(ALICE)
            await peer.say("DATA")
            await flood(peer, (b"x" * 98 + b"\r\n") * 100)
        assert len(desk.post.mails) == 1
        await still_works(desk)


async def test_a_line_without_end_costs_nothing(tmp_path: Path) -> None:
    """aiosmtpd itself keeps all of it."""
    async with listening(tmp_path, max_message_bytes=1_000_000) as desk:
        async with desk.peer() as peer:
            await peer.hello()
            assert (await peer.mail(ALICE, text=b"x" * 5000 + b"\r\nok\r\n")).startswith("500")
            await peer.envelope(ALICE)
            await peer.say("DATA")
            await flood(peer, b"x" * 100_000)
        await still_works(desk)


@pytest.mark.parametrize("line", [b"\r\n", b"..\r\n", b"\r", b"x" * 98 + b"\r\n"])
async def test_others_have_their_turn_while_a_mail_comes(tmp_path: Path, line: bytes) -> None:
    """Whatever it is made of: the loop is never held for more than a piece of it."""
    readers, text = Raw(), line * (2_000_000 // len(line)) + b"\r\n"
    async with listening(tmp_path, readers) as desk, desk.peer() as peer:
        budget, free = desk.listener._shared.budget, [268_435_456]

        async def watch() -> None:
            while True:
                free.append(budget.free)
                await asyncio.sleep(0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.listener._loop.run, watch)
            await peer.hello()
            reply = await peer.mail(ALICE, text=text)
            nursery.cancel_scope.cancel()
    taken = [before - after for before, after in pairwise(free)]
    assert max(taken) <= PIECE_BYTES
    assert reply[:3] == ("500" if line == b"\r" else "250")
    if reply[:3] == "250":
        assert readers.seen == [text.replace(b"\n..", b"\n.").removeprefix(b".")]
        assert sum(one > 0 for one in taken) >= len(text) // PIECE_BYTES


async def test_mails_of_all_sessions_together_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.smtp.listener.MAX_HELD_BYTES", 10_000)
    line = b"x" * 98 + b"\r\n"
    async with listening(tmp_path) as desk, desk.peer() as one, desk.peer() as two:
        for peer in (one, two):
            await peer.hello()
            await peer.envelope(ALICE)
            await peer.say("DATA")
        await one.stream.send_all(line * 80)

        async def held() -> bool:
            # A thousand octets of it may not have been looked at yet.
            return bool(2000 <= desk.listener.statistics()["free_bytes"] < 3100)

        await wait_until(held, "one's mail is held")
        await two.stream.send_all(line * 80 + b".\r\n")
        assert (await two.reply()).startswith("452 4.3.1")
        assert (await two.say(f"MAIL FROM:<{SENDER}> SIZE=9000")).startswith("452 4.3.1")
        await one.stream.send_all(b".\r\n")
        assert await one.reply() == str(TAKEN)
        assert desk.listener.statistics()["free_bytes"] == 10_000


async def test_one_address_holds_no_more_than_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.smtp.listener.MAX_HELD_BYTES", 200_000)
    line = b"x" * 98 + b"\r\n"
    async with listening(tmp_path, max_message_bytes=30_000) as desk, AsyncExitStack() as stack:
        peers = []
        for _ in range(10):
            peer = await stack.enter_async_context(peer_from(desk, "127.5.5.5"))
            await peer.hello()
            await peer.envelope(ALICE)
            await peer.say("DATA")
            await peer.stream.send_all(line * 200)
            peers.append(peer)

        async def held() -> bool:
            return bool(150_000 <= desk.listener.statistics()["free_bytes"] < 165_000)

        await wait_until(held, "its share is held")
        async with peer_from(desk, "127.5.5.5") as late, peer_from(desk, "127.5.5.6") as other:
            assert (await late.reply()).startswith("421")
            await other.hello()
            assert await other.mail(ALICE, text=line * 290) == str(TAKEN)
        refused = 0
        for peer in peers:
            await peer.stream.send_all(b".\r\n")
            refused += (await peer.reply()).startswith("452 4.3.1")
        assert refused == 8
        assert desk.listener.statistics()["free_bytes"] == 200_000


async def test_a_mail_too_big_for_the_share_of_its_peer_now_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.smtp.listener.MAX_HELD_BYTES", 80_000)
    async with listening(tmp_path, max_message_bytes=20_000) as desk, desk.peer() as one:
        await one.hello()
        await one.envelope(ALICE)
        await one.say("DATA")
        await one.stream.send_all((b"x" * 98 + b"\r\n") * 100)

        async def held() -> bool:
            return bool(desk.listener.statistics()["free_bytes"] < 75_000)

        await wait_until(held, "one's mail is held")
        for host, code in (("127.0.0.1", "452"), ("127.5.5.6", "250")):
            async with peer_from(desk, host) as peer:
                await peer.hello()
                assert (await peer.say(f"MAIL FROM:<{SENDER}> SIZE=18000"))[:3] == code


async def test_lines_now_and_then_are_no_mail_that_comes(tmp_path: Path) -> None:
    """What is held must not be held for the price of an octet a minute."""
    async with listening(tmp_path, listen_idle_s=0.5) as desk:
        async with desk.peer() as peer:
            await peer.hello()
            await peer.envelope(ALICE)
            assert (await peer.say("DATA")).startswith("354")
            await peer.stream.send_all((b"x" * 98 + b"\r\n") * 1000)
            assert await drip(peer, b"x" * 298 + b"\r\n") == ["421"]
        assert desk.listener.statistics()["ended_by_us"] == 1
        await still_works(desk)


async def test_who_goes_away_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    async with listening(tmp_path) as desk:
        for text in (b"", b"half a line", b"lines\r\n" * 100):
            async with desk.peer() as peer:
                await peer.hello()
                await peer.envelope(ALICE)
                await peer.say("DATA")
                await peer.stream.send_all(text)
        await still_works(desk)


async def test_a_mail_whose_answer_was_lost_is_one_mail_the_next_time(tmp_path: Path) -> None:
    readers = Raw()
    async with listening(tmp_path, readers) as desk:
        async with desk.peer() as peer:
            await peer.hello()
            await peer.envelope(ALICE)
            await peer.say("DATA")
            await peer.stream.send_all(b"once\r\n.\r\n")
            with trio.fail_after(DEADLINE_S):
                await desk.post.until(mails=1)
        async with desk.peer() as again:
            await again.hello()
            assert await again.mail(ALICE, text=b"once\r\n") == str(TAKEN)

        assert readers.seen == [b"once\r\n"] * 2
        assert len(desk.post.mails) == 1
