"""The queue that gives out slices: against a plain list, whatever is done to it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateways.smpp.tickets import Bulk, Fifo, Place, Ticket
from tests.gateways.smpp.books import segment

_SINK = Bulk(lambda _: None)
_COUNTS = st.integers(min_value=0, max_value=1500)


class FifoMachine(RuleBasedStateMachine):
    """``Fifo`` beside a list."""

    def __init__(self) -> None:
        super().__init__()
        self.fifo = Fifo()
        self.model: list[Ticket] = []
        self.made = 0

    def make(self, count: int) -> list[Ticket]:
        tickets = [Ticket(segment(self.made + n), _SINK, Place.QUEUED) for n in range(count)]
        self.made += count
        return tickets

    @rule(count=_COUNTS)
    def extend(self, count: int) -> None:
        """Add at the end."""
        tickets = self.make(count)
        self.fifo.extend(tickets)
        self.model += tickets

    @rule(count=st.integers(min_value=0, max_value=20))
    def put_first(self, count: int) -> None:
        """Add at the beginning."""
        tickets = self.make(count)
        self.fifo.put_first(tickets)
        self.model[:0] = tickets

    @rule(most=_COUNTS)
    def take(self, most: int) -> None:
        """What is taken is what a list gives, without those that were withdrawn."""
        wanted: list[Ticket] = []
        while self.model and len(wanted) < most:
            ticket = self.model.pop(0)
            if ticket.place is Place.QUEUED:
                wanted.append(ticket)
        assert self.fifo.take(most, Place.QUEUED) == wanted

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """Some are given up where they stand."""
        if self.model:
            for index in data.draw(st.lists(st.integers(0, len(self.model) - 1), max_size=30)):
                self.model[index].place = Place.WITHDRAWN

    @rule()
    def keep(self) -> None:
        """Drop those that were."""
        self.fifo.keep(Place.QUEUED)
        self.model = [ticket for ticket in self.model if ticket.place is Place.QUEUED]

    @invariant()
    def same(self) -> None:
        """Nothing is lost, nothing is there twice."""
        live = [ticket for ticket in self.fifo if ticket.place is Place.QUEUED]
        assert live == [ticket for ticket in self.model if ticket.place is Place.QUEUED]
        assert len(self.fifo) >= len(live)


TestFifo: Any = FifoMachine.TestCase
