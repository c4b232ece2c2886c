"""api/ictcore/RESULTS.md names the rows that the code writes, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "api" / "ictcore" / "RESULTS.md"
SOURCES = [
    path
    for folder in ("engine", "gateways")
    for path in (ROOT / folder).rglob("*.py")
    if "loopback" not in path.parts
]


def _listed() -> set[tuple[str, str]]:
    lines = re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE.read_text(), re.MULTILINE)
    return {(kind, name) for kind, names in lines for name in re.findall(r"`(\w+)`", names)}


def _words(node: ast.AST) -> list[str]:
    found = (each.value for each in ast.walk(node) if isinstance(each, ast.Constant))
    return [each for each in found if isinstance(each, str)]


def _written() -> Iterator[tuple[str, str]]:
    """Type and name of each ``ResultRow`` of the source that has them literally."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name("ResultRow"),
                    args=[ast.Constant(str(kind)), ast.Constant(str(name)), *_],
                ):
                    yield kind, name


def test_every_row_that_is_written_is_listed() -> None:
    written = set(_written())
    assert len(written) > 10
    assert written <= _listed()


def test_every_row_that_is_listed_is_written() -> None:
    """By its words, for some names stand in a table of the source."""
    words = {word for path in SOURCES for word in _words(ast.parse(path.read_text()))}
    assert {part for row in _listed() for part in row} <= words
