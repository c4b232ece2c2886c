"""Which provider carries a destination: service, active, longest prefix, then weight. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from functools import lru_cache

import msgspec

from engine.model import Provider, Service


class Route(msgspec.Struct, frozen=True):
    """A provider and the number it shall dial."""

    provider: Provider
    number: str


@lru_cache(maxsize=1024)
def _rules(prefix: str) -> tuple[tuple[str, str], ...]:
    """The ``remove|add`` pairs of a provider's prefix; a plain prefix is ``|prefix``."""
    pairs = (rule.partition("|") for rule in prefix.split(",") if rule)
    return tuple((cut, add) if bar else ("", cut) for cut, bar, add in pairs)


def rewrite(prefix: str, number: str) -> tuple[int, str]:
    """``number`` as the trunk wants it, and how many of its digits the rule matched.

    ``prefix`` is a plain prefix put before the number, or a comma list of ``remove|add`` rewrites
    of which the first that matches is used (specs/ictcore.md §5.7).
    """
    for cut, add in _rules(prefix):
        if number.startswith(cut):
            return len(cut), add + number[len(cut) :]
    return 0, number


def dialled(provider: Provider, service: Service, destination: str) -> tuple[int, str]:
    """``rewrite`` of a number by the provider's prefix; an e-mail address is nobody's to change."""
    if service & Service.EMAIL:
        return 0, destination
    return rewrite(provider.prefix, destination)


class Router:
    """Providers of a node, with the running state of the weighted choice.

    Weight is a stride: a provider's next turn comes ``weight`` further on, so that its share is
    ∝ 1/weight (the guide: "lighter weight will be used more frequently").
    """

    def __init__(self) -> None:
        self._providers: tuple[Provider, ...] = ()
        self._carriers: dict[Service, tuple[Provider, ...]] = {}  # by service, as asked for
        self._turn: dict[int, float] = {}
        self._now = 0.0

    def replace(self, providers: Iterable[Provider]) -> None:
        """The active providers from now on; those known keep their turn."""
        self._providers = tuple(p for p in providers if p.active)
        self._turn = {p.id: self._turn.get(p.id, self._now) for p in self._providers}
        self._carriers = {}

    def carries(self, service: Service) -> bool:
        """Whether any active provider carries the service at all."""
        return bool(self._of(service))

    def _of(self, service: Service) -> tuple[Provider, ...]:
        found = self._carriers.get(service)
        if found is None:
            found = tuple(p for p in self._providers if service in p.service)
            self._carriers[service] = found
        return found

    def candidates(
        self, service: Service, number: str, exclude: Container[int] = ()
    ) -> list[Route]:
        """Every provider that may carry it, longest match first, without ``exclude``d ids."""
        matches = [
            (*dialled(p, service, number), p) for p in self._of(service) if p.id not in exclude
        ]
        matches.sort(key=lambda match: -match[0])
        return [Route(provider, there) for _, there, provider in matches]

    def choose(
        self,
        service: Service,
        number: str,
        usable: Callable[[int], bool],
        exclude: Container[int] = (),
    ) -> Route | None:
        """The provider whose turn it is among the usable ones with the longest match, or None."""
        best: Route | None = None
        best_key = (0, 0.0, 0)
        for provider in self._of(service):
            if provider.id in exclude:
                continue
            matched, there = dialled(provider, service, number)
            key = (-matched, self._turn[provider.id], provider.id)
            if (best is None or key < best_key) and usable(provider.id):
                best, best_key = Route(provider, there), key
        if best is not None:
            self._advance(best.provider)
        return best

    def _advance(self, provider: Provider) -> None:
        # A provider back from a pause starts at the present, it has no saved-up turns.
        self._now = max(self._now, self._turn[provider.id])
        self._turn[provider.id] = max(self._turn[provider.id], self._now - provider.weight) + max(
            provider.weight, 1
        )
