"""Answers and bounces → results, and what retry makes of them."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import retry
from engine.config import RetryConfig
from engine.results import Blame as B  # noqa: N817 - columns of a wide table
from engine.results import Disposition as D  # noqa: N817
from engine.results import Reached as R  # noqa: N817
from engine.results import Result, ResultRow
from gateways.smtp import results
from gateways.smtp.records import Answer, At, How
from gateways.smtp.settings import SmtpSettings

NOW = datetime(2026, 11, 21, tzinfo=UTC)
EAGER = RetryConfig(rejected=True, interrupted=True)
SETTINGS = SmtpSettings()


def answer(
    code: int = 0,
    text: str = "",
    *,
    at: At = At.RCPT,
    how: How = How.REPLY,
    left: bool = False,
    permanent: bool = False,
) -> Answer:
    return Answer(
        id=1,
        spool_id=2,
        at=at,
        how=how,
        left=left,
        seen_at=NOW,
        code=code,
        text=text,
        permanent=permanent,
        host="mx.example.org",
        tls="TLSv1.3",
        tries=2,
    )


def result_of(
    given_: Answer, settings: SmtpSettings = SETTINGS, *, direct: bool = False, seed: int = 1
) -> Result:
    return results.result_of(given_, settings, direct=direct, dice=random.Random(seed))


def repeated(result: Result, policy: RetryConfig | None = None) -> bool:
    """Whether the engine tries again by its policy, with tries left."""
    due = retry.decide(policy or RetryConfig(), try_done=1, try_allowed=9, result=result, now=NOW)
    return due is not None


def test_what_was_taken_has_arrived_as_far_as_we_know() -> None:
    result = result_of(answer(250, "2.0.0 Ok: queued as 4F", at=At.DOT, left=True))
    assert (result.disposition, result.cause) == (D.ANSWERED, "accepted")
    assert result.code == "250 2.0.0 at dot"
    assert result.rows == (
        ResultRow("email", "reply", "250 2.0.0 Ok: queued as 4F"),
        ResultRow("email", "host", "mx.example.org"),
        ResultRow("email", "tls", "TLSv1.3"),
        ResultRow("email", "tries", "2"),
    )


def test_without_a_reply_the_row_says_why_there_is_none() -> None:
    words = "no login without TLS"
    result = result_of(answer(0, words, how=How.UNABLE, at=At.AUTH))
    assert (result.cause, result.code) == ("auth_failed", "unable at auth")
    assert ResultRow("email", "reply", words) in result.rows


def test_what_is_put_off_comes_back_by_the_schedule_and_not_all_at_once() -> None:
    greylisted = answer(450, "4.7.1 try again")
    result = result_of(greylisted)
    assert (result.disposition, result.cause, result.again) == (D.DEFERRED, "greylisted", False)
    assert result.code == "450 4.7.1 at rcpt"
    assert len(result.later_s) == len(SETTINGS.retry_s)
    for wait_s, planned_s in zip(result.later_s, SETTINGS.retry_s, strict=True):
        assert 0.9 * planned_s <= wait_s <= 1.1 * planned_s
    assert result.later_s != result_of(greylisted, seed=2).later_s
    assert not repeated(result)  # the schedule does it, uncounted


def test_without_a_schedule_nothing_is_put_off() -> None:
    never = msgspec.structs.replace(SETTINGS, retry_s=())
    assert result_of(answer(450, "4.7.1"), never).later_s == ()


@pytest.mark.parametrize(
    ("given_", "next_trunk"),
    [
        (answer(how=How.REFUSED, at=At.CONNECT), True),
        (answer(535, "5.7.8", at=At.AUTH), True),
        (answer(how=How.UNTRUSTED, at=At.TLS), True),
        (answer(450, "4.7.1"), False),
        (answer(how=How.TIMEOUT, at=At.ROUTE), False),
    ],
)
def test_where_the_trunk_failed_the_next_one_may_be_tried(
    given_: Answer, *, next_trunk: bool
) -> None:
    result = result_of(given_)
    assert result.trunk_failed is next_trunk
    assert result.later_s  # where there is no other trunk


@pytest.mark.parametrize("how", [How.LOST, How.TIMEOUT, How.DROPPED])
def test_what_left_unanswered_is_unknown_and_not_repeated(how: How) -> None:
    given_ = answer(how=how, at=At.DOT, left=True)
    result = result_of(given_)
    assert (result.disposition, result.cause) == (D.INTERRUPTED, "unknown")
    assert (result.reached, result.again, result.later_s) == (R.PERSON, False, ())
    assert not repeated(result)


def test_who_prefers_a_double_to_a_loss_gets_it_marked() -> None:
    given_ = answer(how=How.LOST, at=At.DOT, left=True)
    twice = msgspec.structs.replace(SETTINGS, unknown="at_least_once")
    result = result_of(given_, twice)
    assert (result.cause, result.again) == ("resent", True)
    assert ResultRow("info", "possible_duplicate", "1") in result.rows


def test_what_we_dropped_before_its_dot_goes_on() -> None:
    result = result_of(answer(how=How.DROPPED))
    assert (result.cause, result.again, result.reached) == ("not_sent", True, R.NOTHING)


def test_a_dead_address_is_closed_with_the_servers_words() -> None:
    result = result_of(answer(550, "5.1.1 <a@b>: no\r\nsuch  user"))
    assert (result.disposition, result.cause) == (D.INVALID, "no_such_address")
    assert result.suppress == "bounce 5.1.1: <a@b>: no such user"
    assert not repeated(result, EAGER)


def test_a_domain_without_mail_closes_the_address_too() -> None:
    given_ = answer(how=How.NO_ROUTE, at=At.ROUTE, text="no such domain", permanent=True)
    assert result_of(given_, direct=True).suppress == "bounce 5.1.2: no such domain"
    assert result_of(given_, direct=False).suppress == ""


def test_a_provider_may_leave_addresses_open() -> None:
    tolerant = msgspec.structs.replace(SETTINGS, suppress=False)
    result = result_of(answer(550, "5.1.1 no such user"), tolerant)
    assert (result.cause, result.suppress) == ("no_such_address", "")


@pytest.mark.parametrize("text", ["5.7.1 no", "5.2.2 full", "no", "5.1.0 no", "5.1.8 who"])
def test_other_refusals_leave_the_address_open(text: str) -> None:
    assert result_of(answer(550, text)).suppress == ""


@pytest.mark.parametrize(
    ("status", "disposition", "cause", "closes"),
    [
        ("5.1.1", D.INVALID, "no_such_address", True),
        ("5.1.10", D.INVALID, "no_such_address", True),
        ("5.2.1", D.INVALID, "no_such_address", True),
        ("5.2.2", D.FAILED, "mailbox_full", False),
        ("5.3.4", D.REJECTED, "too_large", False),
        ("5.7.1", D.REJECTED, "policy", False),
        ("5.4.4", D.REJECTED, "bounced", False),
        ("5.0.0", D.REJECTED, "bounced", False),
        ("4.4.1", D.FAILED, "bounced", False),
        ("4.1.1", D.FAILED, "bounced", False),
        ("", D.FAILED, "bounced", False),
    ],
)
def test_bounces(status: str, disposition: D, cause: str, *, closes: bool) -> None:
    result = results.bounced(status, "smtp; 550 who?", suppress=True)
    assert (result.disposition, result.cause, result.code) == (disposition, cause, status)
    assert result.suppress == (f"bounce {status}: smtp; 550 who?" if closes else "")
    assert result.reached is R.NETWORK
    assert results.bounced(status, "", suppress=False).suppress == ""


@pytest.mark.parametrize(
    ("field", "cause"),
    [
        ("source", "invalid_sender"),
        ("destination", "invalid_address"),
        ("subject", "invalid_message"),
        ("", "invalid_message"),
    ],
)
def test_what_no_mail_can_be_made_of(field: str, cause: str) -> None:
    result = results.invalid(field)
    assert (result.cause, result.blame, result.reached) == (cause, B.REQUEST, R.NOTHING)
    assert not repeated(result)


def test_a_provider_that_is_gone_leaves_the_mail_to_the_next() -> None:
    assert results.trunk_failure("trunk_unavailable").trunk_failed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nb\tc\x00d", "a b c d"),
        ("x" * 1_000_000, "x" * 255),
        ("\u202egnp.exe", "gnp.exe"),
        ("\x85\u2028 ", ""),
        ("\ud800", ""),
        ("Gru\u00df", "Gru\u00df"),
    ],
)
def test_strangers_words_are_one_short_line(text: str, shown: str) -> None:
    assert results.shown(text) == shown


STRANGE = st.builds(
    answer,
    code=st.integers(0, 999) | st.sampled_from([250, 421, 450, 550, 552]),
    text=st.text(max_size=300) | st.sampled_from(["5.1.1 x", "4.7.1 x", "5.7.1 x"]),
    at=st.sampled_from(At),
    how=st.sampled_from([How.REPLY, *How]),
    permanent=st.booleans(),
)


@given(given_=STRANGE, direct=st.booleans())
def test_every_answer_has_a_result_with_sane_rows(given_: Answer, *, direct: bool) -> None:
    # The dot leaves at the dot and nowhere else.
    left = msgspec.structs.replace(given_, left=given_.at is At.DOT and given_.code % 2 == 0)
    result = result_of(left, direct=direct)
    assert result.cause
    assert result.succeeded == (result.cause == "accepted")
    assert bool(result.later_s) == (result.disposition is D.DEFERRED)
    for row in result.rows:
        assert len(row.data) <= 255
        assert row.data.isprintable()
    assert len(result.suppress) <= 255
    if left.left and left.how is not How.REPLY:
        assert not repeated(result)
