"""The zygote: has pjsua2 imported and forks a worker in milliseconds whenever the node asks.

It must never create a pjsua endpoint itself: workers forked after ``libCreate`` share their random
state and use the same Call-IDs. Started by ``exec`` (``python -m native.pjsua.zygote FD``) so that
no thread, lock or file of the node is inherited.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import traceback

import msgspec

from native.pjsua.wire import WorkerConfig
from native.pjsua.worker import Worker

_PACKET = 1 << 16


def main() -> None:
    """Serve fork requests until the node closes its end.

    The first packet is the ``WorkerConfig``; each further one is the SIP port of a new worker (0 =
    any) and is answered by the worker's process id with the node's end of its stream attached.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    control.setblocking(True)  # Trio made the pair non-blocking
    config = msgspec.json.decode(control.recv(_PACKET), type=WorkerConfig)
    # Ctrl-C and a service manager's SIGTERM go to the whole group: the node alone decides when
    # calls end, and says so by closing our streams. SIGCHLD ignored = no zombies.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    # Workers are short of garbage; collecting would only copy the shared pages.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
    while packet := control.recv(_PACKET):
        _fork(control, msgspec.structs.replace(config, port=int(packet)))
    # Stay the parent until the last worker has said goodbye: nobody else may reap them.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, 0)  # SIGCHLD ignored: returns (by ECHILD) when all are gone
    os._exit(0)


def _fork(control: socket.socket, config: WorkerConfig) -> None:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        control.close()
        theirs.close()
        _work(ours, config)
    ours.close()
    socket.send_fds(control, [str(pid).encode()], [theirs.fileno()])
    theirs.close()


def _work(stream: socket.socket, config: WorkerConfig) -> None:
    """Be a worker; leaves by ``os._exit``: interpreter exit with a live call aborts in pjsua."""
    status = 1
    try:
        Worker(stream, config).run()
        status = 0
    except BaseException:  # noqa: BLE001 - the last frame of the process: say why, then go
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
