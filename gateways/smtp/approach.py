"""From the routes of a relay or domain to an open connection, and what failing there means.

asyncio side.
"""

from __future__ import annotations

from gateways.smtp.connection import answer
from gateways.smtp.mxorder import NoRoute
from gateways.smtp.opening import Failed, clean
from gateways.smtp.records import Answer, At, How, Parcel

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
