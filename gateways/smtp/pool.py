"""The connections to one relay, or to the MX hosts of one domain, and the mails that wait for them.

One task owns each connection; it takes mails from the common queue until there are none, says QUIT
after a while without, and goes. Every mail that is put in is answered exactly once. asyncio side.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec
import structlog

from gateways.smtp.approach import NOBODY, connect, refusal
from gateways.smtp.backoff import Backoff
from gateways.smtp.connection import Connection, answer
from gateways.smtp.limits import Limits
from gateways.smtp.manner import Manner
from gateways.smtp.mxorder import NoRoute
from gateways.smtp.opening import Failed
from gateways.smtp.owner import Owner, Usage, Waiting
from gateways.smtp.records import Answer, At, How, Parcel, Route
from gateways.smtp.replies import Action, elsewhere, verdict_of
from gateways.smtp.standing import MAX_TRIES, Standing, Tally

CLOSE_S = 5.0
"""How long cancelled connections may take to close."""

SWEEP_S = 1.0
"""How often the queue is looked through for mails whose time is over."""

_REFUSALS = 400  # codes from here on

log = structlog.get_logger("smtp")

Routes = Callable[[], Awaitable[Sequence[Route]]]


class Pool:
    """``domain`` is what its places are counted for; ``tell`` gets every answer.

    ``freed`` is called when a place is given back; ``crowded`` says whether others wait for one.
    """

    def __init__(
        self,
        manner: Manner,
        usage: Usage,
        limits: Limits,
        *,
        domain: str,
        standing: Standing,
        tally: Tally,
        routes: Routes,
        tell: Callable[[Answer], None],
        freed: Callable[[], None] = lambda: None,
        crowded: Callable[[], bool] = lambda: False,
        dice: random.Random | None = None,
    ) -> None:
        self._manner, self._usage, self._limits, self._domain = manner, usage, limits, domain
        self.standing, self._tally, self._routes, self._tell = standing, tally, routes, tell
        self._freed, self._crowded = freed, crowded
        self._names = {"provider": manner.provider, "domain": domain}  # for the log
        self._queue: deque[Waiting] = deque()
        self._owners: dict[asyncio.Task[None], Owner] = {}
        self._idle: list[Owner] = []
        self._opening = self._hosts = 0
        self._backoff = Backoff(dice or random.Random())
        self._proven = not manner.username  # our login has worked since it last did not
        self._failure: Failed | NoRoute | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._closing = False

    # --- from outside

    @property
    def quiet(self) -> bool:
        """Whether it has nothing and nobody, and remembers no failure: it may go."""
        return not self._owners and not self._queue and self._backoff.ready(time.monotonic())

    @property
    def hungry(self) -> bool:
        """Whether mails wait that another connection would carry."""
        return len(self._queue) > len(self._idle) + self._opening

    def put(self, parcels: Iterable[Parcel]) -> None:
        """Take mails; never blocks. Where no connection can be made now, they are answered so."""
        self._queue.extend(Waiting(parcel) for parcel in parcels)
        self.grow()
        self._watch()

    def _watch(self) -> None:
        """Have the queue looked through as long as there is one."""
        if self._queue and self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Answer what waited too long; the queue is about in the order of time."""
        now, self._sweeper = time.monotonic(), None
        while self._queue and self._queue[0].parcel.not_after <= now:
            self._tell_late(self._queue.popleft())
        self._watch()

    def drop(self, parcel_ids: Iterable[int]) -> None:
        """Give up: what waits has not left, what is under way may have (``Answer.left``)."""
        ids = frozenset(parcel_ids)
        waiting = [one for one in self._queue if one.parcel.id in ids]
        if waiting:
            self._queue = deque(one for one in self._queue if one.parcel.id not in ids)
        for one in waiting:
            self._tell_dropped(one)
        for owner in self._owners.values():
            if owner.held is not None and owner.held.parcel.id in ids:
                self._tell_dropped(owner.held)
                owner.held = None
            if owner.parcel is not None and owner.parcel.id in ids:
                owner.dropped = True
                owner.connection.abort()

    async def close(self, drain_s: float) -> None:
        """Let what is there go on for so long, then give it up; all is closed at its end."""
        self._closing = True
        for owner in list(self._idle):
            owner.rouse()
        tasks = set(self._owners)
        if tasks:
            await asyncio.wait(tasks, timeout=drain_s)
        for task in list(self._owners):
            task.cancel()
        if self._owners:
            await asyncio.wait(set(self._owners), timeout=CLOSE_S)
        self.give_up()

    def hand_back(self) -> list[Parcel]:
        """What waits, for another pool; it is not answered here."""
        waiting, self._queue = self._queue, deque()
        return [one.parcel for one in waiting]

    def give_up(self) -> None:
        """Take nothing more, and drop what waits; what is under way ends with its task."""
        self._closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        while self._queue:
            self._tell_dropped(self._queue.popleft())

    def retire(self) -> bool:
        """Have an idle connection quit, to make place for another domain's; False: none is idle."""
        if not self._idle or self._queue:
            return False
        owner = self._idle.pop(0)
        owner.leaving = True
        owner.rouse()
        return True

    def statistics(self) -> dict[str, Any]:
        """Queue and connections."""
        return {
            "queue": len(self._queue),
            "connections": len(self._owners),
            "idle": len(self._idle),
            "stopped": self._backoff.stopped,
        }

    # --- growing

    def grow(self) -> None:
        """Wake who is idle and open connections for the rest, within limits and pauses."""
        for owner in self._idle[-len(self._queue) :] if self._queue else ():
            owner.rouse()
        if self._closing or not self.hungry:
            return
        if not self._backoff.ready(time.monotonic()):
            if not self._owners:
                self._fail_waiting()
            return
        # One connection tells whether it works again, or our login at all, not all of them.
        unsure = self._backoff.failures or not self._proven
        most = 1 - self._opening if unsure else len(self._queue)
        if self.standing.doubtful:
            most = 1 - len(self._owners)
        while most > 0 and self.hungry and self._limits.take(self._domain):
            most -= 1
            self._start()

    def _start(self) -> None:
        self._opening += 1
        owner = Owner(self._manner)
        task = asyncio.get_running_loop().create_task(self._own(owner))
        self._owners[task] = owner
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._owners[task]
        self._limits.give(self._domain)
        self._closing = self._closing or task.cancelled()  # by ``close``, or with the whole loop
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("smtp.pool_error", **self._names, exc_info=error)
        self._freed()  # others first: who had the place last comes last
        if not self._closing:
            self.grow()
        elif not self._owners:
            self.give_up()

    # --- one connection's life

    async def _own(self, owner: Owner) -> None:
        try:
            while await self._open(owner):
                await self._work(owner)
                await owner.connection.quit()
                if self._closing or not self._goes_on(owner) or self._crowded():
                    return
                owner.connection = Connection(self._manner)
                self._opening += 1
        finally:
            owner.connection.abort()
            self._put_back(owner)

    def _goes_on(self, owner: Owner) -> bool:
        """The peer takes mails, only not so many over one connection; or another host may."""
        if self._backoff.stopped:  # each connection would fail once more
            return False
        if self.standing.doubtful and (len(self._owners) > 1 or self._backoff.failures):
            return False
        return owner.held is not None or bool(owner.connection.delivered and self._queue)

    def _put_back(self, owner: Owner) -> None:
        if owner.held is not None:
            self._queue.appendleft(owner.held)
            owner.held = None
            self._watch()

    async def _open(self, owner: Owner) -> bool:
        try:
            return await self._try_open(owner)
        finally:
            self._opening -= 1

    async def _try_open(self, owner: Owner) -> bool:
        try:
            detours = self.standing.detours
            routes = detours.order(await self._routes(), time.monotonic())
            self._hosts = len({route.name for route in routes})
            if owner.held is not None:
                unable = owner.held.unable
                routes.sort(key=lambda route: route.name in unable)
            await connect(owner.connection, routes, detours, direct=self._manner.direct)
        except (Failed, NoRoute) as error:
            self._failed(error)
            return False
        self._tally.opened += 1
        if not self.standing.doubtful:  # who answers no mail may well open
            self._backoff.succeed()
            self._failure = None
        owner.connection.on_end(owner.rouse)
        self._put_back(owner)
        if not self._proven:
            self._proven = True
            self.grow()
        return True

    def _failed(self, error: Failed | NoRoute) -> None:
        self._tally.failed += 1
        self._failure = error
        stop = False
        if isinstance(error, Failed):
            told = refusal(error, NOBODY)
            stop = verdict_of(told, direct=self._manner.direct).action is Action.STOP
        now = time.monotonic()
        self._proven = self._proven and not stop
        # Those that were opened together fail together: that is one failure.
        if self._backoff.ready(now) or (stop and not self._backoff.stopped):
            pause_s = round(self._backoff.fail(now, stop=stop), 1)
            # One domain of many that cannot be reached is nothing to look after.
            level = log.error if stop else log.info if self._manner.direct else log.warning
            level("smtp.no_connection", **self._names, why=str(error), pause_s=pause_s)
        if len(self._owners) == self._opening == 1:
            self._fail_waiting()

    def _fail_waiting(self) -> None:
        """Tell all that wait; nobody waits here for a peer to come back."""
        failure = self._failure
        while self._queue and failure is not None:
            one = self._queue.popleft()
            told = refusal(failure, one.parcel)
            self._tell(msgspec.structs.replace(told, tries=one.tries + 1))

    async def _work(self, owner: Owner) -> None:
        connection = owner.connection
        most = self._usage.messages
        while connection.usable and connection.delivered < most and owner.held is None:
            if not self._queue:
                if self._closing or owner.leaving or not await self._rest(owner):
                    return
            elif wait_s := self.standing.bucket.wait_s(time.monotonic()):
                await asyncio.sleep(min(wait_s, SWEEP_S))
            else:
                await self._deliver(owner, self._queue.popleft())

    async def _rest(self, owner: Owner) -> bool:
        """Be idle; False after too long."""
        loop = asyncio.get_running_loop()
        owner.wake = loop.create_future()
        timer = loop.call_later(self._usage.idle_s, owner.rouse, False)
        self._idle.append(owner)
        try:
            return await owner.wake
        finally:
            timer.cancel()
            owner.wake = None
            if owner in self._idle:
                self._idle.remove(owner)

    async def _deliver(self, owner: Owner, one: Waiting) -> None:
        parcel = one.parcel
        if parcel.not_after <= time.monotonic():
            self._tell_late(one)
            return
        owner.parcel, owner.dropped = parcel, False
        one.tries += 1
        try:
            told = await owner.connection.deliver(parcel)
        except BaseException as error:
            left = owner.connection.left
            how = How.DROPPED if isinstance(error, asyncio.CancelledError) else How.LOST
            self._tell(answer(parcel, owner.connection.at, how, left=left, tries=one.tries))
            raise
        finally:
            owner.parcel = None
        self._book(owner, one, told)
        await owner.connection.settle()

    def _book(self, owner: Owner, one: Waiting, told: Answer) -> None:
        failed = elsewhere(told, direct=self._manner.direct)
        again = failed and self._again(one, told)
        if owner.dropped and (again or told.how is not How.REPLY):
            told = msgspec.structs.replace(told, how=How.DROPPED, code=0, text="")
        elif again:
            self._try_again(owner, one, told)
            return
        elif failed and told.how is not How.UNABLE and owner.connection.route is not None:
            self.standing.detours.passed((owner.connection.route,), time.monotonic())
        if told.how is How.REPLY:
            self._tally.delivered += told.left and told.code < _REFUSALS
            if told.left and self.standing.doubtful:
                self._trust()
        elif told.left and not owner.dropped:
            self._doubt()
        self._tell(msgspec.structs.replace(told, tries=one.tries))

    def _doubt(self) -> None:
        """A mail left whole and was not answered: one may be chance, a second one is the peer."""
        now = time.monotonic()
        if self.standing.doubtful and self._backoff.ready(now):
            self._failure = Failed(At.ROUTE, How.LOST, text="it takes mails and answers none")
            pause_s = round(self._backoff.fail(now, stop=False), 1)
            log.warning("smtp.no_answer", **self._names, pause_s=pause_s)
        self.standing.doubtful = True

    def _trust(self) -> None:
        """It answers again: all connections are used again."""
        self.standing.doubtful = False
        self._backoff.succeed()
        self._failure = None
        self.grow()

    def _again(self, one: Waiting, told: Answer) -> bool:
        return (
            one.tries < MAX_TRIES
            and not self._closing
            and (told.how is not How.UNABLE or len(one.unable) + 1 < self._hosts)
        )

    def _try_again(self, owner: Owner, one: Waiting, told: Answer) -> None:
        route = owner.connection.route
        if route is not None and told.how is How.UNABLE:
            one.unable += (route.name,)
            owner.held = one  # in the queue others that are connected to this host would take it
            return
        if route is not None:
            self.standing.detours.failed(route, time.monotonic())
        self._queue.appendleft(one)
        self._watch()

    def _tell_late(self, one: Waiting) -> None:
        text = "no connection in time"
        self._tell(answer(one.parcel, At.ROUTE, How.TIMEOUT, text=text, tries=one.tries))

    def _tell_dropped(self, one: Waiting) -> None:
        self._tell(answer(one.parcel, At.ROUTE, How.DROPPED, tries=one.tries))
