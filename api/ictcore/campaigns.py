"""/campaigns: a program run over a group at a pace."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import UNSET

from api.ictcore.fields import (
    OWNER_FILTERS,
    Id,
    Integer,
    Number,
    Settings,
    Text,
    changes,
    plain,
    read_body,
    seconds,
)
from api.ictcore.lists import page, rows
from api.paging import Filter, integer, string
from api.routing import Ask, Created, Done, Item, Reply, Route, Rows
from engine.check import CampaignCheck
from engine.model import Campaign, Program
from engine.results import Disposition
from engine.store.base import Op


class CampaignBody(msgspec.Struct, kw_only=True):
    """A campaign as clients write it; ``cpm`` is calls per minute. Program and group are needed.

    ``retry_delays`` are seconds until the next try by outcome: ``busy``, ``no_answer``, ``failed``;
    the node's hold for those not named.
    """

    program_id: Id = UNSET
    group_id: Id = UNSET
    account_id: Id = UNSET
    cpm: Number = UNSET
    try_allowed: Integer = UNSET
    source: Text = UNSET
    retry_delays: Settings = UNSET


class CampaignView(msgspec.Struct, kw_only=True):
    """A campaign as clients read it.

    Only when read alone: ``tally`` (live counts by outcome), and out of it ``successful``,
    ``failed`` (transmissions) and ``reason`` (what most failed attempts failed of).
    """

    campaign_id: int
    program_id: int
    program_type: str | None
    group_id: int
    account_id: int | None
    cpm: float
    try_allowed: int
    contact_total: int
    contact_done: int
    status: str
    source: str
    retry_delays: dict[str, float]
    last_run: int | None
    user_id: int | None
    created_by: int | None
    date_created: int | None
    last_updated: int | None
    successful: int | None = None
    failed: int | None = None
    reason: str | None = None
    tally: dict[str, int] | None = None


class CampaignPreviewView(msgspec.Struct, kw_only=True):
    """What the first contact would get; ``words`` are the program's texts, tokens replaced."""

    contact_id: int
    destination: str
    words: dict[str, str]


class SmsFiguresView(msgspec.Struct, kw_only=True):
    """What an SMS campaign comes to: ``messages`` of ``parts_per_message`` parts, and their price.

    ``estimated`` is 1 where others' messages may be longer or shorter than the previewed one, or
    cheaper: the price is that of the dearest provider.
    """

    parts_per_message: int
    messages: int
    parts: int
    price: float
    currency: str
    estimated: int


class CampaignCheckView(msgspec.Struct, kw_only=True):
    """What a campaign would do if it were started now; nothing is sent or written.

    ``dialable`` contacts would be dialled for the first time, ``retries`` once more; ``taken`` are
    those it has dealt with, by status, ``skipped`` those it would refuse, by cause. ``duration_s``
    is what it takes at the campaign's pace. ``complete`` is 0 where time ran out while counting.
    ``preview`` is for who may read contacts; ``sms`` is there where the program sends a text.
    """

    campaign_id: int
    status: str
    ready: int
    problems: list[str]
    contacts: int
    dialable: int
    retries: int
    taken: dict[str, int]
    skipped: dict[str, int]
    duration_s: float
    complete: int
    preview: CampaignPreviewView | None
    sms: SmsFiguresView | None


FILTERS = {
    "campaign_id": Filter("id", Op.EQ, integer),
    "program_id": Filter("program_id", Op.EQ, integer),
    "group_id": Filter("group_id", Op.EQ, integer),
    "account_id": Filter("account_id", Op.EQ, integer),
    "status": Filter("status", Op.CONTAINS, string),
    **OWNER_FILTERS,
}
_NAMES = {"cpm": "calls_per_minute"}


def to_json(
    campaign: Campaign, program: Program | None, tally: dict[str, int] | None = None
) -> CampaignView:
    """The campaign on the wire."""
    return CampaignView(
        campaign_id=campaign.id,
        program_id=campaign.program_id,
        program_type=None if program is None else program.type,
        group_id=campaign.group_id,
        account_id=campaign.account_id,
        cpm=plain(campaign.calls_per_minute),
        try_allowed=campaign.try_allowed,
        contact_total=campaign.contact_total,
        contact_done=campaign.contact_done,
        status=campaign.status.value,
        source=campaign.source,
        retry_delays=campaign.retry_delays,
        last_run=seconds(campaign.last_run),
        user_id=campaign.owner_id,
        created_by=campaign.owner_id,
        date_created=seconds(campaign.created_at),
        last_updated=seconds(campaign.updated_at),
        successful=tally["completed"] if tally else None,
        failed=tally["failed"] + tally["invalid"] if tally else None,
        reason=_reason(tally) if tally else None,
        tally=tally,
    )


def _reason(tally: Mapping[str, int]) -> str:
    """The outcome that most failed attempts had, "" where none failed."""
    failures = {
        name.removeprefix("disposition:"): count
        for name, count in tally.items()
        if name.startswith("disposition:") and name != f"disposition:{Disposition.ANSWERED}"
    }
    return max(failures, key=lambda name: (failures[name], name), default="")


