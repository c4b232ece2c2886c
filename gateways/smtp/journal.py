"""What the gateway must not forget: mails that may have left, and how far a mailbox was read."""

from __future__ import annotations

from pathlib import Path

from engine.store import journal

SCHEMA: tuple[str, ...] = (
    # 1. ``due_at`` 0 = never; times are milliseconds since 1970.
    """
    CREATE TABLE mail (
        spool_id INTEGER PRIMARY KEY,
        transmission_id INTEGER NOT NULL,
        provider_id INTEGER NOT NULL,
        state INTEGER NOT NULL,
        flags INTEGER NOT NULL,
        recipient TEXT NOT NULL,
        accepted_at INTEGER NOT NULL,
        due_at INTEGER NOT NULL,
        result BLOB
    );
    CREATE INDEX mail_of_transmission ON mail (transmission_id);
    CREATE INDEX mail_due ON mail (due_at) WHERE due_at > 0;
    CREATE INDEX mail_intended ON mail (spool_id) WHERE state = 1;
    CREATE TABLE imap (
        provider_id INTEGER PRIMARY KEY,
        uidvalidity INTEGER NOT NULL,
        uid INTEGER NOT NULL
    );
    """,
    # 2. A provider may have another mailbox now; "" = read before that was written down.
    """
    CREATE TABLE imap_each (
        provider_id INTEGER NOT NULL,
        mailbox TEXT NOT NULL,
        uidvalidity INTEGER NOT NULL,
        uid INTEGER NOT NULL,
        PRIMARY KEY (provider_id, mailbox)
    ) WITHOUT ROWID;
    INSERT INTO imap_each SELECT provider_id, '', uidvalidity, uid FROM imap;
    DROP TABLE imap;
    ALTER TABLE imap_each RENAME TO imap;
    """,
    # 3. Mails that were taken and are not yet marked, moved or deleted at their server.
    """
    CREATE TABLE imap_taken (
        provider_id INTEGER NOT NULL,
        mailbox TEXT NOT NULL,
        uidvalidity INTEGER NOT NULL,
        uid INTEGER NOT NULL,
        PRIMARY KEY (provider_id, mailbox, uidvalidity, uid)
    ) WITHOUT ROWID;
    """,
)
"""One script per version of the file, in order: to extend, add another at the end."""


class Journal(journal.Journal):
    """The file at ``path``."""

    def __init__(self, path: Path, *, inline: bool = False) -> None:
        super().__init__(path, SCHEMA, inline=inline)
