"""What every resource's list and read handlers do the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from api.paging import DEFAULT_LIMIT, Filter
from api.routing import Ask, Rows
from engine.model import Entity
from engine.store.base import Condition, Found, Query

E = TypeVar("E", bound=Entity)


def page(ask: Ask, filters: Mapping[str, Filter], *conditions: Condition) -> tuple[Query, int]:
    """The query asked for, with one row more than a page holds, and the size of the page."""
    query = ask.query(filters)
    limit = query.limit or DEFAULT_LIMIT
    return msgspec.structs.replace(
        query, conditions=(*query.conditions, *conditions), limit=limit + 1
    ), limit


def rows(found: list[E], limit: int, show: Callable[[E], Any]) -> Rows:
    """One page of what was found, and how much there is in all."""
    more = len(found) > limit or (isinstance(found, Found) and found.cut)
    total = found.total if isinstance(found, Found) else None if more else len(found)
    return Rows([show(row) for row in found[:limit]], more=more, total=total)


async def find(
    ask: Ask, kind: type[E], filters: Mapping[str, Filter], show: Callable[[E], Any]
) -> Rows:
    """The caller's rows of a kind, by the filters of the query string."""
    query, limit = page(ask, filters)
    return rows(await ask.engine.catalog.find(ask.who, kind, query), limit, show)
