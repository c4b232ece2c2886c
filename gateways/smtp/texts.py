"""Texts of strangers' mail: which characters stay, flowed lines, cleaned HTML. Pure."""

from __future__ import annotations

import re
from collections import Counter

import nh3

MAX_TEXT = 1_000_000
"""Characters of a text; of HTML after it was cleaned."""

MAX_OCTETS = 4 * MAX_TEXT
"""Of a text before it is decoded: no charset needs more of them for one character."""

MAX_OPEN = 1_000
"""Elements open at once: cleaning takes time by the square of how deep they are."""

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:-]{0,40})")
# Elements without an end, or ended by the next of their kind (HTML §13.1.2).
_SHALLOW = frozenset({
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source",
    "track", "wbr", "p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "colgroup",
    "option", "optgroup",
})  # fmt: skip
_ODD = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]+")
_LINE_END = re.compile(r"\r\n|\r")
_SIGNATURE = "-- "


def plain_text(text: str) -> str:
    """With bare line feeds and no other control character than tabs."""
    return _ODD.sub("", _LINE_END.sub("\n", text))


def flowed(text: str, *, delete_space: bool) -> str:
    """Lines that were broken for transport joined again (RFC 3676 §4.4, §4.5: not a signature's).

    ``text`` has bare line feeds; ``delete_space`` is the parameter DelSp.
    """
    pieces: list[str] = []
    depth = -1  # of the paragraph that goes on; -1 = none does
    for line in text.split("\n"):
        marks = len(line) - len(line.lstrip(">"))
        rest = line[marks:].removeprefix(" ")
        goes_on = rest.endswith(" ") and rest != _SIGNATURE
        if depth != marks or rest == _SIGNATURE:
            pieces.append("\n" + ">" * marks + (" " if marks else ""))
        pieces.append(rest[:-1] if goes_on and delete_space else rest)
        depth = marks if goes_on else -1
    return "".join(pieces)[1:]


def clean_html(html: str) -> tuple[str, bool]:
    """Without scripts, styles, handlers and other schemes than the web's; whether it was cut.

    Cleaning makes text longer (``&`` becomes ``&amp;``): then less of it is taken.
    """
    whole = plain_text(html)
    kept = whole[:MAX_TEXT]
    kept = kept[: _too_deep(kept)]
    cleaned = nh3.clean(kept)
    while len(cleaned) > MAX_TEXT:
        kept = kept[: len(kept) * MAX_TEXT // (len(cleaned) + MAX_TEXT // 10)]
        cleaned = nh3.clean(kept)
    return cleaned, len(kept) < len(whole)


def _too_deep(html: str) -> int:
    """Where more elements are open than may be, by a count that knows no nesting rules."""
    opened: Counter[str] = Counter()
    depth = 0
    for found in _TAG.finditer(html):
        name = found[2].lower()
        if name in _SHALLOW:
            continue
        if not found[1]:
            opened[name] += 1
            depth += 1
        elif opened[name]:
            opened[name] -= 1
            depth -= 1
        if depth > MAX_OPEN:
            return found.start()
    return len(html)
