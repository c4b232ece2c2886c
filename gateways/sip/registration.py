"""Registrations with trunks that ask for one: each lives, and is kept, in a worker of its own.

Calls go out by any worker with the same credentials; only the binding (where the trunk would send
calls for us) belongs to the registrar worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
import trio

from engine.errors import InvalidError, UnavailableError
from engine.model import Provider
from gateways.sip import addresses
from gateways.sip.resolver import Resolver
from gateways.sip.worker import Worker, WorkerGoneError
from gateways.sip.workers import Workers, ZygoteGoneError

log = structlog.get_logger(__name__)

RETRY_S = 60.0  # after a refusal: the operator may have mended it at the trunk's side
RESTART_S = 1.0  # after the worker died or could not be started
# A bad user name or password (401, 407) or an account that may not register (403, 404).
_REFUSALS = {
    401: "registration_unauthorized",
    403: "registration_forbidden",
    404: "registration_unknown_user",
    407: "registration_unauthorized",
}


class _Registration:
    """State of one provider's registration, and the task that keeps it."""

    def __init__(self, provider: Provider, workers: Workers, resolver: Resolver) -> None:
        self.provider = provider
        self.scope = trio.CancelScope()
        self.state = "trying"
        self.cause = ""
        self.code = 0
        self.expires_s = 0
        self._workers = workers
        self._resolver = resolver
        self._ready = trio.Event()
        self._gone = trio.Event()

    @property
    def refused(self) -> bool:
        return self.state == "refused"

    async def run(self) -> None:
        """Keep a worker that keeps the registration; unregister when cancelled."""
        with self.scope:
            while True:
                try:
                    await self._hold()
                except (ZygoteGoneError, WorkerGoneError) as error:
                    log.warning("sip.registrar_failed", error=str(error))
                self.state, self.cause = "trying", "worker_died"
                await trio.sleep(RESTART_S)

    async def _hold(self) -> None:
        self._ready, self._gone = trio.Event(), trio.Event()
        found = await self._resolver.resolve(addresses.host(self.provider.host))
        if not found:
            self._set("unreachable", "name_not_resolved", 0)
            await trio.sleep(RETRY_S)
            return
        spec = addresses.registration(self.provider, found)
        worker = await self._workers.start(self)
        try:
            await self._ready.wait()
            worker.say("register", spec)
            while not self._gone.is_set():
                with trio.move_on_after(RETRY_S):
                    await self._gone.wait()
                if self.state != "registered" and not self._gone.is_set():
                    worker.say("register")
        finally:
            if not worker.gone:
                self._workers.dismiss(worker)

    def on_spoken(self, worker: Worker, words: list[Any]) -> None:  # noqa: ARG002 - one worker only
        """The answer to a REGISTER."""
        if words[0] == "ready":
            self._ready.set()
        elif words[0] == "registration":
            code, reason, self.expires_s = words[1:]
            self._take(code, reason)

    def on_gone(self, worker: Worker) -> None:  # noqa: ARG002
        """Its worker died: ``run`` starts another."""
        self._ready.set()
        self._gone.set()

    def _take(self, code: int, reason: str) -> None:
        if code // 100 == 2:  # noqa: PLR2004 - any 2xx
            self._set("registered", "", code)
        elif code in _REFUSALS or code // 100 == 6:  # noqa: PLR2004 - any 6xx
            self._set("refused", _REFUSALS.get(code, "registration_refused"), code)
        else:
            self._set("unreachable", reason or "no answer", code)

    def _set(self, state: str, cause: str, code: int) -> None:
        if (state, code) != (self.state, self.code):
            log.info(
                "sip.registration", provider=self.provider.name, state=state, cause=cause, code=code
            )
        self.state, self.cause, self.code = state, cause, code


class Registrations:
    """One registration for each provider with ``register``."""

    def __init__(self, workers: Workers, resolver: Resolver) -> None:
        self._workers = workers
        self._resolver = resolver
        self._kept: dict[int, _Registration] = {}
        self._nursery: trio.Nursery | None = None
        self._wanted: dict[int, Provider] = {}

    async def run(self) -> None:
        """Own the tasks that keep registrations, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._apply()
            await trio.sleep_forever()

    async def update(self, providers: Mapping[int, Provider]) -> None:
        """The providers there are now; a changed one is registered anew."""
        self._wanted = {id_: one for id_, one in providers.items() if one.register}
        self._apply()
        await trio.lowlevel.checkpoint()

    def _apply(self) -> None:
        if self._nursery is None:
            return
        for id_, kept in tuple(self._kept.items()):
            if self._wanted.get(id_) != kept.provider:
                kept.scope.cancel()
                del self._kept[id_]
        for id_, provider in self._wanted.items():
            if id_ not in self._kept:
                self._start(id_, provider)

    def _start(self, id_: int, provider: Provider) -> None:
        assert self._nursery is not None  # noqa: S101 - only called while running
        kept = self._kept[id_] = _Registration(provider, self._workers, self._resolver)
        try:
            addresses.registration(provider, [])
        except InvalidError as error:
            kept.state, kept.cause = "refused", f"invalid_{error.field}"
            return
        self._nursery.start_soon(kept.run)

    def check(self, provider: Provider) -> None:
        """Raise ``UnavailableError`` with the cause where the trunk has refused to register us.

        While a first answer is awaited calls may go: most trunks take them by digest alone.
        """
        kept = self._kept.get(provider.id)
        if kept is not None and kept.refused:
            raise UnavailableError(kept.cause)

    def statistics(self) -> dict[str, Any]:
        """State of each registration by provider id."""
        return {
            str(id_): {
                "state": kept.state,
                "cause": kept.cause,
                "code": kept.code,
                "expires_s": kept.expires_s,
            }
            for id_, kept in self._kept.items()
        }
