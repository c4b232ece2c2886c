"""What the command line is made of: addresses, progress, diagrams, pages."""

from __future__ import annotations

import pytest

from api.cli_config import parse_address
from api.cli_progress import Pace, Progress, read
from api.cli_states import mermaid
from engine.errors import InvalidError
from engine.states import TABLES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:0", ("localhost", 0)),
        (":5060", ("127.0.0.1", 5060)),
        ("[::1]:8080", ("::1", 8080)),
    ],
)
def test_an_address(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text, "--http") == expected


@pytest.mark.parametrize(
    "text", ["", "8080", "host", "host:", "host:port", "host:70000", "host:-1"]
)
def test_no_address(text: str) -> None:
    with pytest.raises(InvalidError, match="--http"):
        parse_address(text, "--http")


def campaign(**tally: int) -> dict[str, object]:
    named = {key.replace("__", ":"): value for key, value in tally.items()}
    return {"status": "running", "contact_total": 100, "tally": named}


def test_progress_out_of_a_tally() -> None:
    look = read(
        campaign(
            dialled=60, retries=10, transmissions=52, completed=30, failed=5, invalid=2,
            disposition__answered=30, disposition__busy=12, disposition__no_answer=3,
            disposition__rejected=2, disposition__interrupted=1, disposition__screened=2,
        )
    )  # fmt: skip
    assert look == Progress(
        status="running", contacts=100, done=37, dialled=60, retries=10, answered=30, busy=12,
        no_answer=3, failed=3, up=12,
    )  # fmt: skip


def test_a_campaign_nobody_was_called_for_yet() -> None:
    look = read(campaign())
    assert (look.dialled, look.up, look.done) == (0, 0, 0)
    assert look.line().startswith("running: 0/100 done, 0 dialled")


def test_rates_are_those_of_the_last_seconds() -> None:
    pace = Pace()
    first = pace.add(0.0, read(campaign()))
    assert (first.calls_per_s, first.eta_s) == (0.0, None)
    second = pace.add(2.0, read(campaign(dialled=40, completed=20)))
    assert (second.calls_per_s, second.eta_s) == (20.0, 8.0)
    # Ten seconds later only what happened since the second look counts.
    later = pace.add(12.0, read(campaign(dialled=50, completed=40)))
    assert (later.calls_per_s, later.eta_s) == (1.0, 30.0)


def test_diagrams_show_every_move() -> None:
    drawn = mermaid()
    for table in TABLES.values():
        for (status, event), to in table.items():
            assert f"    {status.value} --> {to.value}: {event.value}" in drawn
    assert drawn.count("[*] -->") == len(TABLES)
