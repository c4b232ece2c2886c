"""Two hosts and a router between them, each a network namespace, so that packets can be lost.

The router drops what it is told to drop without a word, as a firewall that forgot a connection or
a path that is gone does: neither host hears of it, no FIN, no RST, no ICMP, no lost carrier. Wants
root and iproute2. A namespace lives as long as the process that holds it, and that one ends with
its standard input: nothing outlives the tests, however they end.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trio

_NEW_NET = 0x40000000  # CLONE_NEWNET
_LIBC = ctypes.CDLL(None, use_errno=True)
_ROUTES = "/proc/sys/net/ipv4/ip_forward"


class Host:
    """One namespace with the address other hosts know it by."""

    def __init__(self, pid: int, address: str) -> None:
        self.address = address
        self.pid = pid
        self._namespace = Path(f"/proc/{pid}/ns/net")

    @property
    def command(self) -> tuple[str, ...]:
        """What a command has to begin with to run there."""
        return ("nsenter", f"--net={self._namespace}")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets and threads made within are the host's; for this thread only."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            with self._namespace.open() as there:
                _enter(there.fileno())
            yield
        finally:
            _enter(own)
            os.close(own)

    async def established(self) -> int:
        """How many connections the host believes in."""
        command = [*self.command, "ss", "-Htn", "state", "established"]
        told = await trio.run_process(command, capture_stdout=True)
        return len(told.stdout.splitlines())

    def listener(self) -> trio.SocketListener:
        """On a free port of the host."""
        with self.entered():
            plain = socket.create_server((self.address, 0))
        return trio.SocketListener(trio.socket.from_stdlib_socket(plain))


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _NEW_NET):
        raise OSError(ctypes.get_errno(), "setns")


class _Sockets(trio.abc.SocketFactory):
    """Trio's sockets, as a host makes them."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def socket(
        self,
        family: socket.AddressFamily | int = socket.AF_INET,
        type: socket.SocketKind | int = socket.SOCK_STREAM,  # noqa: A002 - Trio's name for it
        proto: int = 0,
    ) -> trio.socket.SocketType:
        with self._host.entered():
            return trio.socket.from_stdlib_socket(socket.socket(family, type, proto))


class Network:
    """``us`` and ``them``, and whether packets pass between them."""

    def __init__(self, us: Host, them: Host, router: Host) -> None:
        self.us = us
        self.them = them
        self._router = router

    def connect_from_us(self) -> None:
        """Every socket that this run of Trio makes from now on is of host ``us``."""
        trio.socket.set_custom_socket_factory(_Sockets(self.us))

    async def cut(self) -> None:
        """From now on packets vanish on the way, both ways."""
        await self._blackholes("add")

    async def mend(self) -> None:
        """They pass again."""
        await self._blackholes("del")

    async def _blackholes(self, do: str) -> None:
        for host in (self.us, self.them):
            route = ("ip", "route", do, "blackhole", f"{host.address}/32")
            await trio.run_process([*self._router.command, *route])


@contextmanager
def network() -> Iterator[Network]:
    """Namespaces wired up; they are gone at the end with all that is in them."""
    with ExitStack() as stack:
        router = Host(stack.enter_context(_namespace()), "")
        us = Host(stack.enter_context(_namespace()), "10.77.1.2")
        them = Host(stack.enter_context(_namespace()), "10.77.2.2")
        for name, host in (("us", us), ("them", them)):
            _wire(router, host, name)
        with router.entered():
            Path(_ROUTES).write_text("1")
        yield Network(us, them, router)


@contextmanager
def _namespace() -> Iterator[int]:
    """The process that holds one; it echoes once it does."""
    command = ["unshare", "--net", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"there\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"there\n", "namespaces want root"
        yield holder.pid


def _wire(router: Host, host: Host, name: str) -> None:
    """A cable from the router to the host; the router's end has the address before the host's."""
    gateway = host.address[:-1] + "1"
    _ip(router, "link", "add", name, "type", "veth", "peer", "name", "wire", "netns", str(host.pid))
    for where, cable, address in ((router, name, gateway), (host, "wire", host.address)):
        _ip(where, "address", "add", f"{address}/24", "dev", cable)
        _ip(where, "link", "set", cable, "up")
    _ip(host, "route", "add", "default", "via", gateway)


def _ip(host: Host, *words: str) -> None:
    subprocess.run([*host.command, "ip", *words], check=True)
