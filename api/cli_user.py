"""``outspool user``: users of a node that is not running, straight on its store."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import trio
import typer

from api.cli_client import AsJson
from api.cli_config import ConfigFile, Data, read_config
from api.cli_views import show_rows
from engine.clock import now
from engine.config import Config
from engine.enrolment import create_user
from engine.errors import InvalidError, NotFoundError
from engine.model import User
from engine.passwords import Passwords
from engine.store.base import Condition, Op, Query, Store

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Users, while the node is stopped.")

Roles = Annotated[
    list[str] | None,
    typer.Option("--role", help="user (default), admin, or your own; may be repeated."),
]

_COLUMNS = ("user_id", "username", "email", "roles", "active")


@app.command("list")
def list_users(*, config: ConfigFile = None, data: Data = None, as_json: AsJson = False) -> None:
    """Everybody who may log in."""
    users = _run(config, data, lambda store: store.find(User, Query()))
    rows = [
        {
            "user_id": user.id,
            "username": user.username,
            "email": user.email,
            "roles": list(user.roles),
            "active": user.active,
        }
        for user in users
    ]
    show_rows(rows, _COLUMNS, as_json=as_json)


@app.command()
def add(
    username: str,
    role: Roles = None,
    email: Annotated[str, typer.Option("--email")] = "",
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Add a user with a default account. The password is asked for, or read from a pipe."""
    secret = _new_password()
    roles = tuple(role or ("user",))
    make = partial(
        create_user, clock=now, username=username, password=secret, roles=roles, email=email
    )
    user = _run(config, data, make)
    typer.echo(f"user {user.username} added, id {user.id}")


@app.command()
def password(username: str, config: ConfigFile = None, data: Data = None) -> None:
    """Set a user's password. It is asked for, or read from a pipe."""
    secret = _new_password()

    async def change(store: Store) -> None:
        hashed = await Passwords().hash(secret)
        await _edit(store, username, password_hash=hashed, tokens_from=now())

    _run(config, data, change)
    typer.echo(f"password of {username} changed")


@app.command()
def disable(username: str, config: ConfigFile = None, data: Data = None) -> None:
    """Keep a user from logging in; its tokens end at once."""
    _run(config, data, lambda store: _edit(store, username, active=False, tokens_from=now()))
    typer.echo(f"{username} disabled")


@app.command()
def enable(username: str, config: ConfigFile = None, data: Data = None) -> None:
    """Let a user log in again."""
    _run(config, data, lambda store: _edit(store, username, active=True))
    typer.echo(f"{username} enabled")


async def _edit(store: Store, username: str, **changes: object) -> None:
    by_name = Query(conditions=(Condition("username", Op.EQ, username),))
    users = await store.find(User, by_name)
    if not users:
        raise NotFoundError(f"no user {username}")
    await store.update(msgspec.structs.replace(users[0], updated_at=now(), **changes))


def _new_password() -> str:
    """Never an argument: those are seen by every process of the machine and kept by shells."""
    if "OUTSPOOL_NEW_PASSWORD" in os.environ:
        return os.environ["OUTSPOOL_NEW_PASSWORD"]
    if sys.stdin.isatty():
        secret: str = typer.prompt("New password", hide_input=True, confirmation_prompt=True)
        return secret
    line = sys.stdin.readline().rstrip("\n")
    if not line:
        raise InvalidError("no password on standard input", field="password")
    return line


def _run(config: Path | None, data: Path | None, job: Callable[[Store], Awaitable[T]]) -> T:
    return trio.run(_on_store, read_config(config, data=data), job)


async def _on_store(config: Config, job: Callable[[Store], Awaitable[T]]) -> T:
    # SQLAlchemy and Alembic would cost every other command half its start.
    from engine.store import open_store  # noqa: PLC0415

    async with open_store(config, clock=now) as store:
        return await job(store)
