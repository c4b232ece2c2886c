"""What the command line prints: tables for people, one JSON document for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

# Wide enough for every table of ours where no terminal tells its width (a pipe, a log).
PIPE_WIDTH = 180
_TIMES = ("time_", "date_", "last_")


def console() -> Console:
    """Standard output, as wide as the terminal."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def show_json(document: Any) -> None:
    """Exactly one JSON document on standard output."""
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")


def show_rows(
    rows: Iterable[Mapping[str, Any]], columns: tuple[str, ...], *, as_json: bool, title: str = ""
) -> None:
    """Rows of a list, either way; a missing or null value is an empty cell."""
    if as_json:
        show_json(list(rows))
        return
    table = Table(*columns, title=title or None)
    for row in rows:
        table.add_row(*(cell(row.get(column), column) for column in columns))
    console().print(table)


def show_object(document: Mapping[str, Any], *, as_json: bool) -> None:
    """One object, a field a line."""
    if as_json:
        show_json(document)
        return
    table = Table(show_header=False)
    for name, value in document.items():
        table.add_row(name, cell(value, name))
    console().print(table)


def cell(value: Any, name: str = "") -> str:
    """A value as a table shows it; the API's Unix seconds as UTC."""
    if value is None:
        return ""
    if isinstance(value, int) and name.startswith(_TIMES):
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    return str(value)
