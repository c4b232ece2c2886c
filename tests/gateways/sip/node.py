"""A node in a process of its own that only holds a gateway: made to be killed.

``python -m tests.gateways.sip.node PORT CALLS``: places so many calls to 127.0.0.1:PORT, prints
``up`` when all have rung or are up, with the process ids of its children, and stays.
"""

from __future__ import annotations

import sys
import uuid
from datetime import datetime
from functools import partial

import trio

from engine.config import SipConfig
from engine.gateway import Order, Stage
from engine.model import Provider, Service
from gateways.sip.gateway import SipGateway
from tests.suites.gateway_suite import listen
from tests.support.inbox import Tray


async def main(port: int, calls: int) -> None:
    gateway = SipGateway(SipConfig(workers_min=1, rtp_port_min=33_000, rtp_port_max=33_255))
    waiting = [trio.Event() for _ in range(calls)]

    def progress(event: trio.Event, stage: Stage, _at: datetime) -> None:
        if stage is not Stage.LEFT:
            event.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run, Tray())
        for number, event in enumerate(waiting):
            order = Order(
                spool_id=number,
                uid=uuid.uuid4(),
                service=Service.VOICE,
                provider=Provider(id=1, name="far", host="127.0.0.1", port=port),
                destination="100",
                program=listen,
                ring_timeout_s=60.0,
            )
            nursery.start_soon(gateway.deliver, order, partial(progress, event))
        for event in waiting:
            await event.wait()
        print("up", flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
