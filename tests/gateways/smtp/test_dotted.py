"""The text of a mail as it comes, against the rule it was written by."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from gateways.smtp.dotted import FULL, MAX_LINE, DottedText
from gateways.smtp.session_caps import Budget

LINES = st.lists(
    st.text(st.sampled_from(".a b"), max_size=5).map(lambda text: text.encode() + b"\r\n"),
    max_size=20,
)
CUTS = st.lists(st.integers(0, 120), max_size=8)


def _read(
    octets: bytes, cuts: Sequence[int] = (), *, limit: int = 1000, budget: int = 1000
) -> tuple[DottedText, Budget]:
    """A text that came in pieces, cut at these places."""
    held = Budget(budget, budget)
    text = DottedText(held, "peer", limit)
    ends = sorted(cut for cut in cuts if cut < len(octets))
    for start, end in zip([0, *ends], [*ends, len(octets)], strict=True):
        text.add(octets[start:end])
    return text, held


@given(LINES, CUTS)
def test_what_was_stuffed_comes_out_as_it_was(lines: list[bytes], cuts: list[int]) -> None:
    text, held = _read(b"".join(b"." * line.startswith(b".") + line for line in lines), cuts)

    assert text.refusal == ""
    assert text.raw() == b"".join(lines)
    assert text.raw() == b""
    text.close()
    text.close()
    assert held.free == 1000


def _by_lines(octets: bytes) -> bytes:
    """Without the dots of transparency, as §4.5.2 has it: line by line."""
    lines = octets.removesuffix(b"\r\n").split(b"\r\n") if octets else []
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines)


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n."]), max_size=40), CUTS)
def test_no_octets_ever_come_out_with_a_dot_alone_between_line_ends(
    parts: list[bytes], cuts: list[int]
) -> None:
    """Whatever reads the text after us in another way finds no end in it."""
    octets = b"".join(parts) + b"\r\n"
    text, held = _read(octets, cuts)
    raw = text.raw()
    ends = (b"\n.\n", b"\r.\r", b"\r.\n", b"\n.\r")

    bare = any(end in b"\r\n" + octets for end in ends)
    assert bool(text.refusal) == bare
    assert raw == (b"" if bare else _by_lines(octets))
    assert held.free == (1000 if bare else 1000 - len(octets))


@given(st.lists(st.integers(MAX_LINE - 2, MAX_LINE + 2), min_size=1, max_size=5), CUTS)
def test_a_line_is_so_long_and_no_longer(lengths: list[int], cuts: list[int]) -> None:
    octets = b"".join(b"x" * length + b"\r\n" for length in lengths)
    text, _ = _read(octets, [cut * 50 for cut in cuts], limit=10_000, budget=10_000)

    assert text.refusal[:3] == ("500" if max(lengths) > MAX_LINE else "")
    assert text.raw() == (b"" if text.refusal else octets)


def test_a_line_end_costs_no_step_of_its_own() -> None:
    """What strangers choose the number of is looked for by the piece."""
    steps = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal steps
        steps += event in ("call", "c_call")

    text = DottedText(Budget(100_000, 100_000), "peer", 100_000)
    sys.setprofile(count)
    try:
        text.add(b"\r\n" * 30_000)
    finally:
        sys.setprofile(None)
    assert text.raw() == b"\r\n" * 30_000
    assert steps < 60_000 / 100


@given(LINES, CUTS, st.integers(0, 60), st.integers(0, 60))
def test_limits_are_kept_and_nothing_is_held_of_what_is_refused(
    lines: list[bytes], cuts: list[int], limit: int, budget: int
) -> None:
    text, held = _read(b"".join(lines), cuts, limit=limit, budget=budget)
    size = sum(map(len, lines))

    if text.refusal:
        assert text.raw() == b""
        assert held.free == budget
    else:
        assert size <= min(limit, budget)
        assert held.free == budget - size
    if not text.refusal.startswith("554"):
        assert (text.refusal == "") == (size <= min(limit, budget))
    assert text.beyond_hope == (size > 2 * limit)


def test_each_refusal_has_its_reply() -> None:
    long, _ = _read(b"y" * (MAX_LINE + 1) + b"\r\n", limit=2000, budget=2000)

    assert long.refusal.startswith("500")
    assert _read(b"x" * 30, limit=20)[0].refusal.startswith("552")
    assert _read(b"x" * 30, budget=20)[0].refusal == FULL
