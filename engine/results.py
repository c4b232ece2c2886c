"""The one outcome vocabulary: dashboards, CDRs, retry and every dialect read only this."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

STUCK = "stuck"
"""Cause of what was in process beyond its deadline and nobody works on any more."""


class Disposition(StrEnum):
    """Business outcome of one spool."""

    ANSWERED = "answered"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    REJECTED = "rejected"
    INVALID = "invalid"  # the address does not exist
    FAILED = "failed"  # network, trunk or ours: nothing is known of the callee
    SCREENED = "screened"  # we chose not to try
    CANCELLED = "cancelled"  # we gave up (stop, shutdown)
    INTERRUPTED = "interrupted"  # the node or a worker died under it
    DEFERRED = "deferred"  # the network put it off: the same try goes on later


class Blame(StrEnum):
    """Who is to blame: tells what a retry or another trunk could mend."""

    NOBODY = "nobody"
    CALLEE = "callee"
    PROVIDER = "provider"  # the trunk itself: try the next one
    NETWORK = "network"
    NODE = "node"  # ours
    REQUEST = "request"  # what we were asked to do cannot be done


class Reached(StrEnum):
    """How far it may have got; what may have reached a person is never redialled silently."""

    NOTHING = "nothing"
    NETWORK = "network"
    PERSON = "person"


class ResultRow(msgspec.Struct, frozen=True):
    """A datum collected during one spool: ``("dtmf", "key", "5")``, ``("info", "played", …)``."""

    type: str
    name: str
    data: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one spool.

    ``cause`` is a stable slug (``busy``, ``no_answer``, ``trunk_unavailable`` …) shown as a
    transmission's ``response``; ``code`` is the protocol's own word (``"486"``, ``"603 q850=21"``).
    Times are aware UTC. ``talk_s`` runs from answer to end. ``again``: the same try goes on at once
    as another spool, uncounted, because nothing of this one left the machine, or because who runs
    the provider prefers a double to a loss. ``later_s``: seconds until the same try goes on,
    uncounted, by how often its transmission was put off already; where that is used up the spool
    has failed and the policy of retries holds. ``suppress``: why its destination must not be
    contacted again through this service ("" = it may be).
    """

    disposition: Disposition
    cause: str
    blame: Blame
    reached: Reached
    code: str = ""
    rows: tuple[ResultRow, ...] = ()
    started_at: datetime | None = None
    connected_at: datetime | None = None
    ended_at: datetime | None = None
    talk_s: float = 0.0
    again: bool = False
    later_s: tuple[float, ...] = ()
    suppress: str = ""

    @property
    def succeeded(self) -> bool:
        """True where the contact was reached as asked."""
        return self.disposition is Disposition.ANSWERED

    @property
    def trunk_failed(self) -> bool:
        """True where the trunk itself failed and nothing left it: the next trunk may be tried."""
        return self.blame is Blame.PROVIDER and self.reached is Reached.NOTHING


class Awaiting(msgspec.Struct, frozen=True, kw_only=True):
    """The message was handed over; what became of it is told later, by a ``Report``.

    ``accepted_at`` is when the network took it (the spool is then ``connected``); None = it may
    have taken it, nobody saw its answer. Without a report by ``closes_at`` the spool fails with
    ``no_receipt``. Times are aware UTC.
    """

    accepted_at: datetime | None
    closes_at: datetime
    code: str = ""
    rows: tuple[ResultRow, ...] = ()


Fate = Result | Awaiting
"""What a gateway knows of a spool when its part is over for now."""


def interrupted(cause: str = "interrupted") -> Result:
    """Nobody saw the outcome: node or worker died. A person may have been reached."""
    return Result(
        disposition=Disposition.INTERRUPTED,
        cause=cause,
        blame=Blame.NODE,
        reached=Reached.PERSON,
    )


def no_receipt() -> Result:
    """Handed over, and silence for as long as a report could come: it may have arrived."""
    return Result(
        disposition=Disposition.FAILED,
        cause="no_receipt",
        blame=Blame.NETWORK,
        reached=Reached.PERSON,
    )


def screened(cause: str) -> Result:
    """The result of a contact we chose not to try, e.g. ``invalid_number``."""
    return Result(
        disposition=Disposition.SCREENED,
        cause=cause,
        blame=Blame.REQUEST,
        reached=Reached.NOTHING,
    )


def node_failure(cause: str, reached: Reached = Reached.NOTHING) -> Result:
    """Our own fault (a bug, no worker, a full disk); the unknown counts against us."""
    return Result(disposition=Disposition.FAILED, cause=cause, blame=Blame.NODE, reached=reached)
