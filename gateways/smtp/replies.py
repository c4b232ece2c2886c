"""What a mail server's answer means and what to do about it: one table, tested row by row. Pure.

The enhanced code decides (RFC 3463), then the basic code and how far the mail was (RFC 5321 §4.2).
Once the final dot has left, only a reply tells that the mail was not taken: everything else is
UNSURE, and nothing is tried elsewhere.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

from engine.results import Blame, Disposition, Reached
from gateways.smtp.records import Answer, At, How


class Action(StrEnum):
    """What is done about a mail that was answered so."""

    DONE = "done"
    ELSEWHERE = "elsewhere"  # another connection or MX at once, then later
    LATER = "later"
    NEVER = "never"
    STOP = "stop"  # nothing goes this way until somebody mends it: later
    UNSURE = "unsure"  # it may have been taken


class Verdict(NamedTuple):
    """One row: what to do, what it means where that did not help, and where it is written.

    ``suppress``: the address is dead, nobody shall write to it again.
    """

    action: Action
    disposition: Disposition
    cause: str
    blame: Blame
    reached: Reached
    suppress: bool
    clause: str


def _row(  # noqa: PLR0917 - columns of the table
    action: Action,
    disposition: Disposition,
    cause: str,
    blame: Blame,
    reached: Reached,
    clause: str,
    *,
    suppress: bool = False,
) -> Verdict:
    return Verdict(action, disposition, cause, blame, reached, suppress, clause)


_A, _D, _B, _R = Action, Disposition, Blame, Reached

ACCEPTED = _row(_A.DONE, _D.ANSWERED, "accepted", _B.NOBODY, _R.PERSON, "RFC 5321 §4.2.5")
UNKNOWN = _row(_A.UNSURE, _D.INTERRUPTED, "unknown", _B.NETWORK, _R.PERSON, "RFC 5321 §4.5.3.2.6")
DROPPED = _row(_A.LATER, _D.INTERRUPTED, "not_sent", _B.NODE, _R.NOTHING, "RFC 5321 §4.1.1.4")
BUSY = _row(_A.LATER, _D.DEFERRED, "busy", _B.NETWORK, _R.NOTHING, "RFC 5321 §4.5.4.1")

_TRUNK = _row(
    _A.ELSEWHERE, _D.DEFERRED, "trunk_unavailable", _B.PROVIDER, _R.NOTHING, "RFC 5321 §3.8"
)
_HOST = _row(_A.ELSEWHERE, _D.DEFERRED, "host_unavailable", _B.NETWORK, _R.NOTHING, "RFC 5321 §5.1")
_AUTH = _row(_A.STOP, _D.DEFERRED, "auth_failed", _B.PROVIDER, _R.NOTHING, "RFC 4954 §6")
_TLS = _row(_A.STOP, _D.DEFERRED, "tls_failed", _B.PROVIDER, _R.NOTHING, "RFC 3207 §4")
# One domain's certificate says nothing of the others.
_HOST_TLS = _row(_A.ELSEWHERE, _D.DEFERRED, "tls_failed", _B.NETWORK, _R.NOTHING, "RFC 3207 §4.1")

_GREYLISTED = _row(_A.LATER, _D.DEFERRED, "greylisted", _B.NETWORK, _R.NETWORK, "RFC 6647 §5")
_DEFERRED = _row(_A.LATER, _D.DEFERRED, "deferred", _B.NETWORK, _R.NETWORK, "RFC 5321 §4.5.4.1")
_CROWDED = _DEFERRED._replace(clause="RFC 5321 §4.5.3.1.10")
_CLOSING = _DEFERRED._replace(clause="RFC 5321 §3.8")

_NO_ADDRESS = _row(
    _A.NEVER, _D.INVALID, "no_such_address", _B.CALLEE, _R.NETWORK, "RFC 3463 §3.2", suppress=True
)
_NO_DOMAIN = _row(
    _A.NEVER, _D.INVALID, "no_such_domain", _B.CALLEE, _R.NOTHING, "RFC 7505 §4.1", suppress=True
)
_NO_MAIL = _NO_DOMAIN._replace(reached=_R.NETWORK, clause="RFC 7504 §4")
_SENDER = _row(_A.NEVER, _D.REJECTED, "invalid_sender", _B.REQUEST, _R.NETWORK, "RFC 3463 §3.2")
# Not known why: it may be policy, so the address lives on.
_REFUSED = _row(_A.NEVER, _D.REJECTED, "refused", _B.NETWORK, _R.NETWORK, "RFC 5321 §4.2.1")
_FULL = _row(_A.NEVER, _D.FAILED, "mailbox_full", _B.CALLEE, _R.NETWORK, "RFC 3463 §3.3")
_TOO_LARGE = _row(_A.NEVER, _D.REJECTED, "too_large", _B.REQUEST, _R.NETWORK, "RFC 1870 §6")
_POLICY = _row(_A.NEVER, _D.REJECTED, "policy", _B.NETWORK, _R.NETWORK, "RFC 3463 §3.8")
_MESSAGE = _row(_A.NEVER, _D.REJECTED, "invalid_message", _B.REQUEST, _R.NETWORK, "RFC 3463 §3.7")
_ASCII = _row(_A.NEVER, _D.REJECTED, "no_smtputf8", _B.REQUEST, _R.NETWORK, "RFC 6531 §3.5")
_UNABLE = _row(_A.NEVER, _D.REJECTED, "invalid_address", _B.REQUEST, _R.NOTHING, "RFC 5321 §4.1.2")
_UNABLE_UTF8 = _ASCII._replace(reached=_R.NOTHING)
_UNABLE_SIZE = _TOO_LARGE._replace(reached=_R.NOTHING)

PERMANENT: dict[str, Verdict] = {
    **dict.fromkeys(("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.2.1"), _NO_ADDRESS),
    "5.1.10": _NO_ADDRESS._replace(clause="RFC 7505 §4.2"),
    "5.1.7": _SENDER,
    "5.1.8": _SENDER,
    "5.1.0": _REFUSED,
    "5.1.4": _REFUSED,
    "5.2.2": _FULL,
    "5.2.3": _TOO_LARGE._replace(clause="RFC 3463 §3.3"),
    "5.3.4": _TOO_LARGE._replace(clause="RFC 3463 §3.4"),
    "5.6.7": _ASCII,
}
"""What a permanent enhanced code means; 5.7.x and 5.6.x have a row each in ``of_status``."""

_ENHANCED = re.compile(r"\s*[#(]?([245])\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})(?![\d.])")
_GREYLIST = re.compile(r"gr[ae]y-?\s?list", re.IGNORECASE)
_GREY_CODES = ("", "4.0.0", "4.2.0", "4.7.0", "4.7.1")
_BEFORE_MAIL = (At.ROUTE, At.CONNECT, At.GREETING, At.EHLO, At.TLS, At.AUTH)
_CONTENT = (At.DATA, At.DOT)
_LOGIN_CODES = (530, 534, 535, 538)
_TEMPORARY, _PERMANENT = 4, 5


def enhanced(code: int, text: str) -> str:
    """The reply's enhanced code (``5.1.1``, RFC 2034 §4), "" where none fits the reply's class."""
    found = _ENHANCED.match(text)
    if found is None or int(found[1]) != code // 100:
        return ""
    return f"{found[1]}.{found[2]}.{found[3]}"


def of_status(status: str) -> Verdict | None:
    """What an enhanced code means on its own, e.g. in a bounce; None where it does not tell."""
    if status.startswith("5.7."):
        return _POLICY
    known = PERMANENT.get(status)
    return _MESSAGE if known is None and status.startswith("5.6.") else known


def verdict_of(answer: Answer, *, direct: bool) -> Verdict:
    """What an answer means. ``direct``: it came from an MX of the recipient, not from our relay."""
    if answer.how is How.REPLY:
        return _of_reply(answer, direct=direct)
    return UNKNOWN if answer.left else _of_failure(answer, direct=direct)


def code_of(answer: Answer) -> str:
    """``550 5.1.1 at rcpt`` or ``timeout at dot``, for ``Result.code``."""
    if answer.how is not How.REPLY:
        return f"{answer.how} at {answer.at}"
    words = (str(answer.code), enhanced(answer.code, answer.text), f"at {answer.at}")
    return " ".join(word for word in words if word)


def elsewhere(answer: Answer, *, direct: bool = False) -> bool:
    """Whether it is tried at once on another connection or MX (≤ 3 in all); never once it left."""
    if answer.left:
        return False
    # What one MX cannot take, another may: the verdict is for when none can.
    another_mx = direct and answer.how is How.UNABLE and answer.at is not At.AUTH
    return another_mx or verdict_of(answer, direct=direct).action is Action.ELSEWHERE


# --- no reply ----------------------------------------------------------------------------------
def _of_failure(answer: Answer, *, direct: bool) -> Verdict:
    match answer.how:
        case How.DROPPED:
            return DROPPED
        case How.UNTRUSTED | How.UNABLE:
            return _of_lack(answer, direct=direct)
        case How.NO_ROUTE:
            return _of_route(answer, direct=direct)
        case How.TIMEOUT if answer.at is At.ROUTE:
            return BUSY
        case _:
            return _HOST if direct else _TRUNK


def _of_lack(answer: Answer, *, direct: bool) -> Verdict:
    """What the peer has not: a right certificate, a way for us to log in, a size, SMTPUTF8."""
    if answer.how is How.UNTRUSTED:
        return _HOST_TLS if direct else _TLS
    if answer.at is At.AUTH:
        return _AUTH
    if answer.text.startswith("SIZE"):
        return _UNABLE_SIZE
    return _UNABLE_UTF8 if answer.text.startswith("SMTPUTF8") else _UNABLE


def _of_route(answer: Answer, *, direct: bool) -> Verdict:
    """A relay that is not in DNS tells nothing of the recipient's domain."""
    if direct and answer.permanent:
        return _NO_DOMAIN
    # DNS was asked just now: asking again at once answers nothing.
    return (_HOST if direct else _TRUNK)._replace(action=Action.LATER)


