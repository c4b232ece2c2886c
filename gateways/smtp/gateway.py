"""The smtp gateway: mails through relays or to the recipients' own servers, and what comes back."""

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
from engine.results import Fate, Result, node_failure
from engine.seals import seals
from gateways.lifetime import opened, until_cancelled
from gateways.smtp import manner, results
from gateways.smtp.bridge import Bridge
from gateways.smtp.entrance import Entrance
from gateways.smtp.journal import Journal
from gateways.smtp.lane import Lane
from gateways.smtp.ledger import Ledger
from gateways.smtp.loop import Loop
from gateways.smtp.mailer import MailMailer
from gateways.smtp.mx import name_servers
from gateways.smtp.office import Office
from gateways.smtp.press import Press
from gateways.smtp.settings import SmtpSettings, parse, short_keys
from gateways.smtp.tracker import Tracker
from gateways.smtp.verp import Verp
from gateways.traffic import Traffic

log = structlog.get_logger("smtp")

DRAIN_S = 10.0
"""How long what is under way may go on when its provider or the node goes away."""

CLOSE_S = 20.0
"""Bound of the whole shutdown."""


class SmtpGateway:
    """``engine.gateway.Gateway`` for e-mail over SMTP; see ``tests/suites/mail_suite.py``."""

    services = Service.EMAIL

    def __init__(self, config: Config, *, clock: Clock = now) -> None:
        name_servers(config.smtp.dns_servers)  # a node does not start with a typing error
        self._config = config
        self._clock = clock
        self._dice = random.Random()  # spreads retries, hides nothing
        self._journal = Journal(config.data_path / config.smtp.journal)
        self._tracker = Tracker(self._journal, clock, keep_s=config.smtp.keep_s)
        self._ledger = Ledger(self._tracker, clock, self._dice)
        self._loop = Loop()
        self._bridge = Bridge(self._loop, self._ledger.take)
        self._press: Press | None = None
        self._office: Office | None = None
        self._entrance: Entrance | None = None
        self._lanes: dict[int, Lane] = {}
        self._closing: dict[int, trio.Event] = {}  # lanes whose pools are not gone, by provider
        self._nursery: trio.Nursery | None = None
        self._serving: trio.Nursery | None = None
        self._changing = trio.Lock()
        self._traffic: Traffic[MailMailer] = Traffic()

    # --- life -------------------------------------------------------------------------------------
    async def run(
        self, inbox: Inbox, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled: then lanes close, what is under way ends, the journal closes."""
        async with opened(self._journal):
            await self._tracker.open()
            verp = Verp(await seals(self._config, "verp"))
            self._office = Office(
                self._config.smtp,
                verp,
                self._clock,
                self._dice,
                max_files_bytes=self._config.http.max_media_bytes,
            )
            self._entrance = Entrance(
                self._config, verp, self._loop, self._tracker, self._journal, inbox, self._clock
            )
            self._press = Press(self._config.smtp.press_threads)
            try:
                await until_cancelled(partial(self._serve, inbox), task_status)
            finally:
                self._press.close()

    async def _serve(self, inbox: Inbox, ready: trio.Event, shut: trio.Event) -> None:
        """What has to end in order."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._loop.serve)
            nursery.start_soon(self._ledger.run)
            nursery.start_soon(self._tracker.run, inbox)
            async with trio.open_nursery() as serving:
                self._nursery, self._serving = nursery, serving
                ready.set()
                try:
                    await shut.wait()
                finally:
                    self._nursery = None
                    # Listener and mailboxes first: nothing more comes in.
                    serving.cancel_scope.cancel()
            with trio.move_on_after(CLOSE_S):
                await self._wind_up()
            nursery.cancel_scope.cancel()
        self._lanes.clear()

    async def _wind_up(self) -> None:
        async with trio.open_nursery() as nursery:
            for id_ in list(self._lanes):
                # Nothing of it was journalled: the next start sends it.
                self._drop_lane(nursery, id_, results.not_sent())
            for gone in list(self._closing.values()):
                await gone.wait()
        await self._ledger.flushed()

    async def _shut_lane(self, lane: Lane, before: trio.Event | None, gone: trio.Event) -> None:
        """What is under way goes on for a while, then ends; one after another of a provider."""
        id_ = lane.provider.id
        try:
            await lane.emptied.wait()
            if before is not None:
                await before.wait()
            await self._bridge.close(id_, drain_s=DRAIN_S)
        finally:
            gone.set()
            if self._closing.get(id_) is gone:
                del self._closing[id_]

    # --- providers --------------------------------------------------------------------------------
    def check(self, provider: Provider) -> None:
        """Its settings: whether mail can be sent by them. Secrets may be missing."""
        manner.check(provider, parse(provider.settings))

    async def providers(self, providers: Mapping[int, Provider]) -> None:
        """Open lanes for those that are new, change those that changed, close those gone."""
        async with self._changing:
            if self._nursery is None:
                return
            for id_ in self._lanes.keys() - providers.keys():
                self._drop_lane(self._nursery, id_)
            settings: dict[int, SmtpSettings] = {}
            for provider in providers.values():
                parsed = self._provide(self._nursery, provider)
                if parsed is not None:
                    settings[provider.id] = parsed
            if self._serving is not None and self._entrance is not None:
                await self._entrance.serve(self._serving, providers, settings)
        await trio.lowlevel.checkpoint()

    def _provide(self, nursery: trio.Nursery, provider: Provider) -> SmtpSettings | None:
        try:
            settings = parse(provider.settings)
        except InvalidError as error:
            # The API lets nobody save them.
            log.error("smtp.settings", provider=provider.name, error=str(error))  # noqa: TRY400
            self._drop_lane(nursery, provider.id)
            return None
        for name in short_keys(settings):
            log.warning("smtp.short_dkim_key", provider=provider.name, key=name)
        lane = self._lanes.get(provider.id)
        if lane is not None and lane.direct == (not provider.host):
            if lane.provider != provider:
                lane.replace(provider, settings)
                if provider.id not in self._closing:  # else its lane opens it
                    self._bridge.open(provider, settings, self._config.smtp)
            return settings
        if lane is not None:
            # Its queues are of another kind: what waits there is ordered anew.
            self._drop_lane(nursery, provider.id, results.not_sent())
        self._open_lane(nursery, provider, settings)
        return settings

    def _open_lane(self, nursery: trio.Nursery, provider: Provider, settings: SmtpSettings) -> None:
        assert self._press is not None  # noqa: S101 - run() made it
        lane = Lane(
            provider,
            settings,
            wire=self._bridge,
            books=self._tracker,
            press=self._press,
            desk=self._ledger,
            clock=self._clock,
            max_queue=self._config.smtp.max_queue,
            pressers=self._config.smtp.press_threads,
        )
        self._lanes[provider.id] = lane
        nursery.start_soon(self._run_lane, lane, self._closing.get(provider.id))

    async def _run_lane(self, lane: Lane, before: trio.Event | None) -> None:
        if before is not None:  # the pools are still its predecessor's
            await before.wait()
        self._bridge.open(lane.provider, lane.settings, self._config.smtp)
        await lane.run()

    def _drop_lane(
        self, nursery: trio.Nursery, provider_id: int, result: Result | None = None
    ) -> None:
        lane = self._lanes.pop(provider_id, None)
        if lane is not None:
            lane.close(result or results.trunk_failure("trunk_unavailable"))
            before = self._closing.get(provider_id)
            gone = self._closing[provider_id] = trio.Event()
            nursery.start_soon(self._shut_lane, lane, before, gone)

    # --- mails ------------------------------------------------------------------------------------
    async def deliver(self, order: Order, progress: Progress) -> Fate:
        """Send one mail; cancelled = what has not left is given up, ``Cancelled`` passes."""
        if self._nursery is None or self._office is None:
            return node_failure("gateway_closed")
        lane = self._lanes.get(order.provider.id)
        if lane is None:
            return results.trunk_failure("trunk_unavailable")
        mailer = MailMailer(order, lane, self._office, progress, self._clock)
        return await self._traffic.carry(mailer, self._converse(mailer, order))

    @staticmethod
    async def _converse(mailer: MailMailer, order: Order) -> Fate:
        try:
            # That it was not taken is no error: the mailer knows why.
            with suppress(CallEnded):
                await order.program(mailer)
        except Exception:
            log.exception("smtp.program_failed", spool_id=order.spool_id)
            return node_failure("program_failed", mailer.reached)
        return mailer.fate()

    async def recall(self, spools: Sequence[Spool]) -> Mapping[int, Fate]:
        """What the journal knows of spools that were open when the node went down.

        A journal that was lost must not be taken for one that says nothing was sent.
        """
        if self._journal.made:
            if spools:
                log.error("smtp.journal_lost", spools=len(spools))
            return {}
        assert self._office is not None  # noqa: S101 - run() made it before the journal is asked
        name = self._office.message_id
        known = await self._tracker.recall([spool.id for spool in spools])
        return {it.id: results.named(known[it.id], name(it.transmission_id)) for it in spools}

    def statistics(self) -> dict[str, Any]:
        """Mails in hand now and at most, what became of them, journal, wire, each provider."""
        return {
            **self._traffic.statistics(),
            "tracker": self._tracker.statistics(),
            "ledger": self._ledger.statistics(),
            "loop": self._loop.statistics(),
            "bridge": self._bridge.statistics(),
            "press": {} if self._press is None else self._press.statistics(),
            "entrance": {} if self._entrance is None else self._entrance.statistics(),
            "providers": {lane.provider.name: lane.statistics() for lane in self._lanes.values()},
        }
