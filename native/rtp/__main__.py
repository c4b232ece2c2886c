"""The RTP engine as a process: ``python -m native.rtp``, started and fed by ``gateways.sip.media``.

All of the work is in C; Python only sets the stage. The engine ends when its parent does, and only
then: signals sent to the whole group (Ctrl-C, a service manager's SIGTERM) are for the node, which
lets its calls end first.
"""

from __future__ import annotations

import argparse
import gc
import mmap
import os
import resource
import signal
import socket
import sys

from native.rtp._rtp import ffi, lib

SPARE_FILES = 256  # recordings, control, timers, the interpreter's own


def raise_file_limit(wanted: int) -> None:
    """As many open files as the ports need, or as many as we may have; the rest stays unbound."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line as ``gateways.sip.media`` writes it."""
    parser = argparse.ArgumentParser(prog="python -m native.rtp", description=__doc__)
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--shared-fd", type=int, required=True)
    parser.add_argument("--parent-pid", type=int, default=0)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port-min", type=int, required=True)
    parser.add_argument("--port-max", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--no-realtime", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Serve until the parent is gone; the exit status is 0 or an errno."""
    options = parse(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(options.control_fd, False)
    raise_file_limit((options.port_max - options.port_min) // 2 + SPARE_FILES)
    gc.disable()
    shared = mmap.mmap(options.shared_fd, ffi.sizeof("struct rtp_shared"))
    os.close(options.shared_fd)
    config = ffi.new(
        "struct rtp_config *",
        {
            "ip": socket.inet_pton(socket.AF_INET, options.host),
            "port_min": options.port_min,
            "port_max": options.port_max,
            "threads": options.threads,
            "control_fd": options.control_fd,
            "parent_pid": options.parent_pid,
            "realtime": not options.no_realtime,
        },
    )
    error: int = lib.rtp_engine_run(config, ffi.from_buffer("struct rtp_shared *", shared))
    if error:
        sys.stderr.write(f"RTP engine: {os.strerror(error)}\n")
    return error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
