"""The state diagrams, printed from the one table that rules them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from engine.states import TABLES, Event


def mermaid() -> str:
    """Every table as a fenced Mermaid state diagram; the README holds exactly this."""
    return "\n\n".join(_diagram(name, table) for name, table in TABLES.items())


def _diagram(name: str, table: Mapping[tuple[StrEnum, Event], StrEnum]) -> str:
    first = next(iter(type(next(iter(table))[0])))
    moves = [
        f"    {status.value} --> {to.value}: {event.value}" for (status, event), to in table.items()
    ]
    lines = [f"**{name}**", "", "```mermaid", "stateDiagram-v2", f"    [*] --> {first.value}"]
    return "\n".join([*lines, *moves, "```"])
