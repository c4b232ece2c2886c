from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from engine.errors import InvalidError
from gateways.settings import converted


class _Inner(msgspec.Struct, forbid_unknown_fields=True):
    way: Literal["in", "out"] = "in"


class _Outer(msgspec.Struct, forbid_unknown_fields=True):
    mode: Literal["slow", "fast"] = "slow"
    version: Literal[3, 4] | None = None
    inner: _Inner | None = None
    table: dict[str, Literal["yes", "no"]] = {}
    steps: tuple[Literal["one", "two"], ...] = ()
    count: int = 0


def test_what_is_given_is_converted() -> None:
    given = {"mode": "fast", "inner": {"way": "out"}, "steps": ["two"], "count": "7"}
    assert converted(given, _Outer, "s") == _Outer(
        mode="fast", inner=_Inner(way="out"), steps=("two",), count=7
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": "both"}, "Invalid enum value 'both' - at `$.mode`; one of fast, slow"),
        ({"version": 5}, "Invalid enum value 5 - at `$.version`; one of 3, 4"),
        ({"inner": {"way": "up"}}, "'up' - at `$.inner.way`; one of in, out"),
        ({"table": {"k": "perhaps"}}, "'perhaps' - at `$.table[...]`; one of no, yes"),
        ({"steps": ["one", "ten"]}, "'ten' - at `$.steps[1]`; one of one, two"),
        ({"mode": "x` - at `$.count"}, "- at `$.mode`; one of fast, slow"),
    ],
)
def test_a_word_that_is_not_among_them_is_answered_with_those_that_are(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidError) as refused:
        converted(given, _Outer, "our settings")
    assert str(refused.value).startswith("our settings: ")
    assert str(refused.value).endswith(said)
    assert refused.value.field == "settings"


@pytest.mark.parametrize("given", [{"count": "many"}, {"mode": 1}, {"mood": "fast"}, {"table": 1}])
def test_anything_else_is_said_as_it_was(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidError) as refused:
        converted(given, _Outer, "s")
    assert "one of" not in str(refused.value)
