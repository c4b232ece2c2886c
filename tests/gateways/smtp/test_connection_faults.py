"""What a mail server can do to us: each ends in the right answer, no connection in doubt goes on.

Through the bridge and a pool, against a server that follows a script.
"""

from __future__ import annotations

import pytest
import trio

from gateways.smtp.records import Answer, At, How
from tests.gateways.smtp.crossing import PROVIDER_ID, Desk, parcel, relay, settings
from tests.gateways.smtp.faulty import (
    EXTENSIONS,
    PIPELINING,
    Peer,
    Reaction,
    Script,
    drop,
    faulty_mta,
    hold,
    in_turn,
    then,
)

BOTH = pytest.mark.parametrize("extensions", [EXTENSIONS, PIPELINING], ids=["plain", "pipelining"])
QUICK = settings(reply_timeout_s=1.0, dot_timeout_s=1.0, connect_timeout_s=1.0)
LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 4 * 20_000 + b"\r\n"


def seen(answer: Answer) -> tuple[At, How, int, bool]:
    return answer.at, answer.how, answer.code, answer.left


async def next_is_right(desk: Desk, number: int = 99) -> None:
    """The mail after the trouble gets its own answer."""
    answer = (await desk.send(parcel(number)))[0]
    assert (answer.id, *seen(answer)) == (number, At.DOT, How.REPLY, 250, True)


# --- replies


@BOTH
@pytest.mark.parametrize(
    ("step", "reply", "at"),
    [
        ("MAIL", "451 4.3.0 later", At.MAIL),
        ("MAIL", "550 5.1.8 who are you", At.MAIL),
        ("RCPT", "450 4.7.1 greylisted", At.RCPT),
        ("RCPT", "550-5.1.1 nobody\n550 5.1.1 of that name", At.RCPT),
        ("DATA", "451 4.3.0 no", At.DATA),
        ("DOT", "452 4.3.1 full", At.DOT),
        ("DOT", "554 5.7.1 spam", At.DOT),
        ("DOT", "421 4.3.0 closing", At.DOT),
    ],
)
async def test_a_refusal_is_the_answer_and_the_next_mail_goes(
    step: str, reply: str, at: At, extensions: tuple[str, ...]
) -> None:
    async with (
        faulty_mta({step: in_turn(reply, _usual(step))}, extensions=extensions) as mta,
        relay(mta.port) as desk,
    ):
        first = (await desk.send(parcel(1)))[0]
        assert seen(first) == (at, How.REPLY, int(reply[:3]), step == "DOT")
        assert first.tries == 1
        await next_is_right(desk)
    # A refusal before the body costs nobody a connection, but for a peer that wants a body all
    # the same: with PIPELINING, DATA was said before RCPT was refused.
    again = reply.startswith("421") or (step in {"MAIL", "RCPT"} and "PIPELINING" in extensions)
    assert len(mta.peers) == 1 + again
    assert len(mta.mails) == 1 + (step == "DOT")


def _usual(step: str) -> str:
    return {"DATA": "354 go ahead", "DOT": "250 2.0.0 taken"}.get(step, "250 2.1.0 ok")


async def test_a_refused_recipient_with_data_refused_too_keeps_the_connection() -> None:
    """RFC 2920 §3.1: the usual server, which says 554 to DATA without a recipient."""
    script = {
        "RCPT": in_turn("550 5.1.1 nobody", "250 ok"),
        "DATA": in_turn("554 5.5.1 no valid recipients", "354 go"),
    }
    async with faulty_mta(script, extensions=PIPELINING) as mta, relay(mta.port) as desk:
        first = (await desk.send(parcel(1)))[0]
        assert (*seen(first), first.text) == (At.RCPT, How.REPLY, 550, False, "5.1.1 nobody")
        await next_is_right(desk)
        assert len(mta.peers) == 1
        assert mta.peers[0].lines[4] == "RSET"


@BOTH
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
async def test_421_before_the_dot_is_tried_on_another_connection(
    step: str, extensions: tuple[str, ...]
) -> None:
    bad: Script = {step: then("421 4.3.2 shutting down", drop)}
    async with faulty_mta(bad, bad, {}, extensions=extensions) as mta, relay(mta.port) as desk:
        answer = (await desk.send(parcel(1)))[0]
        assert seen(answer) == (At.DOT, How.REPLY, 250, True)
        assert answer.tries == 3
    assert len(mta.mails) == 1


async def test_three_connections_are_enough() -> None:
    async with faulty_mta({"RCPT": drop}) as mta, relay(mta.port) as desk:
        answer = (await desk.send(parcel(1)))[0]
        assert seen(answer) == (At.RCPT, How.LOST, 0, False)
        assert answer.tries == 3
        assert len(mta.peers) == 3


# --- loss and silence


