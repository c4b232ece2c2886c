"""SMPP statuses and receipt states → what to do, and ``Result``: two tables, tested row by row.

What became of a message that may be on a handset is never tried again on its own (``PERSON``), and
that holds for a message of which one part arrived, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from itertools import accumulate
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from engine.errors import InvalidError
from engine.results import Blame, Disposition, Reached, Result, ResultRow
from gateways.smpp.names import status_name
from gateways.smpp.records import ReceiptState
from gateways.smpp.settings import SmppSettings

_MAX_DATA = 255  # of a result row


class Action(StrEnum):
    """What a link does about a submit_sm that was answered with an error."""

    RETRY = "retry"  # later, with backoff, a few times; then another route
    THROTTLE = "throttle"  # later, and slower from now on
    QUEUE_FULL = "queue_full"  # pause the bind for some seconds
    REBIND = "rebind"  # the session is not what we think: bind again, then retry
    PERMANENT = "permanent"  # never this message
    SENDER = "sender"  # never with this sender; whoever runs the account has to know
    BUG = "bug"  # ours, or a stream out of step: never this PDU; reconnect where it repeats


class Verdict(NamedTuple):
    """One row: what to do, what it means where that did not help, and where it is written."""

    action: Action
    disposition: Disposition
    cause: str
    blame: Blame
    clause: str


_A, _D, _B = Action, Disposition, Blame

_TRUNK = Verdict(_A.RETRY, _D.FAILED, "trunk_unavailable", _B.PROVIDER, "SMPP 3.4 §5.1.3")
_REFUSED = Verdict(_A.PERMANENT, _D.REJECTED, "refused", _B.NETWORK, "SMPP 3.4 §5.1.3")
_NUMBER = Verdict(_A.PERMANENT, _D.INVALID, "invalid_number", _B.REQUEST, "SMPP 3.4 §5.1.3")
# REJECTED, for neither the same words nor the same sender will be taken on the next try.
_MESSAGE = Verdict(_A.PERMANENT, _D.REJECTED, "invalid_message", _B.REQUEST, "SMPP 3.4 §5.1.3")
_SENDER = Verdict(_A.SENDER, _D.REJECTED, "invalid_sender", _B.REQUEST, "SMPP 3.4 §5.1.3")
_THROTTLED = Verdict(_A.THROTTLE, _D.FAILED, "throttled", _B.PROVIDER, "SMPP 3.4 §5.1.3")
_QUEUE_FULL = Verdict(_A.QUEUE_FULL, _D.FAILED, "queue_full", _B.PROVIDER, "SMPP 3.4 §5.1.3")
_NOT_BOUND = Verdict(_A.REBIND, _D.FAILED, "not_bound", _B.PROVIDER, "SMPP 3.4 §5.1.3")
_OURS = Verdict(_A.BUG, _D.FAILED, "refused", _B.NODE, "SMPP 3.4 §5.1.3")
# An error of the SMSC's own, or of a later version: temporary until a provider's table says more.
_UNNAMED = _TRUNK._replace(cause="refused")


def _at(verdict: Verdict, clause: str) -> Verdict:
    return verdict._replace(clause=f"{verdict.clause}, {clause}")


STATUS: dict[int, Verdict] = {
    0x01: _at(_MESSAGE, "§5.2.21"),  # RINVMSGLEN
    0x02: _at(_OURS, "§5.1.1"),  # RINVCMDLEN
    0x03: _at(_OURS, "§5.1.2"),  # RINVCMDID
    0x04: _at(_NOT_BOUND, "§2.2"),  # RINVBNDSTS
    0x05: _at(_NOT_BOUND, "§2.2"),  # RALYBND
    0x06: _at(_MESSAGE, "§5.2.14"),  # RINVPRTFLG
    0x07: _at(_MESSAGE, "§5.2.17"),  # RINVREGDLVFLG
    0x08: _TRUNK,  # RSYSERR
    0x0A: _at(_SENDER, "§5.2.8"),  # RINVSRCADR
    0x0B: _at(_NUMBER, "§5.2.9"),  # RINVDSTADR
    0x0C: _at(_MESSAGE, "§5.2.23"),  # RINVMSGID
    0x0D: _at(_NOT_BOUND, "§4.1"),  # RBINDFAIL
    0x0E: _at(_NOT_BOUND, "§5.2.2"),  # RINVPASWD
    0x0F: _at(_NOT_BOUND, "§5.2.1"),  # RINVSYSID
    0x11: _at(_REFUSED, "§4.9"),  # RCANCELFAIL
    0x13: _at(_REFUSED, "§4.10"),  # RREPLACEFAIL
    0x14: _QUEUE_FULL,  # RMSGQFUL
    0x15: _at(_MESSAGE, "§5.2.11"),  # RINVSERTYP
    0x33: _at(_REFUSED, "§4.5"),  # RINVNUMDESTS
    0x34: _at(_REFUSED, "§4.5"),  # RINVDLNAME
    0x40: _at(_REFUSED, "§4.5"),  # RINVDESTFLAG
    0x42: _at(_MESSAGE, "§5.2.18"),  # RINVSUBREP
    0x43: _at(_MESSAGE, "§5.2.12"),  # RINVESMCLASS
    0x44: _at(_REFUSED, "§4.5"),  # RCNTSUBDL
    0x45: _at(_TRUNK, "§4.4"),  # RSUBMITFAIL
    0x48: _at(_SENDER, "§5.2.5"),  # RINVSRCTON
    0x49: _at(_SENDER, "§5.2.6"),  # RINVSRCNPI
    0x50: _at(_NUMBER, "§5.2.5"),  # RINVDSTTON
    0x51: _at(_NUMBER, "§5.2.6"),  # RINVDSTNPI
    0x53: _at(_REFUSED, "§5.2.3"),  # RINVSYSTYP
    0x54: _at(_MESSAGE, "§5.2.18"),  # RINVREPFLAG
    0x55: _at(_REFUSED, "§4.5"),  # RINVNUMMSGS
    0x58: _THROTTLED,  # RTHROTTLED
    0x61: _at(_MESSAGE, "§5.2.15"),  # RINVSCHED
    0x62: _at(_MESSAGE, "§5.2.16"),  # RINVEXPIRY
    0x63: _at(_MESSAGE, "§5.2.20"),  # RINVDFTMSGID
    0x64: _TRUNK,  # RX_T_APPN
    0x65: _REFUSED,  # RX_P_APPN
    0x66: _REFUSED,  # RX_R_APPN
    0x67: _at(_TRUNK, "§4.8"),  # RQUERYFAIL
    0xC0: _at(_MESSAGE, "§3.2.4"),  # RINVOPTPARSTREAM
    0xC1: _at(_MESSAGE, "§3.3"),  # ROPTPARNOTALLWD
    0xC2: _at(_MESSAGE, "§5.3.2"),  # RINVPARLEN
    0xC3: _at(_MESSAGE, "§5.3.2"),  # RMISSINGOPTPARAM
    0xC4: _at(_MESSAGE, "§5.3.2"),  # RINVOPTPARAMVAL
    0xFE: _TRUNK,  # RDELIVERYFAILURE
    0xFF: _TRUNK,  # RUNKNOWNERR
}

# What a provider's own table says of a status, where SMPP's word for it counts no more.
_BY_ACTION: dict[Action, Verdict] = {
    _A.RETRY: _UNNAMED,
    _A.THROTTLE: _THROTTLED,
    _A.QUEUE_FULL: _QUEUE_FULL,
    _A.REBIND: _NOT_BOUND,
    _A.PERMANENT: _REFUSED,
    _A.SENDER: _SENDER,
    _A.BUG: _OURS,
}
_NO_TABLE: Mapping[int, str] = MappingProxyType({})


def verdict_of(status: int, vendor: Mapping[int, str] = _NO_TABLE) -> Verdict:
    """What an error means; ``vendor`` is the provider's table (``settings.status_table``).

    A provider that only confirms the action SMPP has anyway leaves the rest as it is.
    """
    known = STATUS.get(status, _UNNAMED)
    word = vendor.get(status)
    return known if word is None or word == known.action else _BY_ACTION[Action(word)]


def action_of(status: int, vendor: Mapping[int, str] = _NO_TABLE) -> Action:
    """What to do about an error in answer to a submit_sm."""
    return verdict_of(status, vendor).action


def refused(
    status: int, *, reached: Reached = Reached.NOTHING, vendor: Mapping[int, str] = _NO_TABLE
) -> Result:
    """The SMSC's last word was an error. ``reached`` PERSON: it had taken another part before."""
    verdict = verdict_of(status, vendor)
    return Result(
        disposition=_arrived(verdict.disposition, reached),
        cause=verdict.cause,
        blame=verdict.blame,
        reached=reached,
        code=code_of(status),
    )


