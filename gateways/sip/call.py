"""A live outbound call: ``engine.gateway.Call`` on one worker slot and one RTP session."""

from __future__ import annotations

import itertools
import math
from datetime import datetime

import trio

from engine.clock import Clock
from engine.errors import InvalidError
from engine.gateway import CallEnded, Media, Order, Progress, Stage
from engine.results import Result, ResultRow
from gateways.sip import results
from gateways.sip.media import MediaLost, PlaybackError, RemoteMedia, RtpEngine, RtpSession
from gateways.sip.session import Action, Actions, Event, Session, State, Why
from gateways.sip.worker import Worker, WorkerGoneError
from native.pjsua.wire import CallSpec, Final, Remote

END_TIMEOUT_S = 5.0  # for the worker's word after we hung up
MAX_DIGITS = 1000  # kept with one call: a far end may press for an hour
_numbers = itertools.count(1)


class OutboundCall:
    """Carries out what its ``Session`` decides; times, rows and the result are kept here.

    ``scope`` encloses the program; its deadline is the ring timeout, then the call limit.
    """

    __slots__ = (
        "_answered_s", "_clock", "_connected_at", "_digits", "_ended_at", "_final", "_inside",
        "_number", "_order", "_over", "_played_s", "_playout_tail_s", "_progress", "_rows",
        "_session", "_settled", "_spec", "_started_at", "_talk_s", "_worker", "rtp", "scope",
    )  # fmt: skip

    def __init__(
        self, order: Order, progress: Progress, clock: Clock, *, playout_tail_s: float = 0.0
    ) -> None:
        self._order = order
        self._playout_tail_s = playout_tail_s
        self._progress = progress
        self._clock = clock
        self._session = Session()
        self._number = next(_numbers)
        self._inside = False  # the program is in one of our methods and will get CallEnded
        self._settled = trio.Event()  # answered or over
        self._over = trio.Event()
        self._worker: Worker | None = None
        self._spec: CallSpec | None = None
        self._final: Final | None = None
        self._rows: list[ResultRow] = []
        self._digits = 0
        self._played_s = math.nan
        self._answered_s = math.nan
        self._talk_s = 0.0
        self._started_at: datetime | None = None
        self._connected_at: datetime | None = None
        self._ended_at: datetime | None = None
        self.rtp: RtpSession | None = None
        self.scope = trio.CancelScope()

    def equip(self, worker: Worker, spec: CallSpec, engine: RtpEngine) -> None:
        """What the call is placed with; raises ``UnavailableError`` without a free RTP port."""
        dead_after_s = self._order.media_timeout_s
        on_dead = self.on_dead_media if dead_after_s else None
        self.rtp = engine.lease(self.on_digit, on_dead=on_dead, dead_after_s=dead_after_s)
        spec.rtp_host, spec.rtp_port = self.rtp.address
        self._worker = worker
        self._spec = spec

    def unequip(self) -> None:
        """Free what ``equip`` took; the slot comes back by the worker's word."""
        if self.rtp is not None:
            self.rtp.release()

    # what a program may do (engine.gateway.Call)

    async def answered(self) -> None:
        """Place the call and wait until it is answered."""
        if self._session.state is State.IDLE:
            self._do(self._session.advance(Event.PLACE))
        await self._wait(self._settled)
        self._check_up()

    async def play(self, media: Media) -> None:
        """Play the whole of ``media``; returns when its last sample was sent."""
        if self._session.state is not State.UP:
            await self.answered()
        assert self.rtp is not None  # noqa: S101 - leased before the program starts
        began_s = trio.current_time()
        self._check_up()
        self._inside = True
        try:
            await self.rtp.play(media)
        except MediaLost as error:
            broken = isinstance(error, PlaybackError)
            self.leave(Why.PLAYBACK_FAILED if broken else Why.MEDIA_LOST)
        finally:
            self._inside = False
            played_s = min(trio.current_time() - began_s, media.length_s)
            self._played_s = played_s + (0.0 if math.isnan(self._played_s) else self._played_s)
        self._check_up()

    async def hang_up(self) -> None:
        """End the call from our side and wait until it is over."""
        self._check_up()
        if not math.isnan(self._played_s):
            # The far end's jitter buffer still plays: BYE now would cut the end of what it hears.
            with trio.move_on_after(self._playout_tail_s):
                await self._wait(self._over)
        self.leave(Why.PROGRAM)
        await self._wait(self._over)

    def note(self, row: ResultRow) -> None:
        """Keep a datum with the spool."""
        self._rows.append(row)

    async def _wait(self, event: trio.Event) -> None:
        self._inside = True
        try:
            await event.wait()
        finally:
            self._inside = False

    def _check_up(self) -> None:
        if self._session.state is not State.UP:
            raise CallEnded

    # what the gateway may do

    def leave(self, why: Why) -> None:
        """Hang up, whatever the state; the first reason stands."""
        self._do(self._session.advance(Event.HANG_UP, why))

    async def end(self, why: Why) -> None:
        """Hang up if that is still to do and wait, not for ever, for the worker's last word."""
        self.leave(why)
        if not self._over.is_set():
            with trio.CancelScope(shield=True, deadline=trio.current_time() + END_TIMEOUT_S):
                await self._over.wait()

    @property
    def placed(self) -> bool:
        """Whether an INVITE may have left."""
        return self._started_at is not None

    @property
    def up(self) -> bool:
        """Answered and not yet hung up."""
        return self._session.state is State.UP

    def result(self) -> Result:
        """What became of it."""
        verdict = results.conclude(self._session, self._final)
        return results.result(
            verdict,
            self._final,
            self._all_rows(),
            started_at=self._started_at,
            connected_at=self._connected_at,
            ended_at=self._ended_at or self._clock(),
            talk_s=self._talk_s,
        )

    def _all_rows(self) -> tuple[ResultRow, ...]:
        if not self._session.connected:
            return tuple(self._rows)
        rows = self._rows
        if not math.isnan(self._played_s):
            rows.append(ResultRow("info", "played", f"{self._played_s:.1f}"))
        by_callee = self._session.why is Why.NONE
        rows.append(ResultRow("info", "hangup", "callee" if by_callee else "us"))
        return tuple(rows)

    # what the worker tells (gateways.sip.worker.Listener)

    def on_ring(self, status: int, remote: Remote | None) -> None:  # noqa: ARG002 - all 18x alike
        """A 18x came."""
        self._do(self._session.advance(Event.RING))
        if remote is not None:
            self.on_media(remote)

    def on_up(self, remote: Remote | None) -> None:
        """Answered."""
        if remote is not None:
            self.on_media(remote)
        self._do(self._session.advance(Event.ANSWER))

    def on_media(self, remote: Remote) -> None:
        """Where to send to, from now on."""
        if Action.CONNECT_MEDIA in self._session.advance(Event.MEDIA):
            self._connect(remote)

    def on_end(self, final: Final) -> None:
        """Over."""
        self._final = final
        self._do(self._session.advance(Event.END))

    def on_lost(self, why: Why) -> None:
        """The worker is gone, or the gateway closes."""
        self._do(self._session.advance(Event.LOST, why))

    def on_digit(self, digit: str) -> None:
        """A key was pressed over there."""
        self._digits += 1
        if self._digits <= MAX_DIGITS:
            self._rows.append(ResultRow("dtmf", "key", digit))

    def on_dead_media(self) -> None:
        """No RTP for as long as the order allows."""
        if self.up:
            self.leave(Why.DEAD_MEDIA)

    # carrying out

    def _do(self, actions: Actions) -> None:
        for action in actions:
            if action is Action.SEND_CALL:
                self._place()
            elif action is Action.SEND_HANG_UP:
                self._clear()
            elif action is Action.TELL_RINGING:
                self._progress(Stage.RINGING, self._clock())
            elif action is Action.TELL_CONNECTED:
                self._tell_connected()
            elif action is Action.FINISH:
                self._finish()

    def _place(self) -> None:
        assert self._worker is not None  # noqa: S101 - equipped before the program starts
        assert self._spec is not None  # noqa: S101
        self._started_at = self._clock()
        self.scope.deadline = trio.current_time() + self._order.ring_timeout_s
        self._progress(Stage.LEFT, self._started_at)
        try:
            self._worker.place(self._number, self._spec, self)
        except WorkerGoneError:
            self.on_lost(Why.WORKER_DIED)

    def _clear(self) -> None:
        if not math.isnan(self._answered_s):
            self._talk_s = trio.current_time() - self._answered_s
        if self._worker is not None:
            self._worker.hang_up(self._number)
        if self.rtp is not None:
            self.rtp.stop()
        self._settled.set()

    def _tell_connected(self) -> None:
        self._answered_s = trio.current_time()
        self._connected_at = self._clock()
        self.scope.deadline = self._answered_s + self._order.call_limit_s
        self._progress(Stage.CONNECTED, self._connected_at)
        self._settled.set()

    def _connect(self, remote: Remote) -> None:
        if self.rtp is None:
            return
        telephone_event = remote.dtmf_payload_type
        try:
            self.rtp.connect(
                RemoteMedia(
                    host=remote.host,
                    port=remote.port,
                    payload_type=remote.payload_type,
                    dtmf_payload_type=telephone_event if telephone_event >= 0 else None,
                    send=remote.send,
                )
            )
        except InvalidError:
            self.leave(Why.MEDIA_REFUSED)

    def _finish(self) -> None:
        self._ended_at = self._clock()
        if not self._talk_s and not math.isnan(self._answered_s):
            self._talk_s = trio.current_time() - self._answered_s
        if self.rtp is not None:
            self.rtp.stop()
        self._settled.set()
        self._over.set()
        if not self._inside:
            # The program waits for something that is not the call: nobody else can end it.
            self.scope.cancel()
