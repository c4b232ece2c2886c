"""A signalling worker: one process, one thread, pjsua2, at most four calls.

Lives as long as its stream to the node: end-of-file hangs up what is up and exits, so a node that
is killed leaves neither calls nor processes behind.
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
from typing import Any

import msgspec
import orjson
import pjsua2 as pj

from native.pjsua import raw
from native.pjsua.accounts import Accounts, Registration
from native.pjsua.call import WorkerCall
from native.pjsua.wire import (
    SLOTS,
    CallSpec,
    Final,
    Origin,
    RegistrationSpec,
    Verb,
    WorkerConfig,
)

# T4 = 0: a finished transaction goes at once instead of waking the process again, holding memory
# until then. All it would do is swallow repeated answers, which pjsip drops anyway.
_T1_MS, _T2_MS, _T4_MS = 500, 4000, 0
_DRAIN_AFTER_S = 0.5
_DRAIN_CALLS = 64
_LINGER_S = 0.003
_LINGERING = (Verb.RING, Verb.END)
_MEDIA_PORTS = 20_000  # ports of ended calls wait here for the next drain
_IDLE_MS = 60_000  # pjsip's own timers shorten this
_BACKLOG_BYTES = 1 << 20
_BACKLOG_RETRY_MS = 5
_GOODBYE_TICK_MS = 20
_CODECS = ("PCMU/8000", "PCMA/8000")
_TRANSPORTS = {
    "udp": pj.PJSIP_TRANSPORT_UDP,
    "tcp": pj.PJSIP_TRANSPORT_TCP,
    "tls": pj.PJSIP_TRANSPORT_TLS,
}


class Worker:
    """The loop between pjsip's events and the node's commands."""

    def __init__(self, stream: socket.socket, config: WorkerConfig) -> None:
        self._stream = stream
        self._config = config
        self._host = config.public_host or config.host
        self._encoder = msgspec.json.Encoder()
        self._out: list[bytes] = []
        self._backlog = b""
        self._partial = b""
        self._calls: dict[int, WorkerCall] = {}
        self._over: list[WorkerCall] = []
        self._touched: list[WorkerCall] = []
        self._taken = 0  # slots the node believes are used
        self._drain_at = 0.0
        self._undrained = 0
        self._flush_at = 0.0  # 0 = nothing waits
        self._transports: set[str] = set()
        self._registration: Registration | None = None
        self._start()

    def _start(self) -> None:
        raw.silence()
        self._endpoint = pj.Endpoint()
        self._endpoint.libCreate()
        config = self._config
        timeout_ms = int(config.transaction_timeout_s * 1000)
        raw.set_timers(t1_ms=_T1_MS, t2_ms=_T2_MS, t4_ms=_T4_MS, td_ms=timeout_ms)
        self._endpoint.libInit(_endpoint_config(config))
        raw.mute_media_callbacks()
        port = self._open("udp")
        self._device = raw.NoSoundDevice()
        for codec in self._endpoint.codecEnum2():
            keep = codec.codecId.startswith(_CODECS)
            self._endpoint.codecSetPriority(codec.codecId, 128 if keep else 0)
        self._endpoint.codecSetPriority(_CODECS[0], 129)
        self._endpoint.libStart()
        self._control = raw.ControlStream(self._stream)
        self._resolver = raw.Resolver(lambda name: self.say(Verb.ASK, name))
        self._timers = raw.Timers()
        contact = f"<sip:outspool@{self._host}:{port}>"
        self._accounts = Accounts(self._host, contact, self)
        self.say(Verb.READY)

    def _open(self, transport: str) -> str:
        """Open a transport and return its port; pjsua takes 8, we need at most 3."""
        config = pj.TransportConfig()
        config.boundAddress = self._config.host
        config.publicAddress = self._config.public_host
        config.port = self._config.port if transport == "udp" else 0
        if transport == "tls":
            # pjsua2 accepts any certificate unless told otherwise.
            config.tlsConfig.verifyServer = True
            config.tlsConfig.CaListFile = self._config.ca_file
        number = self._endpoint.transportCreate(_TRANSPORTS[transport], config)
        self._transports.add(transport)
        name: str = self._endpoint.transportGetInfo(number).localName
        return name.rpartition(":")[2]

    def _ensure(self, transport: str) -> None:
        if transport not in self._transports:
            self._open(transport)

    # what calls use (native.pjsua.call.Desk)

    def say(self, *words: Any) -> None:
        """Queue one line for the node.

        A ring and an end linger a moment: an answer, or the slot's release by a far end nearby,
        often follows at once, and then one line less wakes the node.
        """
        self._out.append(self._encoder.encode(words))
        if words[0] not in _LINGERING:
            self._flush_at = -1.0
        elif not self._flush_at:
            self._flush_at = time.monotonic() + _LINGER_S

    def touched(self, call: WorkerCall) -> None:
        """Have ``call`` report after the current events."""
        if call not in self._touched:
            self._touched.append(call)

    def ended(self, call: WorkerCall, number: int) -> None:
        """Keep ``call`` until its slot is free; have its port removed from the bridge soon."""
        self._calls.pop(number, None)
        self._over.append(call)
        self._undrained += 1
        if self._undrained >= _DRAIN_CALLS:
            self._drain_at = time.monotonic()
        elif not self._drain_at:
            self._drain_at = time.monotonic() + _DRAIN_AFTER_S

    # the loop

    def run(self) -> None:
        """Serve until the node closes the stream, then say goodbye to the far ends."""
        while not self._control.closed:
            self._turn(_IDLE_MS)
        self._goodbye()

    def _turn(self, longest_ms: int) -> None:
        next_ms = self._timers.run()
        self._after_events()
        wait_ms = 0 if self._touched else min(next_ms, self._wait_ms(longest_ms))
        self._endpoint.libHandleEvents(wait_ms)
        data = self._control.take()
        if data:
            self._handle(data)
        self._after_events()

    def _after_events(self) -> None:
        while self._touched:
            touched, self._touched = self._touched, []
            for call in touched:
                call.report()
        if self._drain_at and time.monotonic() >= self._drain_at:
            self._drain()
        if self._taken:
            self._free_slots()
        if self._backlog or (self._flush_at and time.monotonic() >= self._flush_at):
            self._flush()

    def _drain(self) -> None:
        self._drain_at, self._undrained = 0.0, 0
        self._device.drain()

    def _wait_ms(self, longest_ms: int) -> int:
        if self._backlog:
            return _BACKLOG_RETRY_MS
        first = min(self._drain_at or math.inf, self._flush_at or math.inf)
        if first == math.inf:
            return longest_ms
        return min(longest_ms, max(0, int((first - time.monotonic()) * 1000) + 1))

    def _free_slots(self) -> None:
        """Give back slots by pjsua's own count: DISCONNECTED is not free yet (PJSIP #2600)."""
        free = self._taken - raw.library.pjsua_call_get_count()
        if free <= 0:
            return
        for call in self._over[:free]:
            self._accounts.give_back(call)
        del self._over[:free]
        self._taken -= free
        self.say(Verb.FREE, free)

    def _flush(self) -> None:
        self._flush_at = 0.0
        self._out.append(b"")
        data = self._backlog + b"\n".join(self._out)
        self._out.clear()
        try:
            sent = self._stream.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(data)  # the node is gone; end-of-file follows
        self._backlog = data[sent:]
        if len(self._backlog) > _BACKLOG_BYTES:
            raise BufferError("the node does not read")

    # the node's commands

    def _handle(self, data: bytes) -> None:
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()
        for line in lines:
            verb, *words = orjson.loads(line)
            if verb == Verb.CALL:
                self._place(words[0], msgspec.convert(words[1], CallSpec))
            elif verb == Verb.HANG_UP:
                self._hang_up(words[0])
            elif verb == Verb.NAME:
                self._resolver.learn(words[0], words[1])
            elif verb == Verb.REGISTER:
                self._register(words)
            else:
                raise ValueError(f"unknown verb {verb}")

    def _place(self, number: int, spec: CallSpec) -> None:
        self._taken += 1
        call = self._accounts.take(spec.credentials, udp=spec.transport == "udp")
        if call is None:
            self.say(Verb.END, number, Final(0, "no account free", origin=Origin.LOCAL))
            return
        try:
            self._ensure(spec.transport)
            if spec.name:
                self._resolver.learn(spec.name, spec.addresses)
            self._calls[number] = call
            call.place(number, spec)
        except pj.Error as error:
            self._refused(call, number, error)

    def _refused(self, call: WorkerCall, number: int, error: Any) -> None:
        """The stack refused; where it told the call itself of its end that was said already."""
        if call.number == number:
            call.number = -1
            self.say(Verb.END, number, Final(0, error.reason[:120], origin=Origin.LOCAL))
            self.ended(call, number)

    def _hang_up(self, number: int) -> None:
        call = self._calls.get(number)
        if call is not None:
            with contextlib.suppress(pj.Error):  # over in this very moment: its end is on its way
                call.hang_up()

    def _register(self, words: list[Any]) -> None:
        if words:
            spec = msgspec.convert(words[0], RegistrationSpec)
            self._ensure(spec.transport)
            if spec.name:
                self._resolver.learn(spec.name, spec.addresses)
            self._registration = Registration(spec, self._host, self)
        elif self._registration is not None:
            self._registration.setRegistration(True)

    def _goodbye(self) -> None:
        """CANCEL or BYE all calls, unregister, and give the far ends a bounded time to confirm."""
        deadline = time.monotonic() + self._config.goodbye_s
        for number in list(self._calls):
            self._hang_up(number)
        registration = self._registration
        if registration is not None:
            with contextlib.suppress(pj.Error):
                registration.setRegistration(False)
        while time.monotonic() < deadline:
            self._timers.run()
            self._endpoint.libHandleEvents(_GOODBYE_TICK_MS)
            bound = registration is not None and registration.getInfo().regIsActive
            if not bound and not raw.library.pjsua_call_get_count():
                break


def _endpoint_config(config: WorkerConfig) -> pj.EpConfig:
    endpoint = pj.EpConfig()
    # One thread: callbacks come on it, and a second one doubles the cost of a call.
    endpoint.uaConfig.threadCnt = 0
    endpoint.uaConfig.mainThreadOnly = True
    endpoint.uaConfig.maxCalls = SLOTS
    endpoint.uaConfig.userAgent = config.user_agent
    endpoint.logConfig.level = endpoint.logConfig.consoleLevel = 0
    endpoint.medConfig.threadCnt = 0
    endpoint.medConfig.hasIoqueue = False
    endpoint.medConfig.maxMediaPorts = _MEDIA_PORTS
    endpoint.medConfig.clockRate = endpoint.medConfig.sndClockRate = 8000
    endpoint.medConfig.ecTailLen = 0
    endpoint.medConfig.noVad = True
    return endpoint