# --- replies -----------------------------------------------------------------------------------
def _of_reply(answer: Answer, *, direct: bool) -> Verdict:
    kind = answer.code // 100
    if answer.at is At.DOT and answer.left and kind not in {_TEMPORARY, _PERMANENT}:
        return ACCEPTED if kind == 2 else UNKNOWN  # noqa: PLR2004 - 2yz, §4.2.1
    if answer.at is At.AUTH and _refuses_login(answer):
        return _AUTH
    if answer.at in _BEFORE_MAIL or kind not in {_TEMPORARY, _PERMANENT}:
        # A success where we saw a failure: the two of us are out of step.
        return _HOST if direct else _TRUNK
    if answer.code in {421, 521}:
        return _of_closing(answer, direct=direct)
    return _of_temporary(answer) if kind == _TEMPORARY else _of_permanent(answer, direct=direct)


def _refuses_login(answer: Answer) -> bool:
    """5yz, and 454 4.7.0 (RFC 4954 §4.7.1): trying again and again would lock the account."""
    return answer.code // 100 == _PERMANENT or answer.code == 454  # noqa: PLR2004


def _of_closing(answer: Answer, *, direct: bool) -> Verdict:
    """421 (§3.8), 521 (RFC 7504 §3): the host takes nothing now. To the dot it is a reply."""
    if answer.left:
        return _CLOSING if answer.code == 421 else _REFUSED  # noqa: PLR2004
    return _HOST if direct else _TRUNK


