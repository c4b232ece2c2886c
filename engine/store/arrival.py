"""A message that came in, as the store keeps it."""

from __future__ import annotations

from datetime import datetime

import msgspec

from engine.model import Text
from engine.results import ResultRow


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A message that came in and whose it is; everything of it is stored together.

    The contact is the owner's with this phone (several: the first), or is created. ``text`` becomes
    a row; the transmission (inbound, completed) and its spool (completed) get ``rows``, and beside
    them ``message``/``text_id``. Where ``key`` was received from this provider since
    ``repeat_since`` (None: not asked), nothing is stored.
    """

    at: datetime
    key: str
    provider_id: int
    repeat_since: datetime | None
    owner_id: int | None
    account_id: int
    program_id: int
    phone: str
    destination: str
    title: str
    origin: str
    text: Text
    rows: tuple[ResultRow, ...] = ()
    node_id: int = 1
