"""Which hosts take mail for a domain, and in which order (RFC 5321 §5.1, RFC 7505). Pure."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable, Sequence

MAX_HOSTS = 20
"""Hosts of a domain that are looked up at all; the rest could only waste time."""

ROOT = "."


class NoRoute(Exception):  # noqa: N818 - it is an answer, not an error
    """No host takes mail for this domain; ``permanent``: nor will one tomorrow."""

    def __init__(self, reason: str, *, permanent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent


def order(
    answers: Sequence[tuple[int, str]], dice: random.Random, own: frozenset[str] = frozenset()
) -> list[str]:
    """Hosts, best first, equal ones shuffled; at most ``MAX_HOSTS``.

    ``answers``: preference and host (lower case, no final dot, ``.`` for the root) of every MX
    record; ``own``: our names. What is not better than ourselves is cut, or mail would come back
    to us (§5.1). Raises ``NoRoute`` for a null MX and where nothing is left.
    """
    if answers and all(host in {ROOT, ""} for _, host in answers):
        raise NoRoute("null MX: the domain takes no mail", permanent=True)
    hosts = [(preference, host) for preference, host in answers if usable(host)]
    ours = min((preference for preference, host in hosts if host in own), default=None)
    if ours is not None:
        hosts = [(preference, host) for preference, host in hosts if preference < ours]
    if not hosts:
        # Of our making, or of a typing error at theirs: somebody may mend it.
        reason = "no MX is a host name" if ours is None else "mail would come back to ourselves"
        raise NoRoute(reason, permanent=False)
    dice.shuffle(hosts)
    hosts.sort(key=_preference)
    return list(dict.fromkeys(host for _, host in hosts))[:MAX_HOSTS]


def usable(host: str) -> bool:
    """Whether an MX record may name it: a host name, neither the root nor an IP address (§5.1)."""
    if host in {ROOT, ""}:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def reachable(addresses: Iterable[str]) -> list[str]:
    """Addresses that a connection can go to, each once: neither unspecified nor multicast."""
    return [each for each in dict.fromkeys(addresses) if _is_unicast(each)]


def _is_unicast(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_unspecified or parsed.is_multicast)


def _preference(host: tuple[int, str]) -> int:
    return host[0]
