"""The few C functions of pjproject that pjsua2 does not wrap, through the wheel's own symbols.

Every structure used here is checked when the library is opened: a wheel with another layout is
refused at start instead of corrupting memory in a call.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import socket
from collections.abc import Callable, Sequence

import pjsua2 as pj

VERSION = "2.15.1"
_READ_BYTES = 1 << 16
_OP_KEY_BYTES = 1024  # pj_ioqueue_op_key_t is 34 pointers
_ALWAYS_ASYNC = 1 << 31
_PENDING = 70002  # PJ_EPENDING
_UNRESOLVED = 70018  # PJ_ERESOLVE
_TIMER_WORDS = (500, 4000, 5000, 32000)  # pjsip_cfg()->tsx: t1, t2, t4, td
_TIMER_OFFSET = 14
_FRAME_SAMPLES = 160


class LayoutError(RuntimeError):
    """The installed wheel is not the one this module was written against."""


class _Str(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("length", ctypes.c_ssize_t))


class _HostInfo(ctypes.Structure):
    _fields_ = (
        ("flag", ctypes.c_uint),
        ("type", ctypes.c_int),
        ("host", _Str),
        ("port", ctypes.c_int),
    )


class _Address(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("priority", ctypes.c_uint),
        ("weight", ctypes.c_uint),
        ("sockaddr", ctypes.c_uint8 * 28),
        ("sockaddr_length", ctypes.c_int),
    )


class _Addresses(ctypes.Structure):
    _fields_ = (("count", ctypes.c_uint), ("entry", _Address * 16))


class _Frame(ctypes.Structure):
    """pjmedia_frame: type, buffer, size, timestamp, bit_info."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("timestamp", ctypes.c_uint64),
        ("bit_info", ctypes.c_uint32),
    )


_OnRead = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ssize_t)
_OnResolved = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_Resolve = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
)


class _IoCallbacks(ctypes.Structure):
    _fields_ = (
        ("on_read", _OnRead),
        ("on_write", ctypes.c_void_p),
        ("on_accept", ctypes.c_void_p),
        ("on_connect", ctypes.c_void_p),
    )


def _open() -> ctypes.CDLL:
    library = ctypes.CDLL(pj._pjsua2.__file__)  # noqa: SLF001 - the only name the wheel gives it
    library.pj_get_version.restype = ctypes.c_char_p
    version = library.pj_get_version().decode()
    if version != VERSION:
        raise LayoutError(f"pjproject {version} found, {VERSION} expected")
    pointers = (
        "pjsua_set_no_snd_dev",
        "pjsua_get_pjsip_endpt",
        "pjsip_endpt_get_ioqueue",
        "pjsip_endpt_get_timer_heap",
        "pjsua_pool_create",
    )
    for name in pointers:
        getattr(library, name).restype = ctypes.c_void_p
    library.pjsip_endpt_get_ioqueue.argtypes = [ctypes.c_void_p]
    library.pjmedia_port_get_frame.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.pj_ioqueue_register_sock.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_long,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    library.pjsip_endpt_set_ext_resolver.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.pjsip_endpt_get_timer_heap.argtypes = [ctypes.c_void_p]
    library.pj_timer_heap_poll.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return library


library = _open()


def silence() -> None:
    """No log lines of pjlib: its default writes to stdout before any configuration is read."""
    library.pj_log_set_level(0)


def set_timers(*, t1_ms: int, t2_ms: int, t4_ms: int, td_ms: int) -> None:
    """Set the transaction timers (RFC 3261 table 4); before ``libInit``.

    pjsip takes ``td`` for timers B, D and F. A short T4 also frees finished transactions sooner:
    with 5 s a worker holds thousands of dead ones under load.
    """
    words = (ctypes.c_uint * 18).in_dll(library, "pjsip_sip_cfg_var")
    if tuple(words[_TIMER_OFFSET:]) != _TIMER_WORDS:
        raise LayoutError(f"pjsip_sip_cfg_var holds {tuple(words[_TIMER_OFFSET:])}")
    words[_TIMER_OFFSET:] = [t1_ms, t2_ms, t4_ms, td_ms]


