"""/spools: the attempts of a transmission and what each collected."""

from __future__ import annotations

import msgspec

from api.ictcore.fields import OWNER_FILTERS, plain, seconds
from api.ictcore.lists import page, rows
from api.paging import Filter, integer, service_bits, spool_status, string
from api.routing import Ask, Reply, Route, Rows, Status
from engine.model import Spool, SpoolResult
from engine.store.base import Op


class SpoolView(msgspec.Struct, kw_only=True):
    """An attempt as clients read it; ``call_id`` is the SIP Call-ID, ``amount`` in billable s."""

    spool_id: int
    transmission_id: int
    campaign_id: int | None
    account_id: int | None
    provider_id: int | None
    node_id: int
    service_flag: int
    destination: str
    status: str
    response: str
    disposition: str
    code: str
    call_id: str
    amount: float
    time_spool: int | None
    time_start: int | None
    time_connect: int | None
    time_end: int | None


class ResultView(msgspec.Struct, kw_only=True):
    """A datum collected during an attempt."""

    spool_result_id: int
    spool_id: int
    type: str
    name: str
    data: str
    date_created: int | None


FILTERS = {
    "spool_id": Filter("id", Op.EQ, integer),
    "account_id": Filter("account_id", Op.EQ, integer),
    "provider_id": Filter("provider_id", Op.EQ, integer),
    "service_flag": Filter("service", Op.HAS_BITS, service_bits),
    "status": Filter("status", Op.EQ, spool_status),
    "response": Filter("response", Op.EQ, string),
}

LIST_FILTERS = {
    "transmission_id": Filter("transmission_id", Op.EQ, integer),
    "campaign_id": Filter("campaign_id", Op.EQ, integer),
    **FILTERS,
    **OWNER_FILTERS,
}

RESULT_FILTERS = {
    "spool_result_id": Filter("id", Op.EQ, integer),
    "type": Filter("type", Op.EQ, string),
    "name": Filter("name", Op.EQ, string),
    "data": Filter("data", Op.CONTAINS, string),
}


def to_json(spool: Spool) -> SpoolView:
    """The spool on the wire."""
    return SpoolView(
        spool_id=spool.id,
        transmission_id=spool.transmission_id,
        campaign_id=spool.campaign_id,
        account_id=spool.account_id,
        provider_id=spool.provider_id,
        node_id=spool.node_id,
        service_flag=int(spool.service),
        destination=spool.destination,
        status=spool.status.value,
        response=spool.response,
        disposition=spool.disposition,
        code=spool.code,
        call_id=str(spool.uid),
        amount=plain(round(spool.amount_s, 3)),
        time_spool=seconds(spool.spooled_at),
        time_start=seconds(spool.started_at),
        time_connect=seconds(spool.connected_at),
        time_end=seconds(spool.ended_at),
    )


def result_to_json(result: SpoolResult) -> ResultView:
    """The datum on the wire."""
    return ResultView(
        spool_result_id=result.id,
        spool_id=result.spool_id,
        type=result.type,
        name=result.name,
        data=result.data,
        date_created=seconds(result.created_at),
    )


async def results_of(ask: Ask, spools: list[Spool]) -> Rows:
    """What was collected during ``spools``, by the filters of the query string."""
    query, limit = page(ask, RESULT_FILTERS)
    return rows(await ask.engine.reports.results(ask.who, spools, query), limit, result_to_json)


async def index(ask: Ask) -> Reply:
    """GET /spools: call detail records, an addition to the guide."""
    query, limit = page(ask, LIST_FILTERS)
    return rows(await ask.engine.catalog.find(ask.who, Spool, query), limit, to_json)


async def status(ask: Ask) -> Reply:
    """GET /spools/{spool_id}/status."""
    spool = await ask.engine.reports.spool(ask.who, ask.id("spool_id"))
    return Status(spool.status.value)


async def result(ask: Ask) -> Reply:
    """GET /spools/{spool_id}/result."""
    ask.who.require("spool_read", "result_read")
    return await results_of(ask, [await ask.engine.reports.spool(ask.who, ask.id("spool_id"))])


ROUTES = (
    Route(verb="GET", path="/spools", handler=index, summary="List attempts (call detail records)",
          answer=Rows, view=SpoolView, filters=LIST_FILTERS),
    Route(verb="GET", path="/spools/{spool_id}/status", handler=status,
          summary="The status of an attempt", answer=Status),
    *(
        Route(verb="GET", path="/spools/{spool_id}" + path, handler=result,
              summary="What an attempt collected", answer=Rows, view=ResultView,
              filters=RESULT_FILTERS)
        for path in ("/result", "/results")
    ),
)  # fmt: skip
