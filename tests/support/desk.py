"""A gateway as the engine runs it, for tests: orders given to it and what its statistics tell."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, TypeVar

import trio

from engine.gateway import Gateway, Order, Stage
from engine.model import Provider
from engine.results import Fate
from tests.support import wait_until

DEADLINE_S = 30.0

GatewayType = TypeVar("GatewayType", bound=Gateway)
InboxType = TypeVar("InboxType")


class Delivery:
    """One order and how far it got."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.stages: list[Stage] = []
        self.reached = {stage: trio.Event() for stage in Stage}
        self.done = trio.Event()
        self.fate: Fate | None = None

    def progress(self, stage: Stage, _at: datetime) -> None:
        self.stages.append(stage)
        self.reached[stage].set()

    async def run(self, gateway: Gateway) -> Fate:
        with trio.fail_after(DEADLINE_S):
            self.fate = await gateway.deliver(self.order, self.progress)
        self.done.set()
        return self.fate


class Node(Generic[GatewayType, InboxType]):
    """A running gateway; ``nursery`` is for deliveries in the background."""

    def __init__(self, gateway: GatewayType, inbox: InboxType, nursery: trio.Nursery) -> None:
        self.gateway = gateway
        self.inbox = inbox
        self.nursery = nursery

    async def provide(self, *providers: Provider) -> None:
        await self.gateway.providers({provider.id: provider for provider in providers})

    async def until(self, condition: Callable[[], bool], what: str = "") -> None:
        """For what only the statistics tell."""

        async def holds() -> bool:
            return condition()

        name = what or f"{condition} of {self.gateway.statistics()}"
        await wait_until(holds, name, deadline_s=DEADLINE_S)

    def statistics_of(self, name: str) -> dict[str, Any]:
        """The statistics of the provider of that name."""
        found: dict[str, Any] = self.gateway.statistics()["providers"].get(name, {})
        return found
