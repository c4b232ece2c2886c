"""The composition root: config → store → gateways → engine → web, and the way back down.

The only file that imports ``gateways.registry``. Calls live in the engine's nursery, never in the
web server's: closing the one does not hang up the other.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import structlog
import trio

from api.log import configure
from api.server import serve_http
from api.web import create_app
from engine import memory
from engine.app import Engine
from engine.clock import now
from engine.config import Config
from engine.enrolment import ensure_admin
from engine.errors import InvalidError, OutspoolError, UnavailableError
from engine.gateway import Gateway
from engine.store import open_store
from gateways.registry import GATEWAYS

log = structlog.get_logger("node")


class Ready(msgspec.Struct, frozen=True):
    """What a started node tells. ``admin_password`` only on the first start, to be shown once."""

    url: str
    admin_password: str | None


Announce = Callable[[Ready], None]


class Shutdown:
    """Two ways to stop: ``drain`` lets calls end by themselves, ``kill`` hangs them up."""

    def __init__(self) -> None:
        self.drain = trio.Event()
        self.kill = trio.Event()

    async def follow_signals(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """The first SIGTERM or SIGINT drains, the second one kills."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                first = not self.drain.is_set()
                log.info("signal", name=signal.Signals(number).name, drains=first)
                (self.drain if first else self.kill).set()


def run_until_signal(config: Config, *, admin_password: str | None, announce: Announce) -> None:
    """Run a node until signals stop it; ``announce`` is called once it is ready.

    Raises the ``OutspoolError`` that kept it from running, without the nurseries around it.
    """
    configure(config.log)
    try:
        trio.run(partial(_serve, config, admin_password, announce))
    except BaseExceptionGroup as group:
        known = _known(group)
        if known is None:
            raise
        raise known from None


def _known(error: BaseException) -> OutspoolError | None:
    """The one failure we know of inside nested groups; None where there is anything else."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, OutspoolError) else None


async def _serve(config: Config, admin_password: str | None, announce: Announce) -> None:
    shutdown = Shutdown()
    async with trio.open_nursery() as nursery:
        await nursery.start(shutdown.follow_signals)
        await run_node(config, shutdown=shutdown, admin_password=admin_password, announce=announce)
        nursery.cancel_scope.cancel()


async def run_node(
    config: Config, *, shutdown: Shutdown, admin_password: str | None, announce: Announce
) -> None:
    """One node, from its store to its web server and back; returns once everything is closed.

    Closing goes in the order: the web server stops accepting, the dispatcher drains, the gateways
    close, the store closes. ``shutdown.kill`` cuts it short wherever it is.
    """
    async with open_store(config, clock=now) as store:
        password = await ensure_admin(store, admin_password, now)
        engine = Engine(config=config, store=store, gateways=_gateways(config), clock=now)
        async with trio.open_nursery() as nursery:
            await _unless_killed(shutdown, nursery.cancel_scope, partial(nursery.start, engine.run))
            with trio.CancelScope() as web:
                ready = partial(_ready, announce, password)
                serve_web = partial(_serve_web, engine, config, shutdown, ready)
                await _unless_killed(shutdown, web, serve_web)
            engine.stop()
    log.info("stopped")


async def _unless_killed(
    shutdown: Shutdown, scope: trio.CancelScope, job: Callable[[], Awaitable[object]]
) -> None:
    """Do ``job``; the kill cancels ``scope`` meanwhile."""

    async def watch() -> None:
        await shutdown.kill.wait()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await job()
        nursery.cancel_scope.cancel()


async def _serve_web(
    engine: Engine, config: Config, shutdown: Shutdown, ready: Callable[[str], None]
) -> None:
    """Serve the API until the drain, then let the calls end or their time run out."""
    closing = trio.Event()
    app = create_app(engine)
    async with trio.open_nursery() as nursery:
        try:
            port = await nursery.start(serve_http, app, config.http, closing)
        except* OSError as group:
            reason = group.exceptions[0]
            raise UnavailableError(
                f"cannot listen on {config.http.host}:{config.http.port}: {reason}"
            ) from None
        ready(f"http://{config.http.host}:{port}")
        await shutdown.drain.wait()
        closing.set()
        with trio.move_on_after(config.node.drain_timeout_s) as scope:
            await engine.drain()
        if scope.cancelled_caught:
            log.warning("drain_timeout", seconds=config.node.drain_timeout_s)


def _ready(announce: Announce, password: str | None, url: str) -> None:
    memory.settle()
    log.info("ready", url=url)
    announce(Ready(url, password))


def _gateways(config: Config) -> dict[str, Gateway]:
    unknown = set(config.node.gateways) - set(GATEWAYS)
    if unknown:
        raise InvalidError(f"node.gateways: no such gateway: {', '.join(sorted(unknown))}")
    return {name: GATEWAYS[name](config) for name in config.node.gateways}