# Of pj::Endpoint: what pjsua tells of media it does not carry here, a dozen times a call.
_UNHEARD = (
    "_ZN2pj8Endpoint29on_call_media_transport_stateEiPK23pjsua_med_tp_state_info",
    "_ZN2pj8Endpoint19on_stream_precreateEiP31pjsua_on_stream_precreate_param",
    "_ZN2pj8Endpoint18on_stream_created2EiP29pjsua_on_stream_created_param",
    "_ZN2pj8Endpoint19on_stream_destroyedEiP14pjmedia_streamj",
    "_ZN2pj8Endpoint25on_create_media_transportEijP17pjmedia_transportj",
)
_PJSUA_VAR_BYTES = 0x6F9C8


def mute_media_callbacks() -> int:
    """Take callbacks nobody overrides out of pjsua's table; how many were found there.

    Each would cost a call into Python and back. A callback is known by the address of its
    function, of which there is one in pjsua's state after ``libInit``; where it is not exactly one,
    it is left alone.
    """
    words = (ctypes.c_uint64 * (_PJSUA_VAR_BYTES // 8)).in_dll(library, "pjsua_var")
    held = list(words)
    muted = 0
    for name in _UNHEARD:
        address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        if held.count(address) == 1:
            words[held.index(address)] = 0
            muted += 1
    return muted


class NoSoundDevice:
    """The conference bridge without any device: nothing ticks it, so nothing costs idle CPU.

    Ports of ended calls are only removed when the bridge runs once; ``drain`` is that run.
    Without it the bridge fills up and calls fail with 488.
    """

    def __init__(self) -> None:
        self._port = ctypes.c_void_p(library.pjsua_set_no_snd_dev())
        if not self._port:
            raise LayoutError("no master port")
        self._samples = ctypes.create_string_buffer(_FRAME_SAMPLES * 2)
        self._frame = _Frame()

    def drain(self) -> None:
        """Run the bridge for one frame."""
        self._frame.buffer = ctypes.addressof(self._samples)
        self._frame.size = _FRAME_SAMPLES * 2
        library.pjmedia_port_get_frame(self._port, ctypes.byref(self._frame))


class _TimeVal(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("milliseconds", ctypes.c_long))


class Timers:
    """pjsip's timer heap.

    ``libHandleEvents`` runs due timers and then blocks for packets before it returns; what a timer
    brought about (timer B: the call is over) would wait for the next packet. So timers are run
    first, and the wait is limited to the next one.
    """

    def __init__(self) -> None:
        self._heap = library.pjsip_endpt_get_timer_heap(library.pjsua_get_pjsip_endpt())
        self._next = _TimeVal()
        self._address = ctypes.addressof(self._next)

    def run(self) -> int:
        """Run what is due; milliseconds until the next one."""
        library.pj_timer_heap_poll(self._heap, self._address)
        return int(self._next.seconds * 1000 + self._next.milliseconds)


class ControlStream:
    """Our stream to the node as one more socket of pjsip's own select().

    ``libHandleEvents`` then wakes for a command as it does for a SIP packet: no polling, no poke
    through the SIP port, and end-of-file (the node died) is seen at once.
    """

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._received: list[bytes] = []
        self._buffer = ctypes.create_string_buffer(_READ_BYTES)
        self._op_key = ctypes.create_string_buffer(_OP_KEY_BYTES)
        self._key = ctypes.c_void_p()
        self._length = ctypes.c_ssize_t()
        self._callbacks = _IoCallbacks(on_read=_OnRead(self._on_read))
        self.closed = False
        pool = ctypes.c_void_p(library.pjsua_pool_create(b"control", 4096, 4096))
        queue = library.pjsip_endpt_get_ioqueue(library.pjsua_get_pjsip_endpt())
        stream.setblocking(False)
        status = library.pj_ioqueue_register_sock(
            pool,
            queue,
            stream.fileno(),
            None,
            ctypes.byref(self._callbacks),
            ctypes.byref(self._key),
        )
        if status:
            raise OSError(status, "pj_ioqueue_register_sock")
        self._receive()

    def take(self) -> bytes:
        """What has arrived since the last call."""
        if not self._received:
            return b""
        data = b"".join(self._received)
        self._received.clear()
        return data

    def _on_read(self, _key: int, _op_key: int, count: int) -> None:
        if count <= 0:
            self.closed = True
            return
        self._received.append(ctypes.string_at(self._buffer, count))
        self._receive()

    def _receive(self) -> None:
        self._length.value = _READ_BYTES
        status = library.pj_ioqueue_recv(
            self._key,
            self._op_key,
            self._buffer,
            ctypes.byref(self._length),
            ctypes.c_uint(_ALWAYS_ASYNC),
        )
        if status != _PENDING:
            self.closed = True


_Query = tuple[bytes, int, int, int, int]


class Resolver:
    """Answers every name pjsip wants to look up from what the node told us.

    pjsip's own resolver calls getaddrinfo and would stop all calls of the process. ``ask`` is
    called with a name that is not known yet; ``learn`` answers all who wait for it.
    """

    def __init__(self, ask: Callable[[str], None]) -> None:
        self._ask = ask
        self._known: dict[bytes, tuple[bytes, ...]] = {}
        self._answers: dict[tuple[bytes, int, int], _Addresses] = {}
        self._waiting: dict[bytes, list[_Query]] = {}
        self._callback = _Resolve(self._resolve)
        self._table = (ctypes.c_void_p * 1)(ctypes.cast(self._callback, ctypes.c_void_p).value)
        library.pjsip_endpt_set_ext_resolver(library.pjsua_get_pjsip_endpt(), self._table)

    def learn(self, name: str, addresses: Sequence[str]) -> None:
        """The node's answer; no address = the name does not resolve."""
        key = name.lower().encode()
        self._known[key] = tuple(socket.inet_aton(address) for address in addresses)
        for cached in [item for item in self._answers if item[0] == key]:
            del self._answers[cached]
        for query in self._waiting.pop(key, ()):
            self._answer(*query)

    def _resolve(self, _resolver: int, _pool: int, target: int, token: int, cb: int) -> None:
        info = _HostInfo.from_address(target)
        host = ctypes.string_at(info.host.data, info.host.length).lower()
        query = (host, info.type, info.port, token, cb)
        if host not in self._known and not self._literal(host):
            self._waiting.setdefault(host, []).append(query)
            with contextlib.suppress(UnicodeDecodeError):
                self._ask(host.decode("ascii"))
            return
        self._answer(*query)

    def _literal(self, host: bytes) -> bool:
        try:
            self._known[host] = (ipaddress.IPv4Address(host.decode("ascii", "replace")).packed,)
        except ValueError:
            return False
        return True

    def _answer(self, host: bytes, kind: int, port: int, token: int, cb: int) -> None:
        found = self._answers.get((host, kind, port))
        if found is None:
            found = self._answers[host, kind, port] = self._build(host, kind, port)
        status = 0 if found.count else _UNRESOLVED
        _OnResolved(cb)(status, token, ctypes.addressof(found))

    def _build(self, host: bytes, kind: int, port: int) -> _Addresses:
        found = _Addresses()
        secure = kind == pj.PJSIP_TRANSPORT_TLS
        number = port or (5061 if secure else 5060)  # RFC 3261 §19.1.2
        for packed in self._known[host][:8]:
            entry = found.entry[found.count]
            entry.type = kind or pj.PJSIP_TRANSPORT_UDP
            family = socket.AF_INET.to_bytes(2, "little")
            raw = family + number.to_bytes(2, "big") + packed
            entry.sockaddr[: len(raw)] = raw
            entry.sockaddr_length = 16
            found.count += 1
        return found
