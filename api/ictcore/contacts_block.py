"""Many lines of contact CSV at once, column by column: few calls that each do thousands of cells.

Only what is beyond doubt is read here. A line that is odd in any way (bad, or good by a rule seldom
needed) is left to ``contacts_csv``, which takes lines one by one and whose word counts; both agree
on every line, which is tested on any bytes. In a good file no line is odd.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from engine.model import Contact
from engine.store.base import ContactRow
from engine.validation import LENGTHS

T = TypeVar("T")

COLUMNS = ContactRow.__struct_fields__
_LIMITS = [LENGTHS[Contact][name] for name in COLUMNS]
_PHONE, _EMAIL = COLUMNS.index("phone"), COLUMNS.index("email")

# 8192 bytes are the most a line may have, of at most four a character.
_MAX_LINE_CHARACTERS = 2048
_CONTROLS = bytes(range(0x20)).replace(b"\n", b"") + b"\x7f"

# Possessive, because nothing here can match in two ways: no state is kept, nothing is tried again.
_NUMBER = r"[ ().\-/]*+(?:\+[ ().\-/]*+)?[0-9*#][0-9*# ().\-/]*+"
_ADDRESS = r"[^@\s<>,;\"]++@[^@\s<>,;\"]++"
_CHECKED = {_PHONE: _NUMBER, _EMAIL: _ADDRESS}
_ONE = {place: re.compile(f"(?:{rule})?") for place, rule in _CHECKED.items()}
_ALL = {place: re.compile(f"(?:(?:{rule})?\n)*+") for place, rule in _CHECKED.items()}
_CELL = r'(?: *"(?:[^"]++|"")*+"|[^",]*+)'
_WELL_QUOTED = re.compile(f"{_CELL}(?:,{_CELL})*+")


def read_block(block: bytes) -> dict[int, ContactRow]:
    """The rows of the lines beyond doubt, by their place in ``block``, which ends with a line."""
    places, texts = _texts(block)
    places, texts = _keep(places, texts, (len(text) > _MAX_LINE_CHARACTERS for text in texts))
    rows = _cells(texts)
    if rows is None:
        places, texts = _keep(places, texts, (not _WELL_QUOTED.fullmatch(text) for text in texts))
        rows = _cells(texts) or []
    places, rows = _of_one_width(places, rows)
    columns = [list(map(str.strip, column)) for column in zip(*rows, strict=True)]
    odd = _odd(columns, apostrophes=b"'" in block)
    read = dict(zip(places, map(ContactRow, *columns), strict=True)) if columns else {}
    for index in odd:
        del read[places[index]]
    return read


def _texts(block: bytes) -> tuple[Sequence[int], list[str]]:
    """The lines that are UTF-8 without control characters, and their places."""
    block = block.replace(b"\r\n", b"\n")
    text = _plain(block)
    if text is not None:
        lines = text.split("\n")[:-1]
        return range(len(lines)), lines
    texts = [_plain(line) for line in block.split(b"\n")[:-1]]
    return (
        [place for place, text in enumerate(texts) if text is not None],
        [text for text in texts if text is not None],
    )


def _plain(data: bytes) -> str | None:
    if len(data.translate(None, _CONTROLS)) != len(data):
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _keep(
    places: Sequence[int], items: list[T], odd: Iterable[bool]
) -> tuple[Sequence[int], list[T]]:
    """``places`` and ``items`` without the odd ones."""
    flags = list(odd)
    if not any(flags):
        return places, items
    return (
        [place for place, leave in zip(places, flags, strict=True) if not leave],
        [item for item, leave in zip(items, flags, strict=True) if not leave],
    )


def _cells(lines: list[str]) -> list[list[str]] | None:
    """The cells of every line; None where a quote is out of place in any."""
    try:
        rows = list(csv.reader(lines, skipinitialspace=True, strict=True))
    except csv.Error:
        return None
    # An open quote takes the next line in: then there are fewer rows than lines.
    return rows if len(rows) == len(lines) else None


def _of_one_width(
    places: Sequence[int], rows: list[list[str]]
) -> tuple[Sequence[int], list[list[str]]]:
    """The rows with all columns, or those with the phone alone, whichever are more."""
    widths = list(map(len, rows))
    width = max((len(COLUMNS), 1), key=widths.count)
    return _keep(places, rows, (other != width for other in widths))


def _odd(columns: list[list[str]], *, apostrophes: bool) -> set[int]:
    """The rows, by index, of which any cell needs a closer look."""
    odd: set[int] = set()
    for place, column in enumerate(columns):
        if max(map(len, column)) > _LIMITS[place]:
            odd.update(i for i, cell in enumerate(column) if len(cell) > _LIMITS[place])
        if apostrophes:  # of a formula, or typed
            odd.update(i for i, cell in enumerate(column) if cell.startswith("'"))
        if place in _CHECKED and not _ALL[place].fullmatch("\n".join(column) + "\n"):
            odd.update(i for i, cell in enumerate(column) if not _ONE[place].fullmatch(cell))
    if columns and "" in columns[_PHONE]:
        emails = columns[_EMAIL] if len(columns) > 1 else columns[_PHONE]
        odd.update(
            i for i, pair in enumerate(zip(columns[_PHONE], emails, strict=True)) if not any(pair)
        )
    return odd
