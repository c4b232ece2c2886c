"""The SQLite store passes the suite of all stores, and what only SQLite has to do."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from engine.clock import now
from engine.config import Config, NodeConfig, StoreConfig
from engine.errors import InvalidError, UnavailableError
from engine.model import Contact
from engine.store import contacts, hotsql, media, migrate, open_store, tally
from engine.store.base import Query, Store
from engine.store.sqlite import SqliteStore
from engine.store.statements import Bulk, Statement
from tests.suites.store_suite import StoreSuite


def _config(folder: Path, **store: object) -> Config:
    return Config(node=NodeConfig(data_dir=str(folder)), store=msgspec.convert(store, StoreConfig))


class TestSqlite(StoreSuite):
    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[Store]:
        with tempfile.TemporaryDirectory() as folder:
            async with open_store(_config(Path(folder))) as store:
                yield store


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    config = _config(tmp_path / "data")
    async with open_store(config) as store:
        row = await store.insert(Contact(phone="1"))
    async with open_store(config) as store:
        assert await store.get(Contact, row.id) == row


async def test_the_data_directory_is_the_nodes_own(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    async with open_store(_config(folder)):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_one_node_at_a_time(tmp_path: Path) -> None:
    config = _config(tmp_path)
    async with open_store(config) as store:
        with pytest.raises(UnavailableError, match="in use by another node"):
            async with open_store(config):
                raise AssertionError
        with pytest.raises(UnavailableError, match="in use by another node"):
            migrate(config)
        await store.insert(Contact(phone="1"))
    migrate(config)
    async with open_store(config) as store:
        assert await store.count(Contact, Query()) == 1


async def test_the_url_decides(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.db"
    async with open_store(_config(tmp_path / "data", url=f"sqlite:///{path}")):
        assert path.exists()
    for url in ("oracle://x/y", "nonsense", "sqlite://", "sqlite:///"):
        with pytest.raises(InvalidError) as caught:
            async with open_store(_config(tmp_path, url=url)):
                raise AssertionError
        assert caught.value.field == "store.url"


async def test_what_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a directory")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "outspool.db").write_bytes(b"this is no database " * 500)
    for folder in (file, file / "below", broken):
        with pytest.raises(UnavailableError):
            async with open_store(_config(folder)):
                raise AssertionError


# What a plan calls the rows that came with the statement, or that it has found already.
PARAMETERS = {"SCAN v", "SCAN 4 CONSTANT ROWS", "SCAN v VIRTUAL TABLE INDEX 1:", "SCAN anon_1"}


async def test_the_hot_path_scans_no_table(tmp_path: Path) -> None:
    statements = {
        f"{module.__name__}.{name}": item
        for module in (hotsql, tally, contacts)
        for name, item in vars(module).items()
        if isinstance(item, Bulk | Statement)
    }
    assert len(statements) > 20
    async with open_store(_config(tmp_path)) as store:
        assert isinstance(store, SqliteStore)
        for name, item in statements.items():
            sql = item.text(4) if isinstance(item, Bulk) else item.sql
            plan = await store._readers.run(
                lambda connection, sql=sql: connection.execute(  # type: ignore[misc]
                    f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?")
                ).fetchall()
            )
            for *_, step in plan:
                scans = step.startswith("SCAN") and step not in PARAMETERS
                assert not scans, (name, step)
                assert "TEMP B-TREE" not in step, (name, step)


async def test_a_store_is_the_same_one_when_it_is_opened_again(tmp_path: Path) -> None:
    before = now()
    seen = []
    for folder in ("a", "a", "b"):
        async with open_store(_config(tmp_path / folder)) as store:
            seen.append(await store.identity())
    first, again, other = seen
    assert first == again
    assert first.uid != other.uid
    assert before <= first.born_at <= now()


async def test_attachments_are_looked_up_without_reading_mails(tmp_path: Path) -> None:
    async with open_store(_config(tmp_path)) as store:
        assert isinstance(store, SqliteStore)
        plan = await store._readers.run(
            lambda connection: connection.execute(
                f"EXPLAIN QUERY PLAN {media.UNNAMED.sql}", ["[]", "$.path"]
            ).fetchall()
        )
        of_templates = [step for *_, step in plan if " template " in step]
        assert of_templates == ["SCAN template USING COVERING INDEX ix_template_attachments"]
