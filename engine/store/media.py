"""Which files of the media folder a row names, and whose folder it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from uuid import UUID

import orjson
from sqlalchemy import bindparam, func, literal_column, select

from engine.store import schema
from engine.store.base import Identity
from engine.store.codec import moment
from engine.store.statements import Statement

_recording, _document, _template = schema.recording.c, schema.document.c, schema.template.c


def unnamed(connection: sqlite3.Connection, paths: Sequence[str]) -> list[str]:
    """Those of the paths that no recording, document or template names, in one pass."""
    given = orjson.dumps(list(paths)).decode()
    return [row[0] for row in UNNAMED.run(connection, paths=given)]


def identity(connection: sqlite3.Connection) -> Identity:
    """Which store this is."""
    uid, born_at = IDENTITY.run(connection).fetchone()
    return Identity(uid=UUID(bytes=uid).hex, born_at=moment(born_at))


_given = func.json_each(bindparam("paths")).table_valued("value")
_attached = func.json_each(_template.attachments).table_valued("value", name="attached")

IDENTITY = Statement(select(schema.identity.c.uid, schema.identity.c.born_at))
# EXCEPT holds what is given and passes over the rows; of templates it reads an index only.
UNNAMED = Statement(
    select(_given.c.value).except_(
        select(_recording.media_path),
        select(_recording.original_path),
        select(_document.media_path),
        select(_document.original_path),
        select(func.json_extract(_attached.c.value, "$.path"))
        .select_from(schema.template.join(_attached, literal_column("1")))
        .where(literal_column(f"template.{schema.ATTACHED}")),
    )
)
