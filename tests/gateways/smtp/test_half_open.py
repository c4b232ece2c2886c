"""Half-open TCP as it is: packets vanish between us and a relay, and neither end hears of it.

The relay sits in a network namespace of its own behind a router that drops (wants root).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from gateways.smtp.records import At, How
from tests.gateways.smtp.crossing import PROVIDER_ID, Desk, parcel, relay, settings
from tests.gateways.smtp.faulty import FaultyMta, Peer, Script, faulty_mta
from tests.support import wait_until
from tests.support.network import Network, network

FIRST = b"Subject: first\r\n\r\nLost on the way.\r\n"
USUAL = {"DATA": "354 go ahead", "DOT": "250 2.0.0 taken"}
# The second connection is tried while nothing passes, and has to last until it does.
SETTINGS = settings(reply_timeout_s=2.0, dot_timeout_s=2.0, connect_timeout_s=30.0)
DEADLINE_S = 60.0


@pytest.fixture
def hosts() -> Iterator[Network]:
    with network() as found:
        yield found


@asynccontextmanager
async def apart(hosts: Network, *scripts: Script) -> AsyncIterator[tuple[FaultyMta, Desk]]:
    """A relay on one host, our connections on the other."""
    address = hosts.them.address
    async with AsyncExitStack() as stack:
        with hosts.them.entered():
            mta = await stack.enter_async_context(faulty_mta(*scripts, host=address))
        with hosts.us.entered():  # the asyncio thread starts here, and stays
            desk = await stack.enter_async_context(relay(mta.port, SETTINGS, host=address))
        yield mta, desk


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "BODY", "DOT"])
async def test_packets_vanish_at_every_step(hosts: Network, step: str) -> None:
    """What has not left goes by the next connection; what may have is told so, and stays once."""

    async def vanish(peer: Peer) -> None:
        await hosts.cut()
        if step != "BODY":  # there it is the mail that gets lost, else the reply
            await peer.say(USUAL.get(step, "250 2.0.0 ok"))

    async def given_up() -> bool:
        return await hosts.us.established() == 0

    async with apart(hosts, {step: vanish}, {}) as (mta, desk):
        desk.bridge.send(PROVIDER_ID, [parcel(1, FIRST)])
        with trio.fail_after(DEADLINE_S):
            await (await mta.peer()).event(step).wait()
        await wait_until(given_up, "the connection is given up")
        assert await hosts.them.established() == 1  # the relay believes in us still
        await hosts.mend()
        (answer,) = await desk.wait(1)
        left = step in {"BODY", "DOT"}
        how, code = (How.TIMEOUT, 0) if left else (How.REPLY, 250)
        assert (answer.at, answer.how, answer.code) == (At.DOT, how, code)
        assert (answer.left, answer.tries) == (True, 1 if left else 2)
        (after,) = await desk.send(parcel(2))
        assert (after.at, after.how, after.code, after.tries) == (At.DOT, How.REPLY, 250, 1)
        with trio.fail_after(DEADLINE_S):  # what was on its way yet has arrived
            await mta.peers[0].over.wait()
        assert len(mta.peers) == 2
        assert mta.peers[1].mails.count(FIRST) == (not left)
        assert mta.mails.count(FIRST) <= 1
