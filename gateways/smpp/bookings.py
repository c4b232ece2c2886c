"""The journal's tables: rows in and out. Runs in the journal's thread, within its transaction.

Many rows go with one statement, and come back as one JSON value: SQLite's thread lets go of the
interpreter at every step, and next to a busy event loop each step would wait to get it back.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

from gateways.smpp.aggregate import KEY_BITS, Part, Progress, key_of
from gateways.smpp.ids import Learned
from gateways.smpp.pending import Intents, Row, Taken, taken_part, unknown_row
from gateways.smpp.records import Receipt

_MOST_ROWS = 256
_COLUMNS = ", ".join(Part.__struct_fields__)
_FIRST_COLUMNS = ", ".join(Part.__struct_fields__[:-1])
_PART = f"json_array({_COLUMNS})"
_PARTS = f"SELECT json_group_array({_PART}) FROM segment WHERE"  # noqa: S608 - our own columns
_IN = "IN (SELECT value FROM json_each(?))"

_UPDATE = (
    "UPDATE segment SET state = v.column2, progress = v.column3, due_at = v.column4,"
    " receipt = v.column5 FROM (VALUES {}) AS v WHERE segment.key = v.column1"
)

_parts = msgspec.json.Decoder(list[Part])
_encode = msgspec.json.Encoder().encode
_MAX_KEY = 2**63 - 1


def _json(value: Any) -> str:
    return _encode(value).decode()


def _chunks(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """In powers of two, so that few statements do for every length."""
    start, size = 0, _MOST_ROWS
    while size:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size
        size //= 2


def _values(width: int, count: int) -> str:
    return ", ".join([f"({', '.join('?' * width)})"] * count)


# --- intents -------------------------------------------------------------------------------------


def add_intent(connection: sqlite3.Connection, intents: Intents) -> int:
    """Keep a batch; returns its id."""
    blob = msgspec.msgpack.encode(intents)
    statement = "INSERT INTO intent (provider_id, segments) VALUES (?, ?)"
    return connection.execute(statement, (intents.provider_id, blob)).lastrowid or 0


def change_intent(connection: sqlite3.Connection, intent_id: int, intents: Intents) -> None:
    """Keep only these of a batch; none: the batch is forgotten."""
    if not intents.keys:
        drop_intents(connection, [intent_id])
        return
    blob = msgspec.msgpack.encode(intents)
    connection.execute("UPDATE intent SET segments = ? WHERE id = ?", (blob, intent_id))


def drop_intents(connection: sqlite3.Connection, intent_ids: Sequence[int]) -> None:
    """Every one of their segments has a row by now."""
    if intent_ids:
        connection.execute(f"DELETE FROM intent WHERE id {_IN}", (_json(intent_ids),))  # noqa: S608


def recover(connection: sqlite3.Connection, now: int) -> dict[int, list[Row]]:
    """After a start: intents that nobody will answer any more become unknown, by provider."""
    lost: dict[int, list[Row]] = {}
    for (blob,) in connection.execute("SELECT segments FROM intent").fetchall():
        intents = msgspec.msgpack.decode(blob, type=Intents)
        known = {part.key for part in by_keys(connection, intents.keys)}
        known |= {part.key for part in taken_parts(connection, intents.keys)}
        rows = [row for row in _lost(intents, now) if row[0] not in known]
        insert(connection, rows)
        lost.setdefault(intents.provider_id, []).extend(rows)
    connection.execute("DELETE FROM intent")
    return lost


def _lost(intents: Intents, now: int) -> Iterator[Row]:
    columns = (intents.totals, intents.destinations, intents.references, intents.lifetimes_ms)
    for key, total, destination, reference, lifetime in zip(intents.keys, *columns, strict=True):
        yield unknown_row(
            key,
            provider_id=intents.provider_id,
            flags=intents.flags,
            total=total,
            destination=destination,
            reference=reference,
            closes_at=now + lifetime,
            due_at=now + intents.wait_ms,
        )


# --- what needs no row of its own ---------------------------------------------------------------

TAKEN_S = 3600.0
"""How long it is kept: the engine writes its own result a moment later."""


def add_taken(connection: sqlite3.Connection, taken: Taken) -> None:
    """Keep that these were accepted."""
    due_at = taken.answered_at[-1] + int(TAKEN_S * 1000)
    connection.execute(
        "INSERT INTO taken (low, high, due_at, segments) VALUES (?, ?, ?, ?)",
        (min(taken.keys), max(taken.keys), due_at, msgspec.msgpack.encode(taken)),
    )


def keep_taken(connection: sqlite3.Connection, until: int) -> None:
    """After a start, however long the node was down: the engine has not asked for them yet."""
    connection.execute("UPDATE taken SET due_at = ? WHERE due_at < ?", (until, until))
    connection.execute(
        "UPDATE segment SET due_at = ? WHERE due_at < ? AND progress = ?",
        (until, until, int(Progress.CLOSED)),
    )


def forget_taken(connection: sqlite3.Connection, now: int) -> None:
    """Drop what nobody asks for any more."""
    connection.execute("DELETE FROM taken WHERE due_at <= ?", (now,))


def taken_parts(connection: sqlite3.Connection, keys: Iterable[int]) -> list[Part]:
    """Those of these keys that were accepted so."""
    wanted, found = sorted(keys), dict[int, Part]()
    spans = connection.execute("SELECT id, low, high FROM taken ORDER BY id").fetchall()
    for number, low, high in spans:
        start = bisect_left(wanted, low)
        if start < len(wanted) and wanted[start] <= high:
            chosen = set(wanted[start : bisect_right(wanted, high)])
            found.update((part.key, part) for part in _taken(connection, number, chosen))
    return list(found.values())


def _taken(connection: sqlite3.Connection, number: int, chosen: set[int]) -> Iterator[Part]:
    (blob,) = connection.execute("SELECT segments FROM taken WHERE id = ?", (number,)).fetchone()
    taken = msgspec.msgpack.decode(blob, type=Taken)
    for key, message_id, at in zip(taken.keys, taken.message_ids, taken.answered_at, strict=True):
        if key in chosen:
            yield taken_part(taken.provider_id, key, message_id, at)


# --- segments ------------------------------------------------------------------------------------


def insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Add segments; one that is there already (of another life of the store) gives way."""
    for chunk in _chunks(rows):
        values = _values(len(chunk[0]), len(chunk))
        statement = f"REPLACE INTO segment ({_FIRST_COLUMNS}) VALUES {values}"  # noqa: S608
        connection.execute(statement, list(chain.from_iterable(chunk)))


