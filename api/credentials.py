"""Request headers → ``Principal``: Bearer and Basic, on every route."""

from __future__ import annotations

import base64
import binascii

from werkzeug.datastructures import Headers

from engine.auth import Authenticator, Principal
from engine.errors import UnauthenticatedError


async def authenticate(headers: Headers, authenticator: Authenticator) -> Principal:
    """Who sent this request; ``UnauthenticatedError`` where nobody we know did.

    ``Authentication`` (the guide's slip) counts where ``Authorization`` is absent; blanks before
    the scheme are tolerated (deployed GUIs send one).
    """
    value = headers.get("Authorization") or headers.get("Authentication") or ""
    scheme, _, credentials = value.strip().partition(" ")
    if scheme.lower() == "bearer":
        return await authenticator.bearer(credentials.strip())
    if scheme.lower() == "basic":
        return await authenticator.basic(*_decode_basic(credentials.strip()))
    raise UnauthenticatedError("No valid credentials were given")


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
