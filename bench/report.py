"""What a bench returns, and its two forms: tables for people, one JSON document for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import orjson
from rich.table import Table

from bench.machine import describe

if TYPE_CHECKING:
    from rich.console import Console


class Target(msgspec.Struct, frozen=True):
    """An aim and how the run stood to it: ``("rate", ">= 10000 spools/s", 12345.6, True)``."""

    name: str
    target: str
    measured: float | str
    met: bool


class Report(msgspec.Struct):
    """What one bench measured: ``results`` for programs (JSON-able), ``tables`` for people."""

    name: str
    results: dict[str, Any]
    targets: list[Target]
    tables: list[Table] = []

    def as_json(self) -> bytes:
        """The document of ``python -m bench NAME --json``."""
        return orjson.dumps(
            {
                "name": self.name,
                "machine": describe(),
                "results": self.results,
                "targets": msgspec.to_builtins(self.targets),
            },
            option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS,
        )

    def show(self, console: Console) -> None:
        """Print the tables, then how the targets were met."""
        machine = describe()
        console.print(
            f"[bold]{self.name}[/bold]  " + "  ".join(f"{k}={v}" for k, v in machine.items())
        )
        for table in self.tables:
            console.print(table)
        if self.targets:
            console.print(_targets_table(self.targets))


def _targets_table(targets: list[Target]) -> Table:
    table = Table("target", "aim", "measured", "met", title="targets")
    for target in targets:
        measured = target.measured
        shown = f"{measured:,.3g}" if isinstance(measured, float) else measured
        table.add_row(target.name, target.target, shown, "yes" if target.met else "NO")
    return table