@BOTH
@pytest.mark.parametrize("reaction", [drop, hold], ids=["drop", "silence"])
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "BODY", "DOT"])
async def test_the_end_of_a_connection_at_every_step(
    step: str, reaction: Reaction, extensions: tuple[str, ...]
) -> None:
    """``left`` is exact: before the body no, after body and dot yes (they are one write here)."""
    left = step in {"BODY", "DOT"}
    async with (
        faulty_mta({step: reaction}, {}, extensions=extensions) as mta,
        relay(mta.port, QUICK) as desk,
    ):
        answer = (await desk.send(parcel(1)))[0]
        if left:
            how = How.LOST if reaction is drop else How.TIMEOUT
            assert seen(answer) == (At.DOT, how, 0, True)
        else:
            assert seen(answer) == (At.DOT, How.REPLY, 250, True)
        assert answer.tries == (1 if left else 2)
        await next_is_right(desk)
    assert len(mta.peers) == 2


@pytest.mark.parametrize("step", ["CONNECT", "EHLO"])
@pytest.mark.parametrize("reaction", [drop, hold], ids=["drop", "silence"])
async def test_no_session(step: str, reaction: Reaction) -> None:
    async with faulty_mta({step: reaction}) as mta, relay(mta.port, QUICK) as desk:
        answer = (await desk.send(parcel(1)))[0]
        at = At.GREETING if step == "CONNECT" else At.EHLO
        assert seen(answer) == (at, How.LOST if reaction is drop else How.TIMEOUT, 0, False)


async def test_nobody_listens() -> None:
    async with faulty_mta() as mta:
        port = mta.port
    async with relay(port) as desk:
        answers = await desk.send(parcel(1), parcel(2))
        assert {seen(one) for one in answers} == {(At.CONNECT, How.REFUSED, 0, False)}
        # While it pauses, what comes is told so at once: nobody waits here for a relay.
        again = (await desk.send(parcel(3)))[0]
        assert seen(again) == (At.CONNECT, How.REFUSED, 0, False)


async def test_a_greeting_that_refuses() -> None:
    async with faulty_mta({"CONNECT": "554 5.3.2 not here"}) as mta, relay(mta.port) as desk:
        answer = (await desk.send(parcel(1)))[0]
        assert seen(answer) == (At.GREETING, How.REPLY, 554, False)


# --- a large body


@pytest.mark.parametrize("reaction", [hold, drop], ids=["silence", "drop"])
async def test_a_large_mail_whose_reader_stops_has_not_left(reaction: Reaction) -> None:
    """The dot is not given to the transport before all of the body is with the kernel."""
    body = LARGE * 8
    async with faulty_mta({"BODY": reaction}, {}) as mta, relay(mta.port, QUICK) as desk:
        answer = (await desk.send(parcel(1, body)))[0]
        assert (answer.left, answer.tries, answer.code) == (True, 2, 250)
    assert [len(mail) for mail in mta.mails] == [len(body)]


async def test_a_large_mail_arrives_octet_for_octet() -> None:
    async with faulty_mta() as mta, relay(mta.port) as desk:
        answer = (await desk.send(parcel(1, LARGE)))[0]
        assert seen(answer) == (At.DOT, How.REPLY, 250, True)
        assert mta.mails == [LARGE]


@pytest.mark.parametrize("reply", ["552 5.3.4 too big", "421 4.3.1 out of disk"])
async def test_an_early_reply_ends_a_large_body(reply: str) -> None:
    """The peer answers before the dot and reads no more: its answer counts, nothing has left."""
    script: Script = {"BODY": then(Peer.more, reply, hold)}
    async with faulty_mta(script) as mta, relay(mta.port) as desk:
        answer = (await desk.send(parcel(1, LARGE * 8)))[0]
        assert seen(answer) == (At.DOT, How.REPLY, int(reply[:3]), False)
        assert len(mta.peers) == (3 if reply.startswith("421") else 1)
        assert mta.mails == []


async def test_a_slow_reader_of_ten_megabytes_is_waited_for() -> None:
    body = LARGE * 8

    async def slowly(peer: Peer) -> None:
        for _ in range(20):
            await peer.more()
            await trio.lowlevel.checkpoint()

    async with faulty_mta({"BODY": slowly}) as mta, relay(mta.port) as desk:
        answer = (await desk.send(parcel(1, body)))[0]
        assert seen(answer) == (At.DOT, How.REPLY, 250, True)
        assert [len(mail) for mail in mta.mails] == [len(body)]


# --- strange replies


