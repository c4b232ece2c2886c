"""The life of a gateway: ready, served, told to shut, waited for."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from engine.errors import UnavailableError
from engine.store.journal import Journal
from gateways.lifetime import opened, until_cancelled

DEADLINE_S = 10.0


class Service:
    """Serves, and takes a moment to end."""

    def __init__(self) -> None:
        self.may_be_ready = trio.Event()
        self.called = trio.Event()
        self.said: list[str] = []

    async def serve(self, ready: trio.Event, shut: trio.Event) -> None:
        self.called.set()
        await self.may_be_ready.wait()
        ready.set()
        await shut.wait()
        await trio.lowlevel.checkpoint()
        self.said.append("ended")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            await until_cancelled(self.serve, task_status)
        finally:
            self.said.append("returned")


async def test_it_is_started_once_ready_and_waited_for_at_the_end() -> None:
    service = Service()
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            service.may_be_ready.set()
            await nursery.start(service.run)
            assert service.said == []
            nursery.cancel_scope.cancel()
    assert service.said == ["ended", "returned"]


async def test_cancelled_before_it_is_ready_it_still_ends() -> None:
    service = Service()
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.run)
            await service.called.wait()
            nursery.cancel_scope.cancel()
            service.may_be_ready.set()
    assert service.said == ["ended", "returned"]


async def test_a_service_that_fails_ends_the_wait() -> None:
    async def serve(ready: trio.Event, shut: trio.Event) -> None:
        ready.set()
        await trio.lowlevel.checkpoint()
        raise UnavailableError("gone")

    with trio.fail_after(DEADLINE_S), pytest.RaisesGroup(UnavailableError):
        await until_cancelled(serve, trio.TASK_STATUS_IGNORED)


async def test_a_journal_is_closed_though_its_owner_is_cancelled(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", ("CREATE TABLE one (id INTEGER PRIMARY KEY);",))
    with trio.CancelScope() as scope:
        async with opened(journal):
            scope.cancel()
            await trio.sleep_forever()
    with pytest.raises(UnavailableError):
        await journal.write(lambda connection: connection.execute("SELECT 1"))
