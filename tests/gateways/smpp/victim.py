"""A gateway in a process of its own, to be killed: ``python -m tests.gateways.smpp.victim``.

Arguments: port of the SMSC, folder of the journal, number of messages. It delivers them all at once
and then waits to be killed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from tests.gateways.smpp.desk import order_of, provider_of, running
from tests.support import LOCALHOST
from tests.support.desk import Delivery


def number_of(spool_id: int) -> str:
    """The telephone of a spool, all different."""
    return f"49170{spool_id:07}"


async def _deliver(port: int, folder: Path, count: int) -> None:
    provider = provider_of(
        {
            "name": "smsc", "type": "smpp", "host": LOCALHOST, "port": port,
            "username": "outspool", "password": "secret",
        },
        window=10,
    )  # fmt: skip
    async with running(folder) as node, trio.open_nursery() as nursery:
        await node.provide(provider)
        for n in range(1, count + 1):
            order = order_of(provider, f"n {n}", spool_id=n, destination=number_of(n))
            nursery.start_soon(Delivery(order).run, node.gateway)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(_deliver, int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
