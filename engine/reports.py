"""What became of it: attempts, what they collected, counts; by permission and ownership."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.auth import Principal
from engine.catalog import Catalog
from engine.errors import NotFoundError
from engine.model import (
    Account,
    Campaign,
    CampaignStatus,
    Contact,
    Direction,
    Entity,
    Group,
    Provider,
    Service,
    Spool,
    SpoolResult,
    SpoolStatus,
    Transmission,
    TransmissionStatus,
    User,
)
from engine.store.base import Condition, Op, Query

_COMMON = frozenset({"owner_id", "created_at"})
_SPECIFIC = frozenset({(Transmission, "service"), (Spool, "service"), (Account, "type")})


def _is(field: str, value: object) -> tuple[Condition, ...]:
    return (Condition(field, Op.EQ, value),)


_COUNTED: dict[str, tuple[type[Entity], tuple[Condition, ...]]] = {
    "account_total": (Account, ()),
    "did_total": (Account, _is("type", "did")),
    "provider_total": (Provider, ()),
    "campaign_total": (Campaign, ()),
    "campaign_active": (Campaign, _is("status", CampaignStatus.RUNNING)),
    "group_total": (Group, ()),
    "contact_total": (Contact, ()),
    "transmission_total": (Transmission, ()),
    "transmission_active": (Transmission, _is("status", TransmissionStatus.PROCESSING)),
    "transmission_inbound": (Transmission, _is("direction", Direction.INBOUND)),
    "transmission_outbound": (Transmission, _is("direction", Direction.OUTBOUND)),
    "spool_total": (Spool, ()),
    "spool_success": (Spool, _is("status", SpoolStatus.COMPLETED)),
    "spool_failed": (Spool, _is("status", SpoolStatus.FAILED)),
}


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

    async def counts(self, who: Principal, conditions: Sequence[Condition] = ()) -> dict[str, int]:
        """Statistics of the caller's rows, of everybody's with ``statistic_admin``.

        ``conditions`` are on ``owner_id`` and ``created_at`` (of everything), ``service`` (of
        transmissions and spools) and ``type`` (of accounts). Users are counted for who may list
        them: for anybody else there is one.
        """
        who.require("statistic_read")
        own = Condition("owner_id", Op.EQ, who.user_id)
        asked = tuple(conditions) if who.may("statistic_admin") else (*conditions, own)
        owners = {condition.value for condition in asked if condition.field == "owner_id"}
        if len(owners) < 2 and all(condition.field == "owner_id" for condition in asked):  # noqa: PLR2004
            counts = await self._store.counts(next(iter(owners), None))
        else:
            counts = {key: await self._counted(key, asked) for key in _COUNTED}
        return counts | {"user_total": await self._users(who, asked)}

    async def _counted(self, key: str, asked: Sequence[Condition]) -> int:
        kind, own = _COUNTED[key]
        fitting = (c for c in asked if c.field in _COMMON or (kind, c.field) in _SPECIFIC)
        return await self._store.count(kind, Query(conditions=(*own, *fitting)))

    async def _users(self, who: Principal, asked: Sequence[Condition]) -> int:
        if not who.may("user_list"):
            return 1
        fitting = tuple(condition for condition in asked if condition.field in _COMMON)
        return await self._store.count(User, Query(conditions=fitting))

    async def tally(self, campaign: Campaign) -> dict[str, int]:
        """The live counts of a campaign the caller was shown."""
        return await self._store.campaign_tally(campaign.id)
