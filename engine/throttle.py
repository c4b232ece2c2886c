"""How often one may fail to log in: pure, time is an argument, memory is bounded.

Three buckets fill with failures and leak: of an address, of an account, and of the two together.

- A full bucket of the pair or of the address refuses the pair or the address.
- What failed for an account elsewhere refuses nobody by itself, or anybody could lock anybody out:
  it only leaves each address that is new to the account a single failure. Who attacks from a
  thousand addresses has a thousand guesses a window then instead of ten thousand; the owner, coming
  from an address that has not failed, is let in.
- An address from which the account was logged in to lately is not refused for what others behind
  the same address (an office, a proxy) did wrong, only for its own failures with this account.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

import msgspec

K = TypeVar("K", bound=Hashable)

_ROUNDING = 1e-6  # of a difference of levels: it must not turn a refusal longer than was said
_V6_PREFIX = 64  # what one customer is given at least: he can come from any address in it


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Failures that may come at once; after that one more every ``window_s / failures``."""

    per_account: int
    per_address: int
    window_s: float
    known_s: float = 30 * 86_400.0  # how long an address a login came from is known
    max_entries: int = 50_000  # of each table; the one that changed longest ago goes first


class Attempt(msgspec.Struct, frozen=True):
    """A login that is being tried: it counts as a failure until it is taken back."""

    account: str
    address: str


class _Buckets(Generic[K]):
    """Levels that leak ``1 / interval_s`` a second."""

    def __init__(self, interval_s: float, max_entries: int) -> None:
        self._interval_s = interval_s
        self._max_entries = max_entries
        self._levels: OrderedDict[K, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def wait_s(self, key: K, limit: int, now: float) -> float:
        """How long until one more failure fits below ``limit``."""
        return max(0.0, self.level(key, now) + 1.0 - limit) * self._interval_s

    def add(self, key: K, amount: float, now: float) -> None:
        level = self.level(key, now) + amount
        self._levels.pop(key, None)
        if level > 0.0:
            self._levels[key] = (level, now)
        while len(self._levels) > self._max_entries:
            self._levels.popitem(last=False)

    def level(self, key: K, now: float) -> float:
        """Failures that have not leaked yet."""
        level, at = self._levels.get(key, (0.0, now))
        return max(0.0, level - (now - at) / self._interval_s)


class Throttle:
    """Counts failures and says who has to wait."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        own_s = limits.window_s / limits.per_account
        self._pairs: _Buckets[Attempt] = _Buckets(own_s, limits.max_entries)
        self._accounts: _Buckets[str] = _Buckets(own_s, limits.max_entries)
        self._addresses: _Buckets[str] = _Buckets(
            limits.window_s / limits.per_address, limits.max_entries
        )
        self._known: OrderedDict[Attempt, float] = OrderedDict()

    def wait_s(self, attempt: Attempt, now: float) -> float:
        """Seconds until this may be tried; 0 = now."""
        known = self._known.get(attempt, now) > now
        elsewhere = self._accounts.level(attempt.account, now) - self._pairs.level(attempt, now)
        hot = elsewhere + 1.0 > self._limits.per_account + _ROUNDING
        allowed = 1 if hot and not known else self._limits.per_account
        pair_s = self._pairs.wait_s(attempt, allowed, now)
        if known:
            return pair_s
        address_s = self._addresses.wait_s(attempt.address, self._limits.per_address, now)
        return max(pair_s, address_s)

    def begin(self, attempt: Attempt, now: float) -> None:
        """Count a try as failed before it is made: many at once are counted like many in a row."""
        self._charge(attempt, 1.0, now)

    def take_back(self, attempt: Attempt, now: float) -> None:
        """It was not a failure after all."""
        self._charge(attempt, -1.0, now)

    def succeeded(self, attempt: Attempt, now: float) -> None:
        """The password was right: the address is known from now on."""
        self.take_back(attempt, now)
        self._known.pop(attempt, None)
        self._known[attempt] = now + self._limits.known_s
        while len(self._known) > self._limits.max_entries:
            self._known.popitem(last=False)

    def statistics(self) -> dict[str, int]:
        """How many of each are remembered."""
        return {
            "accounts": len(self._accounts),
            "addresses": len(self._addresses),
            "pairs": len(self._pairs),
            "known": len(self._known),
        }

    def _charge(self, attempt: Attempt, amount: float, now: float) -> None:
        self._pairs.add(attempt, amount, now)
        self._accounts.add(attempt.account, amount, now)
        self._addresses.add(attempt.address, amount, now)


def attempt_of(account: str, address: str) -> Attempt:
    """What is counted: an IPv6 address counts with its whole /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return Attempt(account, address)
    if parsed.version == 6 and parsed.ipv4_mapped is None:  # noqa: PLR2004 - IP version
        network = ipaddress.ip_network((int(parsed), _V6_PREFIX), strict=False)
        return Attempt(account, str(network))
    return Attempt(account, str(getattr(parsed, "ipv4_mapped", None) or parsed))
