"""Engine: the one object the API holds. It is handed a store and gateways and runs the dialer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
import trio

from engine import recovery, states
from engine.access import Access
from engine.accounts import Accounts
from engine.bus import Bus
from engine.campaigns import CampaignRunner
from engine.catalog import Catalog
from engine.check import CampaignCheck, check_campaign
from engine.clock import Clock, now
from engine.config import Config
from engine.delivery import STORE_RETRY_S
from engine.dispatcher import Dispatcher
from engine.do_not_contact import DoNotContacts
from engine.errors import (
    NoProviderError,
    NotFoundError,
    NotReadyError,
    OutspoolError,
    UnavailableError,
)
from engine.events import CampaignChanged
from engine.firing import Firing
from engine.gateway import Gateway
from engine.imports import Imports
from engine.inbound import Inbound
from engine.inbound_mail import InboundMails
from engine.inbox import Desk
from engine.messages import Messages
from engine.model import Campaign, CampaignStatus, Provider
from engine.passwords import Passwords
from engine.people import People
from engine.reaper import Reaper
from engine.reports import Reports
from engine.roles import Roles
from engine.schedules import Schedules
from engine.sends import SingleSends
from engine.store.base import Condition, Op, Outcome, Query, Store
from engine.sweeper import Sweeper
from engine.unsubscribes import Unsubscribes
from engine.uploads import MediaFolder
from engine.work import Work, prepare

log = structlog.get_logger("engine")


class Engine:
    """The dialer of one node. ``run`` serves until ``stop`` or cancellation."""

    def __init__(
        self, *, config: Config, store: Store, gateways: Mapping[str, Gateway], clock: Clock = now
    ) -> None:
        self.config = config
        self.store = store
        self.clock = clock
        self.bus = Bus()
        self.catalog = Catalog(store, clock, config)
        self.catalog.also_check(Provider, self._check_provider)
        self.accounts = Accounts(self.catalog)
        self.access = Access(store, clock)
        self.people = People(self.catalog, self.access, Passwords())
        self.roles = Roles(self.catalog, self.access)
        self._firing = Firing(
            catalog=self.catalog,
            config=config.schedule,
            bus=self.bus,
            verbs=self,
            principal=self.access.principal,
        )
        self.schedules = Schedules(self.catalog, self._firing)
        self.messages = Messages(self.catalog)
        self.reports = Reports(self.catalog)
        self.imports = Imports(self.catalog)
        self.do_not_contact = DoNotContacts(self.catalog)
        self.unsubscribes = Unsubscribes(
            config=config,
            secrets=self.catalog.secrets,
            do_not_contact=self.do_not_contact,
            clock=clock,
        )
        self._gateways = gateways
        self._dispatcher = Dispatcher(
            config=config,
            store=store,
            gateways=gateways,
            bus=self.bus,
            clock=clock,
            unwanted=self.do_not_contact,
        )
        self._reaper = Reaper(
            config=config,
            store=store,
            bus=self.bus,
            clock=clock,
            holds=self._dispatcher.holds,
            ended=self._ended,
        )
        self._sweeper = Sweeper(config, store)
        self.inbox = Desk(
            config=config,
            store=store,
            bus=self.bus,
            clock=clock,
            counters=self._dispatcher.counters,
            inbound=Inbound(
                store=store,
                config=config,
                clock=clock,
                bus=self.bus,
                do_not_contact=self.do_not_contact,
            ),
            mails=InboundMails(store, clock, self.bus, MediaFolder(config)),
            unwanted=self.do_not_contact,
            ended=self._ended,
        )
        self._sends: SingleSends | None = None
        self._runners: dict[int, CampaignRunner] = {}
        self._verbs = trio.Lock()  # campaign verbs one after the other
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self.ready = False

    # --- running --------------------------------------------------------------------------------
    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start gateways, recover, go on with what was running; ready when dispatching.

        The gateways outlive the dispatcher, so that calls cut by ``stop`` are hung up properly.
        They know their providers last: nothing comes in before what was open is settled.
        """
        await self.access.open()
        await self.catalog.secrets.seal_stored(self.store)
        await self.unsubscribes.open()
        async with trio.open_nursery() as gateways:
            for gateway in self._gateways.values():
                await gateways.start(gateway.run, self.inbox)
            await recovery.recover(self.store, self.config.retry, self.clock, self._gateways)
            await self.providers_changed()
            with self._scope:
                await self._dispatch(task_status)
            self.ready = False
            gateways.cancel_scope.cancel()

    async def _dispatch(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self._dispatcher.run)
            self._sends = SingleSends(
                store=self.store,
                dispatcher=self._dispatcher,
                config=self.config,
                clock=self.clock,
                links=self.unsubscribes.links,
            )
            await nursery.start(self._sends.run)
            nursery.start_soon(self._reaper.run)
            nursery.start_soon(self._sweeper.run)
            for campaign_id in await self.store.running_campaigns():
                await self._resume(campaign_id)
            self.ready = True
            await nursery.start(self._firing.run)
            task_status.started()

    async def drain(self) -> None:
        """Start nothing more; return when every call that is up has ended."""
        self.ready = False
        await self._dispatcher.drain()

    def stop(self) -> None:
        """Hang up what is up, record it, end ``run``."""
        self._scope.cancel()

    # --- campaigns ------------------------------------------------------------------------------
    async def start_campaign(self, campaign_id: int) -> Campaign:
        """Start or resume; it goes on across restarts until stopped or exhausted.

        Raises ``NotFoundError`` (campaign, program, recording, account), ``NotReadyError`` (running
        already, recording without media, node not ready), ``NoProviderError``.
        """
        async with self._verbs:
            campaign = await self._campaign(campaign_id)
            if not states.may(campaign.status, states.Event.START):
                raise NotReadyError(f"Campaign is {campaign.status.value}")
            if not self.ready:
                raise NotReadyError("The node is not ready")
            work = await self._work(campaign)
            if not self._dispatcher.carries(work.service):
                raise NoProviderError("No provider available")
            await self._set_status(campaign, states.Event.START)
            self._launch(campaign, work)
            return await self._campaign(campaign_id)

    async def stop_campaign(self, campaign_id: int) -> Campaign:
        """Pause: nothing more is started, calls that are up go on to their end.

        Raises ``NotFoundError``; ``NotReadyError`` where it is not running.
        """
        async with self._verbs:
            campaign = await self._campaign(campaign_id)
            if not states.may(campaign.status, states.Event.STOP):
                raise NotReadyError(f"Campaign is {campaign.status.value}")
            await self._set_status(campaign, states.Event.STOP)
            runner = self._runners.pop(campaign_id, None)
            if runner is not None:
                runner.scope.cancel()
            return await self._campaign(campaign_id)

    async def check_campaign(self, campaign: Campaign) -> CampaignCheck:
        """What starting it would do; see ``engine.check``."""
        return await check_campaign(
            self.store,
            self.config,
            campaign,
            self._dispatcher.carries,
            links=self.unsubscribes.links,
        )

    async def campaign_changed(self, campaign_id: int) -> None:
        """A campaign was edited: pace, program, account and tries hold from the next contact on.

        Retry delays hold for the results of calls that are up, too.
        """
        async with self._verbs:
            runner = self._runners.get(campaign_id)
            campaign = await self.store.get(Campaign, campaign_id)
            if runner is None or campaign is None:
                return
            runner.change(await self._work(campaign), campaign.calls_per_minute)

    async def _campaign(self, campaign_id: int) -> Campaign:
        campaign = await self.store.get(Campaign, campaign_id)
        if campaign is None:
            raise NotFoundError("Campaign not found")
        return campaign

    async def _work(self, campaign: Campaign) -> Work:
        return await prepare(
            self.store,
            self.config,
            campaign.program_id,
            campaign.account_id,
            links=self.unsubscribes.links,
            owner_id=campaign.owner_id,
            campaign_id=campaign.id,
            try_allowed=campaign.try_allowed,
            retry_delays=campaign.retry_delays,
        )

    async def _resume(self, campaign_id: int) -> None:
        """Go on with a campaign that was running when the node went down."""
        campaign = await self._campaign(campaign_id)
        try:
            work = await self._work(campaign)
        except UnavailableError:
            raise
        except Exception as error:
            # What one campaign is made of is no reason for the node not to start.
            bug = not isinstance(error, OutspoolError)
            log.error(  # noqa: TRY400 - or with its traceback
                "campaign_cannot_go_on", campaign_id=campaign_id, cause=str(error), exc_info=bug
            )
            await self._set_status(campaign, states.Event.STOP)
        else:
            self._launch(campaign, work)

    def _launch(self, campaign: Campaign, work: Work) -> None:
        assert self._nursery is not None  # noqa: S101 - ready says so
        runner = CampaignRunner(
            campaign,
            work,
            store=self.store,
            dispatcher=self._dispatcher,
            config=self.config,
            clock=self.clock,
        )
        self._runners[campaign.id] = runner
        self._nursery.start_soon(self._run_campaign, campaign.id, runner)

    async def _run_campaign(self, campaign_id: int, runner: CampaignRunner) -> None:
        event = states.Event.EXHAUST
        try:
            if not await runner.run():
                return
        except Exception:
            # The others go on, and so does this one once somebody starts it.
            log.exception("campaign_stopped", campaign_id=campaign_id)
            event = states.Event.STOP
        while not await self._ended_by(event, campaign_id, runner):  # noqa: ASYNC110 - a disk has no events
            await trio.sleep(STORE_RETRY_S)

    async def _ended_by(
        self, event: states.Event, campaign_id: int, runner: CampaignRunner
    ) -> bool:
        """Write down why the campaign runs no more; False where the store refuses."""
        async with self._verbs:
            if self._runners.get(campaign_id) is not runner:
                return True  # stopped meanwhile
            try:
                await self._set_status(await self._campaign(campaign_id), event)
            except UnavailableError as error:
                log.warning("campaign_end_waits", campaign_id=campaign_id, cause=str(error))
                return False
            del self._runners[campaign_id]
            return True

    async def _set_status(self, campaign: Campaign, event: states.Event) -> None:
        status: CampaignStatus = states.advance(campaign.status, event)
        at = self.clock()
        await self.store.set_campaign_status(campaign.id, status, at)
        self.bus.publish(CampaignChanged(at=at, campaign_id=campaign.id, status=status))

    # --- transmissions --------------------------------------------------------------------------
    async def send(self, transmission_id: int) -> int:
        """Send one transmission now; see ``SingleSends.send``."""
        if not self.ready or self._sends is None:
            raise NotReadyError("The node is not ready")
        return await self._sends.send(transmission_id)

    async def retry(self, transmission_id: int) -> int:
        """The same as ``send`` (specs/ictcore.md §5.1)."""
        return await self.send(transmission_id)

    def _ended(self, outcome: Outcome) -> None:
        """A spool that no job holds was closed; a stopped campaign reads it when it goes on."""
        if outcome.campaign_id is None:
            if self._sends is not None and outcome.due_at is not None:
                self._sends.retry_at(outcome.due_at)
            return
        runner = self._runners.get(outcome.campaign_id)
        if runner is not None and outcome.due_at is not None:
            runner.retry_at(outcome.due_at)
        elif runner is not None:
            runner.reported()

    # --- providers and reports ------------------------------------------------------------------
    async def providers_changed(self) -> None:
        """A provider was created, edited or deleted: routing and gateways follow."""
        active = Query(conditions=(Condition("active", Op.EQ, True),))
        providers = await self.catalog.secrets.usable(await self.store.find(Provider, active))
        self._dispatcher.replace_providers(providers)
        for kind, gateway in self._gateways.items():
            await gateway.providers({p.id: p for p in providers if p.type == kind})

    def _check_provider(self, provider: Provider) -> None:
        gateway = self._gateways.get(provider.type)
        if gateway is not None:
            gateway.check(provider)

    def health(self) -> dict[str, Any]:
        """Whether work can be taken, and why not."""
        return {
            "ready": self.ready,
            "draining": self._dispatcher.draining,
            "store": self.store.statistics()["cause"] or "ok",
            "secrets": self.catalog.secrets.health(),
        }

    def statistics(self) -> dict[str, Any]:
        """Numbers of every part."""
        return {
            "dispatcher": self._dispatcher.statistics(),
            "gateways": {kind: gateway.statistics() for kind, gateway in self._gateways.items()},
            "store": dict(self.store.statistics()),
            "bus": self.bus.statistics(),
            "imports": self.imports.statistics(),
            "passwords": self.people.passwords.statistics(),
            "reaper": self._reaper.statistics(),
            "sweeper": self._sweeper.statistics(),
            "schedules": self._firing.statistics(),
            "do_not_contact": self.do_not_contact.statistics(),
            "unsubscribes": self.unsubscribes.statistics(),
            "campaigns_running": len(self._runners),
        }
