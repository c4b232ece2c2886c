"""SIP status and Q.850 cause → ``Result``: one table, tested row by row.

How far a call got (``Reached``) decides whether it may be repeated, so doubt goes upwards:

- NOTHING: the trunk itself refused before any 18x, or no packet could be delivered.
- NETWORK: anything else without an answer. A 18x means a telephone may have rung, yet nobody has
  spoken with us; silence (timer B) means we do not know who got the INVITE.
- PERSON: answered, or refused by a person (603, 607).
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from engine.results import Blame, Disposition, Reached, Result, ResultRow
from gateways.sip.session import Session, Why
from native.pjsua.wire import Final, Origin


class Verdict(NamedTuple):
    """One row: what a status means, and the clause that says so."""

    disposition: Disposition
    cause: str
    blame: Blame
    reached: Reached
    clause: str


_D, _B, _R = Disposition, Blame, Reached

_BUSY = Verdict(_D.BUSY, "busy", _B.CALLEE, _R.NETWORK, "RFC 3261 §21.4.24")
_NO_ANSWER = Verdict(_D.NO_ANSWER, "no_answer", _B.CALLEE, _R.NETWORK, "RFC 3261 §21.4.18")
_INVALID = Verdict(_D.INVALID, "invalid_number", _B.REQUEST, _R.NETWORK, "RFC 3261 §21.4.5")
_REJECTED = Verdict(_D.REJECTED, "rejected", _B.CALLEE, _R.PERSON, "RFC 3261 §21.6.2")
_TRUNK = Verdict(_D.FAILED, "trunk_unavailable", _B.PROVIDER, _R.NOTHING, "RFC 3261 §21.5.4")
_CONGESTED = Verdict(_D.FAILED, "trunk_congested", _B.PROVIDER, _R.NOTHING, "RFC 3261 §21.5.4")
_AUTH = Verdict(_D.FAILED, "trunk_authentication", _B.PROVIDER, _R.NOTHING, "RFC 3261 §22.3")
_FORBIDDEN = Verdict(_D.FAILED, "trunk_forbidden", _B.PROVIDER, _R.NOTHING, "RFC 3261 §21.4.4")
_MEDIA = Verdict(_D.FAILED, "incompatible_media", _B.PROVIDER, _R.NOTHING, "RFC 3261 §21.4.26")
_BLOCKED = Verdict(_D.REJECTED, "blocked", _B.PROVIDER, _R.NETWORK, "RFC 8688 §3")
_LOOP = Verdict(_D.FAILED, "routing_loop", _B.PROVIDER, _R.NOTHING, "RFC 3261 §21.4.20")
_IDENTITY = Verdict(_D.FAILED, "identity_refused", _B.PROVIDER, _R.NOTHING, "RFC 8224 §6.2.2")
_TIMED_OUT = Verdict(_D.FAILED, "network_timeout", _B.NETWORK, _R.NETWORK, "RFC 3261 §21.5.5")
# A redirect is not followed: whoever answers for the trunk could send us to any premium number.
_REDIRECTED = Verdict(_D.FAILED, "redirected", _B.NETWORK, _R.NETWORK, "RFC 3261 §21.3")
_TERMINATED = Verdict(_D.FAILED, "terminated", _B.NETWORK, _R.NETWORK, "RFC 3261 §21.4.25")
# What we sent was not understood: the unknown counts against us.
_OURS = Verdict(_D.FAILED, "request_refused", _B.NODE, _R.NOTHING, "RFC 3261 §21.4.1")

STATUS: dict[int, Verdict] = {
    401: _AUTH,
    402: _FORBIDDEN._replace(clause="RFC 3261 §21.4.3"),
    403: _FORBIDDEN,
    404: _INVALID,
    406: _MEDIA._replace(clause="RFC 3261 §21.4.7"),
    407: _AUTH._replace(clause="RFC 3261 §22.3"),
    408: _NO_ANSWER._replace(cause="unreachable", clause="RFC 3261 §21.4.9"),
    410: _INVALID._replace(clause="RFC 3261 §21.4.10"),
    415: _MEDIA._replace(clause="RFC 3261 §21.4.13"),
    416: _INVALID._replace(clause="RFC 3261 §21.4.14"),
    429: _IDENTITY._replace(clause="RFC 3892 §5"),
    433: _REJECTED._replace(
        cause="anonymity_refused", blame=_B.REQUEST, reached=_R.NETWORK, clause="RFC 5079 §5"
    ),
    436: _IDENTITY,
    437: _IDENTITY,
    438: _IDENTITY,
    480: _NO_ANSWER._replace(cause="unavailable"),
    482: _LOOP._replace(clause="RFC 3261 §21.4.20"),
    483: _LOOP._replace(clause="RFC 3261 §21.4.21"),
    484: _INVALID._replace(clause="RFC 3261 §21.4.22"),
    485: _INVALID._replace(clause="RFC 3261 §21.4.23"),
    486: _BUSY,
    487: _TERMINATED,
    488: _MEDIA,
    500: _TRUNK._replace(clause="RFC 3261 §21.5.1"),
    501: _TRUNK._replace(clause="RFC 3261 §21.5.2"),
    502: _TRUNK._replace(clause="RFC 3261 §21.5.3"),
    503: _TRUNK,
    # The trunk did pass the call on and heard nothing: somebody may have been rung.
    504: _TIMED_OUT,
    580: _TRUNK._replace(clause="RFC 3312 §8"),
    600: _BUSY._replace(clause="RFC 3261 §21.6.1"),
    603: _REJECTED,
    604: _INVALID._replace(clause="RFC 3261 §21.6.3"),
    606: _MEDIA._replace(clause="RFC 3261 §21.6.4"),
    607: _REJECTED._replace(cause="unwanted", clause="RFC 8197 §3"),
    608: _BLOCKED,
}
_CLASS: dict[int, Verdict] = {3: _REDIRECTED, 4: _OURS, 5: _TRUNK, 6: _REJECTED}

# A gateway to the telephone network often says 503 or 480 for everything and the truth in Reason.
Q850: dict[int, Verdict] = {
    1: _INVALID._replace(clause="Q.850 1 unallocated number"),
    2: _TRUNK._replace(clause="Q.850 2 no route to transit network"),
    3: _INVALID._replace(clause="Q.850 3 no route to destination"),
    17: _BUSY._replace(clause="Q.850 17 user busy"),
    18: _NO_ANSWER._replace(cause="unreachable", clause="Q.850 18 no user responding"),
    19: _NO_ANSWER._replace(clause="Q.850 19 no answer from user"),
    20: _NO_ANSWER._replace(cause="unavailable", clause="Q.850 20 subscriber absent"),
    21: _REJECTED._replace(clause="Q.850 21 call rejected"),
    22: _INVALID._replace(clause="Q.850 22 number changed"),
    27: _NO_ANSWER._replace(cause="unavailable", clause="Q.850 27 destination out of order"),
    28: _INVALID._replace(clause="Q.850 28 invalid number format"),
    34: _CONGESTED._replace(clause="Q.850 34 no circuit available"),
    38: _TRUNK._replace(clause="Q.850 38 network out of order"),
    41: _TRUNK._replace(clause="Q.850 41 temporary failure"),
    42: _CONGESTED._replace(clause="Q.850 42 switching equipment congestion"),
    44: _CONGESTED._replace(clause="Q.850 44 requested circuit not available"),
    47: _CONGESTED._replace(clause="Q.850 47 resource unavailable"),
    50: _FORBIDDEN._replace(clause="Q.850 50 facility not subscribed"),
    55: _FORBIDDEN._replace(clause="Q.850 55 incoming calls barred"),
    57: _FORBIDDEN._replace(clause="Q.850 57 bearer capability not authorised"),
    88: _MEDIA._replace(clause="Q.850 88 incompatible destination"),
    102: _TIMED_OUT._replace(clause="Q.850 102 recovery on timer expiry"),
}

# Seen with real carriers: "503 cps limit exceeded", "500 Too many calls", "480 Rate limit".
_LIMIT_WORDS = re.compile(
    r"\bcps\b|rate.?limit|limit (?:exceeded|reached)|too many|congest|capacity|channels? limit",
    re.IGNORECASE,
)
_RINGING_ENDS = (408, 480, 487)  # after a 18x: the telephone rang and nobody took it
_SYSTEM_ERRORS = 120_000  # PJ_ERRNO_START_SYS: errno of the operating system above it
_CERTIFICATE_WORDS = re.compile(r"certificate|SSL|TLS", re.IGNORECASE)
_UNDELIVERED_WORDS = re.compile(r"refused|unreachable|no route|resolve", re.IGNORECASE)

_ANSWERED = Verdict(_D.ANSWERED, "answered", _B.NOBODY, _R.PERSON, "RFC 3261 §13.2.2.4")


def verdict_of(final: Final) -> Verdict:
    """What a call that was never up came to, by the far end's (or the network's) own words."""
    if final.answered:
        # Answered, but with SDP nobody can talk by: a person did lift the receiver.
        return _MEDIA._replace(reached=_R.PERSON)
    found = _by_origin(final)
    if final.rang and found.reached is _R.NOTHING:
        return found._replace(reached=_R.NETWORK)
    return found


def _by_origin(final: Final) -> Verdict:
    match final.origin:
        case Origin.TIMER:
            return _TIMED_OUT._replace(clause="RFC 3261 §17.1.1.2 timer B")
        case Origin.TRANSPORT:
            return _undeliverable(final)
        case Origin.LOCAL:
            return _OURS._replace(cause="stack_refused", clause="pjsua")
        case _:
            return _by_status(final)


def _undeliverable(final: Final) -> Verdict:
    if _CERTIFICATE_WORDS.search(final.reason):
        return _TRUNK._replace(cause="trunk_certificate", clause="RFC 5922 §7")
    if _UNDELIVERED_WORDS.search(final.reason):
        return _TRUNK._replace(cause="trunk_unreachable", clause="RFC 3261 §18.4")
    # A connection that broke after the INVITE may have delivered it.
    return _TIMED_OUT._replace(cause="trunk_connection_lost", clause="RFC 3261 §18.4")


def _by_status(final: Final) -> Verdict:
    exact = Q850.get(final.q850)
    if exact is not None:
        return exact
    limited = final.code // 100 in (4, 5) and final.code not in (486, 487)
    if limited and _LIMIT_WORDS.search(final.reason):
        return _CONGESTED
    if final.rang and final.code in _RINGING_ENDS:
        return _NO_ANSWER
    return STATUS.get(final.code) or _CLASS.get(final.code // 100, _OURS)


def code_of(final: Final) -> str:
    """The protocol's own word for ``Result.code``: ``486``, ``603 q850=21``, ``timer_b``."""
    if final.origin is Origin.TIMER:
        return "timer_b"
    if final.origin is not Origin.WIRE:
        return f"{final.code} {final.origin.value}" if final.code else final.origin.value
    return f"{final.code} q850={final.q850}" if final.q850 else str(final.code)


