"""A provider's pools: one for its relay, or one for each domain where mail goes to its MX.

asyncio side.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from gateways.smtp.limits import Limits
from gateways.smtp.manner import Manner
from gateways.smtp.mxorder import NoRoute
from gateways.smtp.owner import Usage
from gateways.smtp.pool import Pool
from gateways.smtp.records import Answer, Parcel, Route
from gateways.smtp.settings import SmtpSettings
from gateways.smtp.standing import Standing, Tally

MAX_REMEMBERED = 10_000
"""Domains without a pool of which something is remembered."""

SLACK_S = 3_600.0
"""How much later than ``retry_s`` says a mail may come again."""

RELAY = ""
"""The one "domain" of a relay."""


_SUMMED = ("queue", "connections", "idle", "stopped")


class Routing(Protocol):
    """``gateways.smtp.mx.Resolver``."""

    async def routes(self, domain: str, port: int, *, verify: bool = False) -> list[Route]:
        """Where mail for ``domain`` goes, best first; ``NoRoute``."""


class Depot:
    """``tell`` gets the answer of every mail, exactly one each."""

    def __init__(
        self,
        manner: Manner,
        settings: SmtpSettings,
        routing: Routing,
        tell: Callable[[Answer], None],
        *,
        dice: random.Random | None = None,
    ) -> None:
        self._manner, self._routing, self._tell = manner, routing, tell
        self._usage = Usage(
            messages=settings.messages_per_connection,
            idle_s=settings.idle_s,
        )
        self._per_second = settings.domain_per_second
        self._passed_s = max(settings.retry_s, default=0.0) + SLACK_S
        in_all = settings.connections_all if manner.direct else settings.connections
        self._tally = Tally()
        self._limits = Limits(settings.connections, in_all)
        self._pools: dict[str, Pool] = {}
        self._remembered: dict[str, Standing] = {}  # of domains whose pool is gone
        self._hungry: dict[str, Pool] = {}  # in the order they began to wait for a place
        self._puts = 0
        self._dice = dice or random.Random()

    def put(self, parcels: Iterable[Parcel]) -> None:
        """Take mails; never blocks."""
        groups: dict[str, list[Parcel]] = {}
        for parcel in parcels:
            groups.setdefault(parcel.domain if self._manner.direct else RELAY, []).append(parcel)
        for domain, group in groups.items():
            pool = self._pool(domain)
            pool.put(group)
            if pool.hungry:
                self._hungry.setdefault(domain, pool)
        self._puts += 1
        if self._puts > len(self._pools) + len(self._remembered):
            self._forget()
        self._make_room()

    def drop(self, parcel_ids: Sequence[int]) -> None:
        """Give these up."""
        for pool in list(self._pools.values()):
            pool.drop(parcel_ids)

    def hand_back(self) -> list[Parcel]:
        """What waits for a connection, for other pools; it is not answered here."""
        self._hungry.clear()
        return [parcel for pool in list(self._pools.values()) for parcel in pool.hand_back()]

    def give_up(self) -> None:
        """The loop ends: what waits is dropped."""
        for pool in list(self._pools.values()):
            pool.give_up()

    async def close(self, drain_s: float) -> None:
        """Let what is there go on for so long; all is answered and closed at the end."""
        pools = list(self._pools.values())
        await asyncio.gather(*(pool.close(drain_s) for pool in pools))

    def statistics(self) -> dict[str, Any]:
        """Of all pools together; ``stopped`` counts those that wait for a login or certificate."""
        each = [pool.statistics() for pool in list(self._pools.values())]
        sums = {name: sum(one[name] for one in each) for name in _SUMMED}
        return {"pools": len(each)} | sums | msgspec.structs.asdict(self._tally)

    # --- pools

    def _pool(self, domain: str) -> Pool:
        pool = self._pools.get(domain)
        if pool is None:
            pool = self._pools[domain] = Pool(
                self._manner,
                self._usage,
                self._limits,
                domain=domain,
                standing=self._standing(domain),
                tally=self._tally,
                routes=self._relay if domain == RELAY else lambda: self._direct(domain),
                tell=self._tell,
                freed=lambda: self._freed(domain),
                crowded=lambda: any(other != domain for other in self._hungry),
                dice=self._dice,
            )
        return pool

    def _standing(self, domain: str) -> Standing:
        known = self._remembered.pop(domain, None)
        return known or Standing(self._per_second, self._passed_s, time.monotonic())

    async def _direct(self, domain: str) -> list[Route]:
        manner = self._manner
        return await self._routing.routes(domain, manner.port, verify=manner.verify)

    async def _relay(self) -> list[Route]:
        """Every address of the relay; its certificate must say the name that was configured."""
        manner = self._manner
        return [
            Route(host=host, port=manner.port, name=manner.host, verify=manner.verify)
            for host in await _addresses(manner.host, manner.port)
        ]

    def _freed(self, domain: str) -> None:
        pool = self._pools.get(domain)
        if pool is not None and pool.hungry:  # it had its turn, or a mail was put back
            self._hungry.pop(domain, None)
            self._hungry[domain] = pool
        self._make_room()
        if pool is not None and pool.quiet:
            self._let_go(domain)

    def _make_room(self) -> None:
        """Places go to who waits longest; where none is left, an idle connection gives way."""
        wanted = False
        for domain, pool in list(self._hungry.items()):
            pool.grow()
            if not pool.hungry:
                del self._hungry[domain]
            elif not self._limits.full(domain):
                wanted = True
        if wanted:
            any(pool.retire() for pool in self._pools.values())

    def _forget(self) -> None:
        """Drop pools that have nothing: those whose last news was a failure go here."""
        self._puts, now = 0, time.monotonic()
        for domain, standing in list(self._remembered.items()):
            if standing.blank(now):
                del self._remembered[domain]
        for domain, pool in list(self._pools.items()):
            if pool.quiet:
                self._let_go(domain)

    def _let_go(self, domain: str) -> None:
        standing = self._pools.pop(domain).standing
        if standing.blank(time.monotonic()):
            return
        if len(self._remembered) >= MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]  # it went first
        self._remembered[domain] = standing


async def _addresses(host: str, port: int) -> list[str]:
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NoRoute(f"{host}: {error}", permanent=False) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
