"""The migrated schema is the one of the code."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect
from sqlalchemy.pool import NullPool

from engine.errors import UnavailableError
from engine.store.migrations import upgrade
from engine.store.schema import METADATA

# ALTER TABLE puts a column before the last parenthesis without the line break of CREATE, and
# quotes the name of a table that it renames.
_PUNCTUATION = re.compile(r"[,\"]|([()])")


def _engine(path: Path) -> Engine:
    return create_engine(f"sqlite:///{path}", poolclass=NullPool)


def _words(path: Path) -> dict[str, str]:
    """Every table and index in SQLite's own words, spacing and order of clauses aside."""
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%'"
        ).fetchall()
    finally:
        connection.close()
    return {name: " ".join(sorted(_PUNCTUATION.sub(r" \1 ", sql).split())) for name, sql in rows}


# Indexes of expressions are compared word for word by the next test.
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based")
def test_migrations_lead_to_the_metadata(tmp_path: Path) -> None:
    upgrade(tmp_path / "a.db")
    with _engine(tmp_path / "a.db").connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_partial_indexes_and_references_too(tmp_path: Path) -> None:
    upgrade(tmp_path / "a.db")
    METADATA.create_all(_engine(tmp_path / "b.db"))
    migrated = _words(tmp_path / "a.db")
    assert migrated == _words(tmp_path / "b.db")
    assert "WHERE" in migrated["ux_transmission_contact"]


def test_again_is_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    upgrade(path)
    before = _words(path)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO owner_tally VALUES (1, 'x', 2)")
    connection.commit()
    upgrade(path)
    assert _words(path) == before
    assert connection.execute("SELECT * FROM owner_tally").fetchall() == [(1, "x", 2)]
    connection.close()


def test_programs_of_the_first_release_know_their_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    upgrade(path, "0001")
    connection = sqlite3.connect(path)
    for number, data in enumerate(('{"recording_id":7}', "{}"), 1):
        connection.execute(
            "INSERT INTO program (uid, created_at, updated_at, name, type, data)"
            " VALUES (?, 0, 0, 'p', 'voicemessage', ?)",
            (bytes([number]) * 16, data),
        )
    connection.commit()
    upgrade(path)
    assert connection.execute("SELECT message_id FROM program ORDER BY id").fetchall() == [
        (7,),
        (None,),
    ]
    connection.close()


def test_a_database_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    upgrade(path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(UnavailableError, match="9999"):
        upgrade(path)


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE usr (id INTEGER)")
    connection.commit()
    connection.close()
    with pytest.raises(UnavailableError):
        upgrade(path)
    with _engine(path).connect() as check:
        assert inspect(check).get_table_names() == ["usr"]


def test_addresses_of_the_release_before_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    upgrade(path, "0003")
    connection = sqlite3.connect(path)
    for number, email in enumerate(("", "Ada@Example.ORG", ""), 1):
        connection.execute(
            "INSERT INTO contact (uid, created_at, updated_at, first_name, last_name, phone, email,"
            " address, custom1, custom2, custom3, description)"
            " VALUES (?, 0, 0, '', '', '', ?, '', '', '', '', '')",
            (bytes([number]) * 16, email),
        )
    connection.commit()
    upgrade(path)
    found = "SELECT id FROM contact WHERE lower(email) = 'ada@example.org' AND email <> ''"
    assert connection.execute(found).fetchall() == [(2,)]
    [*_, plan] = connection.execute(f"EXPLAIN QUERY PLAN {found}").fetchone()
    assert "ix_contact_email" in plan
    connection.close()
