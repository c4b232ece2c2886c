"""The text of a mail as it comes, against the rule it was written by."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateways.smtp.dotted import FULL, DottedText
from gateways.smtp.session_caps import Budget

LINES = st.lists(
    st.text(st.sampled_from(".a b"), max_size=5).map(lambda text: text.encode() + b"\r\n"),
    max_size=20,
)


def _read(
    lines: list[bytes], *, limit: int = 1000, budget: int = 1000
) -> tuple[DottedText, Budget]:
    held = Budget(budget)
    text = DottedText(held, limit)
    for line in lines:
        text.add(line)
    return text, held


@given(LINES)
def test_what_was_stuffed_comes_out_as_it_was(lines: list[bytes]) -> None:
    text, held = _read([b"." * line.startswith(b".") + line for line in lines])

    assert text.refusal == ""
    assert text.raw() == b"".join(lines)
    assert text.raw() == b""
    text.close()
    text.close()
    assert held.free == 1000


@given(st.lists(st.binary(max_size=30).map(lambda octets: octets + b"\r\n"), max_size=20))
def test_no_octets_ever_come_out_with_a_dot_alone_between_line_ends(lines: list[bytes]) -> None:
    """Whatever reads the text after us in another way finds no end in it."""
    text, held = _read(lines)
    raw = text.raw()
    stuffed = b"\r\n" + b"".join(lines)
    ends = (b"\n.\n", b"\r.\r", b"\r.\n", b"\n.\r")

    assert bool(raw) <= (text.refusal == "")
    if any(end in stuffed for end in ends):
        assert text.refusal
    assert held.free >= 0


@given(LINES, st.integers(0, 60), st.integers(0, 60))
def test_limits_are_kept_and_nothing_is_held_of_what_is_refused(
    lines: list[bytes], limit: int, budget: int
) -> None:
    text, held = _read(lines, limit=limit, budget=budget)
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
    long, _ = _read([b"x\r\n"])
    long.too_long(b"y" * 20)
    long.too_long(b"y" * 20)

    assert long.refusal.startswith("500")
    assert _read([b"x" * 30], limit=20)[0].refusal.startswith("552")
    assert _read([b"x" * 30], budget=20)[0].refusal == FULL