async def create(ask: Ask) -> Reply:
    """POST /campaigns."""
    given = changes(await read_body(ask, CampaignBody, creating=True), _NAMES)
    campaign = await ask.engine.catalog.create(
        ask.who, Campaign(**{"program_id": 0, "group_id": 0, **given})
    )
    return Created("campaign_id", campaign.id)


async def index(ask: Ask) -> Reply:
    """GET /campaigns."""
    query, limit = page(ask, FILTERS)
    found = await ask.engine.catalog.find(ask.who, Campaign, query)
    programs = await ask.engine.catalog.by_id(Program, {row.program_id for row in found[:limit]})
    return rows(found, limit, lambda row: to_json(row, programs.get(row.program_id)))


async def show(ask: Ask) -> Reply:
    """GET /campaigns/{campaign_id}."""
    return await _shown(
        ask, await ask.engine.catalog.read(ask.who, Campaign, ask.id("campaign_id"))
    )


async def update(ask: Ask) -> Reply:
    """PUT /campaigns/{campaign_id}; a new pace holds at once, also while it runs."""
    given = changes(await read_body(ask, CampaignBody, creating=False), _NAMES)
    campaign = await ask.engine.catalog.update(ask.who, Campaign, ask.id("campaign_id"), given)
    await ask.engine.campaign_changed(campaign.id)
    return await _shown(ask, campaign)


async def delete(ask: Ask) -> Reply:
    """DELETE /campaigns/{campaign_id}; its transmissions stay."""
    await ask.engine.catalog.delete(ask.who, Campaign, ask.id("campaign_id"))
    return Done()


async def start(ask: Ask) -> Reply:
    """PUT /campaigns/{campaign_id}/start."""
    ask.who.require("campaign_start")
    campaign = await ask.engine.catalog.visible(ask.who, Campaign, ask.id("campaign_id"))
    await ask.engine.start_campaign(campaign.id)
    return Done(campaign.id)


async def stop(ask: Ask) -> Reply:
    """PUT /campaigns/{campaign_id}/stop; calls that are up go on to their end."""
    ask.who.require("campaign_stop")
    campaign = await ask.engine.catalog.visible(ask.who, Campaign, ask.id("campaign_id"))
    await ask.engine.stop_campaign(campaign.id)
    return Done(campaign.id)


async def check(ask: Ask) -> Reply:
    """POST /campaigns/{campaign_id}/check: a dry run, an addition to the guide."""
    ask.who.require("campaign_read", "contact_list")
    campaign = await ask.engine.catalog.read(ask.who, Campaign, ask.id("campaign_id"))
    found = await ask.engine.check_campaign(campaign)
    return Item(
        CampaignCheckView(
            campaign_id=campaign.id,
            status=campaign.status.value,
            ready=int(not found.problems),
            problems=list(found.problems),
            contacts=found.contacts,
            dialable=found.dialable,
            retries=found.retries,
            taken=found.taken,
            skipped=found.skipped,
            duration_s=plain(round(found.duration_s, 1)),
            complete=int(found.complete),
            preview=_preview(found) if ask.who.may("contact_read") else None,
            sms=_sms(found),
        )
    )


def _preview(found: CampaignCheck) -> CampaignPreviewView | None:
    shown = found.preview
    if shown is None:
        return None
    return CampaignPreviewView(
        contact_id=shown.contact_id, destination=shown.destination, words=shown.words
    )


def _sms(found: CampaignCheck) -> SmsFiguresView | None:
    figures = found.sms
    if figures is None:
        return None
    return SmsFiguresView(
        parts_per_message=figures.parts_per_message,
        messages=figures.messages,
        parts=figures.parts,
        price=plain(figures.price),
        currency=figures.currency,
        estimated=int(figures.estimated),
    )


async def _shown(ask: Ask, campaign: Campaign) -> Reply:
    programs = await ask.engine.catalog.by_id(Program, {campaign.program_id})
    tally = await ask.engine.reports.tally(campaign)
    return Item(to_json(campaign, programs.get(campaign.program_id), tally))


_ONE = "/campaigns/{campaign_id}"

ROUTES = (
    Route(verb="POST", path="/campaigns", handler=create, summary="Create a campaign",
          answer=Created, view="campaign_id", body=CampaignBody, statuses=(404,)),
    Route(verb="GET", path="/campaigns", handler=index, summary="List campaigns",
          answer=Rows, view=CampaignView, filters=FILTERS),
    Route(verb="GET", path=_ONE, handler=show, summary="Read a campaign",
          answer=Item, view=CampaignView),
    Route(verb="PUT", path=_ONE, handler=update, summary="Update a campaign, also while it runs",
          answer=Item, view=CampaignView, body=CampaignBody, statuses=(423,)),
    Route(verb="DELETE", path=_ONE, handler=delete, summary="Delete a campaign that is not running",
          answer=Done, statuses=(417, 423)),
    Route(verb="PUT", path=_ONE + "/start", handler=start, summary="Start or resume dialling",
          answer=Done, statuses=(423,)),
    Route(verb="PUT", path=_ONE + "/stop", handler=stop, summary="Stop dialling",
          answer=Done, statuses=(423,)),
    Route(verb="POST", path=_ONE + "/check", handler=check,
          summary="Say what a start would do, without doing it", answer=Item,
          view=CampaignCheckView),
)  # fmt: skip
