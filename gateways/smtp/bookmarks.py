"""How far each mailbox is read, and what its server is still to be told: the journal's part."""

from __future__ import annotations

from hashlib import blake2b
from sqlite3 import Connection

import msgspec
from msgspec.structs import astuple

from gateways.smtp.settings import ImapSettings

_USUAL_PORTS = (None, 143, 993)
_SLICE = 1_000  # mails that one look disposes of though another one took them
_COLUMNS = "provider_id, mailbox, uidvalidity, uid"
_HERE = "provider_id = ? AND mailbox = ? AND uidvalidity = ?"


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


def opened(tx: Connection, place: Place) -> tuple[int, list[int]]:
    """The last UID that is read, 0 where all are new; and some of what is not yet disposed of.

    What the release before read had no name: it is this mailbox, and no other one later.
    """
    tx.execute(
        "UPDATE imap SET mailbox = ? WHERE provider_id = ? AND mailbox = ''",
        (place.mailbox, place.provider_id),
    )
    row = tx.execute(f"SELECT uid FROM imap WHERE {_HERE}", astuple(place)).fetchone()  # noqa: S608
    return (int(row[0]) if row else 0), _undisposed(tx, place)


def _undisposed(tx: Connection, place: Place) -> list[int]:
    """In any order: one that its server never lets go shall not hold up the others for ever."""
    tx.execute(
        "DELETE FROM imap_taken WHERE provider_id = ? AND mailbox = ? AND uidvalidity <> ?",
        astuple(place),
    )
    found = tx.execute(
        f"SELECT uid FROM imap_taken WHERE {_HERE} ORDER BY random() LIMIT ?",  # noqa: S608
        (*astuple(place), _SLICE),
    )
    return [row[0] for row in found]


def book(tx: Connection, place: Place, uid: int, *, taken: bool) -> None:
    """It is read up to here; what was ``taken`` is to be disposed of."""
    row = (*astuple(place), uid)
    tx.execute(f"INSERT OR REPLACE INTO imap ({_COLUMNS}) VALUES (?, ?, ?, ?)", row)  # noqa: S608
    if taken:
        tx.execute(f"INSERT OR REPLACE INTO imap_taken ({_COLUMNS}) VALUES (?, ?, ?, ?)", row)  # noqa: S608


def disposed(tx: Connection, place: Place, uid: int) -> None:
    """Nothing is left to be done with it."""
    tx.execute(f"DELETE FROM imap_taken WHERE {_HERE} AND uid = ?", (*astuple(place), uid))  # noqa: S608
