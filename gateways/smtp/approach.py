"""From the routes of a relay or domain to an open connection, and what failing there means.

asyncio side.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateways.smtp.connection import Connection, answer
from gateways.smtp.mxorder import NoRoute
from gateways.smtp.opening import Failed, clean
from gateways.smtp.records import Answer, At, How, Parcel, Route
from gateways.smtp.replies import elsewhere
from gateways.smtp.standing import MAX_TRIES, Detours

NOBODY = Parcel(
    id=0, spool_id=0, sender="", recipient="", domain="", size=0, chunks=(), not_after=0.0
)
"""For what is asked of a failure that no mail had."""


def refusal(error: Failed | NoRoute, parcel: Parcel) -> Answer:
    """What a mail is told that waited for the connection."""
    if isinstance(error, NoRoute):
        text = clean(error.reason)
        return answer(parcel, At.ROUTE, How.NO_ROUTE, text=text, permanent=error.permanent)
    return answer(parcel, error.at, error.how, code=error.code, text=error.text)


async def connect(
    connection: Connection, routes: Sequence[Route], detours: Detours, *, direct: bool
) -> None:
    """Open it over the first route that leads there, of ``MAX_TRIES``; ``Failed``, ``NoRoute``."""
    failure: Failed | None = None
    for route in routes[:MAX_TRIES]:
        try:
            await connection.open(route)
        except Failed as error:
            failure = error
            detours.failed(route, time.monotonic())
            if not elsewhere(refusal(error, NOBODY), direct=direct):
                raise
        else:
            detours.good(route)
            return
    detours.passed(routes[:MAX_TRIES], time.monotonic())
    raise failure or NoRoute("no route", permanent=False)
