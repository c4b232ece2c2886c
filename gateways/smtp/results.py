"""What became of a mail, as ``Result``: made in one place, so that retry can rely on it. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from engine.results import Blame, Disposition, Fate, Reached, Result, ResultRow
from gateways.smtp.records import Answer, How
from gateways.smtp.replies import Action, Verdict, code_of, enhanced, of_status, verdict_of
from gateways.smtp.settings import SmtpSettings, UnknownPolicy

ROW = "email"
"""Type of the result rows of a mail."""

MAX_DATA = 255
_MAX_REASON = 200
_JITTER = 0.1  # so that what was put off together does not come back together
_PERMANENT_CLASS = "5."


def result_of(
    answer: Answer, settings: SmtpSettings, *, direct: bool, dice: random.Random
) -> Result:
    """What an answer makes of its spool; ``direct`` as in ``verdict_of``."""
    rows = rows_of(answer)
    if answer.how is How.DROPPED and not answer.left:
        return not_sent()
    verdict = verdict_of(answer, direct=direct)
    match verdict.action:
        case Action.DONE:
            return accepted(rows, code=code_of(answer))
        case Action.UNSURE:
            return unknown(settings.unknown, rows, code=code_of(answer))
        case Action.NEVER:
            return _final(verdict, answer, settings, rows)
        case _:
            return deferred(verdict, settings, dice, rows, code=code_of(answer))


def rows_of(answer: Answer) -> tuple[ResultRow, ...]:
    """What the spool keeps of an answer: reply (or why there is none), host, TLS, tries."""
    reply = f"{answer.code} {answer.text}" if answer.how is How.REPLY else answer.text
    data = {
        "reply": reply,
        "host": answer.host,
        "tls": answer.tls,
        "tries": str(answer.tries),
    }
    return tuple(ResultRow(ROW, name, shown(text)) for name, text in data.items() if text)


def shown(text: str, limit: int = MAX_DATA) -> str:
    """A stranger's words on one line: no controls, at most ``limit`` characters."""
    # Four times as much is enough to cut from, however long a reply is.
    plain = "".join(each if each.isprintable() else " " for each in text[: 4 * limit])
    return " ".join(plain.split())[:limit]


def accepted(rows: Sequence[ResultRow] = (), *, code: str = "") -> Result:
    """A server took it over (250): whether it arrives, only a bounce would tell."""
    return Result(
        disposition=Disposition.ANSWERED,
        cause="accepted",
        blame=Blame.NOBODY,
        reached=Reached.PERSON,
        code=code,
        rows=tuple(rows),
    )


def deferred(
    verdict: Verdict,
    settings: SmtpSettings,
    dice: random.Random,
    rows: Sequence[ResultRow] = (),
    *,
    code: str = "",
) -> Result:
    """Put off: the same try goes on by the provider's schedule, each wait ± 10 %."""
    return Result(
        disposition=Disposition.DEFERRED,
        cause=verdict.cause,
        blame=verdict.blame,
        reached=verdict.reached,
        code=code,
        rows=tuple(rows),
        later_s=tuple(each * dice.uniform(1 - _JITTER, 1 + _JITTER) for each in settings.retry_s),
    )


def unknown(policy: UnknownPolicy, rows: Sequence[ResultRow] = (), *, code: str = "") -> Result:
    """The dot had left and nobody saw an answer: it may have been delivered.

    With ``at_least_once`` it goes out again, with the same Message-ID, and says so.
    """
    if policy == "at_least_once":
        return resent(rows, code=code)
    return _interrupted("unknown", rows, code)


def resent(rows: Sequence[ResultRow] = (), *, code: str = "") -> Result:
    """As ``unknown``, where a double is better than a loss; the row stays with this spool."""
    double = ResultRow("info", "possible_duplicate", "1")
    return _interrupted("resent", (*rows, double), code, again=True)


def not_sent() -> Result:
    """Its dot certainly did not leave, and we are the reason: the same try goes on."""
    return Result(
        disposition=Disposition.INTERRUPTED,
        cause="not_sent",
        blame=Blame.NODE,
        reached=Reached.NOTHING,
        again=True,
    )


def named(fate: Fate, message_id: str) -> Fate:
    """With the mail's Message-ID, which was not kept where nobody saw an answer."""
    if fate == not_sent() or any(row.name == "message_id" for row in fate.rows):
        return fate
    row = ResultRow(ROW, "message_id", message_id)
    return msgspec.structs.replace(fate, rows=(*fate.rows, row))


def bounced(status: str, diagnostic: str, *, suppress: bool) -> Result:
    """A mail that was taken came back for good: ``Action: failed`` of a DSN (RFC 3464 §2.3.3).

    Final with a status 4.x too (the other side's queue gave it up), but only a 5.x that says that
    the address is dead closes it, and only where ``suppress`` says so.
    """
    verdict = of_status(status)
    permanent = status.startswith(_PERMANENT_CLASS)
    return Result(
        disposition=verdict.disposition
        if verdict
        else Disposition.REJECTED
        if permanent
        else Disposition.FAILED,
        cause=verdict.cause if verdict else "bounced",
        blame=verdict.blame if verdict else Blame.NETWORK,
        reached=Reached.NETWORK,
        code=shown(status, 16),
        suppress=_reason(status, diagnostic) if suppress and verdict and verdict.suppress else "",
    )


def withheld(result: Result) -> Result:
    """Its address stays open; a row says why it would have been closed."""
    row = ResultRow("info", "not_suppressed", result.suppress)
    return msgspec.structs.replace(result, suppress="", rows=(*result.rows, row))


def invalid(field: str) -> Result:
    """An order no mail can be made of; ``field`` is that of the ``InvalidError``."""
    cause = {"source": "invalid_sender", "destination": "invalid_address"}.get(
        field, "invalid_message"
    )
    return Result(
        disposition=Disposition.REJECTED,
        cause=cause,
        blame=Blame.REQUEST,
        reached=Reached.NOTHING,
    )


def trunk_failure(cause: str) -> Result:
    """The provider took nothing: the next one may be tried at once."""
    return Result(
        disposition=Disposition.FAILED,
        cause=cause,
        blame=Blame.PROVIDER,
        reached=Reached.NOTHING,
    )


def _final(
    verdict: Verdict, answer: Answer, settings: SmtpSettings, rows: Sequence[ResultRow]
) -> Result:
    status = enhanced(answer.code, answer.text)
    text = answer.text.lstrip().removeprefix(status)
    return Result(
        disposition=verdict.disposition,
        cause=verdict.cause,
        blame=verdict.blame,
        reached=verdict.reached,
        code=code_of(answer),
        rows=tuple(rows),
        suppress=_reason(status or str(answer.code or "5.1.2"), text)
        if verdict.suppress and settings.suppress
        else "",
    )


def _reason(status: str, text: str) -> str:
    return f"bounce {status}: {shown(text, _MAX_REASON)}".rstrip(" :")


def _interrupted(
    cause: str, rows: Sequence[ResultRow], code: str, *, again: bool = False
) -> Result:
    return Result(
        disposition=Disposition.INTERRUPTED,
        cause=cause,
        blame=Blame.NETWORK,
        reached=Reached.PERSON,
        code=code,
        rows=tuple(rows),
        again=again,
    )