def _of_temporary(answer: Answer) -> Verdict:
    status = enhanced(answer.code, answer.text)
    if status == "4.5.3":
        return _CROWDED
    at_recipient = answer.at is At.RCPT and answer.code in {450, 451} and status in _GREY_CODES
    if at_recipient or status == "4.7.1" or _GREYLIST.search(answer.text):
        return _GREYLISTED
    return _DEFERRED


def _of_permanent(answer: Answer, *, direct: bool) -> Verdict:
    if answer.code in _LOGIN_CODES and not direct:
        return _TLS if "STARTTLS" in answer.text.upper() else _AUTH
    status = enhanced(answer.code, answer.text)
    known = of_status(status)
    if known is not None:
        # Before RCPT nobody spoke of the recipient yet.
        return _SENDER if known.suppress and answer.at is At.MAIL else known
    return _of_basic(answer, coded=bool(status))


def _of_basic(answer: Answer, *, coded: bool) -> Verdict:
    if answer.code == 552:  # noqa: PLR2004 - RFC 5321 §4.2.3
        return _TOO_LARGE
    if answer.at is At.MAIL:
        return _SENDER
    if answer.code == 556 and answer.at is At.RCPT:  # noqa: PLR2004 - RFC 7504 §4
        return _NO_MAIL
    if answer.code in {550, 554} and answer.at in _CONTENT and not coded:
        return _POLICY._replace(clause="RFC 5321 §4.2.3")
    return _REFUSED