def code_of(status: int) -> str:
    """``0x0000000b ESME_RINVDSTADR``, for ``Result.code``; a vendor's own has no name."""
    return f"0x{status:08x} {status_name(status)}".rstrip()


def _arrived(disposition: Disposition, reached: Reached) -> Disposition:
    """FAILED where part of it arrived: NO_ANSWER and REJECTED may be tried again, that may not."""
    return Disposition.FAILED if reached is Reached.PERSON else disposition


# --- receipts


class _State(NamedTuple):
    disposition: Disposition
    cause: str
    blame: Blame
    reached: Reached


_RECEIPTS: dict[ReceiptState, _State] = {  # §5.2.28, Appendix B
    ReceiptState.DELIVERED: _State(_D.ANSWERED, "delivered", _B.NOBODY, Reached.PERSON),
    # The handset was off or out of reach as long as the SMSC tried.
    ReceiptState.EXPIRED: _State(_D.NO_ANSWER, "expired", _B.CALLEE, Reached.NETWORK),
    # Somebody at the SMSC took it out: doing it again would undo that.
    ReceiptState.DELETED: _State(_D.REJECTED, "deleted", _B.NETWORK, Reached.NETWORK),
    ReceiptState.UNDELIVERABLE: _State(_D.FAILED, "undelivered", _B.NETWORK, Reached.NETWORK),
    ReceiptState.REJECTED: _State(_D.REJECTED, "rejected", _B.NETWORK, Reached.NETWORK),
    # Final, and the SMSC itself does not know: it may be on the handset.
    ReceiptState.UNKNOWN: _State(_D.FAILED, "unknown_state", _B.NETWORK, Reached.PERSON),
}
_ERROR_LENGTH = 16


