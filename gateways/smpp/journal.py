"""What the gateway must not forget: intents, answers, receipts; the schema of its journal."""

from __future__ import annotations

from pathlib import Path

from engine.store import journal
from gateways.smpp import parts

SCHEMA: tuple[str, ...] = (
    # 1: segments. ``key`` is spool_id * 256 + number, so that a message's parts lie together.
    """
    CREATE TABLE intent (
        id INTEGER PRIMARY KEY,
        provider_id INTEGER NOT NULL,
        segments BLOB NOT NULL
    );
    CREATE TABLE segment (
        key INTEGER PRIMARY KEY,
        provider_id INTEGER NOT NULL,
        state INTEGER NOT NULL,
        progress INTEGER NOT NULL,
        flags INTEGER NOT NULL,
        total INTEGER NOT NULL,
        destination TEXT NOT NULL,
        reference INTEGER NOT NULL,
        source TEXT NOT NULL,
        id_key TEXT NOT NULL,
        message_id TEXT NOT NULL,
        status INTEGER NOT NULL,
        answered_at INTEGER NOT NULL,
        closes_at INTEGER NOT NULL,
        due_at INTEGER NOT NULL,
        receipt TEXT
    );
    CREATE INDEX segment_of_id ON segment (provider_id, id_key) WHERE id_key <> '';
    CREATE INDEX segment_unknown ON segment (provider_id, reference) WHERE state = 3;
    CREATE INDEX segment_due ON segment (due_at);
    CREATE TABLE orphan (
        id INTEGER PRIMARY KEY,
        provider_id INTEGER NOT NULL,
        id_key TEXT NOT NULL,
        reference INTEGER,
        received_at INTEGER NOT NULL,
        receipt TEXT NOT NULL
    );
    CREATE INDEX orphan_of_id ON orphan (provider_id, id_key);
    CREATE INDEX orphan_of_reference ON orphan (provider_id, reference)
        WHERE reference IS NOT NULL;
    CREATE TABLE id_mode (
        provider_id INTEGER PRIMARY KEY,
        learned TEXT NOT NULL
    );
    """,
    # 2: parts of messages that come in.
    parts.SCHEMA,
    # 3: messages of one part, accepted, no receipt asked for: nothing looks them up but a restart.
    """
    CREATE TABLE taken (
        id INTEGER PRIMARY KEY,
        low INTEGER NOT NULL,
        high INTEGER NOT NULL,
        due_at INTEGER NOT NULL,
        segments BLOB NOT NULL
    );
    CREATE INDEX taken_keys ON taken (low, high);
    CREATE INDEX taken_due ON taken (due_at);
    """,
    # 4: receipts that match nothing go by their age.
    "CREATE INDEX orphan_age ON orphan (received_at);",
    # 5: an answer may be there and tell no id.
    """
    DROP INDEX segment_unknown;
    CREATE INDEX segment_nameless ON segment (provider_id, reference)
        WHERE state IN (1, 3) AND id_key = '';
    """,
)
"""One script per version of the file, in order: to extend, add another at the end."""


class Journal(journal.Journal):
    """The file at ``path``."""

    def __init__(self, path: Path, *, inline: bool = False) -> None:
        super().__init__(path, SCHEMA, inline=inline)
