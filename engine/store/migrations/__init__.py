"""The schema's history; ``upgrade`` brings a database to the newest revision."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from engine.errors import UnavailableError

# Alembic's environment is a global of its module.
_ONE_AT_A_TIME = threading.Lock()


def upgrade(path: Path, revision: str = "head") -> None:
    """Migrate the SQLite file at ``path`` (created where there is none) in one transaction.

    Blocking. Raises ``UnavailableError`` where the file cannot be written, is no database, or was
    made by a newer release.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=NullPool,
        # The driver's own transactions leave CREATE TABLE outside; ours hold everything.
        connect_args={"isolation_level": None},
    )
    event.listen(engine, "begin", _begin)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    try:
        with _ONE_AT_A_TIME, engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    except (SQLAlchemyError, sqlite3.Error, CommandError) as error:
        raise UnavailableError(f"store: cannot migrate {path}: {error}") from error
    finally:
        engine.dispose()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
