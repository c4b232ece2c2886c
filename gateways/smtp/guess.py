"""Bounces that are no RFC 3464 report, recognised by their wording (flufl.bounce)."""

from __future__ import annotations

import sys
from email import message_from_bytes

from flufl.bounce import all_failures

from gateways.smtp.parsed import ParsedBounce, ParsedRecipient

MAX_OCTETS = 1_000_000
_MAX_ADDRESS = 255
_MAX_RECIPIENTS = 100


def guessed(raw: bytes) -> ParsedBounce | None:
    """Who it says did not get the mail; None where it says nothing. No status is known.

    The library calls all it does not call temporary permanent, so a guess is never more than that.
    """
    if len(raw) > MAX_OCTETS:
        return None
    try:
        delayed, failed = all_failures(message_from_bytes(raw))
    except Exception as error:  # noqa: BLE001 - it meets strangers' mail; what it is, is mail
        print("flufl.bounce:", type(error).__name__, file=sys.stderr)  # noqa: T201 - for us only
        return None
    recipients = [
        ParsedRecipient(address.decode("utf-8", "replace")[:_MAX_ADDRESS], action)
        for action, addresses in (("failed", failed), ("delayed", delayed - failed))
        for address in sorted(addresses)
    ]
    if not recipients:
        return None
    return ParsedBounce(recipients=tuple(recipients[:_MAX_RECIPIENTS]), heuristic=True)
