"""The loopback gateway: scripted outcomes, no network; for dry runs, tests and bench."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
import trio

from engine.clock import Clock, now
from engine.errors import InvalidError
from engine.gateway import CallEnded, Inbox, Order, Progress
from engine.model import Provider, Service, Spool
from engine.results import Awaiting, Blame, Disposition, Fate, Reached, Result, node_failure
from gateways.loopback import mail, message
from gateways.loopback.call import LoopbackCall
from gateways.loopback.mail import LoopbackMailer
from gateways.loopback.message import LoopbackMessenger
from gateways.loopback.receipts import Receipts
from gateways.loopback.script import Player, Script, Stat, parse
from gateways.loopback.sending import Sending
from gateways.traffic import Traffic

log = structlog.get_logger(__name__)


class LoopbackGateway:
    """``engine.gateway.Gateway`` that dials nobody.

    ``script`` is the far end of every provider without ``settings`` of its own (fields of
    ``Script``); the same ``seed`` gives the same calls. Only Trio's clock is used for durations, so
    virtual time works.
    """

    services = Service.VOICE | Service.SMS | Service.EMAIL

    def __init__(
        self, script: Script | None = None, *, seed: int | None = None, clock: Clock = now
    ) -> None:
        self._dice = random.Random(seed)
        self._default = Player(script or Script(), self._dice)
        self._players: dict[int, tuple[dict[str, Any], Player]] = {}
        self._clock = clock
        self._traffic: Traffic[LoopbackCall] = Traffic()
        self._receipts = Receipts(clock)
        self._closed = False

    async def run(
        self,
        inbox: Inbox,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; calls still up then end as ``cancelled``, cause ``shutdown``."""
        self._closed = False
        task_status.started()
        try:
            await self._receipts.run(inbox)
        finally:
            self._closed = True
            for call in tuple(self._traffic.up):
                call.shut()

    def check(self, provider: Provider) -> None:
        """Its settings are a script."""
        parse(provider.settings)

    async def providers(self, providers: Mapping[int, Provider]) -> None:
        """Forget the scripts of providers that are gone."""
        self._players = {id_: self._players[id_] for id_ in providers if id_ in self._players}
        await trio.lowlevel.checkpoint()

    async def recall(self, spools: Sequence[Spool]) -> Mapping[int, Fate]:  # noqa: ARG002
        """There is no journal, neither of calls nor of messages."""
        await trio.lowlevel.checkpoint()
        return {}

    async def deliver(self, order: Order, progress: Progress) -> Fate:
        """Play one call or message by the provider's script; instant scripts take no time."""
        if self._closed:
            return node_failure("gateway_closed")
        try:
            player = self._player(order.provider)
        except InvalidError as error:
            log.warning("loopback.settings", provider=order.provider.name, error=str(error))
            return _MISCONFIGURED
        if order.service & Service.SMS:
            return await self._send(order, player, progress)
        if order.service & Service.EMAIL:
            return await self._mail(order, player, progress)
        call = LoopbackCall(order, player.draw(), progress, self._clock, player.script.speed)
        return await self._traffic.carry(call, _converse(call, order))

    async def _send(self, order: Order, player: Player, progress: Progress) -> Fate:
        """Play one message; its receipt comes through the inbox."""
        awaited = player.script.receipt_s is not None
        messenger = LoopbackMessenger(order, player.draw(), progress, self._clock, awaited=awaited)
        fate = await self._play(messenger, order)
        taken = isinstance(fate, Awaiting) and fate.accepted_at is not None
        if taken and (receipt := player.receipt()) is not None:
            in_s, stat = receipt
            await self._receipts.promise(order.spool_id, in_s, partial(message.receipt, stat))
        return fate

    async def _mail(self, order: Order, player: Player, progress: Progress) -> Fate:
        """Play one mail; where bounces can reach us, what became of it comes through the inbox."""
        awaited = player.script.receipt_s is not None
        mailer = LoopbackMailer(order, player.draw(), progress, self._clock, awaited=awaited)
        fate = await self._play(mailer, order)
        if isinstance(fate, Awaiting):
            # Silence is good news: what does not bounce was delivered, as far as anybody can know.
            in_s, stat = player.receipt() or (player.script.receipt_wait_s, Stat.DELIVERED)
            await self._receipts.promise(order.spool_id, in_s, partial(mail.told, stat))
        return fate

    async def _play(self, sending: Sending, order: Order) -> Fate:
        with suppress(CallEnded):  # the sending knows why
            await order.program(sending)
        fate = sending.fate()
        if isinstance(fate, Result):
            self._traffic.count(fate)
        return fate

    def statistics(self) -> dict[str, Any]:
        """Calls up now and at most, the outcomes so far, receipts."""
        return {
            **self._traffic.statistics(),
            **self._receipts.statistics(),
        }

    def _player(self, provider: Provider) -> Player:
        if not provider.settings:
            return self._default
        known = self._players.get(provider.id)
        if known is None or (known[0] is not provider.settings and known[0] != provider.settings):
            known = (provider.settings, Player(parse(provider.settings), self._dice))
            self._players[provider.id] = known
        return known[1]


_MISCONFIGURED = Result(
    disposition=Disposition.FAILED,
    cause="invalid_settings",
    blame=Blame.REQUEST,
    reached=Reached.NOTHING,
)


async def _converse(call: LoopbackCall, order: Order) -> Result:
    """Run the program inside the call's scope; a program that returns hangs up."""
    with call.scope:
        try:
            await order.program(call)
        except CallEnded:
            # The end of a call is no error: the call knows why it ended.
            return call.end()
        return call.end()
    return call.ran_out()