def rewrite(connection: sqlite3.Connection, parts: Sequence[Part]) -> None:
    """Replace whole rows; for the few that get another id or address."""
    for part in parts:
        marks = ", ".join("?" * len(Part.__struct_fields__))
        values = msgspec.structs.astuple(part)
        connection.execute(f"REPLACE INTO segment ({_COLUMNS}) VALUES ({marks})", values)  # noqa: S608


def update(connection: sqlite3.Connection, parts: Sequence[Part]) -> None:
    """Write state, progress, due time and receipt of these."""
    rows = [(part.key, part.state, part.progress, part.due_at, part.receipt) for part in parts]
    for chunk in _chunks(rows):
        statement = _UPDATE.format(_values(5, len(chunk)))
        connection.execute(statement, list(chain.from_iterable(chunk)))


def by_keys(connection: sqlite3.Connection, keys: Iterable[int]) -> list[Part]:
    """These parts, as far as they have a row."""
    return _read(connection, f"key {_IN}", _json(list(keys)))


def by_ids(connection: sqlite3.Connection, provider_id: int, id_keys: Iterable[str]) -> list[Part]:
    """The parts of a provider that were accepted under these ids."""
    if not (wanted := [key for key in id_keys if key]):
        return []
    where = f"provider_id = ? AND id_key <> '' AND id_key {_IN}"
    return _read(connection, where, provider_id, _json(wanted))


def by_references(
    connection: sqlite3.Connection, provider_id: int, references: Iterable[int]
) -> list[Part]:
    """The nameless parts of a provider (``aggregate.nameless``), by user_message_reference."""
    # As the index has it.
    where = f"provider_id = ? AND state IN (1, 3) AND id_key = '' AND reference {_IN}"
    return _read(connection, where, provider_id, _json(sorted(references)))


def messages(connection: sqlite3.Connection, spool_ids: Iterable[int]) -> dict[int, list[Part]]:
    """All parts of each message, in order; nothing of those that have none."""
    ranges = [
        (key_of(spool_id, 0), key_of(spool_id, 255))
        for spool_id in spool_ids
        if 0 <= spool_id <= _MAX_KEY >> KEY_BITS
    ]
    parts = connection.execute(
        f"SELECT json_group_array({_PART}) FROM (SELECT value AS span FROM json_each(?))"  # noqa: S608
        " CROSS JOIN segment ON key BETWEEN span ->> 0 AND span ->> 1",
        (_json(ranges),),
    )
    found: dict[int, list[Part]] = {}
    for part in sorted(_parts.decode(parts.fetchone()[0]), key=lambda part: part.key):
        found.setdefault(part.spool_id, []).append(part)
    return found


def advance(
    connection: sqlite3.Connection, keys: Iterable[int], progress: Progress, due_at: int
) -> None:
    """Move whole messages on, given all of their keys."""
    statement = f"UPDATE segment SET progress = ?, due_at = ? WHERE key {_IN}"  # noqa: S608
    connection.execute(statement, (int(progress), due_at, _json(list(keys))))


