"""The engine's memory, behind one Protocol (base.py)."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import trio

from engine.clock import Clock, now
from engine.config import Config
from engine.errors import InvalidError, UnavailableError
from engine.store.base import Store
from engine.store.migrations import upgrade
from engine.store.sqlite import SqliteStore

_FILE = "outspool.db"


@contextlib.asynccontextmanager
async def open_store(config: Config, *, clock: Clock = now) -> AsyncIterator[Store]:
    """The store of a node: data directory made, locked and migrated.

    Raises ``InvalidError`` for a ``store.url`` of no scheme we know, ``UnavailableError`` where
    another node has the data directory or it cannot be used.
    """
    path = database_path(config)
    with _prepared(config, path):
        await trio.to_thread.run_sync(upgrade, path)
        store = SqliteStore(
            path,
            clock=clock,
            readers=config.store.readers,
            max_batch=config.store.max_batch,
            max_queue=config.store.max_queue,
        )
        try:
            yield store
        finally:
            await store.aclose()


def migrate(config: Config) -> None:
    """Bring the database to the newest schema and return; refused while a node runs on it."""
    path = database_path(config)
    with _prepared(config, path):
        upgrade(path)


def database_path(config: Config) -> Path:
    """The file of ``store.url``: ``sqlite:///relative``, ``sqlite:////absolute``, "" = ours."""
    url = config.store.url
    if not url:
        return config.data_path / _FILE
    scheme, separator, rest = url.partition("://")
    if scheme != "sqlite" or not separator or len(rest) < 2:  # noqa: PLR2004 - "/" and a name
        raise InvalidError(f"store.url: {scheme or url} is no store we know", field="store.url")
    return Path(rest[1:])


@contextlib.contextmanager
def _prepared(config: Config, path: Path) -> Iterator[None]:
    """Make the data directory and hold the database's lock, which dies with its holder.

    Two nodes on one database would dial the same contacts.
    """
    try:
        config.data_path.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnavailableError(f"store: cannot open {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnavailableError(f"store: {path} is in use by another node") from None
        yield
    finally:
        os.close(handle)
