"""Who wants nothing from us: asked before every attempt, changed by the API and by keywords."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.auth import Principal
from engine.catalog import FAMILY, Catalog
from engine.model import DoNotContact, Service
from engine.results import screened
from engine.screening import bare_spelling
from engine.store.base import Store
from engine.validation import check

CAUSE = "do_not_contact"
"""Of what was not sent because its address is closed."""

REFUSED = screened(CAUSE)

REMEMBERED = 50_000
"""Addresses closed last that are known without asking the store: more than can wait to be sent."""


async def among(
    store: Store, owner_id: int | None, service: Service, destinations: Sequence[str]
) -> set[str]:
    """Those of the destinations that are closed for this owner's service."""
    if not destinations:
        return set()
    spell = bare_spelling(service)
    addresses = {one: spell(one) for one in destinations}
    closed = await store.forbidden(owner_id, service, list(addresses.values()))
    return {one for one, address in addresses.items() if address in closed}


class DoNotContacts:
    """The list of one node.

    Whoever is to be contacted is looked up in the store when it is queued. What was queued before
    its address was closed is found by the addresses closed last, kept in memory: nothing is handed
    to a gateway once ``forbid`` has returned.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._store = catalog.store
        self._lately: dict[tuple[int | None, str], int] = {}  # services, as bits
        catalog.after_delete(DoNotContact, self._reopen)

    # --- for whoever sends -----------------------------------------------------------------------
    async def among(
        self, owner_id: int | None, service: Service, destinations: Sequence[str]
    ) -> set[str]:
        """See ``among``."""
        return await among(self._store, owner_id, service, destinations)

    def closed_lately(self, owner_id: int | None, service: Service, destination: str) -> bool:
        """Whether a destination was closed a short while ago; costs nothing while none was."""
        if not self._lately:
            return False
        address = bare_spelling(service)(destination)
        own = self._lately.get((owner_id, address), 0)
        return bool(int(service) & (own | self._lately.get((None, address), 0)))

    # --- for whoever closes and opens ------------------------------------------------------------
    async def forbid(self, entry: DoNotContact) -> DoNotContact:
        """Close an address; nothing is started to it once this has returned."""
        closed = await self._store.forbid(entry)
        self.note(closed)
        return closed

    async def suppress(self, spool_id: int, reason: str) -> None:
        """Close a spool's destination for its service and owner (see ``Store.suppress``)."""
        closed = await self._store.suppress(spool_id, reason)
        if closed is not None:
            self.note(closed)

    async def allow(self, entry: DoNotContact) -> bool:
        """Open an address for the services again; False where it was not closed for them."""
        opened = await self._store.allow(entry.owner_id, entry.service, entry.address)
        self.forget(entry)
        return opened

    def note(self, entry: DoNotContact) -> None:
        """An address was closed in the store."""
        key = (entry.owner_id, entry.address)
        self._lately[key] = self._lately.pop(key, 0) | int(entry.service)
        if len(self._lately) > REMEMBERED:
            del self._lately[next(iter(self._lately))]

    def forget(self, entry: DoNotContact) -> None:
        """An address was opened in the store."""
        key = (entry.owner_id, entry.address)
        left = self._lately.pop(key, 0) & ~int(entry.service)
        if left:
            self._lately[key] = left

    # --- for the API -----------------------------------------------------------------------------
    async def create(self, who: Principal, entry: DoNotContact) -> DoNotContact:
        """Close an address for the caller; the line there is, where it was closed already."""
        who.require(f"{FAMILY[DoNotContact]}_create")
        address = bare_spelling(entry.service)(entry.address)
        entry = msgspec.structs.replace(entry, address=address, owner_id=who.user_id)
        check(entry)
        return await self.forbid(entry)

    async def _reopen(self, entry: DoNotContact) -> None:
        self.forget(entry)

    def statistics(self) -> dict[str, Any]:
        """How many addresses are known without asking the store."""
        return {"closed_lately": len(self._lately)}
