"""The configuration as the command line finds it: file, environment, then options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.config import Config, load
from engine.errors import InvalidError

DEFAULT_FILE = Path("outspool.toml")
MAX_PORT = 65_535

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", envvar="OUTSPOOL_CONFIG", help="TOML file (default: outspool.toml, if there)."
    ),
]
Data = Annotated[Path | None, typer.Option("--data", help="Data directory: database, keys, media.")]
Http = Annotated[
    str | None, typer.Option("--http", metavar="HOST:PORT", help="Where the REST API listens.")
]
Sip = Annotated[
    str | None, typer.Option("--sip", metavar="HOST:PORT", help="Address and first port of SIP.")
]


def read_config(
    path: Path | None, *, data: Path | None = None, http: str | None = None, sip: str | None = None
) -> Config:
    """The node's configuration; raises ``InvalidError`` naming what is wrong."""
    overrides: dict[str, dict[str, Any]] = {}
    if data is not None:
        overrides["node"] = {"data_dir": str(data)}
    for section, address in (("http", http), ("sip", sip)):
        if address is not None:
            host, port = parse_address(address, f"--{section}")
            overrides[section] = {"host": host, "port": port}
    if path is None and DEFAULT_FILE.exists():
        path = DEFAULT_FILE
    return load(path, os.environ, overrides)


def parse_address(text: str, name: str) -> tuple[str, int]:
    """``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT`` (this machine only); port 0 = any free one."""
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) <= MAX_PORT):
        raise InvalidError(f"{name}: {text!r} is not HOST:PORT", field=name)
    return host.strip("[]") or "127.0.0.1", int(port)
