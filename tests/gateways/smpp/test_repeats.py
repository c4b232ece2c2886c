"""A second message, or the first once more?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateways.smpp import repeats
from gateways.smpp.repeats import LATE_S, Repeats

WITHIN_S, SILENCE_S, LATER_S = 900.0, 60.0, 10_000.0
# Nothing of an earlier process is to be expected any more.
NOW = 1_000.0


def at_work() -> Repeats:
    return Repeats(WITHIN_S, SILENCE_S, NOW - WITHIN_S - 1)


def take(memory: Repeats, now: float, session: str = "a", *, takes_s: float = 0.0) -> float:
    within_s = memory.asked("yes", session, now)
    memory.answered("yes", session, now + takes_s)
    return within_s


def test_people_say_yes_twice() -> None:
    memory = at_work()
    assert [take(memory, NOW + seconds) for seconds in (0, 1, 70, 80)] == [0, 0, 0, 0]


def test_another_connection_that_lives_brings_another_message() -> None:
    memory = at_work()
    assert take(memory, NOW, "a") == 0
    assert take(memory, NOW + 1, "b") == 0


def test_what_was_answered_shortly_before_the_end_may_come_again() -> None:
    memory = at_work()
    take(memory, NOW, "a")
    memory.ended("a", NOW + SILENCE_S)
    assert take(memory, NOW + 800, "b") == WITHIN_S
    # That was the repeat; on this connection one more is a message.
    assert take(memory, NOW + 801, "b") == 0


def test_what_was_answered_long_before_the_end_was_heard() -> None:
    memory = at_work()
    take(memory, NOW, "a")
    memory.ended("a", NOW + SILENCE_S + 1)
    assert take(memory, NOW + 100, "b") == 0


def test_nobody_delivers_again_after_so_long() -> None:
    memory = at_work()
    take(memory, NOW, "a")
    memory.ended("a", NOW + 1)
    assert take(memory, NOW + WITHIN_S + 1, "b") == 0


def test_a_late_answer_may_not_have_been_waited_for() -> None:
    memory = at_work()
    assert take(memory, NOW, takes_s=LATE_S + 1) == 0
    assert take(memory, NOW + 10) == WITHIN_S
    assert take(memory, NOW + 11) == 0


def test_while_the_first_is_in_hand() -> None:
    memory = at_work()
    assert memory.asked("yes", "a", NOW) == 0
    assert memory.asked("yes", "a", NOW + LATE_S) == 0
    assert memory.asked("yes", "a", NOW + LATE_S + 1) == WITHIN_S
    memory.answered("yes", "a", NOW + LATE_S + 2)


def test_the_connection_ended_while_it_was_in_hand() -> None:
    memory = at_work()
    memory.asked("yes", "a", NOW)
    memory.ended("a", NOW + 1)
    assert memory.asked("yes", "b", NOW + 2) == WITHIN_S
    memory.answered("yes", "a", NOW + 3)
    assert take(memory, NOW + 4, "b") == WITHIN_S


def test_the_connection_had_ended_before_it_was_looked_at() -> None:
    memory = at_work()
    memory.ended("a", NOW)
    take(memory, NOW + 1, "a")
    assert take(memory, NOW + 2, "b") == WITHIN_S


def test_what_was_not_taken_is_new_when_it_comes() -> None:
    memory = at_work()
    memory.asked("yes", "a", NOW)
    memory.dropped("yes")
    assert memory.asked("yes", "a", NOW + LATE_S + 1) == 0


def test_another_process_may_have_had_it() -> None:
    memory = Repeats(WITHIN_S, SILENCE_S, NOW)
    assert take(memory, NOW + WITHIN_S - 1) == WITHIN_S
    assert Repeats(WITHIN_S, SILENCE_S, NOW).asked("yes", "a", NOW + WITHIN_S) == 0


@given(st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=400))
def test_memory_is_bounded(steps: list[tuple[int, bool]]) -> None:
    bound, repeats.REMEMBERED = repeats.REMEMBERED, 20
    try:
        memory = at_work()
        for now, (key, ends) in enumerate(steps):
            memory.asked(str(key), now, NOW + now)
            memory.answered(str(key), now, NOW + now)
            if ends:
                memory.ended(now, NOW + now)
            assert memory.statistics()["remembered"] <= 20
            assert memory.statistics()["in_hand"] == 0
    finally:
        repeats.REMEMBERED = bound
