"""/statistics: how much there is of everything.

The guide's nine counts and those that real clients read beside them (specs/ictcore.md §2.1).
"""

from __future__ import annotations

import msgspec

from api.paging import Filter, epoch, integer, lowered, service_bits
from api.routing import Ask, Item, Reply, Route
from engine.store.base import Op


class StatisticsView(msgspec.Struct, kw_only=True):
    """Counts of the caller's rows; of everybody's with ``statistic_admin``.

    ``campaign_active`` are running, ``transmission_active`` in process; ``spool_success`` and
    ``spool_failed`` are attempts that ended. ``user_total`` is 1 for who may not list users.
    """

    user_total: int = 0
    account_total: int = 0
    did_total: int = 0
    provider_total: int = 0
    campaign_total: int = 0
    campaign_active: int = 0
    group_total: int = 0
    contact_total: int = 0
    transmission_total: int = 0
    transmission_active: int = 0
    transmission_inbound: int = 0
    transmission_outbound: int = 0
    spool_total: int = 0
    spool_success: int = 0
    spool_failed: int = 0


FILTERS = {
    "since": Filter("created_at", Op.GE, epoch),
    "from": Filter("created_at", Op.GE, epoch),
    "date_created": Filter("created_at", Op.GE, epoch),
    "user_id": Filter("owner_id", Op.EQ, integer),
    "created_by": Filter("owner_id", Op.EQ, integer),
    "service_flag": Filter("service", Op.EQ, service_bits),
    "account_type": Filter("type", Op.EQ, lowered),
}
"""``service_flag`` narrows transmissions and spools only, ``account_type`` accounts only."""


async def show(ask: Ask) -> Reply:
    """GET /statistics."""
    counts = await ask.engine.reports.counts(ask.who, ask.query(FILTERS).conditions)
    return Item(StatisticsView(**counts))


ROUTES = (
    Route(verb="GET", path="/statistics", handler=show,
          summary="Counts of campaigns, contacts, transmissions, spools", answer=Item,
          view=StatisticsView, filters=FILTERS),
)  # fmt: skip
