"""Parcels from Trio to the asyncio thread, answers back: one wake-up a batch each way.

Every parcel that is sent gets exactly one answer, whatever becomes of its connection, its provider
or the thread. Everything here is called on Trio's side but what says otherwise.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import structlog
import trio

from engine.config import SmtpConfig
from engine.model import Provider
from gateways.smtp.connection import answer
from gateways.smtp.depot import Depot, Routing
from gateways.smtp.loop import Loop, LoopEndedError
from gateways.smtp.manner import Manner, manner_of
from gateways.smtp.mx import Resolver
from gateways.smtp.records import Answer, At, How, Parcel
from gateways.smtp.settings import SmtpSettings

PER_CONNECTION = 2
"""Parcels a connection is given ahead: one under way, one that follows without a pause."""

CLOSE_S = 15.0
"""How long closing may take beyond its drain before what is out is answered without the thread."""

OLD_DRAIN_S = 600.0
"""How long mails go on under settings that were changed meanwhile."""

log = structlog.get_logger("smtp")


class _Account:
    """What a provider has out, and how much it may have."""

    def __init__(self) -> None:
        self.direct = False
        self.per_domain = self.in_all = 0
        self.domains: Counter[str] = Counter()
        self.parcels: dict[int, Parcel] = {}
        self.closing = False

    def allow(self, settings: SmtpSettings, *, direct: bool) -> None:
        self.direct = direct
        self.per_domain = PER_CONNECTION * settings.connections
        in_all = settings.connections_all if direct else settings.connections
        self.in_all = PER_CONNECTION * in_all

    def take(self, parcel: Parcel) -> None:
        self.parcels[parcel.id] = parcel
        self.domains[parcel.domain] += 1

    def give(self, id_: int) -> Parcel | None:
        """Its parcel with this id is answered; None where it was before."""
        parcel = self.parcels.pop(id_, None)
        if parcel is not None:
            self.domains[parcel.domain] -= 1
            if not self.domains[parcel.domain]:
                del self.domains[parcel.domain]
        return parcel

    def credits(self, domain: str | None) -> int:
        room = self.in_all - len(self.parcels)
        if self.direct and domain is not None:
            room = min(room, self.per_domain - self.domains[domain])
        return 0 if self.closing else max(0, room)


class Bridge:
    """``on_answers`` is called on Trio's thread, with what came since it was called last.

    ``routing`` finds the MX of domains; None: through DNS as the configuration says.
    """

    def __init__(
        self,
        loop: Loop,
        on_answers: Callable[[Sequence[Answer]], None],
        *,
        routing: Routing | None = None,
    ) -> None:
        self._loop, self._on_answers, self._routing = loop, on_answers, routing
        self._token: trio.lowlevel.TrioToken | None = None
        self._accounts: dict[int, _Account] = {}
        self._providers: dict[int, int] = {}  # of the parcels that are out
        self._lock = threading.Lock()
        self._outbox: list[tuple[int, Sequence[Parcel]]] = []
        self._answers: list[Answer] = []
        self._depots: dict[int, Depot] = {}  # asyncio side
        self._old: dict[asyncio.Task[None], tuple[int, Depot]] = {}  # asyncio side
        self._keeper: asyncio.Task[None] | None = None  # asyncio side
        self._wakes = self._doubles = 0

    # --- providers

    def open(self, provider: Provider, settings: SmtpSettings, config: SmtpConfig) -> None:
        """Serve this provider from now on; as it is now, where it was served already."""
        self._token = trio.lowlevel.current_trio_token()
        account = self._accounts.setdefault(provider.id, _Account())
        account.allow(settings, direct=not provider.host)
        account.closing = False
        hostname = config.hostname or socket.gethostname()
        manner = manner_of(provider, settings, config, hostname)
        with suppress(LoopEndedError):  # then what is sent is answered so
            self._loop.call(self._make, provider.id, manner, settings, config)

    async def close(self, provider_id: int, *, drain_s: float) -> None:
        """Let what is under way go on for so long, QUIT, then abort; all is answered at its end."""
        account = self._accounts.get(provider_id)
        if account is None:
            return
        account.closing = True
        with suppress(LoopEndedError), trio.move_on_after(drain_s + CLOSE_S):
            await self._loop.run(lambda: self._shut(provider_id, drain_s))
        self._give()
        for parcel in list(account.parcels.values()):
            # The thread is stuck or gone: nothing tells how far it was.
            self._receive(
                answer(parcel, At.DOT, How.LOST, left=True, text="the mail thread did not answer")
            )
        self._give()
        if account.closing and not account.parcels:
            self._accounts.pop(provider_id, None)

    def credits(self, provider_id: int, domain: str | None = None) -> int:
        """How many more parcels of this domain it takes now; a relay is one domain.

        None: of all domains together.
        """
        account = self._accounts.get(provider_id)
        return 0 if account is None else account.credits(domain)

    # --- parcels

    def send(self, provider_id: int, parcels: Sequence[Parcel]) -> None:
        """Take them; never blocks. What no provider takes any more is answered as dropped."""
        account = self._accounts.setdefault(provider_id, _Account())
        for parcel in parcels:
            account.take(parcel)
            self._providers[parcel.id] = provider_id
        with self._lock:
            first = not self._outbox
            self._outbox.append((provider_id, parcels))
        if first:
            self._tell_loop()

    def _tell_loop(self) -> None:
        try:
            self._loop.call(self._take)
        except LoopEndedError:
            self._token = self._token or trio.lowlevel.current_trio_token()
            for _, parcels in self._emptied():
                self._refuse(parcels)

    def drop(self, provider_id: int, parcel_ids: Sequence[int]) -> None:
        """Give these up, for a certain answer soon."""
        with suppress(LoopEndedError):  # then they have theirs
            self._loop.call(self._drop, provider_id, tuple(parcel_ids))

    def statistics(self) -> dict[str, Any]:
        """Parcels out, and the pools of each provider."""
        return {
            "out": len(self._providers),
            "wakes": self._wakes,
            "doubles": self._doubles,
            "loop": self._loop.statistics(),
            "providers": {id_: depot.statistics() for id_, depot in list(self._depots.items())},
        }

    # --- answers

    def _receive(self, told: Answer) -> None:
        """Keep an answer for Trio; from any thread."""
        with self._lock:
            first = not self._answers
            self._answers.append(told)
        if first and self._token is not None:
            with suppress(trio.RunFinishedError):  # nobody is there to be told
                self._token.run_sync_soon(self._give)

    def _give(self) -> None:
        """Hand over what has come, each parcel's first answer only."""
        with self._lock:
            answers, self._answers = self._answers, []
        firsts = [one for one in answers if self._booked(one.id)]
        if firsts:
            self._wakes += 1
            self._on_answers(firsts)

    def _booked(self, id_: int) -> bool:
        account = self._accounts.get(self._providers.pop(id_, -1))
        if account is None or account.give(id_) is None:
            self._doubles += 1
            log.error("smtp.answered_twice", parcel=id_)
            return False
        return True

    # --- asyncio side

    def _make(
        self, provider_id: int, manner: Manner, settings: SmtpSettings, config: SmtpConfig
    ) -> None:
        waiting = self._retire(provider_id)
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.get_running_loop().create_task(self._keep())
        if self._routing is None:
            own = frozenset({manner.hostname})
            self._routing = Resolver(config.dns_servers, own=own, dice=random.Random())
        depot = Depot(manner, settings, self._routing, self._receive)
        self._depots[provider_id] = depot
        depot.put(waiting)

    async def _keep(self) -> None:
        """Until the loop ends: then nobody else would answer what waits for a connection."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for depot in (*self._depots.values(), *(depot for _, depot in self._old.values())):
                depot.give_up()

    def _retire(self, provider_id: int) -> list[Parcel]:
        """What is under way goes on as it began; what waits is for the new settings."""
        old = self._depots.pop(provider_id, None)
        if old is None:
            return []
        waiting = old.hand_back()
        task = asyncio.get_running_loop().create_task(old.close(OLD_DRAIN_S))
        self._old[task] = provider_id, old
        task.add_done_callback(self._old.pop)
        return waiting

    def _of(self, provider_id: int) -> list[Depot]:
        """Its pools, those under settings that were changed meanwhile as well."""
        current = self._depots.get(provider_id)
        old = [depot for id_, depot in self._old.values() if id_ == provider_id]
        return old if current is None else [current, *old]

    def _take(self) -> None:
        for provider_id, parcels in self._emptied():
            depot = self._depots.get(provider_id)
            if depot is None:
                self._refuse(parcels)
            else:
                depot.put(parcels)

    def _emptied(self) -> list[tuple[int, Sequence[Parcel]]]:
        with self._lock:
            taken, self._outbox = self._outbox, []
        return taken

    def _refuse(self, parcels: Sequence[Parcel]) -> None:
        for parcel in parcels:
            self._receive(answer(parcel, At.ROUTE, How.DROPPED, text="the provider is closed"))

    def _drop(self, provider_id: int, parcel_ids: Sequence[int]) -> None:
        for depot in self._of(provider_id):
            depot.drop(parcel_ids)

    async def _shut(self, provider_id: int, drain_s: float) -> None:
        depots = self._of(provider_id)
        self._depots.pop(provider_id, None)
        await asyncio.gather(*(depot.close(drain_s) for depot in depots))
