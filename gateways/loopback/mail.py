"""A scripted e-mail as a program sees it: ``engine.gateway.Mailer`` without a network."""

from __future__ import annotations

from datetime import datetime

from engine.gateway import CallEnded
from engine.mail import MailMessage
from engine.results import Blame, Disposition, Reached, Result, ResultRow
from gateways.loopback.script import Ending, Stat
from gateways.loopback.sending import UNSAYABLE, Sending
from gateways.loopback.verdict import Verdict

_NO_SUCH_ADDRESS = "550 5.1.1: no such address"

_REFUSED = {
    Ending.BUSY: Verdict(
        Disposition.FAILED, "busy", Blame.PROVIDER, Reached.NOTHING, "421 4.3.2"
    ),
    Ending.REJECT: Verdict(
        Disposition.REJECTED, "refused", Blame.NETWORK, Reached.NETWORK, "554 5.0.0"
    ),
    Ending.INVALID: Verdict(
        Disposition.INVALID, "no_such_address", Blame.REQUEST, Reached.NETWORK, "550 5.1.1",
        _NO_SUCH_ADDRESS,
    ),
    Ending.FAIL: Verdict(
        Disposition.FAILED, "trunk_unavailable", Blame.PROVIDER, Reached.NOTHING
    ),
    Ending.DEFER: Verdict(
        Disposition.DEFERRED, "greylisted", Blame.NETWORK, Reached.NOTHING, "451 4.7.1"
    ),
}  # fmt: skip
# The last dot left and nobody said that it arrived.
_UNKNOWN = Verdict(Disposition.INTERRUPTED, "unknown", Blame.NETWORK, Reached.PERSON)
_ACCEPTED = Verdict(Disposition.ANSWERED, "accepted", Blame.NOBODY, Reached.PERSON, "250 2.0.0")
_BOUNCED = Verdict(
    Disposition.FAILED, "bounced", Blame.NETWORK, Reached.NETWORK, "5.1.1",
    f"bounce {_NO_SUCH_ADDRESS}",
)  # fmt: skip


class LoopbackMailer(Sending):
    """One mail; ``awaited``: bounces can reach us."""

    async def send_mail(self, message: MailMessage) -> None:
        """Hand it to the script's network; a program sends one mail."""
        if self._fate is not None:
            raise CallEnded
        if not (message.form.body or message.form.body_alt):
            raise self._over(UNSAYABLE)
        started_at = self._leave()
        if not await self._answered():
            raise self._over(_UNKNOWN, started_at)
        self._check_taken(_REFUSED, started_at)
        message_id = f"<o{self._order.transmission_id:x}@loopback>"
        rows = [ResultRow("email", "message_id", message_id)]
        self._accept(_ACCEPTED, started_at, 2 * self._plan.receipt_wait_s, rows)


def told(stat: Stat, at: datetime) -> Result:
    """What became of an accepted mail: it bounced, or nobody said so for as long as one may."""
    if stat is not Stat.UNDELIVERED:
        return _ACCEPTED.result(ended_at=at)
    rows = (
        ResultRow("email", "bounce_action", "failed"),
        ResultRow("email", "bounce_status", _BOUNCED.code),
    )
    return _BOUNCED.result(rows=rows, ended_at=at)
