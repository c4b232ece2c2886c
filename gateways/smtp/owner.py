"""A pool's connections, each with its task, and the mails that wait for one. asyncio side."""

from __future__ import annotations

import asyncio

import msgspec

from gateways.smtp.connection import Connection
from gateways.smtp.manner import Manner
from gateways.smtp.records import Parcel


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """How long a connection is used: see ``SmtpSettings``."""

    messages: int = 100
    idle_s: float = 10.0


class Waiting(msgspec.Struct, gc=False):
    """A mail in the queue: connections it was given to already, hosts that cannot take it."""

    parcel: Parcel
    tries: int = 0
    unable: tuple[str, ...] = ()


class Owner:
    """A task and its connection; ``wake`` ends its idleness, False after too long a one.

    ``held``: a mail that its last host cannot take, on the way to another one.
    """

    def __init__(self, manner: Manner) -> None:
        self.connection = Connection(manner)
        self.parcel: Parcel | None = None
        self.held: Waiting | None = None
        self.dropped = self.leaving = False
        self.wake: asyncio.Future[bool] | None = None

    def rouse(self, more: bool = True) -> None:  # noqa: FBT001, FBT002 - also a timer's callback
        """Something changed: a mail waits, the connection ended, the pool closes."""
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(more)
