"""Links in mails by which who reads them gets no more (RFC 8058), and what following one does.

A link holds owner and address, sealed, and no id of a row: it works for as long as the node has its
key, whatever was deleted meanwhile.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from engine.clock import Clock, now
from engine.config import Config
from engine.do_not_contact import DoNotContacts
from engine.errors import UnavailableError
from engine.model import DoNotContact, Service
from engine.screening import bare_spelling
from engine.seals import Seals
from engine.secrets import Secrets

PURPOSE = "unsubscribe"
PATH = "/unsubscribe"
REASON = "unsubscribed"

# One-click needs https (RFC 8058 §3.1); a node tried out on one's own desk has none.
_BASE = re.compile(
    r"(?:https://[!-;=A-~]+|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?(?:/[!-;=A-~]*)?)",
    re.ASCII,
)
_NO_BASE = re.compile(r"[?#@]")  # the path of a link goes at its end
_MAX_TOKEN = 512  # characters; an address of 254 makes 387


class Subscriber(msgspec.Struct, frozen=True, array_like=True):
    """Who follows a link: ``address`` as lists spell it, and whose list it goes on."""

    owner_id: int | None
    address: str

    @property
    def masked(self) -> str:
        """The address for who has it already and knows it again: ``a***@example.org``."""
        local, _, domain = self.address.rpartition("@")
        return f"{local[:1]}***@{domain}"


class Links:
    """Makes them; nothing to make where ``website.url`` is not https (on this machine: http)."""

    def __init__(self, website_url: str, seals: Seals) -> None:
        sound = _BASE.fullmatch(website_url) and not _NO_BASE.search(website_url)
        self._base = f"{website_url.rstrip('/')}{PATH}/" if sound else ""
        self._seals = seals

    @property
    def lead_somewhere(self) -> bool:
        """Whether there is an address to make them of."""
        return bool(self._base)

    def url(self, owner_id: int | None, address: str) -> str:
        """Where ``address`` is put on the owner's list; "" where there is no such place."""
        if not self._base:
            return ""
        who = Subscriber(owner_id, bare_spelling(Service.EMAIL)(address))
        return self._base + self._seals.hide(msgspec.msgpack.encode(who))


class Unsubscribes:
    """What following a link does. ``open`` before anything else."""

    def __init__(
        self, *, config: Config, secrets: Secrets, do_not_contact: DoNotContacts, clock: Clock = now
    ) -> None:
        self._config = config
        self._secrets = secrets
        self._list = do_not_contact
        self._clock = clock
        self._seals: Seals | None = None
        self.links: Links | None = None
        self._looked = self._done = self._refused = 0

    async def open(self) -> None:
        """Take the keys that links are sealed with."""
        self._seals = Seals((await self._secrets.ring()).derived(PURPOSE))
        self.links = Links(self._config.website.url, self._seals)

    async def known(self, token: str) -> Subscriber | None:
        """Whose link it is; None where we made none like it. Changes nothing."""
        found = self._subscriber(token)
        self._looked += found is not None
        self._refused += found is None
        return found

    async def unsubscribe(self, token: str) -> Subscriber | None:
        """Close the address for mail; as often as it is asked for. None as ``known``.

        Nothing is started to it once this has returned. ``UnavailableError``: the store takes no
        writes, nothing was done.
        """
        found = self._subscriber(token)
        if found is None:
            self._refused += 1
            return None
        at = self._clock()
        entry = DoNotContact(
            address=found.address,
            owner_id=found.owner_id,
            service=Service.EMAIL,
            reason=REASON,
            created_at=at,
            updated_at=at,
        )
        await self._list.forbid(entry)
        self._done += 1
        return found

    def _subscriber(self, token: str) -> Subscriber | None:
        if self._seals is None:
            raise UnavailableError("The node is not ready")
        raw = self._seals.reveal(token) if len(token) <= _MAX_TOKEN else None
        return None if raw is None else msgspec.msgpack.decode(raw, type=Subscriber)

    def statistics(self) -> dict[str, Any]:
        """Links looked at, followed, and no links of ours."""
        return {"looked_at": self._looked, "followed": self._done, "refused": self._refused}
