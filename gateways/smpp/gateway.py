"""The smpp gateway: short messages through SMSCs, their receipts, and messages to us."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
import trio

from engine.clock import Clock, now
from engine.config import Config
from engine.errors import InvalidError
from engine.gateway import CallEnded, Inbox, Order, Progress
from engine.model import Provider, Service, Spool
from engine.results import Fate, node_failure
from gateways.lifetime import opened, until_cancelled
from gateways.smpp import codec, results
from gateways.smpp.inbound import Receiver
from gateways.smpp.journal import Journal
from gateways.smpp.leftovers import Leftovers
from gateways.smpp.link import CLOSE_S, Link
from gateways.smpp.messenger import SmppMessenger
from gateways.smpp.pdu import Address, Command
from gateways.smpp.records import ReceiptState
from gateways.smpp.settings import SmppSettings, parse
from gateways.smpp.tracker import Tracker
from gateways.traffic import Traffic

log = structlog.get_logger("smpp")

_REFERENCES = 0x10000
_TRANSPORTS = ("tcp", "tls")


class SmppGateway:
    """``engine.gateway.Gateway`` for SMS over SMPP 3.4; see ``tests/suites/message_suite.py``."""

    services = Service.SMS

    def __init__(self, config: Config, *, clock: Clock = now) -> None:
        self._config = config.smpp
        self._clock = clock
        self._journal = Journal(config.data_path / config.smpp.journal)
        self._tracker = Tracker(self._journal, clock, keep_s=config.smpp.keep_s)
        self._links: dict[int, Link] = {}
        self._leftovers = Leftovers(self._journal, clock, self._links.keys)
        self._nursery: trio.Nursery | None = None
        self._inbox: Inbox | None = None
        # Not from the start again after a restart: receipts of before may still come.
        self._reference = random.randrange(_REFERENCES)
        self._traffic: Traffic[SmppMessenger] = Traffic()
        self._in_hand: set[int] = set()  # spools that are being delivered

    # --- life -------------------------------------------------------------------------------------
    async def run(
        self, inbox: Inbox, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled: then the windows drain, the binds unbind, the journal closes."""
        self._inbox = inbox
        async with opened(self._journal):
            await self._tracker.open()
            await until_cancelled(partial(self._serve, inbox), task_status)

    async def _serve(self, inbox: Inbox, ready: trio.Event, shut: trio.Event) -> None:
        """What has to end in order."""
        async with trio.open_nursery() as nursery:
            in_hand = self._in_hand.__contains__
            nursery.start_soon(self._tracker.run, inbox, self._query, self._patience, in_hand)
            nursery.start_soon(self._leftovers.run, inbox)
            self._nursery = nursery
            ready.set()
            try:
                await shut.wait()
            finally:
                self._nursery = None
            await self._close_links()
            nursery.cancel_scope.cancel()
        self._links.clear()

    async def _close_links(self) -> None:
        with trio.move_on_after(CLOSE_S):
            async with trio.open_nursery() as nursery:
                for link in self._links.values():
                    nursery.start_soon(link.close)

    def check(self, provider: Provider) -> None:
        """Its settings, and whether a bind can hold its login (§4.1)."""
        settings = parse(provider.settings)
        if provider.transport not in _TRANSPORTS:
            raise InvalidError(f"transport: one of {', '.join(_TRANSPORTS)}", field="transport")
        try:
            codec.bind(Command.BIND_TRANSCEIVER, provider.username, provider.password, settings)
        except InvalidError as error:
            # SMPP calls it system_id, an operator username.
            name = "username" if error.field == "system_id" else error.field
            reason = str(error).removeprefix(f"{error.field}: ")
            raise InvalidError(f"{name}: {reason}", field=name) from None

    async def providers(self, providers: Mapping[int, Provider]) -> None:
        """Bind for those that are new, anew for those that changed; unbind from those gone."""
        if self._nursery is None:
            return
        for id_ in self._links.keys() - providers.keys():
            self._drop(self._nursery, id_)
        for provider in providers.values():
            self._provide(self._nursery, provider)
        await trio.lowlevel.checkpoint()

    def _provide(self, nursery: trio.Nursery, provider: Provider) -> None:
        try:
            settings = parse(provider.settings)
        except InvalidError as error:
            self._refuse(nursery, provider, error)
            return
        link = self._links.get(provider.id)
        if link is not None:
            link.replace(provider, settings)
            return
        assert self._inbox is not None  # noqa: S101 - run() set it
        link = Link(
            provider,
            settings,
            config=self._config,
            books=self._tracker,
            clock=self._clock,
            receiver=Receiver(provider, settings, self._journal, self._inbox, self._clock),
        )
        self._links[provider.id] = link
        nursery.start_soon(link.run)

    def _refuse(self, nursery: trio.Nursery, provider: Provider, error: InvalidError) -> None:
        """With settings like these there is no binding; the API lets nobody save them."""
        log.error("smpp.settings", provider=provider.name, error=str(error))
        if provider.id in self._links:
            self._drop(nursery, provider.id)

    def _drop(self, nursery: trio.Nursery, provider_id: int) -> None:
        link = self._links.pop(provider_id)
        self._leftovers.keep(link.provider, link.settings)
        nursery.start_soon(link.close)

    # --- messages ---------------------------------------------------------------------------------
    async def deliver(self, order: Order, progress: Progress) -> Fate:
        """Send one message; cancelled = what has not left yet is given up, ``Cancelled`` passes.

        What left stays open in the journal: the next run's ``recall`` goes by its parts.
        """
        if self._nursery is None:
            return node_failure("gateway_closed")
        link = self._links.get(order.provider.id)
        if link is None:
            return results.put_off("not_bound", SmppSettings(), fault="the provider is not in use")
        messenger = SmppMessenger(order, link, progress, self._clock, self._take_references)
        self._in_hand.add(order.spool_id)
        try:
            return await self._traffic.carry(messenger, self._converse(messenger, order))
        finally:
            self._in_hand.discard(order.spool_id)

    async def _converse(self, messenger: SmppMessenger, order: Order) -> Fate:
        try:
            # That it was not taken is no error: the messenger knows why.
            with suppress(CallEnded):
                await order.program(messenger)
        except Exception:
            log.exception("smpp.program_failed", spool_id=order.spool_id)
            messenger.abandoned()
            return node_failure("program_failed", messenger.reached)
        return messenger.fate()

    def _take_references(self, count: int) -> int:
        first = self._reference
        self._reference = (first + count) % _REFERENCES
        return first

    async def recall(self, spools: Sequence[Spool]) -> Mapping[int, Fate]:
        """What the journal knows of spools that were open when the node went down.

        A journal that was lost must not be taken for one that says nothing was sent.
        """
        if self._journal.made:
            log.error("smpp.journal_lost", spools=len(spools))
            return {}
        return await self._tracker.recall([spool.id for spool in spools])

    def _patience(self) -> dict[int, float]:
        return {id_: link.patience_s() for id_, link in self._links.items()}

    async def _query(
        self, provider_id: int, message_id: str, source: Address
    ) -> ReceiptState | None:
        link = self._links.get(provider_id)
        return None if link is None else await link.query(message_id, source)

    def statistics(self) -> dict[str, Any]:
        """Messages in hand now and at most, what became of them, journal, each provider."""
        return {
            **self._traffic.statistics(),
            "journal": self._journal.statistics(),
            "tracker": self._tracker.statistics(),
            "providers": {link.provider.name: link.statistics() for link in self._links.values()},
        }
