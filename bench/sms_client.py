"""smpplib's Client, as its users run it: ``python sms_client.py HOST PORT WINDOW SECONDS``.

It has no window of its own; it sends until that many answers are out, then reads one.
"""

from __future__ import annotations

import logging
import sys
import time

import orjson
import smpplib.client

TEXT = b"Your table for two is booked for tonight at eight."


def main() -> None:
    """Send for so many seconds, wait for the answers, print one JSON line."""
    host, port, window, seconds = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    client = smpplib.client.Client(host, int(port), timeout=10)
    client.connect()
    client.bind_transceiver(system_id="outspool", password="secret")  # noqa: S106 - of a bench
    sent = unanswered = 0
    begun = time.perf_counter()
    while True:
        while unanswered < int(window) and time.perf_counter() - begun < float(seconds):
            sent += 1
            unanswered += 1
            _send(client, sent)
        if not unanswered:
            break
        client.read_pdu()
        unanswered -= 1
    spent = time.perf_counter() - begun
    sys.stdout.write(orjson.dumps({"sent": sent, "seconds": spent}).decode() + "\n")


def _send(client: smpplib.client.Client, number: int) -> None:
    client.send_message(
        source_addr="4930",
        source_addr_ton=1,
        source_addr_npi=1,
        dest_addr_ton=1,
        dest_addr_npi=1,
        destination_addr=f"4917{10_000_000 + number}",
        short_message=TEXT,
    )


if __name__ == "__main__":
    main()
