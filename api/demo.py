"""``outspool demo``: a real campaign over real SIP, on this machine only, from start to outcome."""

from __future__ import annotations

import secrets
import signal
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

from rich.table import Table

from api.cli_client import Client, ClientError
from api.cli_progress import Progress, watch
from api.cli_views import console
from api.demo_material import contacts_csv, recording
from api.demo_processes import carrier, node

CALLS_PER_MINUTE = 1200
TRIES = 2
# A real campaign waits minutes; nobody watching a demo should.
CONFIG = """
[node]
drain_timeout_s = 5.0

[sip]
rtp_port_min = 30000
rtp_port_max = 34000

[dial]
ring_timeout_s = 4.0

[retry]
busy_delay_s = 2.0
no_answer_delay_s = 3.0

[log]
level = "warning"
"""


def run_demo(contacts: int, *, keep: bool) -> None:
    """Run the demo; with ``keep`` node and carrier stay up, the API on port 8080, until Ctrl-C."""
    # The default would end us on the spot and leave node and carrier behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    password = secrets.token_urlsafe(9)
    http = "127.0.0.1:8080" if keep else "127.0.0.1:0"
    out = console()
    with tempfile.TemporaryDirectory(prefix="outspool-demo-") as name:
        folder = Path(name)
        out.print("starting a carrier (SIPp: 70 % answer, 20 % busy, 10 % never answer) and a node")
        with carrier(folder) as trunk, node(folder, CONFIG, password, http) as url:
            with Client(url, "admin", password) as client:
                campaign_id = _prepare(client, trunk.port, contacts)
                client.put(f"/campaigns/{campaign_id}/start")
                last = watch(client, campaign_id)
                _report(client, campaign_id, last, None if keep else trunk.finish())
            if keep:
                out.print(f"API: {url}, described at {url}/openapi.json")
                out.print(f"user admin, password {password}; Ctrl-C ends node and carrier")
                _wait_for_interrupt()
    if not keep:
        out.print(
            "outspool demo --keep leaves the node up: API at http://127.0.0.1:8080, described at "
            "/openapi.json; a node of your own: outspool serve (README.md has a tour)"
        )


def _prepare(client: Client, sip_port: int, contacts: int) -> int:
    """Everything an operator sets up, through the REST API; the campaign's id."""
    out = console()
    trunk = {"name": "demo carrier", "type": "sip", "host": "127.0.0.1", "port": sip_port}
    provider_id = client.post("/providers", trunk)["provider_id"]
    out.print(f"provider {provider_id}: SIP trunk to 127.0.0.1:{sip_port}")
    me = client.get("/accounts")[0]["account_id"]
    client.put(f"/accounts/{me}", {"phone": "+999555000", "first_name": "Demo"})
    recording_id = client.post("/messages/recordings", {"name": "demo tune"})["recording_id"]
    client.upload("PUT", f"/messages/recordings/{recording_id}/media", recording(), "audio/wav")
    out.print(f"recording {recording_id}: uploaded and converted to telephone quality")
    message = {"name": "demo message", "recording_id": recording_id}
    program_id = client.post("/programs/voicemessage", message)["program_id"]
    group_id = client.post("/groups", {"name": "demo contacts"})["group_id"]
    done = client.upload("POST", f"/groups/{group_id}/csv", contacts_csv(contacts), "text/csv")
    if done["imported"] != contacts:
        raise ClientError(f"{done['rejected']} contacts refused: {done['errors'][:3]}")
    out.print(f"group {group_id}: {contacts} contacts imported from CSV")
    campaign = {
        "program_id": program_id,
        "group_id": group_id,
        "cpm": CALLS_PER_MINUTE,
        "try_allowed": TRIES,
    }
    campaign_id: int = client.post("/campaigns", campaign)["campaign_id"]
    out.print(f"campaign {campaign_id}: {CALLS_PER_MINUTE} calls a minute, {TRIES} tries each")
    return campaign_id


def _report(client: Client, campaign_id: int, last: Progress, seen: int | None) -> None:
    """What became of the contacts, and whether the carrier agrees."""
    tally: dict[str, int] = client.get(f"/campaigns/{campaign_id}")["tally"]
    ended = client.pages("/transmissions", last.contacts, campaign_id=campaign_id)
    contacts = Counter(str(transmission["response"]) for transmission in ended)
    table = Table("outcome", "contacts", "attempts", title="What became of them")
    for key, attempts in sorted(tally.items()):
        kind, _, cause = key.partition(":")
        if kind == "response":
            table.add_row(cause, str(contacts[cause]), str(attempts))
    table.add_section()
    table.add_row("all", str(contacts.total()), str(last.dialled))
    console().print(table)
    if seen is not None:
        verdict = "as many as" if seen == last.dialled else "NOT as many as"
        console().print(f"the carrier counted {seen} calls, {verdict} the node dialled")


def _wait_for_interrupt() -> None:
    with suppress(KeyboardInterrupt):
        signal.pause()
