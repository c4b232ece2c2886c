"""Host names of trunks, looked up here and never in a worker, where it would stop all calls."""

from __future__ import annotations

import socket

import trio

from gateways.sip.addresses import is_address

LIFETIME_S = 60.0
FAILURE_LIFETIME_S = 5.0
DEADLINE_S = 5.0
_MAX_NAMES = 1000


class Resolver:
    """Caches answers; many calls that ask for one name at once make one query."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._asking: dict[str, trio.Lock] = {}

    def cached(self, name: str) -> list[str] | None:
        """The addresses if they are known and fresh; an address is its own."""
        found = self._known.get(name)
        if found is not None and found[0] > trio.current_time():
            return found[1]
        if is_address(name):
            self._keep(name, [name], float("inf"))
            return [name]
        return None

    async def resolve(self, name: str) -> list[str]:
        """IPv4 addresses of ``name``; empty where it has none or nobody answers in time."""
        found = self.cached(name)
        if found is not None:
            return found
        lock = self._asking.setdefault(name, trio.Lock())
        try:
            async with lock:
                found = self.cached(name)
                return await self._ask(name) if found is None else found
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._asking.pop(name, None)

    async def _ask(self, name: str) -> list[str]:
        addresses: list[str] = []
        with trio.move_on_after(DEADLINE_S):
            try:
                answers = await trio.socket.getaddrinfo(
                    name, None, socket.AF_INET, socket.SOCK_STREAM
                )
            except (OSError, UnicodeError):
                answers = []  # no such name: the caller says so in its result
            addresses = [str(answer[4][0]) for answer in answers]
        lifetime_s = LIFETIME_S if addresses else FAILURE_LIFETIME_S
        self._keep(name, addresses, trio.current_time() + lifetime_s)
        return addresses

    def _keep(self, name: str, addresses: list[str], until: float) -> None:
        if len(self._known) >= _MAX_NAMES:
            del self._known[next(iter(self._known))]
        self._known[name] = (until, addresses)
