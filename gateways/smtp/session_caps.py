"""What one peer, and all together, may ask of the listener (RFC 5321 §4.5.3, §7.8). Pure."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address, ip_address

MAX_WRONG = 10
MAX_UNKNOWN = 20
MAX_LOGINS = 3
MAX_COMMANDS = 1_000
"""Replies of a session without a mail taken: a mail to 100 recipients needs 103."""

_IPV6_SUBSCRIBER_BITS = 64


class Budget:
    """Octets that may be held at once, in all and of one peer."""

    def __init__(self, in_all: int, per_peer: int) -> None:
        self.free = in_all
        self._per_peer = per_peer
        self._held: Counter[str] = Counter()

    def left(self, peer: str) -> int:
        """How many this peer may have now."""
        return min(self.free, self._per_peer - self._held[peer])

    def take(self, peer: str, octets: int) -> bool:
        """Take them for ``peer``, unless there are not so many left."""
        if octets > self.left(peer):
            return False
        self.free -= octets
        self._held[peer] += octets
        return True

    def give_back(self, peer: str, octets: int) -> None:
        """They are not held any more."""
        self.free += octets
        self._held[peer] -= octets
        if not self._held[peer]:
            del self._held[peer]  # a counter of all who ever came would grow


class Seats:
    """Connections, in all and of one peer."""

    def __init__(self, in_all: int, per_peer: int) -> None:
        self._in_all = in_all
        self._per_peer = per_peer
        self._taken: Counter[str] = Counter()

    def take(self, peer: str) -> bool:
        """Seat a connection of ``peer``, unless there is no seat for it."""
        if self.count >= self._in_all or self._taken[peer] >= self._per_peer:
            return False
        self._taken[peer] += 1
        return True

    def leave(self, peer: str) -> None:
        """It is over."""
        self._taken[peer] -= 1
        self._taken += Counter()  # drops those at zero: a counter of all who ever came would grow

    @property
    def count(self) -> int:
        """Connections that are up."""
        return self._taken.total()


def peer_of(host: str) -> str:
    """Who is counted as one: an IPv4 address, or an IPv6 subscriber, who has a /64 at least."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{int(address) >> _IPV6_SUBSCRIBER_BITS:x}::/64"


class Tally:
    """What was answered in a session, and when that is enough."""

    def __init__(self) -> None:
        self._commands = 0
        self._wrong = 0
        self._unknown = 0
        self._logins = 0

    def answered(self, reply: str) -> str:
        """Count a reply; the 421 to say in its place, "" while the session may go on."""
        self._commands += 1
        if reply.startswith("550 5.1.1"):
            self._unknown += 1
        elif reply.startswith("535"):
            self._logins += 1
        elif reply.startswith("5"):
            self._wrong += 1
        if self._unknown >= MAX_UNKNOWN:
            return "421 4.7.0 Too many unknown recipients"
        if self._logins >= MAX_LOGINS:
            return "421 4.7.0 Too many failed logins"
        if self._wrong >= MAX_WRONG or self._commands >= MAX_COMMANDS:
            return "421 4.7.0 Too many errors or commands"
        return ""

    def mail_taken(self) -> None:
        """A mail came: a session that works may go on for long."""
        self._commands = 0
