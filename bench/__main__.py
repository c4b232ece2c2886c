"""``python -m bench NAME [--json] [--smoke]``: measure, print, exit 0 when it could measure.

Whether a target was met is printed, never the exit code: a slow machine is no defect. ``--smoke``
runs the same code for a moment, so that a bench cannot rot unseen.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from functools import partial
from typing import TYPE_CHECKING

import trio
from rich.console import Console

if TYPE_CHECKING:
    from bench.report import Report

NAMES = {
    "dispatch": "durable dispatch on SQLite through the loopback gateway",
    "pacing": "lag and count error of the pacer, CPM 1 to 60,000",
    "dial": "calls a second over real SIP, beside sipp in the same run",
    "ingest": "contacts a second by CSV through HTTP, beside csv and sqlite3 alone",
    "sms": "submit_sm a second over SMPP, beside three libraries and Kannel in the same run",
    "email": "mails a second built, signed and sent, beside the libraries and smtp-source",
    "concurrent": "calls up with audio at once, and how late their packets leave",
}


def main(argv: list[str] | None = None) -> int:
    """Run one bench; stdout holds exactly one JSON document with ``--json``."""
    arguments = _parser().parse_args(argv)
    # A bench may need what another machine lacks (sipp): only the one asked for is imported.
    module = importlib.import_module(f"bench.{arguments.name}")
    report: Report = trio.run(partial(module.run, smoke=arguments.smoke))
    if arguments.json:
        sys.stdout.buffer.write(report.as_json() + b"\n")
    else:
        report.show(Console(width=None if sys.stdout.isatty() else 120))
    return 0


def _parser() -> argparse.ArgumentParser:
    names = "\n".join(f"  {name:<11} {what}" for name, what in NAMES.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        epilog=names,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=NAMES, metavar="NAME", help="one of the names below")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument(
        "--smoke", action="store_true", help="a short run that proves it still works"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