_OUR_END: dict[Why, Verdict] = {
    Why.RING_TIMEOUT: _NO_ANSWER._replace(clause="RFC 3261 §9.1"),
    Why.CALL_LIMIT: _TIMED_OUT._replace(cause="call_limit", clause="ours"),
    Why.PROGRAM: Verdict(_D.CANCELLED, "cancelled", _B.NOBODY, _R.NETWORK, "ours"),
    Why.CANCELLED: Verdict(_D.CANCELLED, "cancelled", _B.NOBODY, _R.NETWORK, "ours"),
    Why.SHUTDOWN: Verdict(_D.CANCELLED, "shutdown", _B.NOBODY, _R.NETWORK, "ours"),
    Why.PROGRAM_FAILED: Verdict(_D.FAILED, "program_failed", _B.NODE, _R.NETWORK, "ours"),
    Why.MEDIA_LOST: Verdict(_D.INTERRUPTED, "media_lost", _B.NODE, _R.NETWORK, "ours"),
    Why.MEDIA_REFUSED: _MEDIA,
    Why.PLAYBACK_FAILED: Verdict(_D.FAILED, "playback_failed", _B.NODE, _R.NETWORK, "ours"),
    Why.WORKER_DIED: Verdict(_D.INTERRUPTED, "worker_died", _B.NODE, _R.PERSON, "ours"),
}
_ENDED_UP: dict[Why, Verdict] = {
    Why.CALL_LIMIT: _ANSWERED._replace(cause="call_limit"),
    Why.DEAD_MEDIA: _ANSWERED._replace(cause="media_timeout", blame=_B.NETWORK),
    **{
        why: _OUR_END[why]._replace(reached=_R.PERSON)
        for why in (
            Why.CANCELLED, Why.SHUTDOWN, Why.PROGRAM_FAILED, Why.MEDIA_LOST, Why.MEDIA_REFUSED,
            Why.PLAYBACK_FAILED, Why.WORKER_DIED,
        )
    },
}  # fmt: skip


