"""/authenticate: name and password → token."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from api.ictcore.fields import Text, read_body
from api.routing import Ask, Item, Reply, Route
from engine.errors import UnauthenticatedError


class Credentials(msgspec.Struct, kw_only=True):
    """One name (e-mail, username or user id, in that order) and the password."""

    email: Text = UNSET
    username: Text = UNSET
    user_id: Text = UNSET
    password: Text = UNSET


class Token(msgspec.Struct, kw_only=True):
    """``token`` goes into ``Authorization: Bearer …``; ``access_token`` is the same once more."""

    token: str
    access_token: str
    token_type: str
    expires_in: int
    user_id: int
    username: str


async def create(ask: Ask) -> Reply:
    """POST /authenticate."""
    body = await read_body(ask, Credentials, creating=True)
    name = next((n for n in (body.email, body.username, body.user_id) if n is not UNSET), None)
    if not isinstance(name, str):
        raise UnauthenticatedError("No valid username found")
    password = body.password if isinstance(body.password, str) else ""
    user, token = await ask.authenticator.login(name, password)
    return Item(
        Token(
            token=token,
            access_token=token,
            token_type="Bearer",  # noqa: S106 - OAuth's word, no secret
            expires_in=ask.engine.config.http.token_lifetime_s,
            user_id=user.id,
            username=user.username,
        )
    )


ROUTES = (
    Route(
        verb="POST",
        path="/authenticate",
        handler=create,
        summary="Create an authentication token",
        answer=Item,
        view=Token,
        body=Credentials,
        public=True,
        statuses=(401, 412, 413, 423),
    ),
)
