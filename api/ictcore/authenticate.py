"""/authenticate: name and password → token; /authenticate/cancel: the token's end."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from api.credentials import bearer_token
from api.ictcore.fields import Text, read_body
from api.routing import Ask, Done, Item, Reply, Route
from engine.errors import UnauthenticatedError
from engine.model import User


class Credentials(msgspec.Struct, kw_only=True):
    """One name (e-mail, username or user id, in that order) and the password.

    ICTCore also took the password's MD5 as ``hash``; here that is no password.
    """

    email: Text = UNSET
    username: Text = UNSET
    user_id: Text = UNSET
    password: Text = UNSET


class Token(msgspec.Struct, kw_only=True):
    """``token`` goes into ``Authorization: Bearer …``; ``access_token`` is the same once more.

    Beside it is the user it is for.
    """

    token: str
    access_token: str
    token_type: str
    expires_in: int
    scope: str
    user_id: int
    username: str
    first_name: str
    last_name: str
    phone: str
    email: str
    address: str
    company: str
    country: str | None
    country_id: int | None
    language_id: str | None
    timezone_id: int | None
    active: int


async def create(ask: Ask) -> Reply:
    """POST /authenticate."""
    body = await read_body(ask, Credentials, creating=True)
    name = next((n for n in (body.email, body.username, body.user_id) if n is not UNSET), None)
    if not isinstance(name, str):
        raise UnauthenticatedError("No valid username found")
    password = body.password if isinstance(body.password, str) else ""
    user, token = await ask.authenticator.login(name, password, ask.address)
    return Item(to_json(user, token, ask.engine.config.http.token_lifetime_s))


def to_json(user: User, token: str, lifetime_s: int) -> Token:
    """The token on the wire."""
    return Token(
        token=token,
        access_token=token,
        token_type="Bearer",  # noqa: S106 - OAuth's word, no secret
        expires_in=lifetime_s,
        scope="All",
        user_id=user.id,
        username=user.username,
        first_name=user.first_name,
        last_name=user.last_name,
        phone=user.phone,
        email=user.email,
        address=user.address,
        company=user.company,
        country=None if user.country_id is None else str(user.country_id),
        country_id=user.country_id,
        language_id=user.language_id or None,
        timezone_id=user.timezone_id,
        active=int(user.active),
    )


async def cancel(ask: Ask) -> Reply:
    """POST /authenticate/cancel: whatever is presented, it is no token afterwards."""
    await ask.authenticator.revoke(bearer_token(ask.request.headers))
    return Done()


ROUTES = (
    Route(verb="POST", path="/authenticate", handler=create,
          summary="Create an authentication token", answer=Item, view=Token, body=Credentials,
          public=True, statuses=(401, 412, 413, 423)),
    Route(verb="POST", path="/authenticate/cancel", handler=cancel,
          summary="End the token this is sent with", answer=Done, public=True),
)  # fmt: skip
