"""Parts of long messages on their way in, kept in the journal until they are whole.

A set is what one sender wrote to one of our numbers under one reference. Everything here runs
within a transaction of the journal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

SETS_PER_SOURCE = 20
"""Incomplete ones of one sender; then the oldest is given up as it is."""

SETS = 10_000
"""Incomplete ones of one provider."""

_PURGED = 200

SCHEMA = """
    CREATE TABLE inbound_set (
        id INTEGER PRIMARY KEY,
        provider_id INTEGER NOT NULL,
        source TEXT NOT NULL,
        destination TEXT NOT NULL,
        reference INTEGER NOT NULL,
        total INTEGER NOT NULL,
        came_at INTEGER NOT NULL,
        done_at INTEGER
    );
    CREATE INDEX inbound_set_of ON inbound_set (provider_id, source, destination, reference, total);
    CREATE INDEX inbound_set_open ON inbound_set (provider_id, came_at) WHERE done_at IS NULL;
    CREATE INDEX inbound_set_done ON inbound_set (provider_id, done_at) WHERE done_at IS NOT NULL;
    CREATE TABLE inbound_part (
        set_id INTEGER NOT NULL,
        number INTEGER NOT NULL,
        key TEXT NOT NULL,
        coding INTEGER NOT NULL,
        octets BLOB NOT NULL,
        PRIMARY KEY (set_id, number)
    ) WITHOUT ROWID;
