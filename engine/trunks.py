"""The providers of a node at work: limits, health and choice. Pure; time is handed in.

A trunk that fails ``trunk_failures_to_open`` times in a row is taken out of use for
``trunk_cooldown_s`` (doubling up to 16 times that), then one probe call decides.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from engine.config import DialConfig
from engine.model import Provider, Service
from engine.pacing import Limit, Window
from engine.results import Result
from engine.routing import Route, Router

MAX_COOLDOWN_FACTOR = 16


class Trunk:
    """One provider's limits and health."""

    def __init__(self, provider: Provider, dial: DialConfig, *, now: float) -> None:
        self.provider = provider
        self.limit = Limit(provider.calls_per_second, provider.channels, now=now)
        self._departures = Window(provider.calls_per_second)
        self.failures = 0  # in a row
        self.cause = ""
        self._dial = dial
        self._closed_until = 0.0
        self._probing = False

    @property
    def healthy(self) -> bool:
        """Whether the trunk is in normal use."""
        return self.failures < self._dial.trunk_failures_to_open

    def free(self, now: float) -> bool:
        """Whether a start is allowed now by limits and health."""
        if not self.healthy and (self._probing or now < self._closed_until):
            return False
        return self.limit.free(now)

    def ready_at(self) -> float:
        """When to ask again, as far as time decides; infinity where only an ending call does."""
        if not self.limit.has_channel or (not self.healthy and self._probing):
            return float("inf")
        at = self.limit.ready_at()
        return at if self.healthy else max(at, self._closed_until)

    def take(self, now: float) -> None:
        """Start a spool; on an unhealthy trunk it is the probe."""
        self.limit.take(now)
        if not self.healthy:
            self._probing = True

    def reconfigure(self, provider: Provider, now: float) -> None:
        """An operator changed the provider: its limits hold at once, its health is tried again."""
        self.provider = provider
        self.failures = 0
        self.limit.reconfigure(provider.calls_per_second, provider.channels, now)
        self._departures = Window(provider.calls_per_second)

    def departs_at(self, now: float) -> float:
        """When a spool that was taken may leave.

        Commits delay some spools more than others; without this the carrier could see more starts
        in a second than were granted in one.
        """
        return self._departures.reserve(now)

    def give_back(self) -> None:
        """A spool is over, or never started."""
        self.limit.give_back()
        self._probing = False

    def report(self, result: Result, now: float) -> bool:
        """Learn from a result; True where the health changed."""
        was = self.healthy
        if result.trunk_failed or result.cause == "network_timeout":
            if not self.healthy and now < self._closed_until:
                # It was begun before the trunk was closed: thousands may share one outage.
                return False
            self.failures += 1
            self.cause = result.cause
            over = self.failures - self._dial.trunk_failures_to_open
            if over >= 0:
                factor = min(2 ** min(over, 10), MAX_COOLDOWN_FACTOR)
                self._closed_until = now + self._dial.trunk_cooldown_s * factor
        elif result.code or result.succeeded:
            # The far side spoke for the callee: the trunk works.
            self.failures, self.cause = 0, ""
        return was != self.healthy

    def statistics(self) -> dict[str, Any]:
        """Channels in use and their peak, health."""
        return {
            "name": self.provider.name,
            "channels_in_use": self.limit.in_use,
            "channels_peak": self.limit.peak,
            "channels": self.limit.channels,
            "calls_per_second": self.provider.calls_per_second,
            "healthy": self.healthy,
            "cause": self.cause,
        }


class Trunks:
    """All active providers, and the choice among them."""

    def __init__(self, dial: DialConfig) -> None:
        self._dial = dial
        self._router = Router()
        self._trunks: dict[int, Trunk] = {}

    def replace(self, providers: Iterable[Provider], now: float) -> None:
        """The active providers from now on. What is up on a changed one stays counted."""
        active = {p.id: p for p in providers if p.active}
        self._router.replace(active.values())
        old, self._trunks = self._trunks, {}
        for provider_id, provider in active.items():
            trunk = old.get(provider_id)
            if trunk is None:
                trunk = Trunk(provider, self._dial, now=now)
            elif trunk.provider != provider:
                trunk.reconfigure(provider, now)
            self._trunks[provider_id] = trunk

    def carries(self, service: Service) -> bool:
        """Whether any active provider carries the service."""
        return self._router.carries(service)

    def any_free(self, now: float) -> bool:
        """Whether any trunk at all could start something."""
        return any(trunk.free(now) for trunk in self._trunks.values())

    def choose(
        self, service: Service, number: str, now: float, exclude: Container[int] = ()
    ) -> tuple[Trunk, Route] | None:
        """Take a free trunk for the number, or None where none is free at present."""
        route = self._router.choose(
            service, number, lambda provider_id: self._trunks[provider_id].free(now), exclude
        )
        if route is None:
            return None
        trunk = self._trunks[route.provider.id]
        trunk.take(now)
        return trunk, route

    def another(self, service: Service, number: str, exclude: Container[int]) -> bool:
        """Whether a further healthy provider could carry the number after a trunk failure."""
        return any(
            self._trunks[route.provider.id].healthy
            for route in self._router.candidates(service, number, exclude)
        )

    def ready_at(self, now: float) -> float:
        """When a trunk that is not free now may be so without a call ending."""
        return min(
            (trunk.ready_at() for trunk in self._trunks.values() if not trunk.free(now)),
            default=float("inf"),
        )

    def statistics(self) -> dict[int, dict[str, Any]]:
        """Of every trunk, by provider id."""
        return {provider_id: trunk.statistics() for provider_id, trunk in self._trunks.items()}
