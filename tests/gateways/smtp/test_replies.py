"""Replies of mail servers → what to do: every row of the table with its clause, then laws."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.results import Blame as B  # noqa: N817 - columns of a wide table
from engine.results import Disposition as D  # noqa: N817
from engine.results import Reached as R  # noqa: N817
from gateways.smtp import replies
from gateways.smtp.records import Answer, At, How
from gateways.smtp.replies import Action as A  # noqa: N817
from gateways.smtp.replies import code_of, elsewhere, enhanced, verdict_of

SEEN_AT = datetime(2026, 11, 21, tzinfo=UTC)
BEFORE_RCPT = (At.ROUTE, At.CONNECT, At.GREETING, At.EHLO, At.TLS, At.AUTH, At.MAIL)


def reply(code: int, text: str = "", at: At = At.RCPT, *, left: bool | None = None) -> Answer:
    """A reply; ``left`` unless told is what it is at that moment of an ordinary mail."""
    return Answer(
        id=1,
        spool_id=2,
        at=at,
        how=How.REPLY,
        left=at is At.DOT if left is None else left,
        seen_at=SEEN_AT,
        code=code,
        text=text,
    )


def failure(
    how: How, at: At, *, left: bool = False, text: str = "", permanent: bool = False
) -> Answer:
    return Answer(
        id=1,
        spool_id=2,
        at=at,
        how=how,
        left=left,
        seen_at=SEEN_AT,
        text=text,
        permanent=permanent,
    )


DEAD = (A.NEVER, D.INVALID, "no_such_address", B.CALLEE, R.NETWORK, True)
SENDER = (A.NEVER, D.REJECTED, "invalid_sender", B.REQUEST, R.NETWORK, False)
REFUSED = (A.NEVER, D.REJECTED, "refused", B.NETWORK, R.NETWORK, False)
TOO_LARGE = (A.NEVER, D.REJECTED, "too_large", B.REQUEST, R.NETWORK, False)
POLICY = (A.NEVER, D.REJECTED, "policy", B.NETWORK, R.NETWORK, False)
MESSAGE = (A.NEVER, D.REJECTED, "invalid_message", B.REQUEST, R.NETWORK, False)
GREY = (A.LATER, D.DEFERRED, "greylisted", B.NETWORK, R.NETWORK, False)
DEFERRED = (A.LATER, D.DEFERRED, "deferred", B.NETWORK, R.NETWORK, False)
TRUNK = (A.ELSEWHERE, D.DEFERRED, "trunk_unavailable", B.PROVIDER, R.NOTHING, False)
HOST = (A.ELSEWHERE, D.DEFERRED, "host_unavailable", B.NETWORK, R.NOTHING, False)
AUTH = (A.STOP, D.DEFERRED, "auth_failed", B.PROVIDER, R.NOTHING, False)
TLS = (A.STOP, D.DEFERRED, "tls_failed", B.PROVIDER, R.NOTHING, False)
UNSURE = (A.UNSURE, D.INTERRUPTED, "unknown", B.NETWORK, R.PERSON, False)

# at, code, text, what it means at a relay, clause
REPLIES = [
    (At.DOT, 250, "2.0.0 Ok: queued", (A.DONE, D.ANSWERED, "accepted", B.NOBODY, R.PERSON, False),
     "RFC 5321 §4.2.5"),
    # it closes
    (At.CONNECT, 421, "4.3.2 shutting down", TRUNK, "RFC 5321 §3.8"),
    (At.MAIL, 421, "4.7.0 too many mails", TRUNK, "RFC 5321 §3.8"),
    (At.RCPT, 421, "", TRUNK, "RFC 5321 §3.8"),
    (At.DATA, 421, "", TRUNK, "RFC 5321 §3.8"),
    (At.DOT, 421, "4.3.2 shutting down", DEFERRED, "RFC 5321 §3.8"),
    (At.GREETING, 450, "", TRUNK, "RFC 5321 §3.8"),
    (At.GREETING, 554, "5.7.1 blocked", TRUNK, "RFC 5321 §3.8"),
    (At.GREETING, 521, "", TRUNK, "RFC 5321 §3.8"),
    (At.RCPT, 521, "", TRUNK, "RFC 5321 §3.8"),
    (At.DOT, 521, "", REFUSED, "RFC 5321 §4.2.1"),
    (At.EHLO, 550, "", TRUNK, "RFC 5321 §3.8"),
    (At.TLS, 454, "4.7.0 TLS not available", TRUNK, "RFC 5321 §3.8"),
    # later
    (At.RCPT, 450, "4.7.1 try again", GREY, "RFC 6647 §5"),
    (At.RCPT, 450, "4.2.0 <a@b>: Recipient address rejected: Greylisted", GREY, "RFC 6647 §5"),
    (At.RCPT, 450, "", GREY, "RFC 6647 §5"),
    (At.RCPT, 451, "please wait", GREY, "RFC 6647 §5"),
    (At.DATA, 451, "4.7.1 later", GREY, "RFC 6647 §5"),
    (At.DOT, 451, "graylisting in action", GREY, "RFC 6647 §5"),
    (At.RCPT, 450, "4.1.1 unverified address", DEFERRED, "RFC 5321 §4.5.4.1"),
    (At.RCPT, 451, "4.3.0 lookup failure", DEFERRED, "RFC 5321 §4.5.4.1"),
    (At.RCPT, 452, "4.2.2 mailbox full", DEFERRED, "RFC 5321 §4.5.4.1"),
    (At.MAIL, 452, "4.3.1 no space", DEFERRED, "RFC 5321 §4.5.4.1"),
    (At.MAIL, 451, "4.7.0 slow down", DEFERRED, "RFC 5321 §4.5.4.1"),
    (At.DOT, 452, "", DEFERRED, "RFC 5321 §4.5.4.1"),
    (At.DOT, 499, "4.9.9 no such code", DEFERRED, "RFC 5321 §4.5.4.1"),
    (At.RCPT, 452, "4.5.3 too many recipients", DEFERRED, "RFC 5321 §4.5.3.1.10"),
    # dead addresses
    (At.RCPT, 550, "5.1.1 no such user", DEAD, "RFC 3463 §3.2"),
    (At.RCPT, 550, "5.1.2 no such host", DEAD, "RFC 3463 §3.2"),
    (At.RCPT, 501, "5.1.3 bad syntax", DEAD, "RFC 3463 §3.2"),
    (At.RCPT, 551, "5.1.6 moved", DEAD, "RFC 3463 §3.2"),
    (At.RCPT, 550, "5.2.1 disabled", DEAD, "RFC 3463 §3.2"),
    (At.RCPT, 556, "5.1.10 null MX", DEAD, "RFC 7505 §4.2"),
    (At.DOT, 550, "5.1.1 no such user", DEAD, "RFC 3463 §3.2"),
    (At.RCPT, 556, "no mail here", (A.NEVER, D.INVALID, "no_such_domain", B.CALLEE, R.NETWORK,
     True), "RFC 7504 §4"),
    # the sender
    (At.RCPT, 550, "5.1.7 bad sender", SENDER, "RFC 3463 §3.2"),
    (At.RCPT, 550, "5.1.8 sender's domain", SENDER, "RFC 3463 §3.2"),
    (At.MAIL, 550, "", SENDER, "RFC 3463 §3.2"),
    (At.MAIL, 553, "5.1.1 who?", SENDER, "RFC 3463 §3.2"),
    (At.MAIL, 501, "5.5.4 syntax", SENDER, "RFC 3463 §3.2"),
    # who knows why
    (At.RCPT, 550, "", REFUSED, "RFC 5321 §4.2.1"),
    (At.RCPT, 553, "not here", REFUSED, "RFC 5321 §4.2.1"),
    (At.RCPT, 550, "5.1.0 rejected", REFUSED, "RFC 5321 §4.2.1"),
    (At.RCPT, 550, "5.1.4 ambiguous", REFUSED, "RFC 5321 §4.2.1"),
    (At.RCPT, 550, "5.4.1 access denied", REFUSED, "RFC 5321 §4.2.1"),
    (At.DATA, 503, "5.5.1 bad sequence", REFUSED, "RFC 5321 §4.2.1"),
    (At.DOT, 554, "5.3.0 system trouble", REFUSED, "RFC 5321 §4.2.1"),
    (At.DOT, 599, "5.9.9 no such code", REFUSED, "RFC 5321 §4.2.1"),
    # sizes
    (At.RCPT, 552, "5.2.2 mailbox full", (A.NEVER, D.FAILED, "mailbox_full", B.CALLEE, R.NETWORK,
     False), "RFC 3463 §3.3"),
    (At.DOT, 552, "", TOO_LARGE, "RFC 1870 §6"),
    (At.MAIL, 552, "5.3.4 too big", TOO_LARGE, "RFC 3463 §3.4"),
    (At.DOT, 554, "5.2.3 too long", TOO_LARGE, "RFC 3463 §3.3"),
    # policy and content
    (At.RCPT, 550, "5.7.1 relaying denied", POLICY, "RFC 3463 §3.8"),
    (At.MAIL, 550, "5.7.23 SPF", POLICY, "RFC 3463 §3.8"),
    (At.DOT, 554, "5.7.9 DMARC", POLICY, "RFC 3463 §3.8"),
    (At.DOT, 550, "looks like spam", POLICY, "RFC 5321 §4.2.3"),
    (At.DATA, 554, "no", POLICY, "RFC 5321 §4.2.3"),
    (At.DOT, 554, "5.6.0 bad MIME", MESSAGE, "RFC 3463 §3.7"),
    (At.RCPT, 553, "5.6.7 no UTF-8 addresses",
     (A.NEVER, D.REJECTED, "no_smtputf8", B.REQUEST, R.NETWORK, False), "RFC 6531 §3.5"),
    # the login
    (At.AUTH, 535, "5.7.8 wrong password", AUTH, "RFC 4954 §6"),
    (At.AUTH, 534, "5.7.9 too weak", AUTH, "RFC 4954 §6"),
    (At.AUTH, 538, "5.7.11 encryption", AUTH, "RFC 4954 §6"),
    (At.AUTH, 504, "5.5.4 mechanism", AUTH, "RFC 4954 §6"),
    (At.AUTH, 454, "4.7.0 temporary", AUTH, "RFC 4954 §6"),
    (At.AUTH, 421, "4.7.0 bye", TRUNK, "RFC 5321 §3.8"),
    (At.AUTH, 432, "4.7.12 password expired", TRUNK, "RFC 5321 §3.8"),
    (At.MAIL, 530, "5.7.0 authentication required", AUTH, "RFC 4954 §6"),
    (At.RCPT, 530, "", AUTH, "RFC 4954 §6"),
    (At.MAIL, 530, "5.7.0 Must issue a STARTTLS command first", TLS, "RFC 3207 §4"),
    # out of step, or not SMTP
    (At.RCPT, 354, "go on", TRUNK, "RFC 5321 §3.8"),
    (At.DATA, 250, "ok", TRUNK, "RFC 5321 §3.8"),
    (At.DOT, 354, "go on", UNSURE, "RFC 5321 §4.5.3.2.6"),
    (At.DOT, 0, "garbage", UNSURE, "RFC 5321 §4.5.3.2.6"),
]  # fmt: skip


@pytest.mark.parametrize(("at", "code", "text", "expected", "clause"), REPLIES)
def test_replies_of_a_relay(
    at: At, code: int, text: str, expected: tuple[object, ...], clause: str
) -> None:
    verdict = verdict_of(reply(code, text, at), direct=False)
    assert verdict[:-1] == expected
    assert verdict.clause == clause


NOBODY_WAITS = (A.LATER, D.INTERRUPTED, "not_sent", B.NODE, R.NOTHING, False)
BUSY = (A.LATER, D.DEFERRED, "busy", B.NETWORK, R.NOTHING, False)
NO_DOMAIN = (A.NEVER, D.INVALID, "no_such_domain", B.CALLEE, R.NOTHING, True)

# answer, at a relay, at an MX
FAILURES = [
    (failure(How.LOST, At.DOT, left=True), UNSURE, UNSURE),
    (failure(How.TIMEOUT, At.DOT, left=True), UNSURE, UNSURE),
    (failure(How.DROPPED, At.DOT, left=True), UNSURE, UNSURE),
    (failure(How.DROPPED, At.RCPT), NOBODY_WAITS, NOBODY_WAITS),
    (failure(How.LOST, At.MAIL), TRUNK, HOST),
    (failure(How.LOST, At.DOT), TRUNK, HOST),
    (failure(How.TIMEOUT, At.CONNECT), TRUNK, HOST),
    (failure(How.TIMEOUT, At.DATA), TRUNK, HOST),
    (failure(How.REFUSED, At.CONNECT), TRUNK, HOST),
    (failure(How.TIMEOUT, At.ROUTE), BUSY, BUSY),
    (failure(How.UNTRUSTED, At.TLS), TLS, (A.ELSEWHERE, D.DEFERRED, "tls_failed", B.NETWORK,
     R.NOTHING, False)),
    (failure(How.NO_ROUTE, At.ROUTE, permanent=True), (A.LATER, *TRUNK[1:]), NO_DOMAIN),
    (failure(How.NO_ROUTE, At.ROUTE), (A.LATER, *TRUNK[1:]), (A.LATER, *HOST[1:])),
    (failure(How.UNABLE, At.MAIL, text="SMTPUTF8"), *[(A.NEVER, D.REJECTED, "no_smtputf8",
     B.REQUEST, R.NOTHING, False)] * 2),
    (failure(How.UNABLE, At.MAIL, text="address"), *[(A.NEVER, D.REJECTED, "invalid_address",
     B.REQUEST, R.NOTHING, False)] * 2),
    (failure(How.UNABLE, At.MAIL, text="SIZE 1000"), *[(A.NEVER, D.REJECTED, "too_large", B.REQUEST,
     R.NOTHING, False)] * 2),
    (failure(How.UNABLE, At.AUTH, text="AUTH plain is not offered"), AUTH, AUTH),
    # A login is not asked by an MX; that one says something of its own policy.
    (reply(530, "5.7.0 authentication required", At.MAIL), AUTH, POLICY),
    (reply(421, "", At.MAIL), TRUNK, HOST),
    (reply(554, "", At.GREETING), TRUNK, HOST),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "at_a_relay", "at_an_mx"), FAILURES)
def test_what_is_no_reply_and_what_an_mx_means_by_one(
    answer: Answer, at_a_relay: tuple[object, ...], at_an_mx: tuple[object, ...]
) -> None:
    assert verdict_of(answer, direct=False)[:-1] == at_a_relay
    assert verdict_of(answer, direct=True)[:-1] == at_an_mx


@pytest.mark.parametrize(
    ("answer", "at_a_relay", "at_an_mx"),
    [
        (reply(421, "", At.MAIL), True, True),
        (failure(How.LOST, At.DATA), True, True),
        (failure(How.REFUSED, At.CONNECT), True, True),
        (reply(554, "", At.GREETING), True, True),
        (failure(How.UNTRUSTED, At.TLS), False, True),
        (failure(How.UNABLE, At.MAIL, text="SMTPUTF8"), False, True),
        (failure(How.UNABLE, At.AUTH, text="no login without TLS"), False, False),
        (failure(How.NO_ROUTE, At.ROUTE), False, False),
        (reply(450, "4.7.1", At.RCPT), False, False),
        (reply(550, "5.1.1", At.RCPT), False, False),
        (reply(535, "5.7.8", At.AUTH), False, False),
        (reply(421, "", At.DOT), False, False),
        (failure(How.LOST, At.DOT, left=True), False, False),
        (failure(How.DROPPED, At.RCPT), False, False),
    ],
)
def test_another_connection_or_mx_is_tried_at_once(
    answer: Answer, *, at_a_relay: bool, at_an_mx: bool
) -> None:
    assert (elsewhere(answer), elsewhere(answer, direct=True)) == (at_a_relay, at_an_mx)


@pytest.mark.parametrize(
    ("code", "text", "status"),
    [
        (550, "5.1.1 no such user", "5.1.1"),
        (550, "#5.1.0 rejected", "5.1.0"),
        (550, "  5.7.26\nand more", "5.7.26"),
        (550, "5.1.10 null MX", "5.1.10"),
        (250, "2.0.0 Ok", "2.0.0"),
        (550, "4.7.1 another class", ""),
        (450, "5.1.1 another class", ""),
        (550, "5.01.1 leading zero", ""),
        (550, "5.1 too few", ""),
        (550, "5.1.1.1 too many", ""),
        (550, "5.1.1000 too long", ""),
        (550, "no 5.1.1 in front", ""),
        (550, "", ""),
        (550, "\u0665.1.1 not ASCII", ""),
    ],
)
def test_an_enhanced_code_is_one_of_the_replys_class(code: int, text: str, status: str) -> None:
    assert enhanced(code, text) == status


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (reply(550, "5.1.1 gone", At.RCPT), "550 5.1.1 at rcpt"),
        (reply(554, "4.1.1 gone", At.DOT), "554 at dot"),
        (failure(How.TIMEOUT, At.DOT, left=True), "timeout at dot"),
        (failure(How.NO_ROUTE, At.ROUTE), "no_route at route"),
    ],
)
def test_a_code_names_reply_and_moment(answer: Answer, code: str) -> None:
    assert code_of(answer) == code


# --- laws
STATUSES = st.builds(
    "{}.{}.{}".format, st.sampled_from("245"), st.integers(0, 9), st.integers(0, 30)
) | st.sampled_from(sorted(replies.PERMANENT))
TEXTS = st.builds("{} {}".format, STATUSES, st.text(max_size=20)) | st.text(max_size=30)
ANSWERS = st.builds(
    Answer,
    id=st.just(1),
    spool_id=st.just(2),
    at=st.sampled_from(At),
    how=st.sampled_from([How.REPLY, *How]),
    left=st.booleans(),
    seen_at=st.just(SEEN_AT),
    code=st.integers(0, 999) | st.sampled_from([421, 450, 451, 452, 530, 550, 552, 554, 556]),
    text=TEXTS,
    permanent=st.booleans(),
)


@given(answer=ANSWERS, direct=st.booleans())
def test_what_left_is_never_tried_elsewhere_nor_said_to_have_reached_nothing(
    answer: Answer, *, direct: bool
) -> None:
    verdict = verdict_of(answer, direct=direct)
    if not answer.left or answer.at is not At.DOT:
        return
    assert verdict.reached is not R.NOTHING
    assert verdict.action is not A.ELSEWHERE
    assert not elsewhere(answer, direct=direct)
    if answer.how is not How.REPLY:
        assert verdict.action is A.UNSURE


@given(answer=ANSWERS, direct=st.booleans())
def test_an_address_is_closed_by_nothing_but_a_word_about_it(
    answer: Answer, *, direct: bool
) -> None:
    if not verdict_of(answer, direct=direct).suppress:
        return
    if answer.how is How.NO_ROUTE:
        assert direct
        assert answer.permanent
        return
    assert answer.how is How.REPLY
    assert answer.code // 100 == 5
    assert answer.at not in BEFORE_RCPT
    status = enhanced(answer.code, answer.text)
    assert not status.startswith(("4", "5.7."))
    assert status not in {"5.2.2", "5.1.7", "5.1.8", "5.1.0", "5.1.4"}


@given(answer=ANSWERS, direct=st.booleans())
def test_only_a_success_in_answer_to_the_dot_is_one(answer: Answer, *, direct: bool) -> None:
    done = verdict_of(answer, direct=direct).action is A.DONE
    assert done == (
        answer.how is How.REPLY and answer.at is At.DOT and answer.left and answer.code // 100 == 2
    )


@given(answer=ANSWERS)
def test_one_mx_never_stops_the_trunk(answer: Answer) -> None:
    verdict = verdict_of(answer, direct=True)
    # There is none at an MX, unless somebody configured one.
    login = answer.how in {How.REPLY, How.UNABLE} and answer.at is At.AUTH
    assert login or verdict.blame is not B.PROVIDER
    assert login or verdict.action is not A.STOP
