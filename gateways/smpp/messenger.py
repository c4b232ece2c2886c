"""One message on its way: what a program sees of it, and the fate its parts add up to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec
import structlog

from engine.clock import Clock
from engine.errors import InvalidError
from engine.gateway import CallEnded, Order, Progress, Stage, TextMessage
from engine.results import (
    Awaiting,
    Fate,
    Reached,
    Result,
    ResultRow,
    node_failure,
)
from gateways.smpp import addresses, codec, results, text
from gateways.smpp.aggregate import closes_at
from gateways.smpp.link import Link
from gateways.smpp.records import Segment
from gateways.smpp.settings import status_table
from gateways.smpp.tickets import Place, Sending, Ticket

log = structlog.get_logger("smpp")

TakeReferences = Callable[[int], int]
"""Reserves so many user_message_references in a row; returns the first."""


class SmppMessenger:
    """``engine.gateway.Messenger`` for one spool: one text, in as many parts as it takes."""

    def __init__(
        self,
        order: Order,
        link: Link,
        progress: Progress,
        clock: Clock,
        take_references: TakeReferences,
    ) -> None:
        self._order = order
        self._link = link
        self._settings = link.settings  # all parts by the same, whatever comes meanwhile
        self._progress = progress
        self._clock = clock
        self._take_references = take_references
        self._notes: list[ResultRow] = []
        self._sending: Sending | None = None
        self._refusal: Result | None = None
        self._started_at: datetime | None = None
        self._validity_s = 0.0

    # --- what a program sees ----------------------------------------------------------------------
    async def send_text(self, message: TextMessage) -> None:
        """Hand the text over; returns once the SMSC answered for every part of it.

        ``CallEnded`` where it did not take it. ``ValueError``: a spool is one text, not two.
        """
        if self._sending is not None or self._refusal is not None:
            raise ValueError("a spool is one text")
        try:
            segments = self._segments(message)
        except InvalidError as error:
            log.warning(
                "smpp.invalid_order",
                spool_id=self._order.spool_id,
                provider=self._link.provider.name,
                error=str(error),
            )
            self._refusal = results.invalid(error)
            raise CallEnded from error
        self._sending = Sending(segments, on_leaving=self._left, on_refused=self._link.withdraw)
        await self._link.send(
            self._sending,
            patience_s=self._order.ring_timeout_s,
            limit_s=self._order.call_limit_s,
        )
        if self._sending.count(Place.ACCEPTED) < len(self._sending.tickets):
            raise CallEnded
        self._progress(Stage.CONNECTED, self._accepted_at())

    def note(self, row: ResultRow) -> None:
        """Keep a datum with the spool."""
        self._notes.append(row)

    # --- inside -----------------------------------------------------------------------------------
    def _segments(self, message: TextMessage) -> list[Segment]:
        """The parts as they go on the wire; ``InvalidError`` names what SMPP cannot hold."""
        order, settings = self._order, self._settings
        self._validity_s = message.validity_s or settings.validity_s
        source = addresses.source(order.caller_id or settings.sender_id, settings)
        destination = addresses.destination(order.destination, settings)
        parts = text.compose(
            message,
            source=source,
            destination=destination,
            settings=settings,
            reference=self._take_references(settings.max_parts),
            part_reference=order.spool_id,  # its low bits: no two soon after each other are alike
        )
        return [
            Segment(
                spool_id=order.spool_id,
                number=number,
                total=len(parts),
                destination=destination.digits,
                reference=text.reference_of(part) or 0,
                body=codec.encode_short_message(part),
                validity_s=self._validity_s,
            )
            for number, part in enumerate(parts, 1)
        ]

    def _left(self) -> None:
        self._started_at = self._clock()
        self._progress(Stage.LEFT, self._started_at)

    def _accepted_at(self) -> datetime:
        tickets = self._tickets()
        return max(ticket.at for ticket in tickets)

    def _tickets(self) -> Sequence[Ticket]:
        return self._sending.tickets if self._sending is not None else ()

    # --- what became of it ------------------------------------------------------------------------
    def abandoned(self) -> None:
        """Nobody waits any more: its result is known, whatever receipts say."""
        if self._started_at is not None:
            self._link.settle(self._order.spool_id)

    @property
    def reached(self) -> Reached:
        """How far it may have got."""
        return Reached.NOTHING if self._started_at is None else Reached.PERSON

    def fate(self) -> Fate:
        """What the parts add up to."""
        fate = self._fate()
        if isinstance(fate, Result) and self._started_at is not None:
            self._link.settle(self._order.spool_id)
        return fate

    def _fate(self) -> Fate:
        if self._refusal is not None:
            return _noted(self._refusal, self._notes)
        tickets = self._tickets()
        if not tickets:
            return node_failure("nothing_sent")
        places = {ticket.place for ticket in tickets}
        if Place.REFUSED in places or Place.WITHDRAWN in places:
            return self._failed()
        if Place.UNKNOWN in places:
            return self._awaiting(None)
        if self._settings.receipts == "none":
            return self._taken()
        return self._awaiting(self._accepted_at())

    def _awaiting(self, accepted_at: datetime | None) -> Awaiting:
        since = accepted_at or self._clock()
        return Awaiting(
            accepted_at=accepted_at,
            closes_at=closes_at(since, self._validity_s, self._settings),
            rows=self._rows(),
        )

    def _taken(self) -> Result:
        """No receipts are asked for: that it was taken is all there will ever be known."""
        accepted_at = self._accepted_at()
        return msgspec.structs.replace(
            results.accepted(),
            rows=self._rows(),
            started_at=self._started_at,
            connected_at=accepted_at,
            ended_at=accepted_at,
        )

    def _failed(self) -> Result:
        """A part was refused or never left; with another one taken it is not to be repeated."""
        tickets = self._tickets()
        refused = [ticket for ticket in tickets if ticket.place is Place.REFUSED]
        perhaps_there = any(t.place in (Place.ACCEPTED, Place.UNKNOWN) for t in tickets)
        reached = Reached.PERSON if perhaps_there else Reached.NOTHING
        if refused:
            vendor = status_table(self._settings)
            result = results.refused(refused[0].status, reached=reached, vendor=vendor)
        else:
            result = self._not_sent(reached)
        return _timed(_noted(result, self._rows()), self._started_at, self._clock())

    def _not_sent(self, reached: Reached) -> Result:
        """Given up before it was written, but for parts that another one went before."""
        if self._link.bound:
            cause, fault = "queue_full", ""
        else:
            cause, fault = "not_bound", self._link.fault
        if reached is Reached.NOTHING:
            return results.put_off(cause, self._settings, self._validity_s, fault)
        return results.trunk_failure(cause, reached, fault)

    def _rows(self) -> tuple[ResultRow, ...]:
        tickets = self._tickets()
        ids = [ResultRow("sms", "message_id", t.message_id) for t in tickets if t.message_id]
        return (*ids, ResultRow("sms", "parts", str(len(tickets))), *self._notes)


def _noted(result: Result, rows: Sequence[ResultRow]) -> Result:
    return msgspec.structs.replace(result, rows=(*result.rows, *rows)) if rows else result


def _timed(result: Result, started_at: datetime | None, ended_at: datetime) -> Result:
    return msgspec.structs.replace(result, started_at=started_at, ended_at=ended_at)