def postpone(connection: sqlite3.Connection, keys: Iterable[int], due_at: int) -> None:
    """Look at these again at another time."""
    statement = f"UPDATE segment SET due_at = ? WHERE key {_IN}"  # noqa: S608
    connection.execute(statement, (due_at, _json(list(keys))))


def due_spools(connection: sqlite3.Connection, now: int, limit: int) -> list[int]:
    """Spools of which a part is due and that are not closed."""
    rows = connection.execute(
        "SELECT DISTINCT key >> ? FROM (SELECT key FROM segment WHERE due_at <= ? AND progress < ?"
        " ORDER BY due_at LIMIT ?)",
        (KEY_BITS, now, int(Progress.CLOSED), limit),
    )
    return [spool_id for (spool_id,) in rows.fetchall()]


def purge(connection: sqlite3.Connection, now: int, limit: int) -> int:
    """Forget closed messages whose time is over; returns how many parts that were."""
    return connection.execute(
        "DELETE FROM segment WHERE key IN"
        " (SELECT key FROM segment WHERE due_at <= ? AND progress = ? LIMIT ?)",
        (now, int(Progress.CLOSED), limit),
    ).rowcount


def next_due(connection: sqlite3.Connection) -> int | None:
    """When the next part is due."""
    due: int | None = connection.execute("SELECT min(due_at) FROM segment").fetchone()[0]
    return due


def _read(connection: sqlite3.Connection, where: str, *values: Any) -> list[Part]:
    row = connection.execute(f"{_PARTS} {where}", values).fetchone()
    return _parts.decode(row[0])


# --- receipts that match nothing yet -------------------------------------------------------------

_receipts = msgspec.json.Decoder(Receipt)


def add_orphans(
    connection: sqlite3.Connection,
    provider_id: int,
    orphans: Sequence[tuple[str, int, Receipt]],
    most: int,
) -> None:
    """Keep receipts (with ``ids.key`` of their id, and the time), the newest ``most`` of all."""
    connection.executemany(
        "INSERT INTO orphan (provider_id, id_key, reference, received_at, receipt)"
        " VALUES (?, ?, ?, ?, ?)",
        [(provider_id, key, it.reference, at, _json(it)) for key, at, it in orphans],
    )
    connection.execute("DELETE FROM orphan WHERE id <= (SELECT max(id) FROM orphan) - ?", (most,))


def has_orphans(connection: sqlite3.Connection, provider_id: int) -> bool:
    """Whether it is worth to look."""
    statement = "SELECT 1 FROM orphan WHERE provider_id = ? LIMIT 1"
    return connection.execute(statement, (provider_id,)).fetchone() is not None


def claim_orphans(
    connection: sqlite3.Connection,
    provider_id: int,
    *,
    id_keys: Iterable[str] = (),
    references: Iterable[int] = (),
) -> list[Receipt]:
    """Take out those with one of these ids or references, in the order they came."""
    rows = connection.execute(
        # An OR of the two would read every orphan of the provider.
        "DELETE FROM orphan WHERE id IN"  # noqa: S608
        f" (SELECT id FROM orphan WHERE provider_id = ? AND id_key {_IN} UNION"
        f" SELECT id FROM orphan WHERE provider_id = ? AND reference {_IN}) RETURNING receipt",
        (provider_id, _json(list(id_keys)), provider_id, _json(list(references))),
    )
    return [_receipts.decode(text) for (text,) in rows.fetchall()]


def claim_all_orphans(connection: sqlite3.Connection, provider_id: int) -> list[Receipt]:
    """Take out all of a provider's."""
    statement = "DELETE FROM orphan WHERE provider_id = ? RETURNING receipt"
    rows = connection.execute(statement, (provider_id,)).fetchall()
    return [_receipts.decode(text) for (text,) in rows]


def forget_orphans(connection: sqlite3.Connection, before: int) -> int:
    """Drop those received before then; returns how many are left."""
    connection.execute("DELETE FROM orphan WHERE received_at < ?", (before,))
    left: int = connection.execute("SELECT count(*) FROM orphan").fetchone()[0]
    return left


# --- how ids compare -----------------------------------------------------------------------------


def learned(connection: sqlite3.Connection, provider_id: int) -> Learned:
    """What is known of a provider's ids."""
    statement = "SELECT learned FROM id_mode WHERE provider_id = ?"
    row = connection.execute(statement, (provider_id,)).fetchone()
    return msgspec.json.decode(row[0], type=Learned) if row else Learned()


def keep_learned(connection: sqlite3.Connection, provider_id: int, known: Learned) -> None:
    """Keep it."""
    connection.execute("REPLACE INTO id_mode VALUES (?, ?)", (provider_id, _json(known)))
