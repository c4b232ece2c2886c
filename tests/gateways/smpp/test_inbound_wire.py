"""Messages from npm's ``smpp`` server through the gateway and the engine into the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from engine import clock
from engine.app import Engine
from engine.config import Config
from engine.model import Account, DoNotContact, Program, Provider, Text, Transmission
from engine.store import open_store
from engine.store.base import Query
from gateways.smpp.gateway import SmppGateway
from gateways.smpp.inbound import OK, RX_P_APPN
from tests.gateways.smpp.desk import provider_of
from tests.support.engine import config_in
from tests.support.smsc.peers import Smsc, node_smsc

DEADLINE_S = 60.0
EITHER = pytest.mark.parametrize("command", ["deliver_sm", "data_sm"])
OURS, ADA = "4930111", "4917012345"


class Node(msgspec.Struct, frozen=True):
    """A node bound to an SMSC."""

    engine: Engine
    gateway: SmppGateway
    smsc: Smsc

    async def texts(self) -> list[str]:
        return [text.data for text in await self.engine.store.find(Text, Query())]

    async def bound(self) -> None:
        """Wait until the SMSC took a bind that was not waited for yet."""
        assert (await self.smsc.wait_event("bind"))["taken"]


@asynccontextmanager
async def node(folder: Path, **options: Any) -> AsyncIterator[Node]:
    """Bound by one transceiver; one account of ours is served. ``options`` are the SMSC's."""
    config = config_in(folder / "data")
    async with node_smsc(folder, **options) as smsc, started(config, smsc) as (engine, gateway):
        await reachable(engine)
        found = Node(engine, gateway, smsc)
        await found.bound()
        yield found


async def reachable(engine: Engine) -> None:
    """Our number, and the program that takes what is sent to it."""
    account = await engine.store.insert(Account(phone=f"+{OURS}", active=True, type="did"))
    data = {"account_id": account.id}
    await engine.store.insert(Program(name="in", type="receivesms", data=data))


@asynccontextmanager
async def started(config: Config, smsc: Smsc) -> AsyncIterator[tuple[Engine, SmppGateway]]:
    gateway = SmppGateway(config)
    async with open_store(config, clock=clock.now) as store:
        if not await store.find(Provider, Query()):
            await store.insert(provider_of(smsc.provider, 0))
        engine = Engine(config=config, store=store, gateways={"smpp": gateway})
        async with trio.open_nursery() as nursery:
            with trio.fail_after(DEADLINE_S):
                await nursery.start(engine.run)
                yield engine, gateway
            engine.stop()


@EITHER
async def test_texts_arrive_as_they_were_written(tmp_path: Path, command: str) -> None:
    async with node(tmp_path, deliver_by=command) as at:
        said = ["Hello", "Grüße {€}", "Привет 😀"]
        for text in said:
            assert await at.smsc.send_text(ADA, OURS, text) == OK
        assert await at.texts() == said
        assert len(await at.engine.store.find(Transmission, Query())) == len(said)


@EITHER
async def test_parts_are_joined(tmp_path: Path, command: str) -> None:
    async with node(tmp_path, deliver_by=command) as at:
        pieces = ["The beginning, ", "the middle ", "and the end."]
        for number in (3, 1, 2):
            sar = {
                "sar_msg_ref_num": 300, "sar_total_segments": 3, "sar_segment_seqnum": number,
            }  # fmt: skip
            assert await at.smsc.send_text(ADA, OURS, pieces[number - 1], **sar) == OK
        assert await at.texts() == ["".join(pieces)]


@EITHER
async def test_what_nobody_wants_is_refused_for_good(tmp_path: Path, command: str) -> None:
    async with node(tmp_path, deliver_by=command) as at:
        assert await at.smsc.send_text(ADA, "4930222", "Hello") == RX_P_APPN
        assert await at.smsc.send_text(ADA, "4930222", "stop") == OK
        [entry] = await at.engine.store.find(DoNotContact, Query())
        assert (entry.address, entry.owner_id) == (ADA, None)
        assert await at.texts() == []


@EITHER
async def test_a_message_after_a_drop_may_be_the_one_before_it(
    tmp_path: Path, command: str
) -> None:
    async with node(tmp_path, deliver_by=command) as at:
        assert await at.smsc.send_text(ADA, OURS, "Yes") == OK
        assert await at.smsc.send_text(ADA, OURS, "Yes") == OK
        assert len(await at.texts()) == 2
        # The answers may be lost with the connection: its SMSC delivers the last once more.
        await at.smsc.tell("drop")
        await at.bound()
        assert await at.smsc.send_text(ADA, OURS, "Yes") == OK
        assert len(await at.texts()) == 2
        assert await at.smsc.send_text(ADA, OURS, "No") == OK
        assert await at.smsc.send_text(ADA, OURS, "Yes") == OK
        assert len(await at.texts()) == 4


async def test_after_a_restart_a_redelivery_is_known(tmp_path: Path) -> None:
    config = config_in(tmp_path / "data")
    async with node_smsc(tmp_path) as smsc:
        async with started(config, smsc) as (engine, _):
            await reachable(engine)
            assert (await smsc.wait_event("bind"))["taken"]
            assert await smsc.send_text(ADA, OURS, "Yes") == OK
        async with started(config, smsc) as (engine, _):
            assert (await smsc.wait_event("bind"))["taken"]
            assert await smsc.send_text(ADA, OURS, "Yes") == OK
            assert len(await engine.store.find(Text, Query())) == 1