def of_receipt(state: ReceiptState, error: str = "", *, partly_delivered: bool = False) -> Result:
    """What a final receipt says; ``error`` is its err field or network_error_code, as it came.

    ``partly_delivered``: ``state`` is that of the worst part, and another one arrived. Raises
    ``KeyError`` for a state that is not final.
    """
    disposition, cause, blame, reached = _RECEIPTS[state]
    if partly_delivered and state is not ReceiptState.DELIVERED:
        disposition, reached = Disposition.FAILED, Reached.PERSON
    return Result(
        disposition=disposition,
        cause=cause,
        blame=blame,
        reached=reached,
        code=f"{state} {error[:_ERROR_LENGTH]}".rstrip(),
    )


# --- without a word of the SMSC


def accepted() -> Result:
    """The SMSC took every part, and no receipt was asked for."""
    return _result(_D.ANSWERED, "accepted", _B.NOBODY, Reached.PERSON)


def unanswered() -> Result:
    """It may have left, nobody saw an answer, no receipt came: ``at_most_once`` gives up here."""
    return _result(_D.INTERRUPTED, "unknown", _B.NETWORK, Reached.PERSON)


def resent() -> Result:
    """As ``unanswered``, where a double is better than a loss: it goes out once more, and says so.

    What goes out again may come twice; the row is kept with the spool that stays unknown.
    """
    result = _result(_D.INTERRUPTED, "resent", _B.NETWORK, Reached.PERSON)
    return _again(result, ResultRow("info", "possible_duplicate", "1"))


def not_sent() -> Result:
    """The node went down before any of it was written: the same try goes on."""
    return _again(_result(_D.INTERRUPTED, "not_sent", _B.NODE, Reached.NOTHING))


def put_off(cause: str, settings: SmppSettings, validity_s: float = 0.0, fault: str = "") -> Result:
    """Certainly nothing of it left: the next trunk at once, else the same try by ``retry_s``.

    The waits together stay within ``validity_s`` (0: all of them): later than that nobody wants it.
    ``fault`` is why the provider takes nothing, in words.
    """
    result = _result(_D.DEFERRED, cause, _B.PROVIDER, Reached.NOTHING)
    waits = zip(settings.retry_s, accumulate(settings.retry_s), strict=True)
    later_s = tuple(each for each, total in waits if not validity_s or total <= validity_s)
    return msgspec.structs.replace(result, later_s=later_s, rows=_error(fault))


def trunk_failure(cause: str, reached: Reached, fault: str = "") -> Result:
    """The provider took no more, and what it had taken may be there: it is not tried again."""
    result = _result(_D.FAILED, cause, _B.PROVIDER, reached)
    return msgspec.structs.replace(result, rows=_error(fault))


def _error(words: str) -> tuple[ResultRow, ...]:
    """What went wrong, in the row that the dialect has for it (specs/ictcore.md §5.3)."""
    return (ResultRow("error", "error", words[:_MAX_DATA]),) if words else ()


def invalid(error: InvalidError) -> Result:
    """An order no SMPP message can hold, and in a row why."""
    verdict = {"source": _SENDER, "destination": _NUMBER}.get(error.field or "", _MESSAGE)
    result = _result(verdict.disposition, verdict.cause, verdict.blame, Reached.NOTHING)
    return msgspec.structs.replace(result, rows=_error(str(error)))


def _result(disposition: Disposition, cause: str, blame: Blame, reached: Reached) -> Result:
    return Result(disposition=disposition, cause=cause, blame=blame, reached=reached)


def _again(result: Result, *rows: ResultRow) -> Result:
    return msgspec.structs.replace(result, again=True, rows=rows)
