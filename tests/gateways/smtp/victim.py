"""A gateway in a process of its own, to be killed: ``python -m tests.gateways.smtp.victim``.

Arguments: port of the server, folder of the journal, number of mails, policy of what is unknown. It
delivers them all at once, says ``fate N CAUSE`` of each as it is told, and waits to be killed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from engine.results import Result
from gateways.smtp.gateway import SmtpGateway
from tests.gateways.smtp.desk import Delivery, order_of, provider_of, running

CONNECTIONS = 3
CREDITS = 2 * CONNECTIONS
_STDOUT = 1


async def _one(delivery: Delivery, gateway: SmtpGateway) -> None:
    fate = await delivery.run(gateway)
    if isinstance(fate, Result):
        # One write, no buffer: what is said was durable, kill -9 or not.
        os.write(_STDOUT, f"fate {delivery.order.spool_id} {fate.cause}\n".encode())


async def _deliver(port: int, folder: Path, count: int, policy: str) -> None:
    provider = provider_of(port, connections=CONNECTIONS, unknown=policy, dot_timeout_s=60.0)
    async with running(folder) as node, trio.open_nursery() as nursery:
        await node.provide(provider)
        for n in range(1, count + 1):
            nursery.start_soon(_one, Delivery(order_of(provider, n)), node.gateway)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(_deliver, int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
