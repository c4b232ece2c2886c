"""The counters of campaigns and owners, summed up in memory per transaction and added once.

Every row contributes fixed names: a change of a row takes its old contribution away and adds the
new one, so the tallies always equal a recount of the tables (a property test checks it).
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from typing import Any

from sqlalchemy.dialects.sqlite import insert

from engine.model import Direction, SpoolStatus, TransmissionStatus
from engine.store import schema
from engine.store.statements import Bulk, given, source

_PROCESSING = TransmissionStatus.PROCESSING.value
_ENDED = {
    SpoolStatus.COMPLETED.value: "spool_success",
    SpoolStatus.FAILED.value: "spool_failed",
}
_DIRECTION = {
    Direction.INBOUND.value: "transmission_inbound",
    Direction.OUTBOUND.value: "transmission_outbound",
}

NOBODY = 0


def _adder(target: Any, key: str) -> Bulk:
    rows = source(key, "name", "value")
    # Without a WHERE SQLite's parser would take ON for a join's.
    statement = insert(target).from_select(
        [key, "name", "value"],
        rows.select().where(given(rows)),
    )
    added = target.c.value + statement.excluded.value
    return Bulk(
        rows,
        statement.on_conflict_do_update(index_elements=[key, "name"], set_={"value": added}),
    )


_ADD_CAMPAIGN = _adder(schema.campaign_tally, "campaign_id")
_ADD_OWNER = _adder(schema.owner_tally, "owner_id")


class Tally:
    """Differences not yet written."""

    def __init__(self) -> None:
        self._campaign: defaultdict[tuple[int, str], int] = defaultdict(int)
        self._owner: defaultdict[tuple[int, str], int] = defaultdict(int)

    def transmission(
        self,
        sign: int,
        campaign_id: int | None,
        owner_id: int | None,
        *,
        direction: str,
        status: str,
        try_done: int,
        screened: bool,
        response: str,
    ) -> None:
        """Add (or with ``sign`` -1 take away) what a transmission contributes."""
        owner, owner_id = self._owner, owner_id or NOBODY
        owner[owner_id, "transmission_total"] += sign
        owner[owner_id, _DIRECTION[direction]] += sign
        self.moved(sign, None, owner_id, status)
        if campaign_id is None:
            return
        campaign = self._campaign
        campaign[campaign_id, "transmissions"] += sign
        campaign[campaign_id, status] += sign
        if try_done > 1:
            campaign[campaign_id, "retries"] += sign * (try_done - 1)
        if screened:
            campaign[campaign_id, "disposition:screened"] += sign
            campaign[campaign_id, f"response:{response}"] += sign

    def contacts(self, number: int, owner_id: int | None) -> None:
        """Add (or take away) contacts."""
        self._owner[owner_id or NOBODY, "contact_total"] += number

    def moved(self, sign: int, campaign_id: int | None, owner_id: int | None, status: str) -> None:
        """Add or take away what the status of a transmission contributes."""
        if status == _PROCESSING:
            self._owner[owner_id or NOBODY, "transmission_active"] += sign
        if campaign_id is not None:
            self._campaign[campaign_id, status] += sign

    def retried(self, campaign_id: int | None, sign: int = 1) -> None:
        """A transmission got one more try than its first, or (-1) lost it again."""
        if campaign_id is not None:
            self._campaign[campaign_id, "retries"] += sign

    def screened(self, campaign_id: int | None, response: str) -> None:
        """A transmission we have already counted was screened out."""
        if campaign_id is not None:
            self._campaign[campaign_id, "disposition:screened"] += 1
            self._campaign[campaign_id, f"response:{response}"] += 1

    def spool(
        self,
        sign: int,
        campaign_id: int | None,
        owner_id: int | None,
        *,
        status: str,
        disposition: str,
        response: str,
    ) -> None:
        """Add or take away what a spool contributes."""
        self._owner[owner_id or NOBODY, "spool_total"] += sign
        if campaign_id is not None:
            self._campaign[campaign_id, "dialled"] += sign
        if status in _ENDED:
            self.ended(
                sign, campaign_id, owner_id,
                status=status, disposition=disposition, response=response,
            )  # fmt: skip

    def ended(
        self,
        sign: int,
        campaign_id: int | None,
        owner_id: int | None,
        *,
        status: str,
        disposition: str,
        response: str,
    ) -> None:
        """Add or take away what the end of a spool contributes."""
        self._owner[owner_id or NOBODY, _ENDED[status]] += sign
        if campaign_id is not None:
            self._campaign[campaign_id, f"disposition:{disposition}"] += sign
            self._campaign[campaign_id, f"response:{response}"] += sign

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write the differences within the open transaction and forget them."""
        for add, differences in ((_ADD_CAMPAIGN, self._campaign), (_ADD_OWNER, self._owner)):
            rows = [(key, name, value) for (key, name), value in differences.items() if value]
            if rows:
                add.run(connection, rows)
            differences.clear()
