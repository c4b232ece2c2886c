"""SMPP statuses and receipt states → action and result, row by row; and what retry makes of it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smpplib import consts

from engine import retry
from engine.config import RetryConfig
from engine.results import Blame as B  # noqa: N817 - columns of a wide table
from engine.results import Disposition as D  # noqa: N817
from engine.results import Reached as R  # noqa: N817
from engine.results import Result, ResultRow, no_receipt
from gateways.smpp import results
from gateways.smpp.records import ReceiptState as S
from gateways.smpp.results import Action as A  # noqa: N817
from gateways.smpp.settings import SmppSettings

NOW = datetime(2026, 11, 21, tzinfo=UTC)
EAGER = RetryConfig(rejected=True, interrupted=True)
STATUSES = st.integers(1, 0xFFFFFFFF) | st.sampled_from(list(results.STATUS))


def repeated(result: Result, policy: RetryConfig | None = None) -> bool:
    """Whether the engine tries again, of its own accord, with tries left."""
    due = retry.decide(policy or RetryConfig(), try_done=1, try_allowed=9, result=result, now=NOW)
    return due is not None


# status, its name, what to do, disposition, cause, blame, tried again later, next trunk at once
ROWS = [
    (0x01, "RINVMSGLEN", A.PERMANENT, D.REJECTED, "invalid_message", B.REQUEST, False, False),
    (0x02, "RINVCMDLEN", A.BUG, D.FAILED, "refused", B.NODE, True, False),
    (0x03, "RINVCMDID", A.BUG, D.FAILED, "refused", B.NODE, True, False),
    (0x04, "RINVBNDSTS", A.REBIND, D.FAILED, "not_bound", B.PROVIDER, True, True),
    (0x05, "RALYBND", A.REBIND, D.FAILED, "not_bound", B.PROVIDER, True, True),
    (0x08, "RSYSERR", A.RETRY, D.FAILED, "trunk_unavailable", B.PROVIDER, True, True),
    (0x0A, "RINVSRCADR", A.SENDER, D.REJECTED, "invalid_sender", B.REQUEST, False, False),
    (0x0B, "RINVDSTADR", A.PERMANENT, D.INVALID, "invalid_number", B.REQUEST, False, False),
    (0x0D, "RBINDFAIL", A.REBIND, D.FAILED, "not_bound", B.PROVIDER, True, True),
    (0x0E, "RINVPASWD", A.REBIND, D.FAILED, "not_bound", B.PROVIDER, True, True),
    (0x0F, "RINVSYSID", A.REBIND, D.FAILED, "not_bound", B.PROVIDER, True, True),
    (0x14, "RMSGQFUL", A.QUEUE_FULL, D.FAILED, "queue_full", B.PROVIDER, True, True),
    (0x15, "RINVSERTYP", A.PERMANENT, D.REJECTED, "invalid_message", B.REQUEST, False, False),
    (0x33, "RINVNUMDESTS", A.PERMANENT, D.REJECTED, "refused", B.NETWORK, False, False),
    (0x43, "RINVESMCLASS", A.PERMANENT, D.REJECTED, "invalid_message", B.REQUEST, False, False),
    (0x45, "RSUBMITFAIL", A.RETRY, D.FAILED, "trunk_unavailable", B.PROVIDER, True, True),
    (0x48, "RINVSRCTON", A.SENDER, D.REJECTED, "invalid_sender", B.REQUEST, False, False),
    (0x49, "RINVSRCNPI", A.SENDER, D.REJECTED, "invalid_sender", B.REQUEST, False, False),
    (0x50, "RINVDSTTON", A.PERMANENT, D.INVALID, "invalid_number", B.REQUEST, False, False),
    (0x51, "RINVDSTNPI", A.PERMANENT, D.INVALID, "invalid_number", B.REQUEST, False, False),
    (0x58, "RTHROTTLED", A.THROTTLE, D.FAILED, "throttled", B.PROVIDER, True, True),
    (0x61, "RINVSCHED", A.PERMANENT, D.REJECTED, "invalid_message", B.REQUEST, False, False),
    (0x62, "RINVEXPIRY", A.PERMANENT, D.REJECTED, "invalid_message", B.REQUEST, False, False),
    (0x64, "RX_T_APPN", A.RETRY, D.FAILED, "trunk_unavailable", B.PROVIDER, True, True),
    (0x65, "RX_P_APPN", A.PERMANENT, D.REJECTED, "refused", B.NETWORK, False, False),
    (0x66, "RX_R_APPN", A.PERMANENT, D.REJECTED, "refused", B.NETWORK, False, False),
    (0xC0, "RINVOPTPARSTREAM", A.PERMANENT, D.REJECTED, "invalid_message", B.REQUEST, False, False),
    (0xC4, "RINVOPTPARAMVAL", A.PERMANENT, D.REJECTED, "invalid_message", B.REQUEST, False, False),
    (0xFE, "RDELIVERYFAILURE", A.RETRY, D.FAILED, "trunk_unavailable", B.PROVIDER, True, True),
    (0xFF, "RUNKNOWNERR", A.RETRY, D.FAILED, "trunk_unavailable", B.PROVIDER, True, True),
    # A vendor's own, one of SMPP 5.0 (congestion), one that nobody defined: temporary, with a cap.
    (0x400, "", A.RETRY, D.FAILED, "refused", B.PROVIDER, True, True),
    (0x10E, "", A.RETRY, D.FAILED, "refused", B.PROVIDER, True, True),
    (0xFFFFFFFF, "", A.RETRY, D.FAILED, "refused", B.PROVIDER, True, True),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1] or hex(row[0]))
def test_status(row: tuple[int, str, A, D, str, B, bool, bool]) -> None:
    status, name, action, disposition, cause, blame, again_later, next_trunk = row
    assert results.action_of(status) is action
    result = results.refused(status)
    assert (result.disposition, result.cause, result.blame) == (disposition, cause, blame)
    assert result.code == f"0x{status:08x}" + (f" ESME_{name}" if name else "")
    assert result.reached is R.NOTHING
    assert repeated(result) is again_later
    assert result.trunk_failed is next_trunk
    assert not result.again


def test_every_status_of_the_specification_has_its_row() -> None:
    named = {
        number
        for name, number in vars(consts).items()
        if name.startswith("SMPP_ESME_") and number != consts.SMPP_ESME_ROK
    }
    assert set(results.STATUS) == named
    assert all(row.clause.startswith("SMPP 3.4 §5.1.3") for row in results.STATUS.values())


@given(STATUSES)
def test_a_refusal_after_a_part_was_taken_is_never_repeated(status: int) -> None:
    result = results.refused(status, reached=R.PERSON)
    assert not repeated(result, EAGER)
    assert not result.trunk_failed
    assert result.cause == results.refused(status).cause


# --- a provider's own table


@pytest.mark.parametrize(
    ("word", "cause", "again_later"),
    [
        ("retry", "refused", True),
        ("throttle", "throttled", True),
        ("queue_full", "queue_full", True),
        ("rebind", "not_bound", True),
        ("permanent", "refused", False),
        ("sender", "invalid_sender", False),
    ],
)
@pytest.mark.parametrize("status", [0x400, 0x43], ids=["vendor", "known"])
def test_a_providers_word_counts(status: int, word: str, cause: str, again_later: bool) -> None:  # noqa: FBT001
    vendor = {status: word}
    if word == results.action_of(status):
        cause = results.refused(status).cause  # it says what SMPP says anyway
    assert results.action_of(status, vendor) is A(word)
    result = results.refused(status, vendor=vendor)
    assert (result.cause, repeated(result)) == (cause, again_later)


@given(STATUSES)
def test_a_providers_table_is_about_its_statuses_only(status: int) -> None:
    other = {status ^ 1: "sender"}
    assert results.verdict_of(status, other) == results.verdict_of(status)


# --- receipts

RECEIPTS = [
    (S.DELIVERED, D.ANSWERED, "delivered", B.NOBODY, R.PERSON, False),
    (S.EXPIRED, D.NO_ANSWER, "expired", B.CALLEE, R.NETWORK, True),
    (S.DELETED, D.REJECTED, "deleted", B.NETWORK, R.NETWORK, False),
    (S.UNDELIVERABLE, D.FAILED, "undelivered", B.NETWORK, R.NETWORK, True),
    (S.REJECTED, D.REJECTED, "rejected", B.NETWORK, R.NETWORK, False),
    (S.UNKNOWN, D.FAILED, "unknown_state", B.NETWORK, R.PERSON, False),
]


@pytest.mark.parametrize("row", RECEIPTS, ids=lambda row: row[0])
def test_receipt(row: tuple[S, D, str, B, R, bool]) -> None:
    state, disposition, cause, blame, reached, again_later = row
    result = results.of_receipt(state, "045")
    assert (result.disposition, result.cause, result.blame) == (disposition, cause, blame)
    assert (result.reached, result.code) == (reached, f"{state.value} 045")
    assert repeated(result) is again_later
    assert not result.trunk_failed  # the trunk took it: the next one is not asked


def test_every_final_state_has_its_row() -> None:
    assert {row[0] for row in RECEIPTS} == {state for state in S if state.final}
    for state in S:
        if not state.final:
            with pytest.raises(KeyError):
                results.of_receipt(state)


@pytest.mark.parametrize("state", [row[0] for row in RECEIPTS[1:]])
def test_a_message_of_which_a_part_arrived_is_never_repeated(state: S) -> None:
    result = results.of_receipt(state, partly_delivered=True)
    assert (result.disposition, result.reached) == (D.FAILED, R.PERSON)
    assert result.cause == results.of_receipt(state).cause
    assert not repeated(result, EAGER)


def test_all_parts_delivered_is_delivered() -> None:
    assert results.of_receipt(S.DELIVERED, partly_delivered=True) == results.of_receipt(S.DELIVERED)


@given(st.text())
def test_an_error_of_any_length_leaves_a_short_code(error: str) -> None:
    assert len(results.of_receipt(S.UNDELIVERABLE, error).code) <= len("UNDELIV ") + 16


# --- without a word of the SMSC

SILENT = [
    (results.accepted(), D.ANSWERED, "accepted", R.PERSON, False, False),
    (results.unanswered(), D.INTERRUPTED, "unknown", R.PERSON, False, False),
    (results.resent(), D.INTERRUPTED, "resent", R.PERSON, False, True),
    (no_receipt(), D.FAILED, "no_receipt", R.PERSON, False, False),
    (results.not_sent(), D.INTERRUPTED, "not_sent", R.NOTHING, False, True),
]


@pytest.mark.parametrize("row", SILENT, ids=lambda row: row[2])
def test_silence(row: tuple[Result, D, str, R, bool, bool]) -> None:
    result, disposition, cause, reached, again_later, again = row
    assert (result.disposition, result.cause, result.reached) == (disposition, cause, reached)
    assert repeated(result) is again_later
    assert result.again is again


def test_what_may_come_twice_says_so() -> None:
    assert results.resent().rows == (ResultRow("info", "possible_duplicate", "1"),)


def test_silence_is_repeated_only_where_the_policy_says_so_by_name() -> None:
    assert repeated(results.unanswered(), EAGER)
    assert not repeated(no_receipt(), EAGER)


# --- what never left


@pytest.mark.parametrize(
    ("validity_s", "waits"),
    [(0, (30, 60, 120)), (1e6, (30, 60, 120)), (210, (30, 60, 120)), (209, (30, 60)), (29, ())],
)
def test_what_never_left_is_put_off_within_its_validity(
    validity_s: float, waits: tuple[float, ...]
) -> None:
    settings = SmppSettings(retry_s=(30, 60, 120))
    result = results.put_off("not_bound", settings, validity_s, "refused")
    assert (result.disposition, result.reached, result.later_s) == (D.DEFERRED, R.NOTHING, waits)
    assert result.trunk_failed
    assert not result.again
    assert result.rows == (ResultRow("error", "error", "refused"),)


def test_without_waits_of_its_own_it_is_put_off_for_a_day() -> None:
    later_s = results.put_off("queue_full", SmppSettings()).later_s
    assert later_s[0] == 30
    assert 86_400 <= sum(later_s) < 90_000


def test_what_had_left_in_part_is_over() -> None:
    result = results.trunk_failure("not_bound", R.PERSON)
    assert (result.disposition, result.later_s, result.rows) == (D.FAILED, (), ())
    assert not repeated(result, EAGER)
    assert not result.trunk_failed
