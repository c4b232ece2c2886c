"""Request headers → ``Principal``: Bearer and Basic, on every route."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection

from werkzeug.datastructures import Headers

from engine.auth import Authenticator, Principal
from engine.errors import UnauthenticatedError


async def authenticate(
    headers: Headers, authenticator: Authenticator, address: str = ""
) -> Principal:
    """Who sent this request from ``address``; ``UnauthenticatedError`` where nobody we know did.

    ``ThrottledError`` where too many wrong passwords came before it.
    """
    scheme, credentials = _given(headers)
    if scheme == "bearer":
        return await authenticator.bearer(credentials)
    if scheme == "basic":
        return await authenticator.basic(*_decode_basic(credentials), address)
    raise UnauthenticatedError("No valid credentials were given")


def bearer_token(headers: Headers) -> str:
    """The token a request carries; "" = none."""
    scheme, credentials = _given(headers)
    return credentials if scheme == "bearer" else ""


def asking_address(peer: str, headers: Headers, trusted: Collection[str]) -> str:
    """Where a request comes from: the last hop that is no proxy of ours.

    Everything before that in ``X-Forwarded-For`` anybody could have written.
    """
    hops = [hop.strip() for hop in headers.get("X-Forwarded-For", "").split(",") if hop.strip()]
    address = peer
    while address in trusted and hops:
        address = hops.pop()
    return address


def _given(headers: Headers) -> tuple[str, str]:
    """Scheme and credentials.

    ``Authentication`` (the guide's slip) counts where ``Authorization`` is absent; blanks before
    the scheme are tolerated (deployed GUIs send one).
    """
    value = headers.get("Authorization") or headers.get("Authentication") or ""
    scheme, _, credentials = value.strip().partition(" ")
    return scheme.lower(), credentials.strip()


def _decode_basic(credentials: str) -> tuple[str, str]:
    """Username and password of RFC 7617."""
    try:
        text = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, ValueError):
        raise UnauthenticatedError("No valid credentials were given") from None
    name, separator, password = text.partition(":")
    if not separator:
        raise UnauthenticatedError("No valid credentials were given")
    return name, password
