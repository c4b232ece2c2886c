"""SQLAlchemy Core statements, compiled once and run on the raw driver.

Python's ``sqlite3`` gives up the interpreter lock at every step of a statement and, beside a busy
event loop, may wait milliseconds to get it back. So the hot path asks for one step per many rows:
``Bulk`` feeds a chunk of rows to one statement, and ``Bulk.json`` gets an answer as one value.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import ClauseElement, ColumnElement, FromClause, column, func, select, table
from sqlalchemy.dialects import sqlite

DIALECT = sqlite.dialect(paramstyle="qmark")

Row = Sequence[Any]


class Statement:
    """A compiled statement and the order of its parameters."""

    def __init__(self, statement: ClauseElement) -> None:
        compiled = statement.compile(dialect=DIALECT)
        self.sql = str(compiled)
        self.names: list[str] = getattr(compiled, "positiontup", None) or []
        self._constants: Mapping[str, Any] = compiled.params

    def run(self, connection: sqlite3.Connection, **values: Any) -> sqlite3.Cursor:
        """Execute with the named values (constants of the statement are known)."""
        return self.run_with(connection, values)

    def run_with(self, connection: sqlite3.Connection, values: Mapping[str, Any]) -> sqlite3.Cursor:
        """Execute with a map of values."""
        return connection.execute(self.sql, self.values(values))

    def values(self, values: Mapping[str, Any]) -> list[Any]:
        """What to bind, in order."""
        constants = self._constants
        return [values[n] if n in values else constants[n] for n in self.names]


class Bulk:
    """A statement over the rows of ``source``, a table of parameters.

    ``WITH v (a, b) AS (VALUES (?, ?), …)`` stands before the statement. Chunks are padded with rows
    of NULL to a power of two, so that the driver's cache holds all texts; the statement must pass
    over rows whose first column is NULL. Parameters of the statement itself are the same for all
    rows of a ``run``, and bound after those of the rows.
    """

    LARGEST = 512

    def __init__(self, source: FromClause, statement: ClauseElement) -> None:
        names = [item.name for item in source.columns]
        self._body = body = Statement(statement)
        self._width = len(names)
        self._head = f"WITH v ({', '.join(names)}) AS (VALUES "
        self._row = f"({', '.join('?' * len(names))})"
        self._tail = f") {body.sql}"
        self._sql: dict[int, str] = {}

    def run(self, connection: sqlite3.Connection, rows: Sequence[Row], **same: Any) -> None:
        """Execute for all rows, with the named values the same for all."""
        last = self._body.values(same)
        for sql, values in self._chunks(rows):
            connection.execute(sql, values + last)

    def json(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> list[list[Any]]:
        """Execute for all rows a select of one JSON array of arrays; the inner arrays."""
        found: list[list[Any]] = []
        for sql, values in self._chunks(rows):
            [text] = connection.execute(sql, values).fetchone()
            found += orjson.loads(text)
        return found

    def _chunks(self, rows: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
        for start in range(0, len(rows), self.LARGEST):
            chunk = rows[start : start + self.LARGEST]
            size = 1 << (len(chunk) - 1).bit_length()
            values = list(itertools.chain.from_iterable(chunk))
            values += [None] * ((size - len(chunk)) * self._width)
            yield self.text(size), values

    def text(self, size: int) -> str:
        """The SQL for a chunk of ``size`` rows."""
        if size not in self._sql:
            self._sql[size] = f"{self._head}{', '.join([self._row] * size)}{self._tail}"
        return self._sql[size]


def source(*names: str) -> FromClause:
    """The table of parameters of a ``Bulk``."""
    return table("v", *(column(name) for name in names))


def given(rows: FromClause) -> ColumnElement[bool]:
    """True for the rows of a ``Bulk`` that are no padding."""
    first: ColumnElement[Any] = next(iter(rows.columns))
    return first.is_not(None)


def as_json(statement: Any) -> Any:
    """The rows of a select as one JSON array of arrays (see ``Bulk.json``)."""
    inner = statement.subquery()
    return select(func.json_group_array(func.json_array(*inner.columns)))
