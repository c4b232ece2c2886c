"""Where mail for a domain goes, out of DNS: RFC 5321 §5 on dnspython, asyncio's side.

Answers are kept by their TTL; of one domain there is one look-up at a time, however many ask.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import re
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rdatatype
import dns.resolver
import msgspec

from engine.addresses import domain_ascii
from engine.errors import InvalidError
from gateways.smtp.mxorder import ROOT, NoRoute, order, reachable
from gateways.smtp.records import Route

LIFETIME_S = 10.0
"""Of one question, all servers and repetitions together."""

_TRY_S = 3.0  # of one server, so that a lame one leaves time for the next
_MAX_KEPT = 10_000
_MAX_LOOKUPS = 100
_MIN_TTL_S, _MAX_TTL_S = 5.0, 3_600.0
_EDNS_BYTES = 1_232  # what no path fragments (DNS flag day 2020)
_DNS_PORT = 53
_LAST_PORT = 65_535
_SERVER = re.compile(
    r"(?:\[([0-9a-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?|([0-9a-f:.]+)", re.IGNORECASE
)


class _Found(msgspec.Struct, frozen=True):
    """What DNS said of a domain: MX records, addresses by host; or why there is no route."""

    good_until: float
    exchanges: tuple[tuple[int, str], ...] = ()
    addresses: dict[str, tuple[str, ...]] = {}
    nothing: NoRoute | None = None


class _Records(msgspec.Struct, frozen=True):
    """Records of a name (none: it has none of this type) and their TTL in seconds."""

    records: tuple[Any, ...]
    ttl_s: float
    sure: bool = True


class Resolver:
    """Looks routes up and keeps them. To be used in one asyncio loop.

    ``servers``: ``address`` or ``address:port`` (IPv6 in brackets then), none = the system's.
    ``own``: names that are this machine. ``ipv6`` None: where this machine has a way to it.
    """

    def __init__(
        self,
        servers: Sequence[str] = (),
        *,
        own: frozenset[str] = frozenset(),
        dice: random.Random | None = None,
        ipv6: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = frozenset(name.lower().rstrip(".") for name in own)
        self._dice = dice or random.Random()
        self._kinds = ("A", "AAAA") if (_has_ipv6() if ipv6 is None else ipv6) else ("A",)
        self._clock = clock
        self._dns = _resolver(servers)
        self._kept: dict[str, _Found] = {}
        self._asking: dict[str, asyncio.Task[_Found]] = {}
        self._slots = asyncio.Semaphore(_MAX_LOOKUPS)
        self._questions = 0

    async def routes(self, domain: str, port: int, *, verify: bool = False) -> list[Route]:
        """Where to connect, best first: every address of a host, then the next host.

        ``verify`` is that of the routes. Raises ``NoRoute``.
        """
        try:
            name = domain_ascii(domain)
        except InvalidError:  # address literals, too: nobody is written to by number
            raise NoRoute("no domain", permanent=True) from None
        found = await self._found(name)
        if found.nothing is not None:
            raise NoRoute(found.nothing.reason, permanent=found.nothing.permanent)
        hosts = order(found.exchanges, self._dice, self._own)
        routes = [
            Route(host=address, port=port, name=host, verify=verify)
            for host in hosts
            for address in found.addresses.get(host, ())
        ]
        if not routes:
            raise NoRoute("no host of the domain has an address", permanent=False)
        return routes

    async def close(self) -> None:
        """Give up what is being asked."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def statistics(self) -> dict[str, int]:
        """Domains kept, domains being asked for, questions asked."""
        return {
            "kept": len(self._kept),
            "asking": len(self._asking),
            "questions": self._questions,
        }

    async def _found(self, name: str) -> _Found:
        kept = self._kept.get(name)
        if kept is not None and kept.good_until > self._clock():
            return kept
        task = self._asking.get(name)
        if task is None:
            task = asyncio.create_task(self._ask(name))
            self._asking[name] = task
            task.add_done_callback(lambda done: self._asked(name, done))
        # Others may wait for the same answer: who is cancelled takes nothing from them.
        return await asyncio.shield(task)

    def _asked(self, name: str, task: asyncio.Task[_Found]) -> None:
        del self._asking[name]
        if task.cancelled() or task.exception() is not None:
            return  # who waits gets it
        self._kept.pop(name, None)
        while len(self._kept) >= _MAX_KEPT:
            del self._kept[next(iter(self._kept))]  # the oldest answer
        self._kept[name] = task.result()

    async def _ask(self, name: str) -> _Found:
        try:
            return await self._exchanges(name)
        except NoRoute as nothing:
            return _Found(self._clock() + _MIN_TTL_S, nothing=nothing)

    async def _exchanges(self, name: str) -> _Found:
        mx = await self._lookup(name, "MX")
        exchanges = tuple((each.preference, _host(each.exchange)) for each in mx.records)
        if not exchanges:
            return await self._implicit(name, mx.ttl_s)
        if all(host == ROOT for _, host in exchanges):
            return self._keep(exchanges, {}, mx.ttl_s)
        chosen = order(exchanges, self._dice, self._own)
        answers = await asyncio.gather(*(self._addresses(host, self._kinds) for host in chosen))
        addresses = {host: found.records for host, found in zip(chosen, answers, strict=True)}
        kept = tuple(each for each in exchanges if each[1] in addresses)
        return self._keep(kept, addresses, min(mx.ttl_s, *(each.ttl_s for each in answers)))

    async def _implicit(self, name: str, ttl_s: float) -> _Found:
        """Without MX records the domain is a host, with preference 0 (§5.1)."""
        found = await self._addresses(name, self._kinds)
        if not found.records:
            if found.sure:
                await self._check_nowhere(name)
            raise NoRoute("the domain has neither MX nor address", permanent=found.sure)
        return self._keep(((0, name),), {name: found.records}, min(ttl_s, found.ttl_s))

    async def _check_nowhere(self, name: str) -> None:
        """``NoRoute`` for now, where only this machine cannot get there: the address is good."""
        if "AAAA" in self._kinds:
            return
        other = await self._addresses(name, ("AAAA",))
        if other.records or not other.sure:
            raise NoRoute("only IPv6 may lead to the domain, and here is none", permanent=False)

    async def _addresses(self, host: str, kinds: Sequence[str]) -> _Records:
        """Those of a host; not ``sure`` where DNS did not say all."""
        answers = [self._lookup(host, kind) for kind in kinds]
        known, missing = [], []
        for each in await asyncio.gather(*answers, return_exceptions=True):
            if isinstance(each, NoRoute):
                missing.append(each)
            elif isinstance(each, BaseException):
                raise each
            else:
                known.append(each)
        found = reachable(str(record.address) for each in known for record in each.records)
        # What DNS did not say now it may say in a moment.
        ttl_s = _MIN_TTL_S if missing else min(each.ttl_s for each in known)
        return _Records(tuple(found), ttl_s, sure=all(each.permanent for each in missing))

    def _keep(
        self,
        exchanges: tuple[tuple[int, str], ...],
        addresses: dict[str, tuple[str, ...]],
        ttl_s: float,
    ) -> _Found:
        lasting_s = min(max(ttl_s, _MIN_TTL_S), _MAX_TTL_S)
        return _Found(self._clock() + lasting_s, exchanges, addresses)

    async def _lookup(self, name: str, kind: str) -> _Records:
        if self._dns is None:
            raise NoRoute("no DNS server is configured", permanent=False)
        self._questions += 1
        try:
            async with self._slots:
                answer = await self._dns.resolve(
                    f"{name}.", kind, raise_on_no_answer=False, search=False
                )
        except dns.resolver.NXDOMAIN:
            raise NoRoute("no such domain", permanent=True) from None
        except (dns.exception.DNSException, OSError) as error:
            raise NoRoute(f"DNS: {type(error).__name__}", permanent=False) from None
        ttl_s = float(answer.chaining_result.minimum_ttl)
        records = answer.rrset if answer.rrset is not None else ()
        return _Records(tuple(records), ttl_s)