async def test_a_reply_octet_by_octet() -> None:
    async def bytewise(peer: Peer) -> None:
        for octet in b"250-2.1.5 yes\r\n250-2.1.5 and\r\n250 2.1.5 again\r\n":
            await peer.send(bytes((octet,)))
            await trio.lowlevel.checkpoint()

    async with faulty_mta({"RCPT": bytewise, "DOT": bytewise}) as mta, relay(mta.port) as desk:
        answer = (await desk.send(parcel(1)))[0]
        assert seen(answer) == (At.DOT, How.REPLY, 250, True)
        assert answer.text == "2.1.5 yes 2.1.5 and 2.1.5 again"
        assert len(mta.peers) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0\1\2\3\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"999 what\r\n",
        b"-50 what\r\n",
        b"100 wait\r\n",
        b"354 go on\r\n",
        b"250" + b"x" * 1_000_000,
        b"250-more\r\n" * 100_000,
        b"\r\n",
    ],
    ids=["nul", "http", "999", "minus", "1yz", "3yz", "endless line", "endless lines", "empty"],
)
@pytest.mark.parametrize("step", ["RCPT", "DOT"])
async def test_what_is_no_reply_ends_the_connection(garbage: bytes, step: str) -> None:
    async with faulty_mta({step: then(garbage, hold)}, {}) as mta, relay(mta.port) as desk:
        answer = (await desk.send(parcel(1)))[0]
        if step == "RCPT":
            assert (*seen(answer), answer.tries) == (At.DOT, How.REPLY, 250, True, 2)
        else:
            assert (*seen(answer), answer.tries) == (At.DOT, How.LOST, 0, True, 1)
        await next_is_right(desk)
        assert len(mta.peers) == 2


async def test_controls_and_length_of_a_reply_are_cut() -> None:
    text = "550 5.1.1 \x00\x1b[31mred\x07\x7f\u2028" + "x" * 4000
    async with faulty_mta({"RCPT": text}) as mta, relay(mta.port) as desk:
        answer = (await desk.send(parcel(1)))[0]
        assert answer.code == 550
        assert answer.text.startswith("5.1.1 [31mred xxx")
        assert len(answer.text) == 512


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DOT"])
async def test_a_reply_too_many_is_never_the_next_ones(step: str) -> None:
    """Two replies in one segment: the first is the answer, then the connection is given up."""
    good = "250 2.0.0 ok\n550 5.1.1 a lie"
    async with faulty_mta({step: good}, {}) as mta, relay(mta.port) as desk:
        answer = (await desk.send(parcel(1)))[0]
        assert seen(answer)[1:] == (How.REPLY, 250, True)
        await next_is_right(desk)
        assert len(mta.peers) == 2


async def test_an_unasked_reply_between_mails_ends_the_connection() -> None:
    """421 of a server that goes down while we are idle; the next mail never sees it."""
    speak = trio.Event()

    async def later(peer: Peer) -> None:
        await peer.say("250 2.0.0 taken")
        await speak.wait()
        await peer.say("421 4.3.2 idle too long")

    async with faulty_mta({"DOT": later}, {}) as mta, relay(mta.port) as desk:
        await desk.send(parcel(1))
        speak.set()
        await (await mta.peer()).over.wait()
        answer = (await desk.send(parcel(2)))[0]
        assert (*seen(answer), answer.tries) == (At.DOT, How.REPLY, 250, True, 1)
        assert len(mta.peers) == 2


# --- dropped by us


@BOTH
@pytest.mark.parametrize("step", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "BODY", "DOT"])
async def test_dropping_at_every_step(step: str, extensions: tuple[str, ...]) -> None:
    """What waits for its connection is dropped at once, what is under way with its connection."""

    async def reached(peer: Peer) -> None:
        if step == "BODY":
            await peer.more()  # else it is open whether anything has left
        peer.event("reached").set()
        await hold(peer)

    async with (
        faulty_mta({step: reached}, {}, extensions=extensions) as mta,
        relay(mta.port) as desk,
    ):
        desk.bridge.send(PROVIDER_ID, [parcel(1)])
        await (await mta.peer()).event("reached").wait()
        desk.bridge.drop(PROVIDER_ID, [1])
        answer = (await desk.wait(1))[0]
        assert (answer.how, answer.left) == (How.DROPPED, step in {"BODY", "DOT"})
        if step in {"CONNECT", "EHLO"}:
            # It waited only; that connection is still being made, and not in doubt.
            assert answer.at is At.ROUTE
        else:
            await next_is_right(desk)
            assert len(mta.peers) == 2


async def test_closing_the_provider_answers_everything() -> None:
    async with faulty_mta({"DOT": hold}) as mta, relay(mta.port) as desk:
        desk.bridge.send(PROVIDER_ID, [parcel(1), parcel(2), parcel(3)])
        await (await mta.peer()).event("DOT").wait()
        await desk.bridge.close(PROVIDER_ID, drain_s=0)
        answers = {one.id: (one.how, one.left) for one in desk.answers}
        assert answers == {
            1: (How.DROPPED, True),
            2: (How.DROPPED, False),
            3: (How.DROPPED, False),
        }
        assert desk.bridge.credits(PROVIDER_ID, "example.net") == 0
        late = (await desk.send(parcel(4)))[0]
        assert (late.how, late.left) == (How.DROPPED, False)
