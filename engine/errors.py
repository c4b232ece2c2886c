"""The few exceptions of the engine, split by whose fault it is; dialects give them codes."""

from __future__ import annotations


class OutspoolError(Exception):
    """Base of all. The message is for the operator and holds no secret."""


class NotFoundError(OutspoolError):
    """The row does not exist, or is not the caller's to see."""


class InvalidError(OutspoolError):
    """What was given cannot be accepted; ``field`` names the offender ("" = the whole)."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class MissingBodyError(InvalidError):
    """A body was needed and none came."""


class TooLargeError(InvalidError):
    """More bytes came than this input may have."""


class UnsupportedMediaError(InvalidError):
    """The uploaded bytes are of no kind we can use."""


class ConflictError(OutspoolError):
    """A duplicate, or a write that another row forbids."""


class NotReadyError(OutspoolError):
    """The thing exists but is not in a state for this (already processing, completed …)."""


class ThrottledError(NotReadyError):
    """Too many failed logins; ``retry_after_s`` is how long to wait."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ForbiddenError(OutspoolError):
    """The caller lacks the permission."""


class UnauthenticatedError(OutspoolError):
    """Nobody we know is asking."""


class UnavailableError(OutspoolError):
    """A part we need is down: the store is full or read-only, no provider, the node is draining."""


class NoProviderError(OutspoolError):
    """No active provider carries this service."""


class IllegalTransitionError(OutspoolError):
    """A bug: somebody asked for a state change that the table does not have."""
