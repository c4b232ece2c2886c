"""How far each mailbox is read: the statements of the journal that the IMAP side needs."""

from __future__ import annotations

from hashlib import blake2b
from sqlite3 import Connection

import msgspec

from gateways.smtp.settings import ImapSettings

_USUAL_PORTS = (None, 143, 993)


class Place(msgspec.Struct, frozen=True):
    """A mailbox of a provider, and the life of its UIDs (RFC 9051 §2.3.1.1)."""

    provider_id: int
    mailbox: str
    uidvalidity: int


def mailbox_of(settings: ImapSettings) -> str:
    """The same for the same mailbox: UIDVALIDITY tells no two of them apart.

    The usual ports are two doors to one server, and INBOX is so in any case (RFC 9051 §5.1).
    """
    port = None if settings.port in _USUAL_PORTS else settings.port
    folder = "INBOX" if settings.folder.upper() == "INBOX" else settings.folder
    parts = msgspec.json.encode((settings.host.lower(), port, settings.username, folder))
    return blake2b(parts, digest_size=16).hexdigest()


def opened(tx: Connection, place: Place) -> int:
    """The last UID that is done; 0 where it was never read, or all UIDs are new.

    What the release before read had no name: it is this mailbox, and no other one later.
    """
    tx.execute(
        "UPDATE imap SET mailbox = ? WHERE provider_id = ? AND mailbox = ''",
        (place.mailbox, place.provider_id),
    )
    row = tx.execute(
        "SELECT uid FROM imap WHERE provider_id = ? AND mailbox = ? AND uidvalidity = ?",
        msgspec.structs.astuple(place),
    ).fetchone()
    return int(row[0]) if row else 0


def book(tx: Connection, place: Place, uid: int) -> None:
    """It is read up to here."""
    tx.execute(
        "INSERT OR REPLACE INTO imap (provider_id, mailbox, uidvalidity, uid) VALUES (?, ?, ?, ?)",
        (*msgspec.structs.astuple(place), uid),
    )