"""
"""``came_at`` and ``done_at`` are microseconds; ``came_at`` 0 = to be given up, -1 = being so."""

_GIVEN_UP, _CLOSING = 0, -1


class Label(msgspec.Struct, frozen=True):
    """What parts of one message have in common."""

    provider_id: int
    source: str
    destination: str
    reference: int
    total: int


class Part(msgspec.Struct, frozen=True):
    """One part; ``octets`` without their header, ``key`` tells it from every other one."""

    number: int
    key: str
    coding: int
    octets: bytes


class Set(msgspec.Struct, frozen=True):
    """What there is of a message, in order."""

    id: int
    label: Label
    parts: tuple[Part, ...]

    @property
    def missing(self) -> tuple[int, ...]:
        """Numbers of the parts that did not come."""
        there = {part.number for part in self.parts}
        return tuple(n for n in range(1, self.label.total + 1) if n not in there)


class Put(msgspec.Struct, frozen=True):
    """What became of a part: ``whole`` once nothing is missing; ``repeated`` of a message done."""

    whole: Set | None = None
    repeated: bool = False


def put(
    connection: sqlite3.Connection, label: Label, part: Part, now: int, repeats_since: int
) -> Put:
    """Keep a part. One of a message that was done since ``repeats_since`` is a repeat.

    Another part under the same number means that the sender's references started again: a new
    message.
    """
    known = connection.execute(
        "SELECT id, came_at, done_at FROM inbound_set WHERE provider_id = ? AND source = ?"
        " AND destination = ? AND reference = ? AND total = ? ORDER BY id DESC LIMIT 1",
        msgspec.structs.astuple(label),
    ).fetchone()
    if known is None:
        return _first(connection, label, part, now)
    set_id, came_at, done_at = known
    same = connection.execute(
        "SELECT key FROM inbound_part WHERE set_id = ? AND number = ?", (set_id, part.number)
    ).fetchone()
    again = same is not None and same[0] == part.key
    if done_at is not None:
        if again and done_at >= repeats_since:
            return Put(repeated=True)
        return _first(connection, label, part, now)
    if again:
        # Its message may be whole and not done: we may have died in between.
        return Put() if came_at == _CLOSING else _joined(connection, set_id, label)
    if same is not None or came_at == _CLOSING:
        return _first(connection, label, part, now)
    _insert(connection, set_id, part)
    return _joined(connection, set_id, label)


def done(connection: sqlite3.Connection, set_id: int, at: int) -> None:
    """A set was handed in; its parts are known for a while by their keys."""
    connection.execute("UPDATE inbound_set SET done_at = ? WHERE id = ?", (at, set_id))
    connection.execute("UPDATE inbound_part SET octets = x'' WHERE set_id = ?", (set_id,))


def overdue(
    connection: sqlite3.Connection, provider_id: int, came_by: int, limit: int
) -> list[Set]:
    """Sets that wait no longer, oldest first; no part joins them any more."""
    rows = connection.execute(
        "SELECT id, provider_id, source, destination, reference, total FROM inbound_set"
        " WHERE provider_id = ? AND done_at IS NULL AND came_at <= ? ORDER BY came_at, id LIMIT ?",
        (provider_id, came_by, limit),
    ).fetchall()
    connection.executemany(
        "UPDATE inbound_set SET came_at = ? WHERE id = ?", [(_CLOSING, row[0]) for row in rows]
    )
    return [Set(row[0], Label(*row[1:]), _parts(connection, row[0])) for row in rows]


def provider_ids(connection: sqlite3.Connection) -> list[int]:
    """Providers that something came in by."""
    rows = connection.execute("SELECT DISTINCT provider_id FROM inbound_set").fetchall()
    return [id_ for (id_,) in rows]


def purge(connection: sqlite3.Connection, provider_id: int, done_by: int) -> None:
    """Forget some of the sets that were done long ago."""
    old = connection.execute(
        "SELECT id FROM inbound_set WHERE provider_id = ? AND done_at <= ? LIMIT ?",
        (provider_id, done_by, _PURGED),
    ).fetchall()
    connection.executemany("DELETE FROM inbound_part WHERE set_id = ?", old)
    connection.executemany("DELETE FROM inbound_set WHERE id = ?", old)


def _first(connection: sqlite3.Connection, label: Label, part: Part, now: int) -> Put:
    """Begin a set, and give up the oldest where there are too many."""
    cursor = connection.execute(
        "INSERT INTO inbound_set (provider_id, source, destination, reference, total, came_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (*msgspec.structs.astuple(label), now),
    )
    _insert(connection, int(cursor.lastrowid or 0), part)
    _give_up(connection, "provider_id = ? AND source = ?", label, SETS_PER_SOURCE)
    _give_up(connection, "provider_id = ? AND ? <> ''", label, SETS)
    return Put()


def _give_up(connection: sqlite3.Connection, whose: str, label: Label, bound: int) -> None:
    """The oldest of those beyond the bound: each new one makes place for itself."""
    connection.execute(
        f"UPDATE inbound_set SET came_at = {_GIVEN_UP} WHERE id IN (SELECT id FROM inbound_set"  # noqa: S608 - our own words
        f" WHERE {whose} AND done_at IS NULL AND came_at > 0 ORDER BY id DESC LIMIT 1 OFFSET ?)",
        (label.provider_id, label.source, bound),
    )


def _insert(connection: sqlite3.Connection, set_id: int, part: Part) -> None:
    connection.execute(
        "INSERT INTO inbound_part VALUES (?, ?, ?, ?, ?)",
        (set_id, part.number, part.key, part.coding, part.octets),
    )


def _joined(connection: sqlite3.Connection, set_id: int, label: Label) -> Put:
    [count] = connection.execute(
        "SELECT count(*) FROM inbound_part WHERE set_id = ?", (set_id,)
    ).fetchone()
    if count < label.total:
        return Put()
    return Put(whole=Set(set_id, label, _parts(connection, set_id)))


def _parts(connection: sqlite3.Connection, set_id: int) -> tuple[Part, ...]:
    rows: Sequence[tuple[int, str, int, bytes]] = connection.execute(
        "SELECT number, key, coding, octets FROM inbound_part WHERE set_id = ? ORDER BY number",
        (set_id,),
    ).fetchall()
    return tuple(Part(*row) for row in rows)
