"""/statistics: how much there is of everything."""

from __future__ import annotations

from api.routing import Ask, Item, Reply, Route

KEYS = (
    "campaign_total", "campaign_active", "group_total", "contact_total", "transmission_total",
    "transmission_active", "spool_total", "spool_success", "spool_failed",
)  # fmt: skip


async def show(ask: Ask) -> Reply:
    """GET /statistics: of the caller's rows, of everybody's with ``statistic_admin``."""
    counts = await ask.engine.reports.counts(ask.who)
    return Item({**dict.fromkeys(KEYS, 0), **counts})


ROUTES = (
    Route(
        verb="GET",
        path="/statistics",
        handler=show,
        summary="Counts of campaigns, contacts, transmissions, spools",
        answer=Item,
        view=dict[str, int],
    ),
)
