"""The engine's refusals in the guide's codes (its list plus ICTCore's own 411, 413 and 415).

The guide knows no 503: a full or read-only store and a draining node are its 423, "System is not
ready to perform requested action".
"""

from __future__ import annotations

from engine.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    MissingBodyError,
    NoProviderError,
    NotFoundError,
    NotReadyError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedMediaError,
)

# The first that fits counts: the special kinds of InvalidError stand before it.
STATUS: tuple[tuple[type[Exception], int], ...] = (
    (UnauthenticatedError, 401),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (NoProviderError, 404),
    (MissingBodyError, 411),
    (TooLargeError, 413),
    (UnsupportedMediaError, 415),
    (InvalidError, 412),
    (ConflictError, 417),
    (NotReadyError, 423),
    (UnavailableError, 423),
)

# Fields whose name in the engine is not the one the client sent.
_FIELD = {"calls_per_minute": "cpm", "service": "service_flag"}

MEANING: dict[int, str] = {
    401: "Invalid or missing username or password",
    403: "Permission denied: the user may not perform the requested action",
    404: "Invalid API location, or a resource that does not exist or is not the caller's",
    411: "A body is needed and none came",
    412: "Data validation failed; the message names the field",
    413: "More bytes came than this call takes",
    415: "The uploaded bytes are of no supported kind",
    417: "Unexpected error: a duplicate, or another row forbids it",
    423: "The system is not ready to perform the requested action",
    500: "Internal server error, try again at a later time",
}


def describe(error: Exception, path: str) -> tuple[int, str]:
    """Status and message of a refusal. What is nobody's foreseen error tells nothing of itself."""
    for kind, status in STATUS:
        if isinstance(error, kind):
            if status == 401:  # noqa: PLR2004 - the one message that ICTCore words itself
                return status, f"{error}, access is denied to {path}."
            return status, _in_our_words(error)
    return 500, "Internal server error"


def _in_our_words(error: Exception) -> str:
    message = str(error)
    field = getattr(error, "field", "")
    return message.replace(field, _FIELD[field], 1) if field in _FIELD else message
