"""How a campaign is going: counts, rate and time left out of the node's tally, shown live."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from rich.live import Live
from rich.table import Table

from api.cli_client import Client
from api.cli_views import console

POLL_S = 0.5
PLAIN_EVERY_S = 2.0
RATE_WINDOW_S = 10.0
OVER = ("new", "paused", "completed")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a campaign. ``dialled`` counts spools, ``done`` contacts with a final result."""

    status: str
    contacts: int
    done: int
    dialled: int
    retries: int
    answered: int
    busy: int
    no_answer: int
    failed: int
    up: int
    calls_per_s: float = 0.0
    eta_s: float | None = None

    def line(self) -> str:
        """Everything in one line, for logs and pipes."""
        counts = (
            f"{self.status}: {self.done}/{self.contacts} done, {self.dialled} dialled "
            f"({self.retries} retries), {self.answered} answered, {self.busy} busy, "
            f"{self.no_answer} no answer, {self.failed} failed, {self.up} up"
        )
        if self.status in OVER:
            return counts
        eta = "" if self.eta_s is None else f", ETA {self.eta_s:.0f} s"
        return f"{counts}, {self.calls_per_s:.1f} calls/s{eta}"


def read(campaign: Mapping[str, Any]) -> Progress:
    """The counts in a campaign as the API shows it."""
    tally: Mapping[str, int] = campaign["tally"]
    ended = {key[12:]: n for key, n in tally.items() if key.startswith("disposition:")}
    spools = {name: n for name, n in ended.items() if name != "screened"}
    named = ("answered", "busy", "no_answer")
    return Progress(
        status=campaign["status"],
        contacts=campaign["contact_total"],
        done=sum(tally.get(status, 0) for status in ("completed", "failed", "invalid")),
        dialled=tally.get("dialled", 0),
        retries=tally.get("retries", 0),
        answered=spools.get("answered", 0),
        busy=spools.get("busy", 0),
        no_answer=spools.get("no_answer", 0),
        failed=sum(n for name, n in spools.items() if name not in named),
        up=tally.get("dialled", 0) - sum(spools.values()),
    )


class Pace:
    """Rates out of successive looks, over a sliding window."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Progress]] = deque()

    def add(self, at_s: float, look: Progress) -> Progress:
        """``look`` with its rate of dialling and the time left at the rate of finishing."""
        self._looks.append((at_s, look))
        while at_s - self._looks[0][0] > RATE_WINDOW_S:
            self._looks.popleft()
        then_s, then = self._looks[0]
        passed_s = at_s - then_s
        if not passed_s:
            return look
        finishing_per_s = (look.done - then.done) / passed_s
        left = max(0, look.contacts - look.done)
        return msgspec.structs.replace(
            look,
            calls_per_s=(look.dialled - then.dialled) / passed_s,
            eta_s=left / finishing_per_s if finishing_per_s > 0 else None,
        )


def looks(client: Client, campaign_id: int) -> Iterator[Progress]:
    """Looks at a campaign until nothing of it is running any more, its calls included."""
    pace = Pace()
    while True:
        look = pace.add(time.monotonic(), read(client.get(f"/campaigns/{campaign_id}")))
        yield look
        if look.status in OVER and not look.up:
            return
        time.sleep(POLL_S)


def watch(client: Client, campaign_id: int, *, quiet: bool = False) -> Progress:
    """Show a campaign until it is over, live on a terminal, as lines elsewhere; its last look."""
    show = _silent if quiet else _live if sys.stdout.isatty() else _plain
    return show(looks(client, campaign_id))


def _silent(seen: Iterator[Progress]) -> Progress:
    *_, last = seen
    return last


def _live(seen: Iterator[Progress]) -> Progress:
    look = next(seen)
    with Live(_table(look), console=console(), refresh_per_second=4) as live:
        for look in seen:
            live.update(_table(look))
        live.update(_table(look))
    return look


def _plain(seen: Iterator[Progress], clock: Callable[[], float] = time.monotonic) -> Progress:
    look, shown_s = next(seen), clock()
    print(look.line(), flush=True)  # noqa: T201 - the command's output
    for look in seen:
        if clock() - shown_s >= PLAIN_EVERY_S:
            shown_s = clock()
            print(look.line(), flush=True)  # noqa: T201
    print(look.line(), flush=True)  # noqa: T201
    return look


def _table(look: Progress) -> Table:
    table = Table(title=f"campaign {look.status}", show_header=False)
    table.add_row("contacts done", f"{look.done} of {look.contacts}  {_bar(look)}")
    table.add_row("dialled", f"{look.dialled} ({look.retries} retries)")
    table.add_row("answered", str(look.answered))
    table.add_row("busy", str(look.busy))
    table.add_row("no answer", str(look.no_answer))
    table.add_row("failed", str(look.failed))
    table.add_row("calls up", str(look.up))
    if look.status not in OVER:
        table.add_row("calls/s", f"{look.calls_per_s:.1f}")
        table.add_row("time left", "" if look.eta_s is None else f"{look.eta_s:.0f} s")
    return table


def _bar(look: Progress, width: int = 30) -> str:
    filled = width * look.done // max(look.contacts, 1)
    return "█" * filled + "░" * (width - filled)
