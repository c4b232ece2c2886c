"""Single transmissions: sent when asked, once; retried when due."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.app import Engine
from engine.config import DialConfig, NodeConfig
from engine.errors import NoProviderError, NotFoundError, NotReadyError
from engine.events import SpoolChanged, TransmissionEnded
from engine.model import (
    Account,
    Contact,
    Program,
    Spool,
    SpoolStatus,
    Transmission,
    TransmissionStatus,
)
from gateways.loopback.script import Script
from tests.support.engine import (
    DEADLINE_S,
    add_campaign,
    add_program,
    add_provider,
    config_in,
    run_to_end,
    running_engine,
    spools_of,
    transmissions_of,
)


async def _transmission(engine: Engine, phone: str = "4930", **fields: Any) -> Transmission:
    contact = await engine.store.insert(Contact(phone=phone))
    program = await add_program(engine.store)
    return await engine.store.insert(
        Transmission(program_id=program.id, contact_id=contact.id, **fields)
    )


async def _send_to_end(engine: Engine, transmission: Transmission) -> Transmission:
    with engine.bus.subscribe() as events:
        await engine.send(transmission.id)
        with trio.fail_after(DEADLINE_S):
            while not isinstance(await events.get(), TransmissionEnded):
                pass
    stored = await engine.store.get(Transmission, transmission.id)
    assert stored is not None
    return stored


async def test_send_answers_with_a_spool_that_is_stored(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path), Script(ring_s=60.0)) as engine:
        await add_provider(engine)
        account = await engine.store.insert(Account(phone="12345"))
        transmission = await _transmission(engine, account_id=account.id)
        spool_id = await engine.send(transmission.id)
        spool = await engine.store.get(Spool, spool_id)
        assert spool is not None
        assert (spool.transmission_id, spool.status) == (transmission.id, SpoolStatus.INITIATED)
        assert (spool.destination, spool.account_id) == ("4930", account.id)
        with pytest.raises(NotReadyError, match="already in process"):
            await engine.send(transmission.id)


async def test_completed_is_not_sent_again_failed_is(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path), Script(reject=1.0)) as engine:
        provider = await add_provider(engine)
        transmission = await _transmission(engine)
        failed = await _send_to_end(engine, transmission)
        assert (failed.status, failed.response) == (TransmissionStatus.FAILED, "rejected")
        await engine.store.delete(type(provider), provider.id)
        await add_provider(engine, settings={"answer": 1.0})
        done = await _send_to_end(engine, transmission)
        assert (done.status, done.try_done) == (TransmissionStatus.COMPLETED, 2)
        with pytest.raises(NotReadyError, match="completed"):
            await engine.send(transmission.id)


async def test_tries_left_are_used_by_themselves(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path), Script(busy=1.0)) as engine:
        await add_provider(engine)
        transmission = await _transmission(engine, try_allowed=3)
        failed = await _send_to_end(engine, transmission)
        assert (failed.status, failed.try_done) == (TransmissionStatus.FAILED, 3)


async def test_its_own_delays_go_over_the_nodes(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path), Script(busy=1.0)) as engine:
        await add_provider(engine)
        transmission = await _transmission(engine, try_allowed=2, retry_delays={"busy": 3600})
        with engine.bus.subscribe() as events:
            await engine.send(transmission.id)
            with trio.fail_after(DEADLINE_S):
                while getattr(await events.get(), "response", "") != "busy":
                    pass
        stored = await engine.store.get(Transmission, transmission.id)
        assert stored is not None
        assert stored.status is TransmissionStatus.PENDING
        assert stored.due_at is not None
        assert stored.due_at - stored.updated_at == timedelta(hours=1)


async def test_what_only_receives_is_not_sent(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        await add_provider(engine)
        contact = await engine.store.insert(Contact(phone="4930"))
        program = await engine.store.insert(Program(name="in", type="receivefax"))
        transmission = await engine.store.insert(
            Transmission(program_id=program.id, contact_id=contact.id)
        )
        with pytest.raises(NotReadyError, match="cannot be sent"):
            await engine.send(transmission.id)
        stored = await engine.store.get(Transmission, transmission.id)
        assert stored is not None
        assert stored.status is TransmissionStatus.PENDING


async def test_a_retry_due_after_a_restart_is_made(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    slow = config_in(tmp_path, retry=type(config.retry)(busy_delay_s=0.5))
    async with running_engine(slow, Script(busy=1.0)) as engine:
        await add_provider(engine)
        transmission = await _transmission(engine, try_allowed=2)
        with engine.bus.subscribe() as events:
            await engine.send(transmission.id)
            with trio.fail_after(DEADLINE_S):
                while True:
                    event = await events.get()
                    if isinstance(event, SpoolChanged) and event.status is SpoolStatus.FAILED:
                        break
    async with running_engine(slow) as engine:
        with engine.bus.subscribe() as events:
            stored = await engine.store.get(Transmission, transmission.id)
            assert stored is not None
            if stored.status is TransmissionStatus.PENDING:
                with trio.fail_after(DEADLINE_S):
                    while not isinstance(await events.get(), TransmissionEnded):
                        pass
        stored = await engine.store.get(Transmission, transmission.id)
        assert stored is not None
        assert (stored.status, stored.try_done) == (TransmissionStatus.COMPLETED, 2)


async def test_twenty_senders_of_one_transmission_make_one_call(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path), Script(ring_s=60.0)) as engine:
        await add_provider(engine)
        transmission = await _transmission(engine)
        spool_ids: list[int] = []
        refused: list[str] = []

        async def send() -> None:
            try:
                spool_ids.append(await engine.send(transmission.id))
            except NotReadyError as error:
                refused.append(str(error))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(send)
        assert len(spool_ids) == 1
        assert len(refused) == 19


async def test_what_cannot_be_sent_says_why(tmp_path: Path) -> None:
    async with running_engine(config_in(tmp_path)) as engine:
        with pytest.raises(NotFoundError):
            await engine.send(99)
        transmission = await _transmission(engine)
        with pytest.raises(NoProviderError):
            await engine.send(transmission.id)
        await add_provider(engine)
        bad = await _transmission(engine, phone="nobody")
        with pytest.raises(NotReadyError, match="Invalid"):
            await engine.send(bad.id)
        stored = await engine.store.get(Transmission, bad.id)
        assert stored is not None
        assert (stored.status, stored.response) == (TransmissionStatus.INVALID, "invalid_number")


async def test_a_send_that_finds_no_channel_is_refused_and_not_made_later(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    # Real threads and virtual time: jump only when nothing has happened for a while.
    autojump_clock.autojump_threshold = 0.2
    config = config_in(
        tmp_path,
        node=NodeConfig(data_dir=str(tmp_path), channels=1),
        dial=DialConfig(ring_timeout_s=60),
    )
    async with running_engine(config, Script(ring_s=50.0)) as engine:
        await add_provider(engine)
        first, second = await _transmission(engine), await _transmission(engine)
        await engine.send(first.id)
        with pytest.raises(NotReadyError, match="No channel"):
            await engine.send(second.id)
        stored = await engine.store.get(Transmission, second.id)
        assert stored is not None
        assert (stored.status, stored.try_done) == (TransmissionStatus.PENDING, 0)
        assert engine.statistics()["dispatcher"]["pacer"]["prefetched"] == 0


async def test_a_campaigns_failed_transmission_may_be_sent_once_more_by_hand(
    tmp_path: Path,
) -> None:
    async with running_engine(config_in(tmp_path), Script(busy=1.0)) as engine:
        await add_provider(engine)
        campaign = await add_campaign(engine, 1, try_allowed=2)
        await run_to_end(engine, campaign)
        (transmission,) = await transmissions_of(engine.store, campaign)
        again = await _send_to_end(engine, transmission)
        assert (again.status, again.try_done) == (TransmissionStatus.FAILED, 3)
        assert len(await spools_of(engine.store, campaign)) == 3
