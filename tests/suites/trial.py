"""One order given to a gateway under test."""

from __future__ import annotations

from datetime import datetime

import trio

from engine.gateway import Gateway, Order, Stage
from engine.results import Fate

DEADLINE_S = 30.0


class Trial:
    """Its fate and the stages it reported, in order."""

    def __init__(self, gateway: Gateway, order: Order) -> None:
        self.order = order
        self.stages: list[Stage] = []
        self.times: list[datetime] = []
        self.reached = {stage: trio.Event() for stage in Stage}
        self.fate: Fate | None = None
        self._gateway = gateway

    def progress(self, stage: Stage, at: datetime) -> None:
        self.stages.append(stage)
        self.times.append(at)
        self.reached[stage].set()

    async def run(self) -> Fate:
        with trio.fail_after(DEADLINE_S):
            self.fate = await self._gateway.deliver(self.order, self.progress)
        return self.fate
