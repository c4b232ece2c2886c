"""One open transaction of the writer, and whose fault an error of the driver is."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from engine.clock import Clock
from engine.errors import ConflictError, InvalidError, OutspoolError, UnavailableError
from engine.store.tally import Tally

# Result codes (low byte) about the disk or the file, not about the statement.
_STORAGE = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_INTERRUPT,
    }
)
_LOW_BYTE = 0xFF


def storage_failure(error: BaseException) -> UnavailableError | None:
    """The error as the store being down; None where it is anything else."""
    if isinstance(error, MemoryError):
        return UnavailableError("store: out of memory")
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code & _LOW_BYTE not in _STORAGE:
        return None
    return UnavailableError(f"store: {error} ({error.sqlite_errorname})")


def domain_error(error: Exception) -> Exception:
    """An error of one operation as its caller shall see it."""
    if isinstance(error, OutspoolError):
        return error
    if isinstance(error, sqlite3.IntegrityError):
        return ConflictError(_conflict(str(error)))
    if isinstance(error, OverflowError | UnicodeEncodeError):
        return InvalidError(f"not storable: {error}")
    return storage_failure(error) or error


def _conflict(message: str) -> str:
    """SQLite's words without its spelling: ``UNIQUE constraint failed: usr.username``."""
    kind, _, columns = message.partition(": ")
    if kind.startswith("UNIQUE"):
        return f"exists already: {columns}"
    return f"another row forbids it: {message}"


class Transaction:
    """What an operation of the writer works with. Its tallies are written before the commit."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self.connection = connection
        self.clock = clock
        self.tally = Tally()

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Everything inside, tallies too, or nothing of it."""
        self.tally.flush(self.connection)
        self.connection.execute("SAVEPOINT one")
        try:
            yield
            self.tally.flush(self.connection)
        except Exception as error:
            self.tally = Tally()
            # A full disk may have ended the whole transaction already, savepoints and all.
            if storage_failure(error) is None:
                self.connection.execute("ROLLBACK TO one")
                self.connection.execute("RELEASE one")
            raise
        self.connection.execute("RELEASE one")
