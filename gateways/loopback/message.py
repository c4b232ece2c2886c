"""A scripted short message as a program sees it: ``engine.gateway.Messenger`` without a network."""

from __future__ import annotations

from datetime import datetime

from engine import segments
from engine.errors import InvalidError
from engine.gateway import CallEnded, TextMessage
from engine.results import Blame, Disposition, Reached, Result, ResultRow
from gateways.loopback.script import Ending, Stat
from gateways.loopback.sending import UNSAYABLE, Sending
from gateways.loopback.verdict import Verdict

_REFUSED = {
    Ending.BUSY: Verdict(Disposition.FAILED, "throttled", Blame.PROVIDER, Reached.NOTHING),
    Ending.REJECT: Verdict(Disposition.REJECTED, "refused", Blame.NETWORK, Reached.NETWORK),
    Ending.INVALID: Verdict(Disposition.INVALID, "invalid_number", Blame.REQUEST, Reached.NETWORK),
    Ending.FAIL: Verdict(Disposition.FAILED, "trunk_unavailable", Blame.PROVIDER, Reached.NOTHING),
    Ending.DEFER: Verdict(Disposition.FAILED, "deferred", Blame.NETWORK, Reached.NOTHING),
}
_ACCEPTED = Verdict(Disposition.ANSWERED, "accepted", Blame.NOBODY, Reached.PERSON)
_ENDS = {
    Stat.DELIVERED: Verdict(Disposition.ANSWERED, "delivered", Blame.NOBODY, Reached.PERSON),
    Stat.UNDELIVERED: Verdict(Disposition.FAILED, "undelivered", Blame.NETWORK, Reached.NETWORK),
}


class LoopbackMessenger(Sending):
    """One short message; ``awaited`` whether a receipt is to follow."""

    async def send_text(self, message: TextMessage) -> None:
        """Hand it to the script's network; a program sends one text."""
        if self._fate is not None:
            raise CallEnded
        parts = self._parts(message)
        wait_s = message.validity_s or self._plan.receipt_wait_s
        started_at = self._leave()
        count = ResultRow("sms", "parts", str(parts))
        if not await self._answered():
            # It may have arrived: a receipt could still come.
            self._rows.append(count)
            self._fate = self._waiting(None, wait_s)
            return
        self._check_taken(_REFUSED, started_at)
        ids = (f"{self._order.uid.hex}{number}" for number in range(parts))
        rows = [*(ResultRow("sms", "message_id", key) for key in ids), count]
        self._accept(_ACCEPTED, started_at, wait_s, rows)

    def _parts(self, message: TextMessage) -> int:
        """How many it goes in; ``CallEnded`` where no message can say it."""
        try:
            return segments.measure(message.text, message.kind).parts
        except InvalidError:
            raise self._over(UNSAYABLE) from None


def receipt(stat: Stat, at: datetime) -> Result:
    """What a receipt says became of a message."""
    rows = (
        ResultRow("sms", "stat", stat.value),
        ResultRow("sms", "err", "000" if stat is Stat.DELIVERED else "001"),
        ResultRow("sms", "done_date", at.strftime("%y%m%d%H%M")),
    )
    return _ENDS[stat].result(rows=rows, ended_at=at)
