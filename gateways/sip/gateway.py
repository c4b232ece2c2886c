"""The sip gateway: calls through trunks, signalled by pjsua2 workers, heard by our RTP engine."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
import trio

from engine.clock import Clock, now
from engine.config import SipConfig
from engine.errors import InvalidError, UnavailableError
from engine.gateway import CallEnded, Inbox, Order, Progress
from engine.model import Provider, Service, Spool
from engine.results import Blame, Disposition, Fate, Reached, Result, node_failure
from gateways.sip import addresses
from gateways.sip.call import OutboundCall
from gateways.sip.media import RtpEngine
from gateways.sip.pool import Pool
from gateways.sip.registration import Registrations
from gateways.sip.resolver import Resolver
from gateways.sip.session import Why
from gateways.sip.workers import Workers
from gateways.traffic import Traffic
from native.pjsua.wire import CallSpec, WorkerConfig

log = structlog.get_logger(__name__)


class SipGateway:
    """``engine.gateway.Gateway`` for voice over SIP; see ``tests/suites/gateway_suite.py``."""

    services = Service.VOICE

    def __init__(self, config: SipConfig, *, clock: Clock = now) -> None:
        self._clock = clock
        self._playout_tail_s = config.playout_tail_s
        self._resolver = Resolver()
        self._workers = Workers(
            WorkerConfig(
                host=config.host,
                port=config.port,
                public_host=config.public_host,
                user_agent=addresses.user_agent(config.user_agent),
                transaction_timeout_s=config.transaction_timeout_s,
                ca_file=config.ca_file or _system_ca_file(),
            )
        )
        self._pool = Pool(config, self._workers, self._resolver.resolve)
        self._registrations = Registrations(self._workers, self._resolver)
        self._rtp = RtpEngine(config)
        self._traffic: Traffic[OutboundCall] = Traffic()
        self._open = False

    async def run(
        self,
        inbox: Inbox,  # noqa: ARG002 - calls to us are refused
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; what is still up then is hung up."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._rtp.run)
            await nursery.start(self._workers.run)
            nursery.start_soon(self._registrations.run)
            await nursery.start(self._pool.run)
            self._open = True
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._open = False

    def check(self, provider: Provider) -> None:
        """What a trunk's fields may hold the engine knows; its settings are nobody's."""

    async def providers(self, providers: Mapping[int, Provider]) -> None:
        """Register with those that ask for it; leave those that are gone."""
        await self._registrations.update(providers)

    async def recall(self, spools: Sequence[Spool]) -> Mapping[int, Fate]:  # noqa: ARG002
        """There is no journal of calls."""
        await trio.lowlevel.checkpoint()
        return {}

    async def deliver(self, order: Order, progress: Progress) -> Result:
        """Place one call and run its program; one result, or ``Cancelled`` after hanging up."""
        tail_s = self._playout_tail_s
        call = OutboundCall(order, progress, self._clock, playout_tail_s=tail_s)
        return await self._traffic.carry(call, self._deliver(call, order))

    async def _deliver(self, call: OutboundCall, order: Order) -> Result:
        try:
            spec = await self._specify(order)
            worker = self._pool.take_nowait() or await self._pool.take()
        except InvalidError as error:
            return _invalid(error, order)
        except UnavailableError as error:
            return _trunk_failure(str(error)) if self._open else node_failure("gateway_closed")
        try:
            call.equip(worker, spec, self._rtp)
            await self._converse(call, order)
        except UnavailableError:
            return node_failure("no_rtp_port")
        finally:
            call.unequip()
            if not call.placed:
                self._pool.give_back(worker)
        return call.result()

    async def _specify(self, order: Order) -> CallSpec:
        """The INVITE; raises ``InvalidError``, or ``UnavailableError`` naming the trunk's fault."""
        provider = order.provider
        self._registrations.check(provider)
        found = self._resolver.cached(addresses.host(provider.host))
        if found is None:
            found = await self._resolver.resolve(provider.host)
        if not found:
            raise UnavailableError("name_not_resolved")
        return addresses.call_spec(order, found)

    async def _converse(self, call: OutboundCall, order: Order) -> None:
        """Run the program inside the call's scope, then hang up, whatever made it end."""
        why = Why.PROGRAM
        try:
            # The end of a call is no error: the call knows why it ended.
            with call.scope, suppress(CallEnded):
                await order.program(call)
            if call.scope.cancelled_caught:
                why = Why.CALL_LIMIT if call.up else Why.RING_TIMEOUT
        except trio.Cancelled:
            why = Why.CANCELLED
            raise
        except Exception:
            log.exception("sip.program_failed", spool_id=order.spool_id)
            why = Why.PROGRAM_FAILED
        finally:
            await call.end(why)

    def statistics(self) -> dict[str, Any]:
        """Calls up now and at most, outcomes, workers, slots, registrations, RTP."""
        return {
            **self._traffic.statistics(),
            **self._pool.statistics(),
            "registrations": self._registrations.statistics(),
            "rtp": self._rtp.statistics(),
        }


def _trunk_failure(cause: str) -> Result:
    """Nothing left: the next trunk may be tried at once."""
    return Result(
        disposition=Disposition.FAILED,
        cause=cause,
        blame=Blame.PROVIDER,
        reached=Reached.NOTHING,
    )


def _invalid(error: InvalidError, order: Order) -> Result:
    """An order no SIP message can hold: the contact's number, or the trunk's fields."""
    if error.field == "destination":
        return Result(
            disposition=Disposition.INVALID,
            cause="invalid_number",
            blame=Blame.REQUEST,
            reached=Reached.NOTHING,
        )
    log.warning("sip.invalid_order", provider=order.provider.name, field=error.field)
    return _trunk_failure(f"invalid_{error.field or 'order'}")


def _system_ca_file() -> str:
    """The system's CA bundle, "" where there is none: then no TLS trunk is trusted."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or (paths.openssl_cafile if Path(paths.openssl_cafile).exists() else "")
