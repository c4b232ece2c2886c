"""What became of it: attempts, what they collected, counts; by permission and ownership."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.auth import Principal
from engine.catalog import Catalog
from engine.errors import NotFoundError
from engine.model import Campaign, Service, Spool, SpoolResult, Transmission
from engine.store.base import Condition, Op, Query


class Reports:
    """Reports of one node."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._store = catalog.store

    async def spools(self, who: Principal, transmission_id: int, query: Query) -> list[Spool]:
        """The attempts of a transmission, oldest first."""
        who.require("transmission_read", "spool_read")
        transmission = await self._catalog.visible(who, Transmission, transmission_id)
        condition = Condition("transmission_id", Op.EQ, transmission.id)
        query = msgspec.structs.replace(query, conditions=(*query.conditions, condition))
        return await self._store.find(Spool, query)

    async def spool(self, who: Principal, spool_id: int) -> Spool:
        """One attempt, where its transmission is the caller's to see."""
        who.require("spool_read")
        spool = await self._store.get(Spool, spool_id) if 0 < spool_id < 2**63 else None
        if spool is None:
            raise NotFoundError("Spool not found")
        transmission = await self._store.get(Transmission, spool.transmission_id)
        owner = spool if transmission is None else transmission
        if not who.sees("transmission", owner) and not who.may("spool_admin"):
            raise NotFoundError("Spool not found")
        return spool

    async def results(
        self, who: Principal, spools: Sequence[Spool], query: Query
    ) -> list[SpoolResult]:
        """What was collected during ``spools`` (which the caller was shown)."""
        who.require("result_read")
        condition = Condition("spool_id", Op.IN, tuple(spool.id for spool in spools))
        query = msgspec.structs.replace(query, conditions=(*query.conditions, condition))
        return await self._store.find(SpoolResult, query) if spools else []

    async def fax_pages(self, transmission: Transmission) -> int | None:
        """How many pages its latest fax had; None where it is none or none went out yet."""
        if transmission.service is not Service.FAX:
            return None
        own = Condition("transmission_id", Op.EQ, transmission.id)
        spools = await self._store.find(Spool, Query(conditions=(own,)))
        said = (
            Condition("spool_id", Op.IN, tuple(spool.id for spool in spools)),
            Condition("type", Op.EQ, "info"),
            Condition("name", Op.EQ, "pages"),
        )
        newest = Query(conditions=said, order="-id", limit=1)
        rows = await self._store.find(SpoolResult, newest)
        return int(rows[0].data) if rows and rows[0].data.isdecimal() else None

    async def counts(self, who: Principal) -> dict[str, int]:
        """The guide's statistics of the caller's rows, of everybody's with ``statistic_admin``."""
        who.require("statistic_read")
        everybody = who.may("statistic_admin")
        return await self._store.counts(None if everybody else who.user_id)

    async def tally(self, campaign: Campaign) -> dict[str, int]:
        """The live counts of a campaign the caller was shown."""
        return await self._store.campaign_tally(campaign.id)
