"""What SQLite has to do for messages that come in: nothing is looked for row by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.store import arrivals, closed, open_store
from engine.store.sqlite import SqliteStore
from engine.store.statements import Statement
from tests.support.engine import config_in

# Numbers that people decorated are looked for among all accounts, after all plain ones.
SCANS = {"_SERVED_DECORATED"}
PARAMETERS = {"SCAN anon_1 VIRTUAL TABLE INDEX 1:"}


async def test_only_decorated_numbers_are_scanned_for(tmp_path: Path) -> None:
    named = vars(arrivals) | vars(closed)
    statements = {name: one for name, one in named.items() if isinstance(one, Statement)}
    assert len(statements) > 9
    async with open_store(config_in(tmp_path)) as store:
        assert isinstance(store, SqliteStore)
        for name, statement in statements.items():
            sql = statement.sql
            plan = await store._readers.run(
                lambda connection, sql=sql: connection.execute(  # type: ignore[misc]
                    f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?")
                ).fetchall()
            )
            scans = {step for *_, step in plan if step.startswith("SCAN")} - PARAMETERS
            assert bool(scans) is (name in SCANS), (name, scans)


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (arrivals._CONTACT, "ix_contact_phone"),
        (arrivals._CONTACT_BY_EMAIL, "ix_contact_email"),
        (arrivals._SERVED_ADDRESS, "ix_account_email"),
    ],
    ids=["phone", "e-mail", "account"],
)
async def test_an_index_leads_to_who_wrote(
    tmp_path: Path, statement: Statement, index: str
) -> None:
    async with open_store(config_in(tmp_path)) as store:
        assert isinstance(store, SqliteStore)
        plan = await store._readers.run(
            lambda connection: connection.execute(
                f"EXPLAIN QUERY PLAN {statement.sql}", [None] * statement.sql.count("?")
            ).fetchall()
        )
        assert any(index in step for *_, step in plan)
