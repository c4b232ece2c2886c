"""The retry decision, for every outcome there is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import retry
from engine.config import RetryConfig
from engine.errors import InvalidError
from engine.results import STUCK, Blame, Disposition, Reached, Result, node_failure

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
RESULTS = st.builds(
    Result,
    disposition=st.sampled_from(Disposition),
    cause=st.just("cause"),
    blame=st.sampled_from(Blame),
    reached=st.sampled_from(Reached),
)
POLICIES = st.builds(
    RetryConfig,
    busy_delay_s=st.floats(0, 1e6),
    no_answer_delay_s=st.floats(0, 1e6),
    failed_delay_s=st.floats(0, 1e6),
    rejected=st.booleans(),
    interrupted=st.booleans(),
)


@given(policy=POLICIES, result=RESULTS, done=st.integers(1, 9), allowed=st.integers(0, 9))
def test_never_early_never_past_the_tries_never_after_success(
    policy: RetryConfig, result: Result, done: int, allowed: int
) -> None:
    due = retry.decide(policy, try_done=done, try_allowed=allowed, result=result, now=NOW)
    if due is not None:
        assert due >= NOW
        assert done < allowed
        assert not result.succeeded


@given(result=RESULTS)
def test_what_may_have_reached_a_person_is_redialled_only_where_the_callee_was_not_spoken_to(
    result: Result,
) -> None:
    due = retry.decide(RetryConfig(), try_done=1, try_allowed=2, result=result, now=NOW)
    answered_nothing = {Disposition.BUSY, Disposition.NO_ANSWER}
    if due is not None and result.reached is Reached.PERSON:
        assert result.disposition in answered_nothing


def _due_s(disposition: Disposition, policy: RetryConfig, reached: Reached) -> float | None:
    result = Result(
        disposition=disposition, cause="x", blame=Blame.CALLEE, reached=reached, code="486"
    )
    due = retry.decide(policy, try_done=1, try_allowed=2, result=result, now=NOW)
    return None if due is None else (due - NOW).total_seconds()


def test_each_outcome_has_its_delay() -> None:
    policy = RetryConfig(busy_delay_s=1, no_answer_delay_s=2, failed_delay_s=3)
    assert _due_s(Disposition.BUSY, policy, Reached.NETWORK) == 1
    assert _due_s(Disposition.NO_ANSWER, policy, Reached.NETWORK) == 2
    assert _due_s(Disposition.FAILED, policy, Reached.NOTHING) == 3
    for never in (Disposition.REJECTED, Disposition.INVALID, Disposition.INTERRUPTED):
        assert _due_s(never, policy, Reached.NETWORK) is None


def test_interrupted_and_rejected_are_redialled_only_where_the_policy_names_them() -> None:
    policy = RetryConfig(rejected=True, interrupted=True, busy_delay_s=5, interrupted_delay_s=7)
    assert _due_s(Disposition.REJECTED, policy, Reached.NETWORK) == 5
    assert _due_s(Disposition.INTERRUPTED, policy, Reached.PERSON) == 7


def test_a_stuck_one_is_redialled_only_where_the_policy_names_the_unseen() -> None:
    result = node_failure(STUCK, Reached.PERSON)
    for policy, delay_s in (
        (RetryConfig(), None),
        (RetryConfig(interrupted=True, interrupted_delay_s=7), 7),
    ):
        due = retry.decide(policy, try_done=1, try_allowed=2, result=result, now=NOW)
        assert due == (None if delay_s is None else NOW + timedelta(seconds=delay_s))


def test_a_transmissions_delays_go_over_its_campaigns_over_the_nodes() -> None:
    node = RetryConfig(busy_delay_s=1, no_answer_delay_s=2, failed_delay_s=3, rejected=True)
    assert retry.effective(node) == retry.effective(node, {}, {}) == node
    both = retry.effective(node, {"busy": 10, "failed": 30}, {"busy": 100})
    assert both == RetryConfig(
        busy_delay_s=100,
        no_answer_delay_s=2,
        failed_delay_s=30,
        interrupted_delay_s=30,
        rejected=True,
    )


@given(
    st.dictionaries(
        st.sampled_from(["busy", "no_answer", "failed"]),
        st.floats(0, retry.MAX_DELAY_S) | st.integers(0, 604_800),
    )
)
def test_delays_are_taken_as_numbers_or_digits(given_: dict[str, float]) -> None:
    assert retry.delays(given_) == given_
    assert retry.delays({name: str(value) for name, value in given_.items()}) == given_


@given(
    st.one_of(
        st.floats().filter(lambda value: not 0 <= value <= retry.MAX_DELAY_S),
        st.integers().filter(lambda value: not 0 <= value <= retry.MAX_DELAY_S),
        st.text(),
        st.booleans(),
        st.none(),
        st.lists(st.integers()),
    ).filter(lambda value: not _is_a_number(value))
)
def test_a_delay_that_is_none_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidError, match=r"retry_delays\.busy"):
        retry.delays({"busy": value})
    with pytest.raises(InvalidError, match=r"retry_delays\.ringing"):
        retry.delays({"ringing": 1})


def _is_a_number(value: object) -> bool:
    """Text that spells a delay after all: ``1e3``, ``4.5``."""
    try:
        return isinstance(value, str) and 0 <= float(value) <= retry.MAX_DELAY_S
    except ValueError:
        return False
