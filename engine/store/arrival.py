"""What came in, as the store keeps it, and what else the store knows of who wants nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from engine.model import DoNotContact, Service, Template, Text
from engine.results import ResultRow


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A message that came in and whose it is; everything of it is stored together.

    The contact is the owner's with this phone, where that is "" with this e-mail (several: the
    first), or is created with ``name``. ``message`` becomes a row; the transmission (inbound,
    completed) and its spool (completed) get ``rows``, and beside them ``message``/``text`` or
    ``message``/``template`` and, where it is new, ``contact``/``contact_new``. ``forbids`` and
    ``allows`` are what the message asks for: done with it or not at all. Where ``key`` was received
    from this provider since ``repeat_since`` (None: not asked), nothing is stored.
    """

    at: datetime
    key: str
    provider_id: int
    repeat_since: datetime | None
    owner_id: int | None
    account_id: int
    program_id: int
    destination: str
    title: str
    origin: str
    message: Text | Template
    service: Service = Service.SMS
    phone: str = ""
    email: str = ""
    name: str = ""
    rows: tuple[ResultRow, ...] = ()
    forbids: DoNotContact | None = None
    allows: DoNotContact | None = None
    node_id: int = 1


class Kept(msgspec.Struct, frozen=True):
    """What an arrival became."""

    transmission_id: int
    spool_id: int
    contact_id: int
    message_id: int


class Served(msgspec.Struct, frozen=True):
    """An account of ours, and the program that takes what comes in for it (None: there is none)."""

    account_id: int
    owner_id: int | None
    program_id: int | None = None


class Doorkeeper(Protocol):
    """The part of ``Store`` about what comes in, and who wants nothing."""

    async def served(self, number: str, program_type: str) -> list[Served]:
        """Active accounts with this number (``screening.bare_number``): DIDs first, then by id.

        Their program of the type is one they are subscribed to, else one made for them.
        """
        ...

    async def served_address(self, address: str, program_type: str) -> list[Served]:
        """Active accounts with this e-mail address: of type eaddress first, then by id.

        Whatever its case; ``user+tag@`` finds ``user@`` where no account has the whole. Their
        program as in ``served``.
        """
        ...

    async def came(self, provider_id: int, key: str, since: datetime) -> bool:
        """Whether ``receive`` would find that a message with this key came before."""
        ...

    async def receive(self, arrival: Arrival) -> Kept | None:
        """Keep a message that came in, in one transaction; None where it had come before.

        See ``Arrival``. ``InvalidError`` names the account or program that is gone.
        """
        ...

    async def forbidden(
        self, owner_id: int | None, service: Service, addresses: Sequence[str]
    ) -> set[str]:
        """Those of the addresses (as ``DoNotContact`` has them) closed for this owner's service."""
        ...

    async def forbid(self, entry: DoNotContact) -> DoNotContact:
        """Close an address; one that is there already is closed for these services too."""
        ...

    async def suppress(self, spool_id: int, reason: str) -> DoNotContact | None:
        """Close a spool's destination for its service and owner; None: there is no such spool.

        An address that is closed for the service already keeps its reason.
        """
        ...

    async def allow(self, owner_id: int | None, service: Service, address: str) -> bool:
        """Open an address for the services again; False where it was not closed for them."""
        ...
