"""What stands in the store without a result yet."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.model import Spool, Transmission


class Standing(msgspec.Struct, frozen=True):
    """What a retry decision needs of a transmission in process, and its open spool (0: none)."""

    spool_id: int
    transmission_id: int
    campaign_id: int | None
    contact_id: int | None
    try_done: int
    try_allowed: int
    retry_delays: Mapping[str, float]

    @classmethod
    def of(cls, row: Transmission, spool_id: int = 0) -> Standing:
        """That of a transmission."""
        return cls(
            spool_id, row.id, row.campaign_id, row.contact_id, row.try_done, row.try_allowed,
            row.retry_delays,
        )  # fmt: skip


class Interrupted(msgspec.Struct, frozen=True, kw_only=True):
    """A spool found without a result, with its transmission."""

    spool: Spool
    transmission: Transmission

    @property
    def standing(self) -> Standing:
        """What a retry decision needs of it."""
        return Standing.of(self.transmission, self.spool.id)
