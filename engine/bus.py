"""In-process publish/subscribe on bounded channels; a slow subscriber is told that it lagged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from engine.events import DomainEvent


class Subscription:
    """One reader's bounded queue. ``missed`` counts events that found it full."""

    def __init__(self, size: int) -> None:
        self._send, self._receive = trio.open_memory_channel[DomainEvent](size)
        self.missed = 0

    def offer(self, event: DomainEvent) -> None:
        """Queue the event, or count it as missed: a slow reader never holds the dialer back."""
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.missed += 1

    async def __aiter__(self) -> AsyncIterator[DomainEvent]:
        """Events in order, until the subscription ends."""
        async for event in self._receive:
            yield event

    async def get(self) -> DomainEvent:
        """The next event."""
        return await self._receive.receive()

    def queued(self) -> int:
        """Events waiting to be read."""
        return self._receive.statistics().current_buffer_used


class Bus:
    """Who publishes knows nobody who listens."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._published = 0
        self._missed = 0

    @contextmanager
    def subscribe(self, size: int = 1000) -> Iterator[Subscription]:
        """A queue of at most ``size`` events, for as long as the block lasts."""
        subscription = Subscription(size)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            self._missed += subscription.missed

    @property
    def listening(self) -> bool:
        """Whether anybody listens: the hot path builds no event for nobody."""
        return bool(self._subscriptions)

    def publish(self, event: DomainEvent) -> None:
        """Offer the event to every subscriber; never blocks."""
        self._published += 1
        for subscription in self._subscriptions:
            subscription.offer(event)

    def statistics(self) -> dict[str, Any]:
        """Events published, missed by slow readers, and queued now."""
        return {
            "subscribers": len(self._subscriptions),
            "published": self._published,
            "missed": self._missed + sum(s.missed for s in self._subscriptions),
            "queued": sum(s.queued() for s in self._subscriptions),
        }