def conclude(session: Session, final: Final | None) -> Verdict:
    """What the call came to, all known: its way, why we hung up, the last word of the far end.

    Our own reason wins: the 487 after our CANCEL says nothing about the callee (RFC 3261 §9.1).
    """
    if session.connected:
        return _ENDED_UP.get(session.why, _ANSWERED)
    if session.why is Why.NONE and final is not None:
        return verdict_of(final)
    found = _OUR_END.get(session.why, _OUR_END[Why.CANCELLED])
    if session.answered_late or (final is not None and final.answered):
        return found._replace(reached=_R.PERSON)
    if not session.placed:
        return found._replace(reached=_R.NOTHING)
    return found


def result(
    verdict: Verdict,
    final: Final | None,
    rows: tuple[ResultRow, ...] = (),
    *,
    started_at: datetime | None = None,
    connected_at: datetime | None = None,
    ended_at: datetime | None = None,
    talk_s: float = 0.0,
) -> Result:
    """The verdict with its times and data."""
    return Result(
        disposition=verdict.disposition,
        cause=verdict.cause,
        blame=verdict.blame,
        reached=verdict.reached,
        code="" if final is None else code_of(final),
        rows=rows,
        started_at=started_at,
        connected_at=connected_at,
        ended_at=ended_at,
        talk_s=talk_s,
    )
