"""ICTCore's contact CSV (specs/ictcore.md §6.1): a bad line costs only itself.

Columns: phone, first_name, last_name, email, address, custom1, custom2, custom3, description, or
the phone alone. A first line that begins with ``phone`` is a header and skipped. Each line is
UTF-8; one that is not is taken as Windows-1252, which is what spreadsheets of the West write. A
quoted field cannot hold a line end: a quote left open would swallow everything after it.

Spreadsheets run cells that begin with ``= + - @`` as formulas. Exported texts get an apostrophe in
front of these, which the import takes off again; a phone may begin with ``+``: it holds digits.
"""

from __future__ import annotations

import csv
import re

from api.ictcore.contacts_block import COLUMNS, read_block
from engine.errors import InvalidError
from engine.imports import MAX_ERRORS, LineError
from engine.model import Contact
from engine.store.base import ContactRow
from engine.validation import check_texts

MAX_LINE_BYTES = 8192

SAMPLE = (
    b'"923330000000","Valid","Contact","email@domain.com","street address",'
    b'"custom value 1","custom value 2","custom value 3","comment"\n'
    b'"923331111111","First2","Last2","other@domain.com","street address",'
    b'"custom value 1","custom value 2","custom value 3",""\n'
)

_FORMULA = re.compile(r"'*[=+\-@]")
_ESCAPED = re.compile(r"'+[=+\-@]")
_BOM = b"\xef\xbb\xbf"


class ContactParser:
    """Bytes in, in pieces of any size; validated rows out. Pure; memory bounded by one piece.

    ``line_by_line`` does without ``read_block``: the same in every answer, and slower.
    """

    def __init__(self, *, line_by_line: bool = False) -> None:
        self.rejected = 0
        self.errors: list[LineError] = []
        self._read_block = _nothing if line_by_line else read_block
        self._line = 0
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> list[ContactRow]:
        """The rows that ``chunk`` completes."""
        before, newline, after = chunk.rpartition(b"\n")
        rows = self._block(self._rest + before + newline) if newline else []
        self._rest = after if newline else self._rest + chunk
        if len(self._rest) > MAX_LINE_BYTES:
            # Said once; what follows up to the line end belongs to it.
            self._skipping = True
            self._rest = b""
        return rows

    def finish(self) -> list[ContactRow]:
        """The row of a last line without a line end."""
        row = self._take(self._rest) if self._rest or self._skipping else None
        self._rest = b""
        return [] if row is None else [row]

    def _block(self, block: bytes) -> list[ContactRow]:
        """Whole lines, each with its end."""
        rows: list[ContactRow | None] = []
        if self._line == 0 or self._skipping:
            first, _, block = block.partition(b"\n")
            rows.append(self._take(first))
        if not block:
            return [row for row in rows if row is not None]
        ready, lines = self._read_block(block), block.count(b"\n")
        if len(ready) == lines:
            self._line += lines
            rows += ready.values()
        else:
            for place, line in enumerate(block.split(b"\n")[:-1]):
                rows.append(self._pass(ready[place]) if place in ready else self._take(line))
        return [row for row in rows if row is not None]

    def _pass(self, row: ContactRow) -> ContactRow:
        self._line += 1
        return row

    def _take(self, line: bytes) -> ContactRow | None:
        self._line += 1
        if self._skipping or len(line) > MAX_LINE_BYTES:
            self._skipping = False
            self._reject(f"longer than {MAX_LINE_BYTES} bytes")
            return None
        try:
            cells = _cells(line.removeprefix(_BOM) if self._line == 1 else line)
            if not cells or (self._line == 1 and cells[0].lower() == "phone"):
                return None
            return _row(cells)
        except (csv.Error, InvalidError) as error:
            self._reject(str(error))
            return None

    def _reject(self, error: str) -> None:
        self.rejected += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(LineError(self._line, error))


def _nothing(_block: bytes) -> dict[int, ContactRow]:
    return {}


def export_line(contact: Contact) -> str:
    """One contact, every value quoted."""
    values = (getattr(contact, column) for column in COLUMNS)
    return ",".join(_quote(*pair) for pair in zip(COLUMNS, values, strict=True)) + "\n"


def _cells(line: bytes) -> list[str]:
    if b"\0" in line:
        raise InvalidError("control characters are not allowed (is the file UTF-16?)")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = line.decode("cp1252", "replace")
    rows = list(csv.reader([text.strip("\r")], skipinitialspace=True, strict=True))
    cells = [cell.strip() for cell in rows[0]] if rows else []
    return cells if any(cells) else []


def _row(cells: list[str]) -> ContactRow:
    if len(cells) not in (1, len(COLUMNS)):
        raise InvalidError(f"{len(cells)} columns instead of {len(COLUMNS)} or 1")
    cells = [cell[1:] if _ESCAPED.match(cell) else cell for cell in cells]
    values = dict(zip(COLUMNS, cells, strict=False))
    if not values["phone"] and not values.get("email"):
        raise InvalidError("phone is missing")
    check_texts(Contact, values)
    return ContactRow(**values)


def _quote(column: str, value: str) -> str:
    if column != "phone" and _FORMULA.match(value):
        value = f"'{value}"
    flat = re.sub(r"[\r\n]+", " ", value)
    return '"' + flat.replace('"', '""') + '"'
