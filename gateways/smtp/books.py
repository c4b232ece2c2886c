"""The statements of the journal: every function works within the transaction it is given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from enum import IntEnum, IntFlag
from sqlite3 import Connection

import msgspec

from engine.results import Awaiting, Fate, Result


class State(IntEnum):
    """Where a mail is, as the journal has it."""

    INTENDED = 1  # it may have left; an index of the schema names this number
    DECIDED = 2  # ``result`` says what became of it; whoever delivers it is told
    ACCEPTED = 3  # the network has it; silence until ``due_at`` is success
    REPORTING = 4  # ``result`` is certain, the engine has not taken it yet
    CLOSED = 5


class Flag(IntFlag):
    """What its provider's settings said when it left, and what became of it."""

    AT_LEAST_ONCE = 1
    SUPPRESS = 2  # a bounce closes its address
    LEFT = 4  # taken, or nobody knows: a bounce may come
    UNSURE = 8  # nobody knows whether it was taken
    BOUNCED = 16
    DOUBTED = 32  # a bounce came that anybody could have made up


class Mail(msgspec.Struct, frozen=True, array_like=True):
    """A row of table ``mail``; times are milliseconds since 1970."""

    spool_id: int
    transmission_id: int
    provider_id: int
    state: int
    flags: int
    recipient: str
    accepted_at: int
    due_at: int
    result: bytes | None


_COLUMNS = ", ".join(Mail.__struct_fields__)
_SLICE = 500
_result = msgspec.json.Decoder(Result)
_awaiting = msgspec.json.Decoder(Awaiting)


def fate_of(mail: Mail) -> Fate | None:
    """What its row says became of it; None: it is only intended."""
    if mail.result is None:
        return None
    decoder = _awaiting if mail.state == State.ACCEPTED else _result
    return decoder.decode(mail.result)


def add(tx: Connection, mails: Sequence[Mail]) -> None:
    """Intents. A spool that is there already is of a store that was replaced since."""
    rows = [msgspec.structs.astuple(mail) for mail in mails]
    tx.executemany("INSERT OR REPLACE INTO mail VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def doubtful(tx: Connection, transmission_ids: Iterable[int]) -> set[int]:
    """Those of them of which a mail may be there already though nobody saw it taken."""
    found = tx.execute(
        "SELECT DISTINCT transmission_id FROM mail, json_each(?) AS asked"
        " WHERE transmission_id = asked.value AND flags & ?",
        (json.dumps(list(transmission_ids)), Flag.UNSURE),
    )
    return {row[0] for row in found}


def remove(tx: Connection, spool_ids: Sequence[int]) -> None:
    """Intents that certainly never left."""
    tx.executemany(
        "DELETE FROM mail WHERE spool_id = ? AND state = ?",
        [(spool_id, State.INTENDED) for spool_id in spool_ids],
    )


def settle(tx: Connection, rows: Sequence[tuple[int, int, int, int, bytes, int]]) -> None:
    """(state, flags to add, accepted_at, due_at, result, spool_id) of intents that were answered.

    Only of intents: what was answered once is not answered otherwise.
    """
    tx.executemany(
        "UPDATE mail SET state = ?, flags = flags | ?, accepted_at = ?, due_at = ?, result = ?"
        " WHERE spool_id = ? AND state = 1",
        rows,
    )


def keep_decided(tx: Connection, until: int) -> None:
    """What was decided stays that long at least, however long ago that was."""
    tx.execute(
        "UPDATE mail SET due_at = ? WHERE due_at > 0 AND due_at < ? AND state = ?",
        (until, until, State.DECIDED),
    )


def find(tx: Connection, spool_ids: Sequence[int]) -> list[Mail]:
    """The mails of these spools, as far as they are known."""
    found = tx.execute(
        f"SELECT {_COLUMNS} FROM mail, json_each(?) AS asked WHERE spool_id = asked.value",  # noqa: S608
        (json.dumps(list(spool_ids)),),
    )
    return [Mail(*row) for row in found]


def intended(tx: Connection) -> list[Mail]:
    """Those that nobody saw an answer of."""
    found = tx.execute(f"SELECT {_COLUMNS} FROM mail WHERE state = 1")  # noqa: S608
    return [Mail(*row) for row in found]


def latest(tx: Connection, transmission_id: int) -> int | None:
    """The last spool of a transmission that left."""
    row = tx.execute(
        "SELECT max(spool_id) FROM mail WHERE transmission_id = ? AND flags & ?",
        (transmission_id, Flag.LEFT),
    ).fetchone()
    return None if row is None else row[0]


def bounced(tx: Connection, mail: Mail, flag: Flag, result: bytes, due_at: int) -> None:
    """A bounce came, which its result says now; it has to be reported."""
    tx.execute(
        "UPDATE mail SET state = ?, flags = flags | ?, due_at = ?, result = ? WHERE spool_id = ?",
        (State.REPORTING, flag, due_at, result, mail.spool_id),
    )


def hush(tx: Connection, now: int, accepted: bytes, again: int) -> list[Mail]:
    """Those whose time for bounces is over, and those the engine has not taken: to be reported."""
    tx.execute(
        "UPDATE mail SET state = ?, result = ? WHERE spool_id IN"
        " (SELECT spool_id FROM mail WHERE due_at > 0 AND due_at <= ? AND state = ? LIMIT ?)",
        (State.REPORTING, accepted, now, State.ACCEPTED, _SLICE),
    )
    found = tx.execute(
        f"SELECT {_COLUMNS} FROM mail WHERE due_at > 0 AND due_at <= ? AND state = ? LIMIT ?",  # noqa: S608
        (now, State.REPORTING, _SLICE),
    )
    mails = [Mail(*row) for row in found]
    tx.executemany(
        "UPDATE mail SET due_at = ? WHERE spool_id = ?",
        [(again, mail.spool_id) for mail in mails],
    )
    return mails


def close(tx: Connection, reported: Sequence[tuple[int, bytes | None]], purge_at: int) -> None:
    """The engine has these results; one that changed meanwhile it does not have."""
    tx.executemany(
        "UPDATE mail SET state = ?, due_at = ? WHERE spool_id = ? AND state = ? AND result IS ?",
        [
            (State.CLOSED, purge_at, spool_id, State.REPORTING, result)
            for spool_id, result in reported
        ],
    )


def purge(tx: Connection, now: int) -> int:
    """Forget, a slice at a time, what nobody can ask for any more; returns how many."""
    return tx.execute(
        "DELETE FROM mail WHERE spool_id IN (SELECT spool_id FROM mail"
        " WHERE due_at > 0 AND due_at <= ? AND state IN (?, ?) LIMIT ?)",
        (now, State.DECIDED, State.CLOSED, _SLICE),
    ).rowcount


def next_due(tx: Connection) -> int | None:
    """When something is to be done again; None: never."""
    row = tx.execute("SELECT min(due_at) FROM mail WHERE due_at > 0").fetchone()
    return None if row is None else row[0]
