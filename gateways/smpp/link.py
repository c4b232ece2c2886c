"""A provider at work: its lines, its queue, its journal, and who waits for what became of a part.

Two ways in, one machinery: ``send`` waits for the parts of one message, ``submit`` takes any number
and reports them in batches. Life of a segment: queue → intent on disk → window of a bind → answer →
answer on disk → whoever handed it in.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog
import trio

from engine.clock import Clock
from engine.config import SmppConfig
from engine.model import Provider
from gateways.smpp import codec
from gateways.smpp.feeder import Feeder
from gateways.smpp.intake import Intake, Receiving
from gateways.smpp.ledger import Books, Ledger
from gateways.smpp.line import DRAIN_S, Line, Question
from gateways.smpp.pdu import Address, Command
from gateways.smpp.receipts import state_of
from gateways.smpp.records import Receipt, ReceiptState, Segment
from gateways.smpp.settings import SmppSettings
from gateways.smpp.tickets import Bulk, Sending, Ticket, tell

log = structlog.get_logger("smpp")

CLOSE_S = 2 * DRAIN_S
"""For all the lines to drain and unbind, and for the journal to hear of it."""

WATCH_S = 0.25
"""How often messages that wait for a bind are looked through."""

OUTAGES = 10
"""An outage of so many ``unknown_wait_s`` is not waited out: policy decides without receipts."""

_CONNECTION = ("host", "port", "transport", "username", "password")


class Link:
    """One active provider. ``run`` it once; ``close`` ends it."""

    def __init__(
        self,
        provider: Provider,
        settings: SmppSettings,
        *,
        config: SmppConfig,
        books: Books,
        clock: Clock,
        receiver: Receiving,
    ) -> None:
        self.provider, self.settings = provider, settings
        self._config = config
        self._books = books
        self._lines: tuple[Line, ...] = ()
        self._feeder = Feeder(
            lambda: self._lines,
            self._intend,
            self._withdrawn,
            self._stranded,
            max_queue=config.max_queue,
        )
        self._ledger = Ledger(provider.id, books, self._feeder, clock)
        self._ledger.settings = settings
        self._intake = Intake(settings, clock, self._receipts, receiver, self._feeder.poke)
        self._changed = trio.Event()
        self._over = trio.Event()
        self._closing = False
        self._down_since = trio.current_time()
        self._bound_since = math.inf
        self._sendings: dict[Sending, tuple[float, float]] = {}
        self._questions = deque[Question]()  # no more than the tracker has at once

    # --- life -------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Serve until ``close``, or until cancelled, which drops what is in the windows."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._feeder.run)
                nursery.start_soon(self._ledger.run)
                nursery.start_soon(self._intake.run)
                nursery.start_soon(self._watch)
                while not self._closing:
                    await self._serve()
                with trio.move_on_after(DRAIN_S):
                    await self._ledger.flushed()
                nursery.cancel_scope.cancel()
        finally:
            self._over.set()

    async def _serve(self) -> None:
        """Keep the lines of the provider as it is now, until it is another."""
        self._changed = trio.Event()
        async with trio.open_nursery() as nursery:
            self._lines = tuple(self._make_line(command) for command in self._commands())
            for line in self._lines:
                nursery.start_soon(line.run)
            await self._changed.wait()
            async with trio.open_nursery() as closing:
                for line in self._lines:
                    closing.start_soon(line.close)

    def _commands(self) -> list[Command]:
        pair = [Command.BIND_TRANSMITTER, Command.BIND_RECEIVER]
        kinds = pair if self.settings.bind == "pair" else [Command.BIND_TRANSCEIVER]
        return kinds * self.settings.binds

    def _make_line(self, command: Command) -> Line:
        return Line(
            provider=self.provider,
            settings=self.settings,
            config=self._config,
            command=command,
            ledger=self._ledger,
            intake=self._intake,
            on_change=self._on_change,
        )

    def replace(self, provider: Provider, settings: SmppSettings) -> None:
        """The provider from now on; where the binds are others, they drain and bind anew."""
        same = settings == self.settings and all(
            getattr(provider, field) == getattr(self.provider, field) for field in _CONNECTION
        )
        self.provider, self.settings = provider, settings
        self._ledger.settings = settings
        self._intake.replace(provider, settings)
        if not same:
            self._changed.set()

    async def close(self) -> None:
        """Give up what is queued, drain the windows, unbind; bounded by ``CLOSE_S``."""
        self._closing = True
        self._feeder.close()
        self._changed.set()
        with trio.move_on_after(CLOSE_S):
            await self._over.wait()

    # --- sending ----------------------------------------------------------------------------------
    async def send(self, sending: Sending, *, patience_s: float, limit_s: float) -> None:
        """Returns once every part came to rest and that is durable.

        What was not written is given up after ``patience_s`` without any bind, or after ``limit_s``
        in all (looked at every ``WATCH_S``), or when this is cancelled. What was written ends by
        the SMSC's answer or by its time-out, whoever waits for it.
        """
        self._sendings[sending] = (patience_s, trio.current_time() + limit_s)
        try:
            if self._down_since + patience_s > trio.current_time():
                await self._feeder.put(sending.tickets)
            else:
                self.withdraw(sending)
            await sending.done.wait()
        except trio.Cancelled:
            self.withdraw(sending)
            raise
        finally:
            del self._sendings[sending]

    async def _watch(self) -> None:
        """Give up what waits in vain: a deadline for each message would cost more than the rest."""
        while True:
            await trio.sleep(WATCH_S)
            now = trio.current_time()
            for sending, (patience_s, give_up_at) in list(self._sendings.items()):
                if now >= min(give_up_at, self._down_since + patience_s):
                    self.withdraw(sending)

    def withdraw(self, sending: Sending) -> None:
        """Give up those of its parts that were not written."""
        tell(self._feeder.withdraw(sending.tickets))

    async def submit(
        self, segments: Sequence[Segment], on_settled: Callable[[Sequence[Ticket]], None]
    ) -> None:
        """Queue them all, as soon as there is room; ``on_settled`` hears of each exactly once.

        Nobody withdraws them but ``close``.
        """
        bulk = Bulk(on_settled)
        await self._feeder.put([Ticket(segment, bulk) for segment in segments])

    def settle(self, spool_id: int) -> None:
        """Its result is known: receipts change nothing any more."""
        self._ledger.settle(spool_id)

    async def _intend(self, segments: Sequence[Segment]) -> None:
        self._ledger.join()
        await self._books.intend(self.provider.id, segments, self.settings)

    def _withdrawn(self, tickets: list[Ticket]) -> None:
        self._ledger.withdrawn(tickets)

    def _stranded(self, tickets: list[Ticket]) -> None:
        self._ledger.put_back(tickets)

    async def _receipts(self, receipts: Sequence[Receipt]) -> None:
        await self._books.receipts(self.provider.id, self.settings, receipts)

    def _on_change(self) -> None:
        """A line takes more than before, or nothing any more."""
        if self.bound:
            self._down_since = math.inf
            self._bound_since = min(self._bound_since, trio.current_time())
        elif math.isinf(self._down_since):
            self._down_since, self._bound_since = trio.current_time(), math.inf
        if self._questions:
            self._put_questions()  # before submits have taken all places again
        self._feeder.poke()

    def patience_s(self) -> float:
        """How long yet silence about a message says nothing: its receipt needs a bind to come by.

        ``unknown_wait_s`` from the last bind; without one it is waited for ``OUTAGES`` times that.
        """
        now, wait_s = trio.current_time(), self.settings.unknown_wait_s
        if self.bound:
            return self._bound_since + wait_s - now
        return wait_s if now < self._down_since + OUTAGES * wait_s else 0.0

    @property
    def bound(self) -> bool:
        """Whether anything can be sent now."""
        return any(line.sends for line in self._lines)

    @property
    def fault(self) -> str:
        """Why nothing can be sent, as far as a line tells."""
        return next((line.fault for line in self._lines if line.fault), "")

    # --- questions --------------------------------------------------------------------------------
    async def query(self, message_id: str, source: Address) -> ReceiptState | None:
        """The state of a message at the SMSC (§4.8); None where it does not tell, or is not bound.

        Waits for a place in a window: how long is for the caller to say.
        """
        question = Question(codec.query(message_id, source))
        self._questions.append(question)
        self._put_questions()
        try:
            await question.done.wait()
        finally:
            if question in self._questions:
                self._questions.remove(question)
        answer = question.answer
        if answer is None or answer.status or answer.state is None:
            return None
        return state_of(answer.state)

    def _put_questions(self) -> None:
        """Give them the places there are; without a bind there will be none."""
        while self._questions:
            line = next((line for line in self._lines if line.asks), None)
            if line is None:
                break
            line.ask(self._questions.popleft())
        if not self.bound:
            for question in self._questions:
                question.done.set()
            self._questions.clear()

    def statistics(self) -> dict[str, Any]:
        """Queue, journal, lines."""
        return {
            "bound": self.bound,
            "questions": len(self._questions),
            **self._feeder.statistics(),
            **self._ledger.statistics(),
            **self._intake.statistics(),
            "lines": [line.statistics() for line in self._lines],
        }
