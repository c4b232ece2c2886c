"""The command ``outspool``: ``serve`` and ``demo`` run a node, the others are clients or tools."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from api import cli_campaign, cli_user
from api.cli_config import ConfigFile, Data, Http, Sip, read_config
from api.cli_states import mermaid
from engine.errors import OutspoolError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Places calls on time, never twice, and says what became of each.",
)
app.add_typer(cli_campaign.app, name="campaign")
app.add_typer(cli_user.app, name="user")
app.command()(cli_campaign.send)
app.command()(cli_campaign.cdr)


@app.command()
def serve(config: ConfigFile = None, data: Data = None, http: Http = None, sip: Sip = None) -> None:
    """Run a node until SIGTERM or Ctrl-C; a second one hangs up the calls that are left."""
    # The other commands start in half the time without the web server and the store.
    from api.main import Ready, run_until_signal  # noqa: PLC0415

    settings = read_config(config, data=data, http=http, sip=sip)

    def announce(node: Ready) -> None:
        if node.admin_password:
            typer.echo(f"first start: user admin, password {node.admin_password} (shown once)")
        typer.echo(f"outspool is ready: {node.url}")
        sys.stdout.flush()

    password = os.environ.get("OUTSPOOL_ADMIN_PASSWORD")
    run_until_signal(settings, admin_password=password, announce=announce)


@app.command()
def demo(
    *,
    contacts: Annotated[int, typer.Option("--contacts", min=1, max=10_000)] = 200,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the node up to look around.")] = False,
) -> None:
    """A node, a simulated carrier on this machine, a campaign of 200 calls over real SIP."""
    from api.demo import run_demo  # noqa: PLC0415 - as above

    run_demo(contacts, keep=keep)


@app.command()
def migrate(config: ConfigFile = None, data: Data = None) -> None:
    """Bring the store's schema up to date (a node does so itself when it starts)."""
    from engine.store import migrate as bring_up_to_date  # noqa: PLC0415

    settings = read_config(config, data=data)
    bring_up_to_date(settings)
    typer.echo(f"{settings.data_path}: schema is up to date")


@app.command()
def states() -> None:
    """Print the state diagrams of campaigns, transmissions and spools (Mermaid)."""
    typer.echo(mermaid())


def main() -> None:
    """Run the command; a failure we know of is one line on stderr and exit code 1."""
    try:
        app(prog_name="outspool")
    except OutspoolError as error:
        typer.echo(f"outspool: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
