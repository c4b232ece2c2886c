"""A process that writes to a store and says on stdout what was acknowledged to it.

``python -m tests.engine.store.peer write|limited FOLDER``
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

import orjson
import trio

from engine.errors import UnavailableError
from engine.model import Account, Campaign, Contact, Group, Program, Provider, User
from engine.store.base import Begun, Query
from engine.store.sqlite import SqliteStore
from tests.engine.store.held import opened
from tests.suites.store_scene import Scene

_STDOUT = 1


def _say(word: str, key: int) -> None:
    """One write, no buffer: what is said has happened, kill -9 or not."""
    os.write(_STDOUT, f"{word} {key}\n".encode())


async def write(folder: Path) -> None:
    """Dial the first campaign's contacts as fast as the store takes it."""
    async with opened(folder) as store, trio.open_nursery() as nursery:
        scene = await _scene(store)
        after = (await scene.progress()).cursor

        async def end(begun: Begun) -> None:
            await scene.finish(begun)
            _say("end", begun.spool_id)

        while page := await store.new_candidates(scene.campaign.id, scene.group.id, after, 20):
            after = page[-1].link_id
            for begun in await scene.begin(page):
                _say("begin", begun.spool_id)
                nursery.start_soon(end, begun)


async def _scene(store: SqliteStore) -> Scene:
    nouns = [
        (await store.find(kind, Query(limit=1)))[0]
        for kind in (User, Group, Program, Provider, Account, Campaign)
    ]
    return Scene(store, *nouns)  # type: ignore[arg-type]


async def limited(folder: Path) -> None:
    """Write up to a limit of the file size, then on without it; tell what happened."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    told: dict[str, object] = {}
    acknowledged = 0
    async with opened(folder) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, most))
        try:
            while True:
                await store.insert(Contact(description="x" * 2000))
                acknowledged += 1
        except UnavailableError as error:
            told["failed"] = type(error).__name__
        state = store.statistics()
        told["writable_then"], told["cause"] = state["writable"], state["cause"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        await store.insert(Contact(phone="last"))
        told["writable_later"] = store.statistics()["writable"]
        told["acknowledged"] = acknowledged + 1
    async with opened(folder) as store:
        told["stored"] = await store.count(Contact, Query())
    os.write(_STDOUT, orjson.dumps(told))


if __name__ == "__main__":
    trio.run({"write": write, "limited": limited}[sys.argv[1]], Path(sys.argv[2]))