def _host(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _resolver(servers: Sequence[str]) -> dns.asyncresolver.Resolver | None:
    if servers:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = [*name_servers(servers)]
    else:
        try:
            resolver = dns.asyncresolver.Resolver()
        except dns.resolver.NoResolverConfiguration:
            return None  # said with each question: the node runs without
    resolver.lifetime, resolver.timeout = LIFETIME_S, _TRY_S
    resolver.use_edns(0, 0, _EDNS_BYTES)
    return resolver


def name_servers(texts: Sequence[str]) -> list[dns.nameserver.Do53Nameserver]:
    """``192.0.2.1``, ``192.0.2.1:5353``, ``2001:db8::1`` or ``[2001:db8::1]:5353`` each.

    Raises ``InvalidError`` for what is none.
    """
    return [_server(text) for text in texts]


def _server(text: str) -> dns.nameserver.Do53Nameserver:
    found = _SERVER.fullmatch(text)
    address, port = (found[1] or found[2] or found[4], found[3]) if found else ("", None)
    try:
        server = dns.nameserver.Do53Nameserver(
            str(ipaddress.ip_address(address)), int(port or _DNS_PORT)
        )
    except ValueError:
        server = None
    if server is None or not 0 < server.port <= _LAST_PORT:
        raise InvalidError(
            f"smtp.dns_servers: {text[:64]!r} is no address, nor address:port", field="dns_servers"
        )
    return server


def _has_ipv6() -> bool:
    """Whether there is a way to IPv6 hosts. Nothing is sent: connect only picks the way."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect(("2001:db8::1", _DNS_PORT))
    except OSError:
        return False
    return True
