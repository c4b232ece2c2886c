"""Texts and names as people and software write them, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

# No half surrogate pairs: they are no characters.
CHARACTER = st.characters(codec="utf-8")
SHOWN = st.characters(exclude_categories=["Cs", "Cc"])
# What encodings stumble over: blanks, line ends, dots and Froms at the begin of lines, marks.
_AWKWARD = st.sampled_from(
    ["\r\n", "\n", "\r", ".", "\n.", "\nFrom ", "From ", " ", "  ", "\t", "=", "=3D", "=_", "--",
     "\n--=_", "\x00", "\x85", "\u2028", "e\u0301", "\U0001f469\u200d\U0001f52c", "\u4f60"]
)  # fmt: skip
TEXT = st.lists(_AWKWARD | st.text(CHARACTER, max_size=100), max_size=12).map("".join)
"""Any text, line ends and controls included."""

LINE = st.lists(
    st.sampled_from([" ", "  ", "=?utf-8?q?x?=", '"', "\\", "<", ",", "\u0301", "\U0001f600", "ü"])
    | st.text(SHOWN, max_size=60),
    max_size=8,
).map("".join)
"""Any text of one line: what a header may have to say."""

PIECES = st.lists(TEXT, min_size=1, max_size=5)
