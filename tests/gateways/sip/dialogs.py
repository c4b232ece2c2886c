"""A call to a scripted far end, as the tests of dialogs place them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from engine.results import Result
from tests.gateways.sip.harness import SipHarness, trunk
from tests.suites.gateway_suite import Delivery, listen
from tests.support.uas import Dialog, Script, run_uas


@asynccontextmanager
async def talking(script: Script, harness: SipHarness, **fields: Any) -> AsyncIterator[Delivery]:
    """A call to ``script`` whose program stays until the far end ends it."""
    async with run_uas(script) as uas, trio.open_nursery() as nursery:
        delivery = Delivery(harness, trunk(uas), listen, **fields)
        nursery.start_soon(delivery.run)
        yield delivery
        with trio.fail_after(20):
            await uas.ended.wait()
            await delivery.done.wait()


async def place(script: Script, harness: SipHarness, **fields: Any) -> Result:
    async with talking(script, harness, **fields) as delivery:
        pass
    assert delivery.result is not None
    assert harness.gateway.statistics()["calls_up"] == 0
    return delivery.result


async def silent(_: Dialog) -> None:
    await trio.lowlevel.checkpoint()
