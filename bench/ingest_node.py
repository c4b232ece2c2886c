"""The node of ``bench ingest``: engine, SQLite and web server in a process of its own.

``python -m bench.ingest_node DIR`` prints one JSON line once it serves (its port and password)
and runs until its standard input ends. Then it prints a second one: how late its event loop, how
long its commits were meanwhile.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from api.log import configure
from api.server import serve_http
from api.web import create_app
from bench.child import say
from bench.node import config_for, running
from engine.clock import now
from engine.config import HttpConfig, LogConfig
from engine.enrolment import ensure_admin
from engine.model import Group
from engine.stats import Histogram
from engine.store.base import Store

TICK_S = 0.002
WRITE_EVERY_S = 0.02
MAX_CSV_BYTES = 2_000_000_000


async def watch_loop(lag: Histogram) -> None:
    """Note how late a timer fires that is due every ``TICK_S``."""
    while True:
        due = trio.current_time() + TICK_S
        await trio.sleep_until(due)
        lag.add(trio.current_time() - due)


async def write_beside(store: Store, group: Group, waits: Histogram) -> None:
    """Commit something small every ``WRITE_EVERY_S``, as the dialer does, and note how long."""
    while True:
        await trio.sleep(WRITE_EVERY_S)
        began = trio.current_time()
        await store.update(group)
        waits.add(trio.current_time() - began)


async def serve(data_dir: Path) -> dict[str, Any]:
    """Serve until standard input ends; what was seen."""
    http = HttpConfig(port=0, max_csv_bytes=MAX_CSV_BYTES)
    config = msgspec.structs.replace(config_for(data_dir), http=http)
    lag, waits = Histogram(), Histogram()
    async with running(config, {}) as engine, trio.open_nursery() as nursery:
        password = await ensure_admin(engine.store, None, now)
        shutdown = trio.Event()
        port = await nursery.start(partial(serve_http, create_app(engine), config.http, shutdown))
        say({"port": port, "password": password})
        beside = await engine.store.insert(Group(name="beside"))
        nursery.start_soon(watch_loop, lag)
        nursery.start_soon(write_beside, engine.store, beside, waits)
        await trio.to_thread.run_sync(sys.stdin.read)
        seen = {
            "loop_lag_ms": lag.milliseconds(),
            "write_beside_ms": waits.milliseconds(),
            "chunk_commit_ms": engine.imports.statistics()["chunk_commit_ms"],
        }
        shutdown.set()
        nursery.cancel_scope.cancel()
    return seen


def main() -> None:
    """Command line of the child process."""
    configure(LogConfig(level="error"))  # standard output is the bench's
    say(trio.run(serve, Path(sys.argv[1])))


if __name__ == "__main__":
    main()
