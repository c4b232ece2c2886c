"""Parts that were answered 0 are handed in, also where their provider is gone by then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from engine.errors import UnavailableError
from engine.gateway import TextMessage
from gateways.smpp import inbound, text
from gateways.smpp.events import Delivered
from gateways.smpp.inbound import INCOMPLETE_S, OK, SWEEP_S, Receiver
from gateways.smpp.journal import Journal
from gateways.smpp.leftovers import Leftovers
from gateways.smpp.pdu import Command
from gateways.smpp.settings import SmppSettings
from tests.gateways.smpp.books import clock
from tests.gateways.smpp.desk import running
from tests.gateways.smpp.faulty import Peer, deliver_body, faulty_smsc, pdu
from tests.gateways.smpp.test_inbound import ADA, PROVIDER, US, Sick
from tests.gateways.smpp.test_link_faults import provider_at

LATIN = SmppSettings(default_alphabet="latin1")
FIRST = b"\x05\0\x03\x09\x02\x01half a text"  # part 1 of 2 (3GPP TS 23.040, 9.2.3.24.1)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = Journal(tmp_path / "smpp.db", inline=True)
    await journal.open()
    yield journal
    await journal.aclose()


async def half(journal: Journal, settings: SmppSettings) -> None:
    """One of two parts comes in."""
    first, _ = text.compose(
        TextMessage(text="ü" * 200), source=ADA, destination=US, settings=settings,
        reference=1, part_reference=7,
    )  # fmt: skip
    receiver = Receiver(PROVIDER, settings, journal, Sick(), clock)
    assert await receiver.handle([("a", Delivered(1, first))]) == [OK]


async def test_what_waits_in_vain_is_handed_in_and_forgotten(
    journal: Journal, autojump_clock: trio.testing.MockClock
) -> None:
    inbox = Sick()
    await half(journal, SmppSettings())
    leftovers = Leftovers(journal, clock, set)
    await leftovers.sweep(inbox)
    assert inbox.texts == []
    await trio.sleep(INCOMPLETE_S)
    await leftovers.sweep(inbox)
    (message,) = inbox.texts
    assert message.text == "ü" * 153 + "…"
    assert message.provider.id == PROVIDER.id
    assert message.rows[-1].name == "parts_missing"
    await trio.sleep(SmppSettings().redelivery_s)
    await leftovers.sweep(inbox)
    assert len(inbox.texts) == 1
    assert await journal.read(lambda it: it.execute("SELECT 1 FROM inbound_part").fetchall()) == []


async def test_providers_in_use_see_to_it_themselves(
    journal: Journal, autojump_clock: trio.testing.MockClock
) -> None:
    inbox = Sick()
    await half(journal, SmppSettings())
    await trio.sleep(INCOMPLETE_S)
    await Leftovers(journal, clock, lambda: {PROVIDER.id}).sweep(inbox)
    assert inbox.texts == []


async def test_it_is_read_as_the_provider_was_and_handed_in_once_the_store_takes_it(
    journal: Journal, autojump_clock: trio.testing.MockClock
) -> None:
    inbox = Sick()
    inbox.error = UnavailableError("full")
    await half(journal, LATIN)
    leftovers = Leftovers(journal, clock, set)
    leftovers.keep(PROVIDER, LATIN)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leftovers.run, inbox)
        await trio.sleep(INCOMPLETE_S + 2 * SWEEP_S)
        assert inbox.texts == []
        inbox.error = None
        await inbox.until(texts=1)
        nursery.cancel_scope.cancel()
    assert inbox.texts[0].provider is PROVIDER
    assert set(inbox.texts[0].text) == set("ü…")


async def test_the_gateway_sees_to_a_provider_that_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound, "SWEEP_S", 0.1)
    answered, unbound = trio.Event(), trio.Event()

    async def script(peer: Peer) -> None:
        await peer.bind()
        await peer.send(pdu(Command.DELIVER_SM, 0, 7, deliver_body(FIRST, esm_class=0x40)))
        assert (await peer.expect(Command.DELIVER_SM_RESP)).status == OK
        answered.set()
        await peer.serve()
        unbound.set()

    async with faulty_smsc(script) as smsc, running(tmp_path) as node:
        await node.provide(provider_at(smsc.port))
        await answered.wait()
        await node.provide()
        await unbound.wait()
        monkeypatch.setattr(inbound, "INCOMPLETE_S", 0.1)
        await node.until(lambda: len(node.inbox.texts) == 1)
        assert node.inbox.texts[0].text == "half a text…"
