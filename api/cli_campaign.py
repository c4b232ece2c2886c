"""``outspool campaign``, ``send`` and ``cdr``: clients of a running node."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
import typer

from api.cli_client import DEFAULT_URL, AsJson, Client, Url
from api.cli_progress import watch
from api.cli_views import show_json, show_object, show_rows

app = typer.Typer(no_args_is_help=True, help="Campaigns of a running node.")

_CAMPAIGN = (
    "campaign_id", "status", "program_id", "group_id", "cpm", "try_allowed",
    "contact_done", "contact_total",
)  # fmt: skip
_SPOOL = (
    "spool_id", "transmission_id", "destination", "status", "response", "code", "time_start",
    "time_connect", "time_end", "amount",
)  # fmt: skip
MAX_ROWS = 100_000
_ENDED = ("completed", "failed", "invalid")


@app.command("list")
def list_campaigns(*, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Every campaign you may see."""
    with Client.from_environment(url) as client:
        show_rows(client.pages("/campaigns", MAX_ROWS), _CAMPAIGN, as_json=as_json)


@app.command()
def show(campaign_id: int, *, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """One campaign, with its counts."""
    with Client.from_environment(url) as client:
        show_object(client.get(f"/campaigns/{campaign_id}"), as_json=as_json)


@app.command()
def create(
    program: Annotated[int, typer.Option("--program", help="Id of the program to run.")],
    group: Annotated[int, typer.Option("--group", help="Id of the group to dial.")],
    *,
    cpm: Annotated[float, typer.Option("--cpm", help="Calls per minute.")] = 2.0,
    tries: Annotated[int, typer.Option("--tries", help="Tries a contact gets.")] = 1,
    start: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Create a campaign."""
    body = {"program_id": program, "group_id": group, "cpm": cpm, "try_allowed": tries}
    with Client.from_environment(url) as client:
        campaign_id = client.post("/campaigns", body)["campaign_id"]
        if start:
            client.put(f"/campaigns/{campaign_id}/start")
        show_object(client.get(f"/campaigns/{campaign_id}"), as_json=as_json)


@app.command("start")
def start_campaign(campaign_id: int, *, url: Url = DEFAULT_URL) -> None:
    """Start or resume a campaign."""
    with Client.from_environment(url) as client:
        client.put(f"/campaigns/{campaign_id}/start")
    typer.echo(f"campaign {campaign_id} started")


@app.command("stop")
def stop_campaign(campaign_id: int, *, url: Url = DEFAULT_URL) -> None:
    """Pause a campaign; calls that are up go on to their end."""
    with Client.from_environment(url) as client:
        client.put(f"/campaigns/{campaign_id}/stop")
    typer.echo(f"campaign {campaign_id} stopped")


@app.command("watch")
def watch_campaign(campaign_id: int, *, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Follow a campaign until it is over: dialled, answered, busy, failed, calls up, rate, ETA."""
    with Client.from_environment(url) as client:
        last = watch(client, campaign_id, quiet=as_json)
    if as_json:
        show_json(msgspec.to_builtins(last))


def send(
    program: Annotated[int, typer.Option("--program", help="Id of the program to run.")],
    *,
    phone: Annotated[str | None, typer.Option("--phone", help="Number to call or text.")] = None,
    email: Annotated[str | None, typer.Option("--email", help="Or an address to write to.")] = None,
    contact: Annotated[int | None, typer.Option("--contact", help="Or a contact's id.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is over.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Send one transmission now."""
    given = {"phone": phone, "email": email, "contact_id": contact}
    receiver = {name: value for name, value in given.items() if value is not None}
    if len(receiver) != 1:
        raise typer.BadParameter("give one of --phone, --email and --contact")
    with Client.from_environment(url) as client:
        sent = client.post("/transmissions", {"program_id": program, **receiver})
        transmission_id = sent["transmission_id"]
        client.post(f"/transmissions/{transmission_id}/send")
        seen = _outcome(client, transmission_id, wait=wait)
    show_object(seen, as_json=as_json)


def _outcome(client: Client, transmission_id: int, *, wait: bool) -> dict[str, Any]:
    while True:
        seen: dict[str, Any] = client.get(f"/transmissions/{transmission_id}")
        if not wait or seen["status"] in _ENDED:
            return seen
        time.sleep(0.5)


def cdr(
    *,
    campaign: Annotated[int | None, typer.Option("--campaign", help="Only this one's.")] = None,
    transmission: Annotated[int | None, typer.Option("--transmission")] = None,
    status: Annotated[str | None, typer.Option("--status", help="completed, failed …")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=MAX_ROWS)] = 100,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Call detail records: one row per spool (attempt)."""
    wanted = {"campaign_id": campaign, "transmission_id": transmission, "status": status}
    with Client.from_environment(url) as client:
        rows = client.pages("/spools", limit, **wanted)
        show_rows(rows, _SPOOL, as_json=as_json)
